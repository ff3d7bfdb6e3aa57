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
    r"|AUTHORS|\.gitignore|\.gitattributes|\.mailmap)$|/\.claude/|^/tmp/|^/var/|^/private/tmp/"
)
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

    @property
    def work_hidden(self) -> bool:
        """Whether a command or an edit is hidden, so that runs and edits may be missing here."""
        return any(
            step.is_hidden and step.tool.call.name in {"Bash", *EDIT_TOOLS} for step in self.steps
        )

    def has_gap(self, after: int, before: int) -> bool:
        return any(after < gap < before for gap in self.gaps)


@dataclass(slots=True)
class EvidenceLists:
    """What has been gathered so far, in order."""

    checks: list[Check] = field(default_factory=list)
    edits: list[FileEdit] = field(default_factory=list)
    git_actions: list[GitAction] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)  # files written by command lines that failed
    removed: set[str] = field(default_factory=set)  # files that commands removed
    run_scripts: set[str] = field(default_factory=set)  # scripts of the working folder that ran

    def settled_edits(self) -> tuple[FileEdit, ...]:
        """The edits, those of scratch files marked as no code.

        A scratch file is a script at the top of the working folder that the session wrote first
        itself by a command, and then ran or removed: no check can depend on it.
        """
        first: dict[str, FileEdit] = {}
        for edit in self.edits:
            if edit.path:
                first.setdefault(edit.path, edit)
        scratch = {
            path
            for path, edit in first.items()
            if "/" not in path.removeprefix("./")
            and edit.step.command is not None
            and (path in self.begun or not edit.step.command.lstrip().startswith(("rm", "git rm")))
            and (path in self.removed or path.removeprefix("./") in self.run_scripts)
        }
        return tuple(
            replace(edit, is_code=False) if edit.path in scratch else edit for edit in self.edits
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
