"""Code correctness, grounded in outcomes: what later runs, reverts and people said of the work.

Nobody reads the code here. The state after the last edit is what counts: the last test run, lint,
type check and build after it, whether the edits were thrown away, whether the work was committed,
and whether the next human prompt corrects it. The weighted mean is drawn to one half by a prior of
weight 1, so that one weak sign makes no certainty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from evaluators.contract import HIDDEN_CALLS, digest_config, scored, unscored
from evaluators.edit_reach import replacement
from evaluators.evidence import Check, FileEdit, SessionEvidence, Step
from evaluators.session_evidence import read_evidence
from loop.domain.scores import Finding, Score
from loop.domain.turns import SessionTrace

WEIGHTS = {
    "tests": 5.0,
    "build": 2.0,
    "types": 2.0,
    "lint": 1.0,
    "survival": 2.0,
    "commit": 1.0,
    "reaction": 3.0,
}
PRIOR_WEIGHT = 1.0
PRIOR_VALUE = 0.5
OUTDATED_VALUE = 0.5  # the last run came before the last edit
UNEDITED_SHARE = 0.5  # without an edit a run describes the code as it was found

_CORRECTION = re.compile(
    r"""(?ix)
    ^\W* (?: no (?: [,.!] | \s+ (?:that|this|it|you|not|don'?t|i)\b ) | nope\b | wrong\b | undo\b
            | stop (?: [,.!] | \s+ (?:it|that|doing)\b )
            | (?:that'?s|this\ is|that\ is) \s
              (?:wrong|incorrect|not\s(?:right|correct|what|it|how)) )
    | \b (?: (?:still|it|that|this) \s (?:doesn'?t|does\snot|isn'?t|is\snot|didn'?t|did\snot)
              \s (?:work|compile|build|right|correct|fix|what\si)
          | still \s
            (?:fails?|failing|broken|wrong|crash|crashes|crashing|not\swork|see(?:ing)?\sthe)
          | you \s (?:broke|didn'?t|did\snot|forgot|missed|ignored)
          | not \s what \s i \s (?:asked|wanted|meant)
          | (?:undo|revert) \s (?:that|this|your|it|the\slast)
          | (?:tests?|build) \s (?:still|now) \s fail
          | (?:tests?|build) \s (?:is|are) \s (?:still\s|now\s)? (?:failing|broken|red) ) \b
    """
)
_INTERRUPTED = "[Request interrupted by user"
_PRAISE = re.compile(
    r"(?i)^\W*(?:perfect|great(?: job| work)?|works(?: great| now| perfectly)?|looks good|lgtm"
    r"|nice|awesome|excellent|thanks|thank you|it works|that works|good job|well done)\b"
)
_NOT_PRAISE = re.compile(r"(?i)\b(?:but|however|except|although|still|not)\b")


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign of how the work turned out: ``value`` in [0, 1], ``weight`` as in ``WEIGHTS``."""

    name: str
    value: float
    weight: float
    finding: Finding


class CodeCorrectness:
    """Weighted mean of the outcome signs. Unscored without an edit or a run, and without any sign.

    Coverage is the weight of the signs found as a share of all weights.
    """

    name = "code_correctness"
    version = "3"
    config_digest = digest_config(
        WEIGHTS, PRIOR_WEIGHT, PRIOR_VALUE, OUTDATED_VALUE, UNEDITED_SHARE
    )

    def evaluate(self, trace: SessionTrace) -> Score:
        evidence = read_evidence(trace)
        if evidence.work_hidden:
            return unscored(self, trace, HIDDEN_CALLS)
        edits = [edit for edit in evidence.edits if edit.applied and edit.is_code is not False]
        if not edits and not evidence.checks:
            return unscored(self, trace, "No edit and no run of tests, a linter or a build.")
        signs = _run_signs(evidence, edits)
        if edits:
            signs += _survival_signs(evidence, edits)
            signs += _commit_signs(evidence, edits)
        signs += _reaction_signs(trace, evidence, edits)
        if not [sign for sign in signs if sign.name != "survival" or sign.value < 1.0]:
            return unscored(
                self,
                trace,
                "Files were edited, and no run, commit or reaction tells whether they work."
                if edits
                else "The result of no run was seen.",
                findings=[sign.finding for sign in signs],
            )
        weight = sum(sign.weight for sign in signs)
        value = sum(sign.weight * sign.value for sign in signs)
        return scored(
            self,
            trace,
            (value + PRIOR_WEIGHT * PRIOR_VALUE) / (weight + PRIOR_WEIGHT),
            coverage=weight / sum(WEIGHTS.values()),
            findings=[sign.finding for sign in signs],
        )


def _run_signs(evidence: SessionEvidence, edits: list[FileEdit]) -> list[Sign]:
    edited_at = max((edit.position for edit in edits if edit.is_code), default=0)
    signs = []
    for kind in ("tests", "build", "types", "lint"):
        runs = [
            check
            for check in evidence.checks
            if check.kind == kind and check.outcome in ("passed", "failed", "empty")
        ]
        if not runs:
            continue
        last = runs[-1]
        weight = WEIGHTS[kind] * (1.0 if edits else UNEDITED_SHARE)
        if last.position < edited_at:
            value = OUTDATED_VALUE if last.outcome != "failed" else OUTDATED_VALUE / 2
            reason = f"The last run ({last.outcome}) came before the last edit."
        else:
            value = {"passed": 1.0, "failed": 0.0, "empty": 0.25}[last.outcome]
            reason = f"The last run {_ended(last)}."
        signs.append(
            Sign(kind, value, weight, _noted(f"{kind} after the last edit", reason, last.step))
        )
    return signs


def _ended(check: Check) -> str:
    if check.outcome == "empty":
        return "found no tests"
    counts = check.counts
    if counts is None or counts.passed is None:
        return check.outcome
    return f"{check.outcome} ({counts.passed} passed, {counts.failed} failed)"


def _survival_signs(evidence: SessionEvidence, edits: list[FileEdit]) -> list[Sign]:
    made = {edit.path for edit in edits if edit.path} - {".", "patch"}
    if not made:
        return []
    reverted: set[str] = set()
    reverts: list[Step] = []
    for action in evidence.git_actions:
        if action.verb != "revert" or action.succeeded is False:
            continue
        before = {
            edit.path for edit in edits if edit.path and edit.position < action.position
        } & made
        names = {path.rsplit("/", 1)[-1] for path in action.commits}
        hit = (
            before
            if not names or "." in names
            else {path for path in before if path.rsplit("/", 1)[-1] in names}
        )
        if hit:
            reverted |= hit
            reverts.append(action.step)
    undone = _undone_by_hand(edits)
    reverted |= set(undone) & made
    reverts += undone.values()
    if not reverts:
        finding = Finding("noted", "edits kept", "No edit was thrown away in this session.")
        return [Sign("survival", 1.0, WEIGHTS["survival"], finding)]
    share = len(reverted) / len(made)
    reason = f"{len(reverted)} of {len(made)} edited files were thrown away."
    return [
        Sign(
            "survival",
            1.0 - share,
            WEIGHTS["survival"],
            _noted("edits reverted", reason, reverts[-1]),
        )
    ]


def _undone_by_hand(edits: list[FileEdit]) -> dict[str, Step]:
    """Files each of whose edits was later turned back by one that says the contrary, with the last
    of these."""
    open_edits: dict[str, list[tuple[str, str]]] = {}
    undone: dict[str, Step] = {}
    for edit in edits:
        if not edit.path:
            continue
        left = open_edits.setdefault(edit.path, [])
        replaced = replacement(edit.step)
        if replaced is not None and replaced[::-1] in left:
            left.remove(replaced[::-1])
            undone[edit.path] = edit.step
        else:
            left.append(replaced or ("", ""))
    return {path: step for path, step in undone.items() if not open_edits[path]}


def _commit_signs(evidence: SessionEvidence, edits: list[FileEdit]) -> list[Sign]:
    first = min(edit.position for edit in edits)
    commits = [
        action
        for action in evidence.git_actions
        if action.verb == "commit" and action.succeeded is not None and action.position > first
    ]
    if not commits:
        return []
    last = commits[-1]
    value, reason = (
        (1.0, "The work was committed.") if last.succeeded else (0.0, "git commit failed.")
    )
    return [Sign("commit", value, WEIGHTS["commit"], _noted("commit", reason, last.step))]


def _reaction_signs(
    trace: SessionTrace, evidence: SessionEvidence, edits: list[FileEdit]
) -> list[Sign]:
    """What the human prompts after the first edit say. A task notification is no human."""
    turn_ids = {edit.step.turn_id for edit in edits}
    started = [t.turn.started_at_us for t in trace.turns if t.turn.turn_id in turn_ids]
    if not started:
        return []
    worst: tuple[float, str, str] | None = None
    for prompt in trace.prompts:
        if not prompt.from_human or prompt.at_us <= min(started) or not prompt.text:
            continue
        opening = prompt.text[:400]
        if opening.lstrip().startswith("<task-notification>"):
            continue
        if _INTERRUPTED in opening:
            read = (0.25, "the human interrupted", prompt.prompt_id)
        elif _CORRECTION.search(opening):
            read = (0.0, "the human corrected the work", prompt.prompt_id)
        elif _PRAISE.match(opening) and not _NOT_PRAISE.search(opening[:80]):
            read = (1.0, "the human was content", prompt.prompt_id)
        else:
            continue
        if worst is None or read[0] < worst[0]:
            worst = read
    if worst is None:
        return []
    value, words, prompt_id = worst
    finding = Finding("noted", "next prompt", f"After the edits {words}.", evidence=(prompt_id,))
    return [Sign("reaction", value, WEIGHTS["reaction"], finding)]


def _noted(check: str, reason: str, step: Step) -> Finding:
    return Finding(
        "noted", check, reason, step.turn_id, (step.tool.call.tool_use_id or step.turn_id,)
    )
