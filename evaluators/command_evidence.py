"""What one command line shows: the checks it ran, the files it wrote, its commits and pushes."""

from __future__ import annotations

import re
from functools import lru_cache

from evaluators.commands import CommandLine, parse_command
from evaluators.evidence import (
    POSITION_STRIDE,
    Check,
    CheckOutcome,
    EvidenceLists,
    FileEdit,
    GitAction,
    Step,
    is_code,
    visible_output,
)
from evaluators.run_outcomes import (
    TestCounts,
    read_check_output,
    read_exit_code,
    read_printed_status,
    read_test_counts,
    says_absent,
)
from evaluators.runners import Runner, recognise

_REDIRECT = re.compile(r"(?<![0-9&<])>{1,2}\s*([^\s&|;<>()]+)")
_COMMIT_DONE = re.compile(r"(?m)^\[[^\]\n]*?\b([0-9a-f]{7,40})\]")
_FILES_COMMITTED = re.compile(r"(?m)^ \d+ files? changed, \d+ (?:insertion|deletion)")
_PUSH_DONE = re.compile(r"(?m)^To \S+|Everything up-to-date|->\s+\S+\s*$")
_OTHER_VERSION_CONTROL = frozenset(("gt", "jj", "hub", "sl", "svn", "hg", "glab"))
_PRINTS_FILES = frozenset(
    ("cat", "less", "grep", "rg", "git", "gh", "echo", "sed", "awk", "find", "ls", "curl", "jq")
)
_BACKGROUND = "running in background"
_TIME_OUT = re.compile(r"(?i)timed out|interrupted|\bkilled\b")
_NOT_RUN = "Sibling tool call errored"
_HOOK = re.compile(
    r"(?i)lint|biome|tsc|type-?check|mypy|ruff|hook|husky|prettier|clippy|go vet|credo"
    r"|Checked \d+ files"
)
_OTHER_TREE = frozenset(
    ("stash", "worktree", "switch", "merge", "rebase", "pull", "cherry-pick", "bisect")
)
_CODE = re.compile(
    r"\.(?:py|pyi|js|jsx|ts|tsx|mjs|cjs|go|rs|java|kt|rb|ex|exs|c|cc|cpp|h|hpp|cs|swift|php|scala|vue)$"
)
_SCRATCH = ("/tmp/", "/var/tmp/", "-")  # noqa: S108


@lru_cache(maxsize=4096)
def _understand(command: str) -> tuple[CommandLine, tuple[Runner | None, ...]]:
    line = parse_command(command)
    return line, tuple(recognise(segment.words) for segment in line.segments)


def read_command(step: Step, lists: EvidenceLists) -> None:
    """Adds to ``lists`` what the Bash call ``step`` shows."""
    if step.command is None:
        return
    line, runners = _understand(step.command)
    tool = step.tool
    if _NOT_RUN in tool.output_text[:100]:
        return
    output = visible_output(tool)
    ran = [index for index, runner in enumerate(runners) if runner is not None]
    for index, segment in enumerate(line.segments[: POSITION_STRIDE - 1]):
        position = step.position + index
        runner = runners[index]
        if runner is not None:
            lists.checks.append(
                _check(step, position, line, index, runner, output, alone=len(ran) == 1)
            )
            continue
        words = segment.words
        if not words:
            continue
        program = words[0]
        if program == "git" and words[1:2] not in (("rm",), ("mv",)):
            _read_git(step, position, line, index, words, output, lists)
        elif program == "gh" and words[1:3] == ("pr", "create"):
            lists.git_actions.append(
                GitAction(position, step, "pr", _succeeded(tool.call.success, line, index))
            )
        elif program in _OTHER_VERSION_CONTROL or _shows_other_runs(words):
            lists.gaps.append(position)
        elif tool.call.success is False:
            path = _written_path(segment.text, words)
            if path is not None:
                lists.begun.add(path)
        else:
            removed = _removed_paths(words)
            path = _written_path(segment.text, words)
            for written in removed or ((path,) if path is not None else ()):
                lists.edits.append(
                    FileEdit(position, step, written, tool.call.success, is_code(written))
                )
            lists.removed.update(removed)
            lists.run_scripts.update(_run_script(words, segment.text))
    if any(
        s.words[:1] == ("git",) and s.words[1:2] and s.words[1] in _OTHER_TREE
        for s in line.segments
    ):
        lists.gaps.append(step.position + len(line.segments))
    if not any(runner and runner.kind == "tests" for runner in runners) and output:
        _read_incidental_summary(step, line, output, lists)


def _shows_other_runs(words: tuple[str, ...]) -> bool:
    """Does it run or show checks elsewhere: a pipeline in a container or at the host?"""
    return words[0] == "act" or words[:3] == ("gh", "pr", "checks") or words[:2] == ("gh", "run")


def _removed_paths(words: tuple[str, ...]) -> tuple[str, ...]:
    if words[0] != "rm" and words[:2] != ("git", "rm"):
        return ()
    return tuple(word for word in words[1:] if not word.startswith("-") and _CODE.search(word))


def _run_script(words: tuple[str, ...], text: str) -> tuple[str, ...]:
    """A script in the working folder itself that the command line runs."""
    runs = re.search(r"\b(?:python[\d.]*|node|bash|sh|ruby)\s", text) is not None
    return (words[0],) if runs and _CODE.search(words[0]) else ()


def _written_path(text: str, words: tuple[str, ...]) -> str | None:
    if words[0] == "sed" and any(word.startswith("-i") for word in words[1:]):
        return words[-1]
    if words[0] in ("cp", "mv") and len(words) > 2 and not words[-1].startswith(_SCRATCH):
        return words[-1] if "." in words[-1].rsplit("/", 1)[-1] else None
    if words[:2] == ("git", "mv"):
        return words[-1] if _CODE.search(words[-1]) else None
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
    lists: EvidenceLists,
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
        if succeeded is None and output and _FILES_COMMITTED.search(output):
            succeeded = True
        lists.git_actions.append(GitAction(position, step, "commit", succeeded, commits))
        if succeeded is not False and (output is None or _HOOK.search(output)):
            lists.gaps.append(position)  # a hook may have run checks
    elif verb == "push" and "--dry-run" not in arguments:
        succeeded = _succeeded(success, line, index)
        if succeeded is None and output and _PUSH_DONE.search(output) and "rejected" not in output:
            succeeded = True
        lists.git_actions.append(GitAction(position, step, "push", succeeded))
    elif verb == "apply" and "--check" not in arguments and success is not False:
        lists.edits.append(FileEdit(position, step, "patch", success, True))
    elif (
        (verb == "checkout" and ("--" in arguments or "." in arguments))
        or (verb == "restore" and "--staged" not in arguments)
        or (verb == "reset" and "--hard" in arguments)
        or verb == "revert"
    ):
        paths = [word for word in arguments if not word.startswith("-") and word != "HEAD"]
        succeeded = _succeeded(success, line, index)
        lists.git_actions.append(GitAction(position, step, "revert", succeeded, tuple(paths)))
        if success is not False:
            lists.edits.append(FileEdit(position, step, paths[-1] if paths else ".", success, True))


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


def _read_incidental_summary(
    step: Step, line: CommandLine, output: str, lists: EvidenceLists
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
    lists.checks.append(
        Check(step.position, step, "tests", "incidental", False, outcome, counts, False)
    )
