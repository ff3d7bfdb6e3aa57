"""Records of what a session's tool calls show: edits, checks, commits, texts, and gaps.

A *position* is a number that grows with time: a claim made at position p may rest on what has a
smaller position. Tool calls of subagents are in the same order as the main loop's: they change and
test the same files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from evaluators.run_outcomes import Outcome, TestCounts, is_opaque_error
from evaluators.runners import CheckKind
from loop.domain.turns import ToolEvidence

EDIT_TOOLS = frozenset(("Edit", "MultiEdit", "Write", "NotebookEdit"))
POSITION_STRIDE = 1000  # positions between two calls: room for the parts of one command line
_DOCUMENT = re.compile(
    r"(?i)\.(?:md|mdx|txt|rst|adoc|log|csv|svg|png|jpg|pdf)$|(?:^|/)(?:LICENSE|NOTICE|CODEOWNERS"
    r"|AUTHORS|\.gitignore|\.gitattributes|\.mailmap)$|(?:^|/)\.(?:claude|github|vscode|idea|cursor|gitlab"
    r"|circleci)/|(?:^|/)\.gitlab-ci\.yml$|^/tmp/|^/var/|^/private/tmp/|^/private/var/"
)
_TRIAL = re.compile(
    r"(?i)^(?:test|tmp|temp|debug|repro\w*|scratch|check|verify|try|demo|trial|play\w*)[\W_]"
)
_REMOVES = re.compile(r"\s*(?:git )?rm\b")
_NO_OUTPUT = "(Bash completed with no output)"

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

    @property
    def is_hidden(self) -> bool:
        """Whether a text of it was there and is not stored: what it did can't be told."""
        return "redacted" in (self.tool.input_state, self.tool.output_state)


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
    output: str = ""  # as far as it was seen


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
    maybe_checks: tuple[int, ...]  # of commands that may have run checks in a way not known here
    texts_hidden: bool  # at least one text of the assistant was redacted

    @property
    def work_hidden(self) -> bool:
        """Whether a command or an edit is hidden, so that runs and edits may be missing here."""
        return any(
            step.is_hidden and step.tool.call.name in {"Bash", *EDIT_TOOLS} for step in self.steps
        )

    def has_gap(self, after: int, before: int) -> bool:
        return any(after < gap < before for gap in self.gaps)

    def has_maybe_check(self, after: int, before: int) -> bool:
        return any(after < place < before for place in self.maybe_checks)


@dataclass(slots=True)
class EvidenceLists:
    """What has been gathered so far, in order."""

    checks: list[Check] = field(default_factory=list)
    edits: list[FileEdit] = field(default_factory=list)
    git_actions: list[GitAction] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    maybe_checks: list[int] = field(default_factory=list)
    logs: dict[str, Check] = field(default_factory=dict)  # runs by the file that took their output
    begun: set[str] = field(default_factory=set)  # files written by command lines that failed
    removed: set[str] = field(default_factory=set)  # files that commands removed
    run_scripts: set[str] = field(default_factory=set)  # scripts of the working folder that ran

    def settled_edits(self) -> tuple[FileEdit, ...]:
        """The edits, those of scratch files marked as no code.

        A scratch file is a script that the session wrote first itself, at the top of the working
        folder or named like a trial, and then ran or removed: no check can depend on it.
        """
        first: dict[str, FileEdit] = {}
        for edit in self.edits:
            if edit.path:
                first.setdefault(edit.path, edit)
        removed = {path.rsplit("/", 1)[-1]: path for path in self.removed}
        scratch = {path for path, edit in first.items() if self._is_scratch(path, edit, removed)}
        names = {path.rsplit("/", 1)[-1] for path in scratch}
        return tuple(
            replace(edit, is_code=False)
            if edit.path in scratch
            or (edit.path in self.removed and edit.path.rsplit("/", 1)[-1] in names)
            else edit
            for edit in self.edits
        )

    def _is_scratch(self, path: str, edit: FileEdit, removed: dict[str, str]) -> bool:
        bare = path.removeprefix("./")
        name = bare.rsplit("/", 1)[-1]
        if edit.step.command is None:  # by a tool, whose path is absolute
            gone = removed.get(name)
            return (
                edit.step.tool.call.name == "Write"
                and gone is not None
                and ("/" not in gone or _TRIAL.search(name) is not None)
            )
        if path in self.removed and _TRIAL.search(name) and not _REMOVES.match(edit.step.command):
            return True
        return (
            "/" not in bare
            and (path in self.begun or not _REMOVES.match(edit.step.command))
            and (path in self.removed or bare in self.run_scripts)
        )


def is_code(path: str | None) -> bool | None:
    """Can an edit of ``path`` change what a check says? ``None`` if the path is unknown."""
    return None if path is None else _DOCUMENT.search(path) is None


def visible_output(tool: ToolEvidence) -> str | None:
    """The output text as far as it is there: ``None`` if nothing of it was sent."""
    if tool.output_state in ("present", "truncated") and not (
        tool.call.success is False and is_opaque_error(tool.output_text)
    ):
        return "" if tool.output_text == _NO_OUTPUT else tool.output_text
    return None
