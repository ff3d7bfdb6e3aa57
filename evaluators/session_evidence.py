"""A session's tool calls as evidence in order: edits, checks, commits, and what was not seen.

One pass over the trace, shared by the evaluators. A *position* is a number that grows with time:
a claim made at position p may rest on what has a smaller position. Tool calls of subagents are in
the same order as the main loop's: they change and test the same files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from evaluators.commands import CommandLine, parse_command
from evaluators.run_outcomes import (
    Outcome,
    TestCounts,
    is_opaque_error,
    read_check_output,
    read_exit_code,
    read_printed_status,
    read_test_counts,
    says_absent,
)
from evaluators.runners import CheckKind, Runner, recognise
from loop.domain.turns import SessionTrace, ToolEvidence

EDIT_TOOLS = frozenset(("Edit", "MultiEdit", "Write", "NotebookEdit"))
AGENT_TOOLS = frozenset(("Agent", "Task"))
BACKGROUND_TOOLS = frozenset(("BashOutput", "TaskOutput", "AgentOutputTool"))
_RUNNING_TOOL = re.compile(
    r"(?i)test|run|exec|build|shell|command|terminal|check|\bci\b|lint|git|pr_"
)
_DOCUMENT = re.compile(
    r"(?i)\.(?:md|mdx|txt|rst|adoc|log|csv|svg|png|jpg|pdf)$|(?:^|/)(?:LICENSE|NOTICE|CODEOWNERS"
    r"|AUTHORS|\.gitignore|\.gitattributes|\.mailmap)$|/\.claude/|^/tmp/|^/var/|^/private/tmp/"
)
_FIELD = {
    name: re.compile(r'"' + name + r'"\s*:\s*"((?:[^"\\]|\\.)*)', re.S)
    for name in ("command", "full_command", "file_path", "notebook_path", "path")
}
_REDIRECT = re.compile(r"(?<![0-9&<])>{1,2}\s*([^\s&|;<>()]+)")
_COMMIT_DONE = re.compile(r"(?m)^\[[^\]\n]*?\b([0-9a-f]{7,40})\]")
_PUSH_DONE = re.compile(r"(?m)^To \S+|Everything up-to-date|->\s+\S+\s*$")
_OTHER_VERSION_CONTROL = frozenset(("gt", "jj", "hub", "sl", "svn", "hg", "glab"))
_PRINTS_FILES = frozenset(
    ("cat", "less", "grep", "rg", "git", "gh", "echo", "sed", "awk", "find", "ls", "curl", "jq")
)
_BACKGROUND = "running in background"
_TIME_OUT = re.compile(r"(?i)timed out|interrupted|\bkilled\b")
_NO_OUTPUT = "(Bash completed with no output)"
_NOT_RUN = "Sibling tool call errored"
_HOOK = re.compile(
    r"(?i)lint|biome|tsc|type-?check|mypy|ruff|hook|husky|prettier|clippy|go vet|credo"
    r"|Checked \d+ files"
)
_OTHER_TREE = frozenset(
    ("stash", "worktree", "switch", "merge", "rebase", "pull", "cherry-pick", "bisect")
)
_BACKGROUND_FILE = re.compile(r"/tasks/[\w-]+\.output$")
_SCRATCH = ("/tmp/", "/var/tmp/", "-")  # noqa: S108
_SUMMARY_AGENT = "acompact"

GitVerb = Literal["commit", "push", "pr", "revert"]
CheckOutcome = Outcome | Literal["hidden"]


@dataclass(frozen=True, slots=True)
class Step:
    """One tool call in its place. ``command`` and ``path`` are ``None`` where not seen."""

    position: int
    turn_id: str
    agent_id: str
    tool: ToolEvidence
    command: str | None
    path: str | None

    @property
    def failed(self) -> bool:
        return self.tool.call.success is False or self.tool.call.inferred

    @property
    def rejected(self) -> bool:
        return self.tool.call.decision == "reject"


@dataclass(frozen=True, slots=True)
class Check:
    """One run of tests, a linter, a type checker or a build, with what came of it.

    ``hidden`` means that the command line hides the result, ``unknown`` that it was not seen,
    ``absent`` that the runner could not be started, ``empty`` that no test ran.
    """

    position: int
    step: Step
    kind: CheckKind
    runner: str
    subset: bool
    outcome: CheckOutcome
    counts: TestCounts | None
    in_full_view: bool  # the whole output of the one run is there


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A file written by a tool or a command. ``applied`` is ``None`` when no result was seen."""

    position: int
    step: Step
    path: str | None
    applied: bool | None
    is_code: bool | None  # None: the path is unknown


