"""What the API, the command line and the pages read about optimization runs.

A part of the organization sees the runs that searched nothing but its own sessions: those limited
to repositories in which no session of another part began. What was estimated over all sessions, to
see what such a policy means for the whole, is not shown to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from loop.access.view import View
from loop.domain.errors import NotFound
from loop.domain.estimates import PolicyEstimate
from loop.domain.runs import OptimizationRun, Trial
from loop.lake import Lake
from loop.service.assemble import Parts
from loop.service.policy_readings import concerns, policy_words
from optimizers.length_uses import describe_lengths

_OWN_REPOSITORIES = """
    WITH began AS (
        SELECT arg_min(repository, started_at_us) AS repository, bool_and({condition}) AS is_own
        FROM turns GROUP BY session_id
    )
    SELECT repository FROM began GROUP BY repository HAVING bool_and(is_own)"""
_OUTCOMES = {"running": "Searching.", "failed": "The search failed."}


def list_runs(parts: Parts, view: View) -> dict[str, Any]:
    """The newest first."""
    runs = parts.runs.list()
    if not view.sees_all:
        own = _own_repositories(parts.lake, view)
        runs = tuple(_part_of(run) for run in runs if _lies_in(run, own, view))
    return {"rows": [run_row(run) for run in runs], "next": None}


def show_run(parts: Parts, run_id: str, view: View) -> dict[str, Any]:
    """Raises :class:`NotFound`, also for a run that is no concern of the view's."""
    run = parts.runs.load(run_id)
    if not view.sees_all:
        if not _lies_in(run, _own_repositories(parts.lake, view), view):
            raise NotFound(f"There is no optimization run {run_id!r}.")
        run = _part_of(run)
    proposed = [
        version.version for version in parts.versions.list_versions() if version.run_id == run_id
    ]
    return {
        **run_row(run),
        "seed": run.seed,
        "settings": dict(run.settings),
        "importance": dict(run.importance),
        "spent_usd": run.spent_usd,
        "table_versions": dict(run.table_versions),
        "tombstones": list(run.tombstones),
        "incumbent": run.incumbent.to_document(),
        "found": run.found.to_document() if run.found else None,
        "found_words": policy_words(run.found) if run.found else [],
        "selection": estimate_row(run.selection),
        "test": estimate_row(run.test),
        "trials": [trial_row(trial) for trial in run.trials],
        "proposed_version": proposed[0] if proposed else None,
        "is_part": not view.sees_all,
    }


def _own_repositories(lake: Lake, view: View) -> frozenset[str]:
    """Where no session began that another part is charged for."""
    condition, parameters = view.condition()
    rows = lake.query(_OWN_REPOSITORIES.format(condition=condition), parameters)
    return frozenset(row["repository"] for row in rows)


def _lies_in(run: OptimizationRun, own: frozenset[str], view: View) -> bool:
    searched = _repositories(run.settings)
    policies = [run.incumbent, *([run.found] if run.found else ())]
    return bool(searched) and own.issuperset(searched) and all(concerns(p, view) for p in policies)


def _repositories(settings: Mapping[str, Any]) -> list[str]:
    scope = settings.get("scope")
    return list(scope["repositories"]) if scope else []


def _part_of(run: OptimizationRun) -> OptimizationRun:
    """Without what tells of other sessions: its words and estimates name the saving on all, its
    scope the cluster that led to it, its tables' versions and erasures what else was written."""
    found = "Found a policy." if run.found else "No better policy found."
    return replace(
        run,
        outcome=_OUTCOMES.get(run.state, found),
        settings={**run.settings, "scope": {"repositories": _repositories(run.settings)}},
        table_versions={},
        tombstones=(),
        selection=None,
        test=None,
    )


def run_row(run: OptimizationRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "state": run.state,
        "started_at_us": run.started_at_us,
        "finished_at_us": run.finished_at_us,
        "outcome": run.outcome,
        "trials_done": len(run.trials),
    }


def trial_row(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "parameters": dict(trial.parameters),
        "policy": trial.policy.to_document(),
        "words": policy_words(trial.policy),
        "saving_share": trial.saving_share,
        "quality_difference_low": trial.quality_difference_low,
        "feasible": trial.feasible,
        "on_front": trial.on_front,
    }


def estimate_row(estimate: PolicyEstimate | None) -> dict[str, Any] | None:
    """The estimate with its two derived shares; ``None`` stays ``None``."""
    if estimate is None:
        return None
    return asdict(estimate) | {
        "saving_share": estimate.saving_share,
        "calibration_residual": estimate.calibration_residual,
        "length_words": describe_lengths(estimate.output_lengths),
    }
