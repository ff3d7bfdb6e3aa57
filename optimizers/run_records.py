"""Optimization runs in the control store. This module is the only writer of its two tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Integer,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from loop.control.store import metadata
from loop.domain.errors import Conflict, NotFound
from loop.domain.estimates import (
    Interval,
    LengthRatio,
    OutcomeEstimate,
    PolicyEstimate,
    RuleReach,
    SliceEstimate,
)
from loop.domain.policies import RoutingPolicy, canonical_json
from loop.domain.policy_documents import parse_policy
from loop.domain.runs import OptimizationRun, Trial

runs = Table(
    "optimization_runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("started_at_us", BigInteger, nullable=False, index=True),
    Column("finished_at_us", BigInteger),
    Column("seed", BigInteger, nullable=False),
    Column("incumbent", Text, nullable=False),  # a policy document
    Column("table_versions", Text, nullable=False),
    Column("found", Text),  # a policy document
    Column("outcome", Text, nullable=False),
    Column("selection", Text),  # an estimate
    Column("test", Text),  # an estimate
    Column("tombstones", Text),  # ids of the erasures that took what it read, as a JSON list
    Column("settings", Text),
    Column("importance", Text),
    Column("spent_usd", Float),
    Column("options", Text),  # what was asked for; whoever goes on with the run needs it
    Column("alive_at_us", BigInteger),  # when its process last said that it works on it
)
trials = Table(
    "optimization_trials",
    metadata,
    Column(
        "run_id", String(64), ForeignKey("optimization_runs.run_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("number", Integer, primary_key=True),
    Column("parameters", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("saving_share", Float, nullable=False),
    Column("quality_difference_low", Float),
    Column("feasible", Boolean, nullable=False),
    Column("on_front", Boolean, nullable=False),
)  # fmt: skip


SILENT_US = 60_000_000
"""How long a search may say nothing before another process goes on with it."""
_OUTCOMES = ("quality", "session_cost_usd", "session_wait_seconds")


class RunRecords:
    """Saves and loads :class:`OptimizationRun` records; a finished run is never changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def save(self, run: OptimizationRun) -> None:
        """Stores a run, or a later state of a running one.

        Raises :class:`Conflict` when the stored run has ended and differs.
        """
        rows = [_trial_row(run.run_id, trial) for trial in run.trials]
        with self._engine.begin() as connection:
            stored = connection.execute(
                select(runs.c.state).where(runs.c.run_id == run.run_id)
            ).scalar_one_or_none()
            if stored not in (None, "running"):
                known = _load(connection, run.run_id)
                if known == run:
                    return
                raise Conflict(f"The run {run.run_id} has {stored}; it can't be changed.")
            if stored is None:
                connection.execute(insert(runs).values(**_run_row(run)))
            else:
                mine = runs.c.run_id == run.run_id
                connection.execute(update(runs).where(mine).values(**_run_row(run)))
                connection.execute(delete(trials).where(trials.c.run_id == run.run_id))
            if rows:
                connection.execute(insert(trials), rows)

    def load(self, run_id: str) -> OptimizationRun:
        """The run with its trials; raises :class:`NotFound`."""
        with self._engine.begin() as connection:
            run = _load(connection, run_id)
        if run is None:
            raise NotFound(f"There is no optimization run {run_id!r}.")
        return run

    def begin(self, run: OptimizationRun, options: Mapping[str, Any], at_us: int) -> None:
        """Stores a run that is about to be searched, with what was asked for."""
        self.save(run)
        with self._engine.begin() as connection:
            connection.execute(
                update(runs)
                .where(runs.c.run_id == run.run_id)
                .values(options=canonical_json(dict(options)), alive_at_us=at_us)
            )

    def mark_alive(self, run_id: str, at_us: int) -> None:
        """Notes that a process works on the run."""
        with self._engine.begin() as connection:
            connection.execute(
                update(runs).where(runs.c.run_id == run_id).values(alive_at_us=at_us)
            )

    def is_any_silent(self, at_us: int) -> bool:
        """Whether some running run has not been marked alive for :data:`SILENT_US`."""
        with self._engine.begin() as connection:
            return (
                connection.execute(select(runs.c.run_id).where(_silent(at_us))).first() is not None
            )

    def take_over(self, at_us: int) -> tuple[str, Mapping[str, Any]] | None:
        """A run that is silent, now the caller's, with what was asked for; of two that ask at
        once, one gets it."""
        silent = _silent(at_us)
        with self._engine.begin() as connection:
            row = connection.execute(
                select(runs.c.run_id, runs.c.options, runs.c.alive_at_us).where(silent).limit(1)
            ).one_or_none()
            if row is None:
                return None
            unchanged = (runs.c.run_id == row.run_id) & (runs.c.alive_at_us == row.alive_at_us)
            taken = connection.execute(update(runs).where(unchanged).values(alive_at_us=at_us))
            return (row.run_id, json.loads(row.options)) if taken.rowcount else None

    def add_tombstone(self, run_id: str, erasure_id: str) -> None:
        """Notes that an erasure took rows which the run has read; again changes nothing."""
        with self._engine.begin() as connection:
            where = runs.c.run_id == run_id
            text = connection.execute(select(runs.c.tombstones).where(where)).scalar_one()
            known = set(json.loads(text or "[]")) | {erasure_id}
            connection.execute(
                update(runs).where(where).values(tombstones=json.dumps(sorted(known)))
            )

    def list(self, limit: int = 100) -> tuple[OptimizationRun, ...]:
        """The latest runs, newest first, without their trials."""
        query = select(runs).order_by(runs.c.started_at_us.desc(), runs.c.run_id).limit(limit)
        with self._engine.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(_run(dict(row), ()) for row in rows)