@dataclass(frozen=True, slots=True)
class GitAction:
    position: int
    step: Step
    verb: GitVerb
    succeeded: bool | None
    commits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """A text of the assistant. ``is_last`` marks the last one before a human speaks again."""

    position: int
    turn_id: str
    agent_id: str
    text: str
    is_last: bool


@dataclass(frozen=True, slots=True)
class SessionEvidence:
    steps: tuple[Step, ...]
    checks: tuple[Check, ...]
    edits: tuple[FileEdit, ...]
    git_actions: tuple[GitAction, ...]
    statements: tuple[Statement, ...]
    gaps: tuple[int, ...]  # positions at which anything may have happened unseen
    texts_hidden: bool  # at least one text of the assistant was redacted

    def has_gap(self, after: int, before: int) -> bool:
        return any(after < gap < before for gap in self.gaps)


_STRIDE = 1000
_last: tuple[SessionTrace | None, SessionEvidence | None] = (None, None)


def read_evidence(trace: SessionTrace) -> SessionEvidence:
    """The evidence in ``trace``. Remembers the last trace, which several evaluators ask for."""
    global _last
    remembered, evidence = _last
    if remembered is trace and evidence is not None:
        return evidence
    evidence = _read(trace)
    _last = (trace, evidence)
    return evidence


def _read(trace: SessionTrace) -> SessionEvidence:
    steps: list[Step] = []
    checks: list[Check] = []
    edits: list[FileEdit] = []
    git_actions: list[GitAction] = []
    gaps: list[int] = []
    spoken: list[tuple[int, int, str, str, str]] = []
    texts_hidden = False
    has_subagents = any(traced.turn.agent_id for traced in trace.turns)
    boundaries = sorted(
        prompt.at_us for prompt in trace.prompts if prompt.from_human and prompt.at_us
    )
    position = 0
    for traced in trace.turns:
        turn = traced.turn
        position += _STRIDE
        # A compaction retells the session, an auxiliary request titles it: neither claims anything.
        retells = turn.agent_id.startswith(_SUMMARY_AGENT) or turn.request_class == "auxiliary"
        for text in () if retells else traced.texts:
            spoken.append((position, turn.started_at_us, turn.turn_id, turn.agent_id, text))
        texts_hidden = texts_hidden or traced.text_state == "redacted"
        for tool in traced.tools:
            position += _STRIDE
            step = _step(position, turn.turn_id, turn.agent_id, tool)
            steps.append(step)
            name = tool.call.name
            if step.rejected:
                if name in EDIT_TOOLS:
                    edits.append(_tool_edit(step, applied=False))
                continue
            if name in EDIT_TOOLS:
                edits.append(_tool_edit(step, applied=tool.call.success))
            elif name == "Bash":
                if step.command is None:
                    gaps.append(position)
                else:
                    _read_command(step, checks, edits, git_actions, gaps)
            elif name in BACKGROUND_TOOLS:
                _read_background(step, checks, gaps)
            elif name == "Read" and step.path and _BACKGROUND_FILE.search(step.path):
                gaps.append(position)  # the result of a run that started at another time
            elif (
                tool.call.inferred
                or (name in AGENT_TOOLS and not has_subagents)
                or name in ("", "mcp_tool")
                or (name.startswith("mcp__") and _RUNNING_TOOL.search(name))
            ):
                gaps.append(position)
    last_of: dict[int, int] = {}
    for index, (_, at_us, _, agent_id, _) in enumerate(spoken):
        if not agent_id:
            last_of[sum(1 for boundary in boundaries if boundary <= at_us)] = index
    final = set(last_of.values())
    statements = tuple(
        Statement(place, turn_id, agent_id, text, index in final)
        for index, (place, _, turn_id, agent_id, text) in enumerate(spoken)
    )
    return SessionEvidence(
        tuple(steps),
        tuple(checks),
        tuple(edits),
        tuple(git_actions),
        statements,
        tuple(gaps),
        texts_hidden,
    )


def _step(position: int, turn_id: str, agent_id: str, tool: ToolEvidence) -> Step:
    name = tool.call.name
    command = path = None
    if tool.input_state in ("present", "truncated") and tool.input_text:
        if name == "Bash":
            command = _input_field(tool.input_text, ("command", "full_command"), bare=True)
        elif name in EDIT_TOOLS or name in ("Read", "NotebookRead"):
            path = _input_field(tool.input_text, ("file_path", "notebook_path", "path"), bare=True)
    return Step(position, turn_id, agent_id, tool, command, path)


