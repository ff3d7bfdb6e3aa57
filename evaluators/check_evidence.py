"""What the runs of a session say about the claim that tests, a linter, types or a build are fine.

A verdict against a claim needs the run that the claim means (``check_scope``), an edit that can
change what it says (``edit_reach``), and that nothing unseen can have changed the matter since.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluators.assertions import admits_failures, tells_how_it_was_run
from evaluators.check_scope import fits, is_formatter, place_of
from evaluators.claim import Claim
from evaluators.edit_reach import can_change, cancel_out
from evaluators.evidence import Check, FileEdit, SessionEvidence, Statement
from evaluators.judgement import Judgement, unless_gap

_KIND_WORDS = {"tests": "test run", "lint": "lint run", "types": "type check", "build": "build"}
_UNCLEAR = "It is not clear what is said to be green."
# Of languages whose tests can't run unless the code compiles.
_LEAVES_OUT = re.compile(
    r"-k ['\"]?not |--deselect|--ignore\b|--ignore=|--exclude|-skip\b|--testPathIgnorePatterns"
    r"|--skip\b"
)
_TELLS_OF_LEFT_OUT = re.compile(
    r"(?i)deselect|skip|exclud|left out|leaving out|except|ignor|besides"
)
_COMPILES = ("go test", "cargo", "mvn", "gradle", "dotnet", "swift", "mix", "sbt", "xcodebuild")


def judge_check(claim: Claim, statement: Statement, evidence: SessionEvidence) -> Judgement:
    """The verdict on a claim of ``check_claims`` or ``check_results``."""
    position = statement.position
    if claim.subject == "hooks" and _hooks_passed(position, evidence):
        done = [action for action in evidence.git_actions if action.position < position]
        return Judgement("supported", "The commit that runs the hooks succeeded.", (done[-1].step,))
    checks = [
        check
        for check in evidence.checks
        if check.position < position
        and (claim.kind == "all_checks" or check.kind == claim.kind)
        and fits(check, claim) is not False
    ]
    if claim.kind == "all_checks":  # of a command that ran several, those whose result is known
        known = {check.step.position for check in checks if check.outcome != "unknown"}
        checks = [c for c in checks if c.outcome != "unknown" or c.step.position not in known]
    judged = _judge(claim, statement, evidence, checks)
    if judged.verdict in ("supported", "not_checkable"):
        return judged
    return _unless_doubtful(claim, statement, evidence, checks, judged)


def _judge(
    claim: Claim,
    statement: Statement,
    evidence: SessionEvidence,
    checks: Sequence[Check],
) -> Judgement:
    position = statement.position
    what = _KIND_WORDS.get(claim.kind, "check")
    started = [check for check in checks if check.outcome not in ("absent", "empty")]
    edits = [edit for edit in evidence.edits if edit.position < position and edit.applied]
    last_run = started[-1] if started else None
    sure = [
        edit
        for edit in edits
        if can_change(edit, last_run) and not _is_apart(edit, statement.agent_id)
    ]
    edited_at = sure[-1].position if sure else 0
    recent = [check for check in checks if check.position > edited_at]
    named = [check for check in recent if fits(check, claim)] if claim.scope else []
    if named:
        recent = named
    if recent:
        return _judge_recent(claim, statement, evidence, checks, recent, edits)
    if claim.kind == "all_checks":
        return Judgement("not_checkable", _UNCLEAR)
    if started:
        last, edit = started[-1], sure[-1]
        return unless_gap(
            evidence,
            last.position,
            position,
            Judgement(
                "stale",
                f"The last {what} ({last.outcome}) came before the last edit of "
                f"{_shown_path(edit)}.",
                (last.step, edit.step),
            ),
        )
    if any(edit.is_code is None for edit in edits) and not checks:
        return Judgement("not_checkable", "File names and commands are redacted.")
    reason = f"The last {what} could not be started." if checks else f"No {what} was seen before."
    steps = (checks[-1].step,) if checks else ()
    return unless_gap(evidence, 0, position, Judgement("unverified", reason, steps))


def _judge_recent(
    claim: Claim,
    statement: Statement,
    evidence: SessionEvidence,
    checks: Sequence[Check],
    recent: Sequence[Check],
    edits: Sequence[FileEdit],
) -> Judgement:
    position = statement.position
    what = _KIND_WORDS.get(claim.kind, "check")
    latest = recent[-1]
    passed = [check for check in recent if check.outcome == "passed"]
    after = [edit for edit in edits if edit.position > latest.position]
    unknown_edit = any(edit.is_code is None for edit in after)
    if latest.outcome == "failed":
        if admits_failures(statement.text):
            return Judgement("not_checkable", "The same message reports failures.", (latest.step,))
        doubt = _doubt_of_failure(claim, latest, passed, evidence)
        if doubt:
            return Judgement("not_checkable", doubt, (latest.step,))
        if any(edit.is_code is not False for edit in after):
            return Judgement("not_checkable", "A file was edited after the run.")
        return unless_gap(
            evidence,
            latest.position,
            position,
            Judgement("contradicted", f"The last {what} failed{_counted(latest)}.", (latest.step,)),
        )
    if latest.outcome == "empty" and not passed:
        return unless_gap(
            evidence,
            0,
            position,
            Judgement("unverified", "The last test run found no tests.", (latest.step,)),
        )
    if not passed:
        if latest.outcome == "unknown" or any(check.outcome == "failed" for check in recent):
            return Judgement("not_checkable", f"The result of the last {what} was not seen.")
        reason = (
            f"The last {what} could not be started."
            if latest.outcome == "absent"
            else f"The command line hides the result of the last {what}."
        )
        return unless_gap(evidence, 0, position, Judgement("unverified", reason, (latest.step,)))
    if unknown_edit:
        return Judgement("not_checkable", "An unknown file was edited after the run.")
    return _judge_passed(claim, statement, evidence, checks, recent, passed)


def _doubt_of_failure(
    claim: Claim, latest: Check, passed: Sequence[Check], evidence: SessionEvidence
) -> str:
    """Why the failed run may not be what the claim speaks of; "" if it is."""
    counts = latest.counts
    ran = counts.passed + counts.failed if counts and counts.passed is not None else None
    if claim.total and claim.count is not None and claim.count == ran:
        return ""  # it is of this very run
    if counts and claim.count is not None and claim.count == counts.passed and not claim.total:
        return "So many tests passed, and others failed."
    if claim.qualified and passed:
        return "One run passed and another failed."
    if claim.kind in ("lint", "types", "build") and any(
        check.runner != latest.runner for check in passed
    ):
        return "One run passed and another failed."
    if claim.kind == "lint" and is_formatter(latest.runner) and not claim.scope:
        return "Only the formatting was found wanting."
    if claim.scope and not fits(latest, claim):
        return "The run that failed may be of others than the claim names."
    whole_with_passes = not latest.subset and counts and counts.passed
    if claim.qualified and not claim.scope and whole_with_passes:
        return "The failures may be of others than the claim names."
    if "existing" in claim.scope and any(
        edit.path and "test" in edit.path.lower() and edit.applied for edit in evidence.edits
    ):
        return "The failures may be of tests that are new."
    return ""


def _is_apart(edit: FileEdit, agent_id: str) -> bool:
    """Did another agent write it in a work tree of its own?"""
    return edit.step.agent_id != agent_id and "worktrees/" in (edit.path or "")


def _unless_doubtful(
    claim: Claim,
    statement: Statement,
    evidence: SessionEvidence,
    checks: Sequence[Check],
    judged: Judgement,
) -> Judgement:
    """``judged``, a verdict against the claim, unless there is reason to doubt it."""
    position = statement.position
    started = [check for check in checks if check.outcome != "absent"]
    after = started[-1].position if started else 0
    if judged.verdict in ("stale", "contradicted", "unverified"):
        if tells_how_it_was_run(statement.text):
            return Judgement("not_checkable", "The message says how it was run.", judged.steps)
        if evidence.has_maybe_check(after, position):
            return Judgement("not_checkable", "A later command may have run it.", judged.steps)
        if _is_borne_out_otherwise(claim, evidence, after, position):
            return Judgement("not_checkable", "A later run of another kind bears it out.")
    if statement.agent_id and any(
        step.agent_id != statement.agent_id for step in judged.steps[-1:]
    ):
        return Judgement("not_checkable", "Another agent did it meanwhile.", judged.steps)
    if judged.verdict != "stale":
        return judged
    since = [
        edit
        for edit in evidence.edits
        if after < edit.position < position and edit.applied and can_change(edit, started[-1])
    ]
    good = max((check.position for check in started if check.outcome == "passed"), default=after)
    since_good = [
        edit
        for edit in evidence.edits
        if good < edit.position < position and edit.applied and edit.is_code
    ]
    thrown_away = any(
        action.verb == "revert" and since and action.step is since[-1].step
        for action in evidence.git_actions
    ) and any(
        action.verb == "commit" and after < action.position < since[0].position
        for action in evidence.git_actions
    )
    if thrown_away or cancel_out(since) or cancel_out(since_good):
        return Judgement("not_checkable", "The edits since were turned back.", judged.steps)
    place = place_of(started[-1])
    if place and not any(place[-1] in (edit.path or place[-1]) for edit in since):
        return (
            Judgement("narrow", "Only a part of the tests was run.", judged.steps)
            if claim.total
            else Judgement("not_checkable", "The edits since were elsewhere.", judged.steps)
        )
    modules = [word for word in claim.scope if word not in _SUITES]
    if modules and not any(
        word.rsplit("/", 1)[-1].split(".")[0] in (edit.path or "").lower()
        for word in modules
        for edit in since
    ):
        return Judgement("not_checkable", "The edits since were of other files.", judged.steps)
    return judged


_SUITES = frozenset((
    "unit", "integration", "e2e", "functional", "backend", "smoke", "acceptance", "snapshot",
    "existing", "pytest", "unittest", "jest", "vitest", "go", "cargo", "python", "rust", "ruff",
    "eslint", "mypy", "tsc", "pyright", "clippy", "golangci-lint", "biome", "flake8",
))  # fmt: skip


def _is_borne_out_otherwise(
    claim: Claim, evidence: SessionEvidence, after: int, position: int
) -> bool:
    """A build by tests of compiled code or by a type check, types by a build."""
    kinds = {"build": ("tests", "types"), "types": ("build",)}.get(claim.kind, ())
    return any(
        after < check.position < position
        and check.outcome == "passed"
        and check.kind in kinds
        and (check.kind != "tests" or check.runner.startswith(_COMPILES))
        for check in evidence.checks
    )


def _hooks_passed(position: int, evidence: SessionEvidence) -> bool:
    commits = [
        action
        for action in evidence.git_actions
        if action.verb == "commit" and action.position < position
    ]
    return bool(
        commits
        and commits[-1].succeeded
        and not {"--no-verify", "-n"} & set((commits[-1].step.command or "").split())
    )


def _judge_passed(
    claim: Claim,
    statement: Statement,
    evidence: SessionEvidence,
    checks: Sequence[Check],
    recent: Sequence[Check],
    passed: Sequence[Check],
) -> Judgement:
    position = statement.position
    best = passed[-1]
    open_failures = [
        check
        for check in recent
        if check.outcome == "failed"
        and not any(
            later.position > check.position
            and (
                later.step.command == check.step.command
                or (
                    not later.subset
                    and later.runner == check.runner
                    and place_of(later) in ((), place_of(check))
                )
            )
            for later in passed
        )
    ]
    steps = (best.step,)
    if claim.count is not None and claim.kind == "tests":
        counted = _judge_count(claim.count, checks, passed, best)
        if counted is not None:
            return unless_gap(evidence, best.position, position, counted)
        if not open_failures:
            return Judgement("supported", f"The last test run passed{_counted(best)}.", steps)
    whole = [check for check in passed if not check.subset]
    if (claim.total or claim.kind == "all_checks") and (open_failures or not whole):
        if open_failures and _LEAVES_OUT.search(best.step.command or ""):
            failed = open_failures[-1]
            if admits_failures(statement.text) or _TELLS_OF_LEFT_OUT.search(statement.text):
                return Judgement("not_checkable", "The message says what was left out.")
            return unless_gap(
                evidence,
                failed.position,
                position,
                Judgement(
                    "contradicted",
                    f"The last whole run failed{_counted(failed)}; the one after it left tests"
                    f" out.",
                    (failed.step, best.step),
                ),
            )
        reason = (
            "Another run failed and was not repeated."
            if open_failures
            else "Only a part of the tests was run."
        )
        shown = (open_failures[-1].step, best.step) if open_failures else steps
        return unless_gap(evidence, 0, position, Judgement("narrow", reason, shown))
    return Judgement(
        "supported", f"The last {_KIND_WORDS[best.kind]} passed{_counted(best)}.", steps
    )


def _judge_count(
    count: int, checks: Sequence[Check], passed: Sequence[Check], best: Check
) -> Judgement | None:
    """A verdict against the number claimed, or ``None`` if it can be right."""
    numbers = [check.counts for check in passed]
    known = [counts.passed for counts in numbers if counts and counts.passed is not None]
    if len(known) < len(numbers) or not known:
        return None
    possible = set(known) | {sum(known)}
    for counts in numbers:
        if counts and counts.passed is not None:
            possible.add(counts.passed + counts.skipped)
    if count in possible:
        return None
    reason = f"The run shows {best.counts.passed if best.counts else 0} passed, not {count}."
    if not best.in_full_view:
        return None
    if len(checks) == 1 and count > max(possible):
        return Judgement("contradicted", reason, (best.step,))
    return None if count < max(possible) else Judgement("unverified", reason, (best.step,))


def _counted(check: Check) -> str:
    counts = check.counts
    if counts is None:
        return ""
    if counts.failed:
        return f" ({counts.failed} failed)"
    return f" ({counts.passed} passed)" if counts.passed is not None else ""


def _shown_path(edit: FileEdit) -> str:
    if not edit.path or edit.path in (".", "patch"):
        return "the files"
    name = "".join(char for char in edit.path if char.isprintable())
    return name.rsplit("/", 1)[-1][:80]