def _silent(at_us: int) -> Any:
    return (runs.c.state == "running") & (runs.c.alive_at_us < at_us - SILENT_US)


def estimate_document(estimate: PolicyEstimate) -> dict[str, Any]:
    """The estimate as plain JSON data, derived figures included."""
    return asdict(estimate) | {
        "saving_share": estimate.saving_share,
        "calibration_residual": estimate.calibration_residual,
    }


def read_estimate(document: Mapping[str, Any]) -> PolicyEstimate:
    """The inverse of :func:`estimate_document`."""
    parts = dict(document)
    for derived in ("saving_share", "calibration_residual"):
        parts.pop(derived, None)
    for name in _OUTCOMES:
        parts[name] = _read_outcome(parts.get(name))
    parts["reach"] = tuple(RuleReach(**item) for item in parts["reach"])
    parts["output_lengths"] = tuple(
        LengthRatio(**dict(item) | {"sessions": tuple(item["sessions"])})
        for item in parts.get("output_lengths", ())
    )
    parts["slices"] = tuple(_read_slice(item) for item in parts.get("slices", ()))
    return PolicyEstimate(**parts)


def _read_outcome(document: Mapping[str, Any] | None) -> OutcomeEstimate | None:
    if document is None:
        return None
    parts = dict(document)
    for name in ("value", "difference"):
        parts[name] = Interval(**parts[name]) if parts[name] else None
    return OutcomeEstimate(**parts | {"refusals": tuple(parts["refusals"])})


def _read_slice(document: Mapping[str, Any]) -> SliceEstimate:
    difference = document["difference"]
    return SliceEstimate(
        **dict(document) | {"difference": Interval(**difference) if difference else None}
    )


def _load(connection: Any, run_id: str) -> OptimizationRun | None:
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).mappings().one_or_none()
    if row is None:
        return None
    query = select(trials).where(trials.c.run_id == run_id).order_by(trials.c.number)
    found = connection.execute(query).mappings().all()
    return _run(dict(row), tuple(_trial(dict(item)) for item in found))


def _run_row(run: OptimizationRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "state": run.state,
        "started_at_us": run.started_at_us,
        "finished_at_us": run.finished_at_us,
        "seed": run.seed,
        "incumbent": run.incumbent.to_json(),
        "table_versions": canonical_json(dict(run.table_versions)),
        "found": run.found.to_json() if run.found else None,
        "outcome": run.outcome,
        "selection": _estimate_text(run.selection),
        "test": _estimate_text(run.test),
        "tombstones": json.dumps(sorted(run.tombstones)),
        "settings": canonical_json(dict(run.settings)),
        "importance": canonical_json(dict(run.importance)),
        "spent_usd": run.spent_usd,
    }


def _run(row: dict[str, Any], its_trials: tuple[Trial, ...]) -> OptimizationRun:
    return OptimizationRun(
        run_id=row["run_id"],
        state=row["state"],
        started_at_us=row["started_at_us"],
        finished_at_us=row["finished_at_us"],
        seed=row["seed"],
        incumbent=_policy(row["incumbent"]),
        table_versions=json.loads(row["table_versions"]),
        trials=its_trials,
        found=_policy(row["found"]) if row["found"] else None,
        outcome=row["outcome"],
        selection=_estimate(row["selection"]),
        test=_estimate(row["test"]),
        tombstones=tuple(json.loads(row["tombstones"] or "[]")),
        settings=json.loads(row["settings"] or "{}"),
        importance=json.loads(row["importance"] or "{}"),
        spent_usd=row["spent_usd"] or 0.0,
    )


def _trial_row(run_id: str, trial: Trial) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "number": trial.number,
        "parameters": canonical_json(dict(trial.parameters)),
        "policy": trial.policy.to_json(),
        "saving_share": trial.saving_share,
        "quality_difference_low": trial.quality_difference_low,
        "feasible": trial.feasible,
        "on_front": trial.on_front,
    }


def _trial(row: dict[str, Any]) -> Trial:
    return Trial(
        number=row["number"],
        parameters=json.loads(row["parameters"]),
        policy=_policy(row["policy"]),
        saving_share=row["saving_share"],
        quality_difference_low=row["quality_difference_low"],
        feasible=row["feasible"],
        on_front=row["on_front"],
    )


def _policy(text: str) -> RoutingPolicy:
    return parse_policy(json.loads(text))


def _estimate_text(estimate: PolicyEstimate | None) -> str | None:
    return canonical_json(estimate_document(estimate)) if estimate else None


def _estimate(text: str | None) -> PolicyEstimate | None:
    return read_estimate(json.loads(text)) if text else None
