"""Tool use: were the calls sound, from what became of them?

Every call with a known outcome earns a credit in [0, 1]; the score is the mean under a Jeffreys
prior (half a good and half a bad call, Brown, Cai and DasGupta 2001), so that a single call that
merely ran is no proof of skill: 0.75, not 1. A test, lint or build run that fails is information,
not misuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from evaluators.commands import parse_command
from evaluators.contract import HIDDEN_CALLS, digest_config, scored, unscored
from evaluators.evidence import EDIT_TOOLS, SessionEvidence, Step
from evaluators.expected_calls import CallMatch, GivenCall, match_calls
from evaluators.session_evidence import read_evidence
from evaluators.tool_schemas import schema_violation
from loop.domain.scores import Finding, Score
from loop.domain.turns import ExpectedCall, SessionTrace, ToolDefinition

RECOVERY_CALLS = 3  # a failed call counts half if the same tool succeeds within so many calls
LOOP_CALLS = 3  # from so many identical calls on, with nothing changed in between, it is a loop
CREDITS = {
    "sound": 1.0,
    "failed, recovered": 0.5,
    "failed": 0.0,
    "rejected": 0.25,
    "repeated": 0.0,
    "unknown tool": 0.0,
    "invalid arguments": 0.0,
    "against its schema": 0.5,
    "as expected": 1.0,
    "not expected": 0.0,
    "destructive, not asked for": 0.0,
}
_UNKNOWN_TOOL = re.compile(r"No such tool available|Unknown tool|tool not found", re.I)
_INVALID = re.compile(r"InputValidationError|invalid (?:tool )?(?:input|arguments)", re.I)
_ASKED_TO_REMOVE = re.compile(
    r"(?i)\b(?:delet|remov|clean|wip|reset|discard|drop|revert|undo|purge|rebuild|start over|force"
    r"|throw away|get rid|uninstall|prune)"
)
_QUERY_TOOLS = frozenset(("grep", "rg", "diff", "test", "[", "pgrep", "which", "git-diff"))


@dataclass(frozen=True, slots=True)
class CallReading:
    """How one call is judged. ``credit`` is ``None`` where no result was seen or its texts are not
    stored."""

    step: Step
    label: str
    credit: float | None
    reason: str = ""


class ToolUse:
    """Mean credit of the calls. Unscored without any call whose result was seen.

    Coverage is the share of the calls that have a known outcome.
    """

    name = "tool_use"
    version = "3"
    config_digest = digest_config(CREDITS, RECOVERY_CALLS, LOOP_CALLS)

    def evaluate(self, trace: SessionTrace) -> Score:
        evidence = read_evidence(trace)
        if not evidence.steps and not trace.expected_calls:
            return unscored(self, trace, "No tool call.")
        readings = read_calls(trace, evidence)
        findings = [_finding(reading) for reading in readings if reading.reason]
        earned = [reading.credit for reading in readings if reading.credit is not None]
        missing = missing_calls(trace, evidence)
        findings += [
            Finding("noted", "expected call missing", f"{_printable(call.name)} was not called.")
            for call in missing
        ]
        earned += [0.0] * len(missing)
        # Beside calls that are hidden, one of which only the lack is known says nothing of them.
        hidden = any(step.is_hidden for step in evidence.steps)
        seen = [
            reading
            for reading in readings
            if reading.credit is not None and not (hidden and reading.step.tool.call.inferred)
        ]
        if not seen and not missing:
            reason = HIDDEN_CALLS if hidden else "No result of any tool call was seen."
            return unscored(self, trace, reason, findings=findings)
        wasted = wasted_token_share(trace, readings)
        if wasted > 0:
            findings.append(
                Finding(
                    "noted",
                    "wasted tokens",
                    f"{wasted:.0%} of the session's tokens went into turns whose calls all failed "
                    "or repeated.",
                )
            )
        findings += _edits_without_read(evidence)
        return scored(
            self,
            trace,
            (sum(earned) + 0.5) / (len(earned) + 1),
            coverage=len(earned) / (len(readings) + len(missing)),
            findings=findings,
        )


def read_calls(trace: SessionTrace, evidence: SessionEvidence) -> list[CallReading]:
    """A reading of each call of the session, in order."""
    tools = {definition.name: definition for definition in trace.tools}
    asked = " ".join(prompt.text for prompt in trace.prompts if prompt.from_human)
    may_remove = bool(_ASKED_TO_REMOVE.search(asked)) or not asked.strip()
    checked = {id(check.step) for check in evidence.checks}
    edited_at = [edit.position for edit in evidence.edits if edit.applied]
    repeats = _repeats(evidence.steps, edited_at)
    readings = []
    expectation = _expectation(trace, evidence)
    for index, step in enumerate(evidence.steps):
        label, reason = _label(
            evidence.steps, index, tools, may_remove, id(step) in checked, repeats[index]
        )
        if expectation is not None and CREDITS.get(label) in (None, 1.0):
            wrong = expectation.wrong[index]
            label = "not expected" if wrong else "as expected"
            reason = f"{_printable(step.tool.call.name)}: {_printable(wrong)}." if wrong else ""
        readings.append(CallReading(step, label, CREDITS.get(label), reason))
    return readings


def missing_calls(trace: SessionTrace, evidence: SessionEvidence) -> tuple[ExpectedCall, ...]:
    """The expected calls that were not made; none where nobody said what to expect."""
    expectation = _expectation(trace, evidence)
    return expectation.missing if expectation else ()


def _expectation(trace: SessionTrace, evidence: SessionEvidence) -> CallMatch | None:
    if trace.expected_calls is None:
        return None
    given = [GivenCall(step.tool.call.name, _arguments(step)) for step in evidence.steps]
    return match_calls(given, trace.expected_calls)


def _arguments(step: Step) -> Mapping[str, object] | None:
    if step.tool.input_state != "present":
        return None
    try:
        arguments = orjson.loads(step.tool.input_text or "{}")
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None


def _label(
    steps: Sequence[Step],
    index: int,
    tools: Mapping[str, ToolDefinition],
    may_remove: bool,
    is_check: bool,
    repeats: int,
) -> tuple[str, str]:
    step = steps[index]
    call = step.tool.call
    if step.is_hidden:  # a failed test and a misuse look the same
        return "not stored", ""
    if call.inferred or not call.name:
        label = "failed, recovered" if _recovers(steps, index) else "failed"
        return (
            label,
            "The request stopped for a tool, yet no call left an event: a failed edit does.",
        )
    # A list may lack what was offered later, so a call that succeeded was of a tool that exists.
    if tools and call.name and call.name not in tools and call.success is not True:
        return "unknown tool", f"{_printable(call.name)} is not in the tool list."
    if step.rejected:
        return "rejected", f"The call of {_printable(call.name)} was rejected."
    violation = _violation(step, tools)
    if call.success is None:
        return ("invalid arguments", violation) if violation else ("no result seen", "")
    if call.success is False:
        error = step.tool.output_text[:400]
        if "Sibling tool call errored" in error:
            return "not run", ""
        if _UNKNOWN_TOOL.search(error):
            return "unknown tool", f"{_printable(call.name)} does not exist."
        if violation or _INVALID.search(error):
            return (
                "invalid arguments",
                violation or f"The input of {_printable(call.name)} was invalid.",
            )
        if is_check:
            return "sound", ""
        if step.command is not None and _is_query(step.command):
            return "sound", ""
        if _recovers(steps, index):
            return "failed, recovered", f"{_printable(call.name)} failed, then succeeded."
        return "failed", f"{_printable(call.name)} failed{_error_words(call.error_type)}."
    if violation:
        return "against its schema", violation
    if repeats >= LOOP_CALLS:
        return "repeated", f"The same call for the {repeats}th time with no edit in between."
    if step.command is not None and not may_remove and is_destructive(step.command):
        return "destructive, not asked for", "The command destroys files or history unasked."
    return "sound", ""


def _violation(step: Step, tools: Mapping[str, ToolDefinition]) -> str:
    definition = tools.get(step.tool.call.name)
    if definition is None or step.tool.input_state != "present":
        return ""
    found = schema_violation(definition, step.tool.input_text)
    return f"{_printable(definition.name)}: {_printable(found)}." if found else ""


def is_destructive(command: str) -> bool:
    """Does the command delete recursively, or throw away work or history?"""
    if not any(word in command for word in ("rm", "git", "find")):
        return False
    for segment in parse_command(command).segments:
        words = segment.words
        if not words:
            continue
        flags = "".join(word[1:] for word in words[1:] if re.match(r"-[a-zA-Z]+$", word))
        if words[0] == "rm" and ("r" in flags or "R" in flags or "--recursive" in words):
            targets = [word for word in words[1:] if not word.startswith("-")]
            if not all(target.startswith(("/tmp/", "$TMP", "/var/tmp/")) for target in targets):  # noqa: S108
                return True
        if words[0] == "git" and (
            (words[1:2] == ("reset",) and "--hard" in words)
            or (words[1:2] == ("clean",) and "f" in flags)
            or (words[1:2] == ("push",) and ("--force" in words or "f" in flags))
        ):
            return True
        if words[0] == "find" and "-delete" in words:
            return True
    return False


def wasted_token_share(trace: SessionTrace, readings: Iterable[CallReading]) -> float:
    """Share of output and new input tokens in turns all of whose calls earned nothing."""
    by_turn: dict[str, list[float | None]] = {}
    for reading in readings:
        by_turn.setdefault(reading.step.turn_id, []).append(reading.credit)
    total = wasted = 0
    for traced in trace.turns:
        usage = traced.turn.usage
        tokens = usage.output_tokens + usage.new_tokens
        total += tokens
        earned = by_turn.get(traced.turn.turn_id)
        if earned and all(credit == 0.0 for credit in earned):
            wasted += tokens
    return wasted / total if total else 0.0


def _recovers(steps: Sequence[Step], index: int) -> bool:
    failed = steps[index]
    name = failed.tool.call.name
    following = [step for step in steps[index + 1 :] if step.agent_id == failed.agent_id][
        :RECOVERY_CALLS
    ]
    if failed.tool.call.inferred or not name:
        return any(s.tool.call.name in EDIT_TOOLS and s.tool.call.success for s in following)
    return any(s.tool.call.name == name and s.tool.call.success for s in following)


def _repeats(steps: Sequence[Step], edited_at: Sequence[int]) -> list[int]:
    """For each step, how often this very call was made since something last changed."""
    counts: dict[tuple[str, str, str], int] = {}
    repeats = []
    changes = iter(sorted(edited_at))
    change = next(changes, None)
    for step in steps:
        while change is not None and change < step.position:
            counts.clear()
            change = next(changes, None)
        call = step.tool.call
        if not step.tool.input_text or step.tool.input_state != "present":
            repeats.append(1)
            continue
        key = (step.agent_id, call.name, step.tool.input_text)
        counts[key] = counts.get(key, 0) + 1
        repeats.append(counts[key])
    return repeats


def _is_query(command: str) -> bool:
    """A command whose exit status 1 is an answer: nothing found, files differ."""
    segments = parse_command(command).segments
    if not segments:
        return False
    words = segments[-1].words
    return bool(words) and (words[0] in _QUERY_TOOLS or words[:2] == ("git", "diff"))


def _edits_without_read(evidence: SessionEvidence) -> list[Finding]:
    """Noted only: the client refuses such an edit unless an earlier process read the file."""
    seen: set[str] = set()
    findings = []
    for step in evidence.steps:
        name, path = step.tool.call.name, step.path
        if step.command is not None:
            seen.update(part.rsplit("/", 1)[-1] for part in step.command.split())
        if path is None:
            continue
        short = path.rsplit("/", 1)[-1]
        if name in ("Edit", "MultiEdit") and short not in seen:
            findings.append(
                Finding(
                    "noted",
                    "edit without a read",
                    "The file was not read in this session before.",
                    step.turn_id,
                    _evidence(step),
                )
            )
        seen.add(short)
    return findings


def _finding(reading: CallReading) -> Finding:
    return Finding(
        "noted", reading.label, reading.reason, reading.step.turn_id, _evidence(reading.step)
    )


def _evidence(step: Step) -> tuple[str, ...]:
    return (step.tool.call.tool_use_id or step.turn_id,)


def _error_words(error_type: str) -> str:
    shown = _printable(error_type)
    return f" ({shown})" if shown else ""


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable())[:80]
