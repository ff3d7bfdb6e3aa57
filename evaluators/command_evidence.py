"""What one command line shows: the checks it ran, the files it wrote, its commits and pushes."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from evaluators.commands import CommandLine, parse_command
from evaluators.evidence import (
    POSITION_STRIDE,
    Check,
    CheckOutcome,
    EvidenceLists,
    FileEdit,
    Step,
    is_code,
    visible_output,
)
from evaluators.git_evidence import is_on_another_tree, merged_code, read_git, read_pull_request
from evaluators.run_outcomes import (
    TestCounts,
    read_check_output,
    read_exit_code,
    read_printed_status,
    read_test_counts,
    says_absent,
    says_misused,
)
from evaluators.runners import Runner, is_known, recognise

_REDIRECT = re.compile(r"(?<![0-9&<])>{1,2}\s*([^\s&|;<>()]+)")
_OTHER_VERSION_CONTROL = frozenset(("gt", "jj", "hub", "sl", "svn", "hg", "glab"))
_PRINTS_FILES = frozenset(
    ("cat", "less", "grep", "rg", "git", "gh", "echo", "sed", "awk", "find", "ls", "curl", "jq")
)
# Programs that run no check, whatever words are on their command line.
_HARMLESS = _PRINTS_FILES | frozenset((
    "cd", "mkdir", "rm", "cp", "mv", "touch", "chmod", "pwd", "which", "head", "tail", "wc", "diff",
    "sort", "uniq", "tree", "stat", "file", "du", "df", "ps", "kill", "pkill", "export", "pip",
    "tee", "printf", "source", ".", "set", "sleep", "date", "true",
    "test", "[", "touch", "ln", "tar", "unzip", "wget", "open", "code", "brew", "apt",
    "apt-get", "prettier", "black", "gofmt", "isort", "mktemp", "basename", "dirname", "xxd", "od",
    "cut", "tr", "column", "type", "command", "history", "lsof", "killall", "for", "do",
    "done", "if",
    "then", "fi", "else", "while", "perl", "patch", "ruff", "env", "read", "exit", "cmp",
))  # fmt: skip
_MAY_CHECK = re.compile(
    r"(?i)(?:^|[\W_])(?:tests?|specs?|checks?|lint|verify|verification|validate|ci|suite|tsc|mypy"
    r"|pytest|build|compile|typecheck|e2e|smoke|qa)(?:$|[\W_])"
)
_INSTALLS = re.compile(
    r"\b(?:install|add)\b|\b(?:npm|pnpm|yarn|bun|go|cargo|uv|poetry) (?:i|ci|sync|fmt|mod|get)\b"
    r"|\bdocker(?:[- ]compose)? (?:logs|up|down|ps)\b"
)
_COMPILATION_FAILED = re.compile(
    r"Compilation failed|COMPILATION ERROR|could not compile `|\[build failed\]"
    r"|undefined reference to"
)
_DEPENDENCIES = frozenset((
    ("go", "get"), ("cargo", "add"), ("cargo", "update"), ("npm", "update"), ("pnpm", "add"),
    ("pnpm", "update"), ("yarn", "add"), ("yarn", "upgrade"), ("composer", "update"),
    ("composer", "require"), ("poetry", "add"), ("poetry", "update"), ("uv", "add"),
    ("bundle", "update"), ("npm", "install"), ("npm", "i"),
))  # fmt: skip
_BACKGROUND = "running in background"
_TIME_OUT = re.compile(r"(?i)timed out|interrupted|\bkilled\b")
_NOT_RUN = re.compile(
    r"Sibling tool call errored|Cancelled: parallel tool call|Permission to use \w+|has been denied"
    r"|requires approval|blocked by|<tool_use_error>|InputValidationError|PreToolUse"
    r"|tool use was rejected|doesn't want to (?:proceed|take this action)"
    r"|Request interrupted by user"
)
_CODE = re.compile(
    r"\.(?:py|pyi|js|jsx|ts|tsx|mjs|cjs|go|rs|java|kt|rb|ex|exs|c|cc|cpp|h|hpp|cs|swift|php|scala|vue)$"
)
_COPY = re.compile(
    r"(?i)^(?:/private)?(?:/var)?/tmp/|worktree|baseline|(?:^|[/_-])(?:base|orig|original|upstream|pristine|main|master)(?:$|[/_-])"
)
_REPEATS = re.compile(r"(?i)\bwatch\b|--retr(?:y|ies)|--reruns|--rerun|--watch|\bretry\b|\bflaky\b")
_SCRATCH = ("/tmp/", "/var/tmp/", "-")  # noqa: S108


@lru_cache(maxsize=4096)
def _understand(command: str) -> tuple[CommandLine, tuple[tuple[Runner, ...], ...]]:
    line = parse_command(command)
    return line, tuple(recognise(segment.words) for segment in line.segments)


def read_command(step: Step, lists: EvidenceLists) -> None:
    """Adds to ``lists`` what the Bash call ``step`` shows."""
    if step.command is None:
        return
    line, runners = _understand(step.command)
    tool = step.tool
    if tool.call.success is not True and _NOT_RUN.search(tool.output_text[:400]):
        return
    output = visible_output(tool)
    ran = [index for index, found in enumerate(runners) if found]
    for index, segment in enumerate(line.segments[: POSITION_STRIDE - 1]):
        position = step.position + index
        for runner in runners[index]:
            check = _check(step, position, line, index, runner, output, alone=len(ran) == 1)
            lists.checks.append(check)
            if check.kind == "tests" and check.outcome == "failed" and _does_not_compile(output):
                lists.checks.append(replace(check, kind="build", counts=None))
            for log in _REDIRECT.findall(segment.text):
                lists.logs[log.strip("'\"")] = check
        if runners[index]:
            continue
        words = segment.words
        if not words:
            continue
        program = words[0]
        if (
            program not in _HARMLESS
            and not is_known(words)
            and _MAY_CHECK.search(segment.text)
            and not _INSTALLS.search(segment.text)
        ):
            lists.maybe_checks.append(position)
        if program == "git" and words[1:2] not in (("rm",), ("mv",)):
            read_git(step, position, line, index, words, output, lists)
        elif program == "gh" and words[1:3] == ("pr", "create"):
            lists.git_actions.append(read_pull_request(step, position, line, index, output))
        elif (
            program in _OTHER_VERSION_CONTROL
            or words[:2] == ("gh", "api")
            or _shows_other_runs(words)
        ):
            lists.gaps.append(position)
        elif tool.call.success is False:
            path = _written_path(segment.text, words)
            if path is not None:
                lists.begun.add(path)
        else:
            removed = _removed_paths(words)
            path = _written_path(segment.text, words)
            if (
                path is None
                and words[:2] in _DEPENDENCIES
                and not {"-D", "--save-dev", "-g", "--dev"} & set(words)
                and any(not word.startswith("-") for word in words[2:])
            ):
                path = f"{words[0]} packages"
            if words[0] == "tee" and segment.joined_by == "|" and index and runners[index - 1]:
                path = None  # a runner's output
            for written in removed or ((path,) if path is not None else ()):
                lists.edits.append(
                    FileEdit(position, step, written, tool.call.success, is_code(written))
                )
            lists.removed.update(removed)
            lists.run_scripts.update(_run_script(words, segment.text))
    if output and tool.call.success and "git " in step.command and merged_code(output):
        position = step.position + len(line.segments)
        lists.edits.append(FileEdit(position, step, ".", True, True))
    elif "git" in step.command and any(is_on_another_tree(s.words) for s in line.segments):
        lists.gaps.append(step.position + len(line.segments))
    ran_tests = any(runner.kind == "tests" for found in runners for runner in found)
    if output and not ran_tests and not _read_log(line, output, lists):
        _read_incidental_summary(step, line, output, lists)


def _does_not_compile(output: str | None) -> bool:
    return output is not None and _COMPILATION_FAILED.search(output) is not None


def _read_log(line: CommandLine, output: str, lists: EvidenceLists) -> bool:
    """The output of an earlier run, read from the file that took it."""
    if not lists.logs:
        return False
    for segment in line.segments:
        for word in segment.words[1:]:
            check = lists.logs.get(word)
            if check is not None:
                return read_log_of(check, output, lists)
    return False


def read_log_of(check: Check, output: str, lists: EvidenceLists) -> bool:
    counts = read_test_counts(output) if check.kind == "tests" else None
    if counts is None:
        return False
    outcome: CheckOutcome = "failed" if counts.failed else "empty" if counts.empty else "passed"
    lists.checks.append(replace(check, outcome=outcome, counts=counts, position=check.position + 1))
    return True


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
        position,
        step,
        runner.kind,
        runner.name,
        runner.subset,
        outcome,
        counts,
        in_full_view,
        output or "",
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
    if _is_elsewhere(line, index):
        return "unknown"
    if counts is not None:
        if counts.failed and counts.ends_well and _is_repeated(line, step.command or ""):
            return "unknown"  # a failure that a later try in the same command made good
        if counts.failed:
            return "failed"
        if counts.empty:
            return "empty"
        if success or not line.failure_is_of(index):
            return "passed"
        return "unknown"  # the summary is fine, yet the run failed: coverage floor, teardown
    if runner.bundled:
        return (
            "passed"
            if runner.kind == "tests" and success and line.success_covers(index)
            else "unknown"
        )
    if line.prints_status and alone and output and not line.status_is_of_a_pipe(index):
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
    if output and says_misused(output):
        return "absent"
    if code in (126, 127) or (output and says_absent(output) and runner.kind != "build"):
        return "absent"
    if code in (124, 130, 137, 143) or (output and _TIME_OUT.search(output[-300:])):
        return "unknown"
    if code == 5 and runner.name == "pytest":
        return "empty"
    return "failed"


def _is_elsewhere(line: CommandLine, index: int) -> bool:
    """Did the command line leave for a copy of the work, such as a checkout to compare with?"""
    return any(
        segment.words[:1] == ("cd",) and len(segment.words) > 1 and _COPY.search(segment.words[1])
        for segment in line.segments[:index]
    )


def _is_repeated(line: CommandLine, command: str) -> bool:
    return (
        line.has_control_flow
        or any(segment.joined_by == "||" for segment in line.segments)
        or _REPEATS.search(command) is not None
    )


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
