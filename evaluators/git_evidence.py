"""What git and gh did in one command line: commits, pushes, pull requests, reverts, other trees."""

from __future__ import annotations

import re

from evaluators.commands import CommandLine
from evaluators.evidence import EvidenceLists, FileEdit, GitAction, Step

_COMMIT_DONE = re.compile(r"(?m)^\[[^\]\n]*?\b([0-9a-f]{7,40})\]")
_FILES_COMMITTED = re.compile(r"(?m)^ \d+ files? changed, \d+ (?:insertion|deletion)")
_PUSH_DONE = re.compile(r"(?m)^To \S+|Everything up-to-date|->\s+\S+\s*$")
_MERGED = re.compile(r"Auto-merging|Merge made by|Successfully rebased")
_PUSH_FAILED = re.compile(r"(?m)! \[(?:remote )?rejected\]|^error: failed to push|^fatal: ")
_HOOK_FAILED = re.compile(
    r"(?i)hook (?:exited with|failed|declined)|hook\w* .{0,40}exited with code [1-9]"
    r"|pre-commit hook failed"
)
_HOOK = re.compile(
    r"(?i)lint|biome|tsc|type-?check|mypy|ruff|hook|husky|prettier|clippy|go vet|credo"
    r"|Checked \d+ files"
)
_OTHER_TREE = frozenset(
    ("stash", "worktree", "switch", "merge", "rebase", "pull", "cherry-pick", "bisect")
)


def read_pull_request(
    step: Step, position: int, line: CommandLine, index: int, output: str | None
) -> GitAction:
    """What came of ``gh pr create``."""
    succeeded = _succeeded(step.tool.call.success, line, index)
    if output and "already exists" in output:
        succeeded = None
    elif succeeded is None and output and "/pull/" in output:
        succeeded = True
    return GitAction(position, step, "pr", succeeded)


def merged_code(output: str) -> bool:
    """Did git bring in the work of others?"""
    return _MERGED.search(output) is not None


def _succeeded(success: bool | None, line: CommandLine, index: int) -> bool | None:
    if success and line.success_covers(index):
        return True
    if success is False and line.failure_excludes(index):
        return False
    return None


def read_git(
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
        if succeeded is None and output and _HOOK_FAILED.search(output):
            succeeded = False
        lists.git_actions.append(GitAction(position, step, "commit", succeeded, commits))
        if succeeded is not False and (output is None or _HOOK.search(output)):
            lists.gaps.append(position)  # a hook may have run checks
    elif verb == "push" and "--dry-run" not in arguments:
        succeeded = _succeeded(success, line, index)
        if succeeded is None and output and _PUSH_DONE.search(output) and "rejected" not in output:
            succeeded = True
        elif succeeded is None and output and _PUSH_FAILED.search(output):
            succeeded = False
        lists.git_actions.append(GitAction(position, step, "push", succeeded))
    elif (
        verb == "apply"
        and not {"--check", "--stat", "--numstat", "--summary"} & set(arguments)
        and success is not False
    ):
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


def is_on_another_tree(words: tuple[str, ...]) -> bool:
    """Does it change what is checked out, or look at another place?"""
    if words[:1] != ("git",) or len(words) < 2:
        return False
    if words[1] in _OTHER_TREE:
        return True
    return words[1] == "checkout" and not {"--", ".", "-b", "-B", "--orphan"} & set(words[2:])