@lru_cache(maxsize=2048)
def _input_field(text: str, names: tuple[str, ...], *, bare: bool) -> str | None:
    """A field of a tool's input: JSON, JSON cut off by the client's limit, or the bare value."""
    stripped = text.lstrip()
    if stripped.startswith("{"):
        try:
            fields = json.loads(stripped)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            return next((fields[n] for n in names if isinstance(fields.get(n), str)), None)
        for name in names:
            match = _FIELD[name].search(stripped)
            if match:
                return match.group(1).replace("\\n", "\n").replace('\\"', '"').replace("\\/", "/")
        return None
    return text if bare and stripped and not stripped.startswith("<REDACTED") else None


def _is_code(path: str | None) -> bool | None:
    return None if path is None else _DOCUMENT.search(path) is None


def _tool_edit(step: Step, *, applied: bool | None) -> FileEdit:
    return FileEdit(step.position, step, step.path, applied, _is_code(step.path))


def visible_output(tool: ToolEvidence) -> str | None:
    """The output text as far as it is there: ``None`` if nothing of it was sent."""
    if tool.output_state in ("present", "truncated") and not (
        tool.call.success is False and is_opaque_error(tool.output_text)
    ):
        return "" if tool.output_text == _NO_OUTPUT else tool.output_text
    return None


@lru_cache(maxsize=4096)
def _understand(command: str) -> tuple[CommandLine, tuple[Runner | None, ...]]:
    line = parse_command(command)
    return line, tuple(recognise(segment.words) for segment in line.segments)


def _read_command(
    step: Step,
    checks: list[Check],
    edits: list[FileEdit],
    git_actions: list[GitAction],
    gaps: list[int],
) -> None:
    if step.command is None:
        return
    line, runners = _understand(step.command)
    tool = step.tool
    if _NOT_RUN in tool.output_text[:100]:
        return
    output = visible_output(tool)
    ran = [index for index, runner in enumerate(runners) if runner is not None]
    for index, segment in enumerate(line.segments[: _STRIDE - 1]):
        position = step.position + index
        runner = runners[index]
        if runner is not None:
            checks.append(_check(step, position, line, index, runner, output, alone=len(ran) == 1))
            continue
        words = segment.words
        if not words:
            continue
        program = words[0]
        if program == "git":
            _read_git(step, position, line, index, words, output, edits, git_actions, gaps)
        elif program == "gh" and words[1:3] == ("pr", "create"):
            git_actions.append(
                GitAction(position, step, "pr", _succeeded(tool.call.success, line, index))
            )
        elif program in _OTHER_VERSION_CONTROL:
            gaps.append(position)
        elif tool.call.success is not False:
            path = _written_path(segment.text, words)
            if path is not None:
                edits.append(FileEdit(position, step, path, tool.call.success, _is_code(path)))
    if any(
        s.words[:1] == ("git",) and s.words[1:2] and s.words[1] in _OTHER_TREE
        for s in line.segments
    ):
        gaps.append(step.position + len(line.segments))
    if not any(runner and runner.kind == "tests" for runner in runners) and output:
        _read_incidental_summary(step, line, output, checks)


def _written_path(text: str, words: tuple[str, ...]) -> str | None:
    if words[0] == "sed" and any(word.startswith("-i") for word in words[1:]):
        return words[-1]
    if words[0] in ("cp", "mv") and len(words) > 2 and not words[-1].startswith(_SCRATCH):
        return words[-1] if "." in words[-1].rsplit("/", 1)[-1] else None
    if words[0] == "patch" or words[:2] == ("perl", "-pi"):
        return words[-1] if len(words) > 1 else "patch"
    if words[0] == "tee":
        target = next((word for word in words[1:] if not word.startswith("-")), "")
    elif words[0] in ("cat", "echo", "printf"):
        match = _REDIRECT.search(text)
        target = match.group(1).strip("'\"") if match else ""
    else:
        return None
    return target if "." in target and not target.startswith("/dev/") else None


def _succeeded(success: bool | None, line: CommandLine, index: int) -> bool | None:
    if success and line.success_covers(index):
        return True
    if success is False and line.failure_excludes(index):
        return False
    return None


def _read_git(
    step: Step,
    position: int,
    line: CommandLine,
    index: int,
    words: tuple[str, ...],
    output: str | None,
    edits: list[FileEdit],
    git_actions: list[GitAction],
    gaps: list[int],
) -> None:
    rest = list(words[1:])
    while rest and rest[0].startswith("-"):
        rest = rest[2:] if rest[0] in ("-C", "-c") else rest[1:]
    if not rest:
        return
    verb, arguments = rest[0], rest[1:]
    success = step.tool.call.success
    if verb == "commit" and "--dry-run" not in arguments:
        commits = tuple(_COMMIT_DONE.findall(output)) if output else ()
        succeeded = True if commits else _succeeded(success, line, index)
        if output and "nothing to commit" in output:
            succeeded = None
        git_actions.append(GitAction(position, step, "commit", succeeded, commits))
        if succeeded is not False and (output is None or _HOOK.search(output)):
            gaps.append(position)  # a hook may have run checks
    elif verb == "push" and "--dry-run" not in arguments:
        succeeded = _succeeded(success, line, index)
        if succeeded is None and output and _PUSH_DONE.search(output) and "rejected" not in output:
            succeeded = True
        git_actions.append(GitAction(position, step, "push", succeeded))
    elif verb == "apply" and "--check" not in arguments and success is not False:
        edits.append(FileEdit(position, step, "patch", success, True))
    elif (
        (verb == "checkout" and ("--" in arguments or "." in arguments))
        or (verb == "restore" and "--staged" not in arguments)
        or (verb == "reset" and "--hard" in arguments)
        or verb == "revert"
    ):
        paths = [word for word in arguments if not word.startswith("-") and word != "HEAD"]
        succeeded = _succeeded(success, line, index)
        git_actions.append(GitAction(position, step, "revert", succeeded, tuple(paths)))
        if success is not False:
            edits.append(FileEdit(position, step, paths[-1] if paths else ".", success, True))


def _check(
    step: Step,
    position: int,
    line: CommandLine,
    index: int,
    runner: Runner,
    output: str | None,
    *,
    alone: bool,
) -> Check:
    counts = read_test_counts(output) if output and runner.kind == "tests" else None
    outcome = _outcome(step, line, index, runner, output, counts, alone=alone)
    in_full_view = alone and step.tool.output_state == "present" and line.output_is_whole(index)
    return Check(
        position, step, runner.kind, runner.name, runner.subset, outcome, counts, in_full_view
    )


def _outcome(
    step: Step,
    line: CommandLine,
    index: int,
    runner: Runner,
    output: str | None,
    counts: TestCounts | None,
    *,
    alone: bool,
) -> CheckOutcome:
    success = step.tool.call.success
    if success is None or (output and _BACKGROUND in output[:400]):
        return "unknown"
    if any(segment.words[:2] == ("git", "stash") for segment in line.segments):
        return "unknown"  # it ran on another tree
    if counts is not None:
        if counts.failed:
            return "failed"
        if counts.empty:
            return "empty"
        if success or not line.failure_is_of(index):
            return "passed"
        return "unknown"  # the summary is fine, yet the run failed: coverage floor, teardown
    if line.prints_status and alone and output:
        status = read_printed_status(output)
        if status is not None:
            return "passed" if status == 0 else "failed"
    if success:
        if line.success_covers(index):
            return "passed"
        return _hidden_outcome(step, line, index, runner, output, alone=alone)
    if not line.failure_is_of(index):
        if output is not None and alone and runner.kind != "tests":
            return _hidden_outcome(step, line, index, runner, output, alone=alone)
        return "unknown"
    code = read_exit_code(output) if output else None
    if code in (126, 127) or (output and says_absent(output) and runner.kind != "build"):
        return "absent"
    if code in (124, 130, 137, 143) or (output and _TIME_OUT.search(output[-300:])):
        return "unknown"
    if code == 5 and runner.name == "pytest":
        return "empty"
    return "failed"


def _hidden_outcome(
    step: Step,
    line: CommandLine,
    index: int,
    runner: Runner,
    output: str | None,
    *,
    alone: bool,
) -> CheckOutcome:
    """The outcome where the exit status is another command's: from the output, if at all."""
    if output is None or step.tool.output_state == "truncated":
        return "unknown"
    if says_absent(output):
        return "absent"
    if runner.kind == "tests" or not alone or not line.output_is_passed_on(index):
        return "hidden"
    read = read_check_output(output)
    return "hidden" if read == "unknown" else read


def _read_background(step: Step, checks: list[Check], gaps: list[int]) -> None:
    output = visible_output(step.tool)
    counts = read_test_counts(output) if output else None
    if counts is None:
        gaps.append(step.position)
        return
    outcome: CheckOutcome = "failed" if counts.failed else "empty" if counts.empty else "passed"
    checks.append(Check(step.position, step, "tests", "background", False, outcome, counts, False))


def _read_incidental_summary(
    step: Step, line: CommandLine, output: str, checks: list[Check]
) -> None:
    """Tests run by something unknown (a commit hook, a script): a good summary supports, a bad
    one only says that the result is unclear, for it may be an old log."""
    programs = {segment.words[0] for segment in line.segments if segment.words}
    is_commit = any(segment.words[:2] == ("git", "commit") for segment in line.segments)
    if programs <= _PRINTS_FILES and not is_commit:
        return
    counts = read_test_counts(output)
    if counts is None or counts.empty:
        return
    outcome: CheckOutcome = "unknown" if counts.failed else "passed"
    checks.append(Check(step.position, step, "tests", "incidental", False, outcome, counts, False))
