"""Estimates: what candidate policies would have done, by the run that asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loop.domain.estimates import (
    Interval,
    OutcomeEstimate,
    PolicyEstimate,
    RuleReach,
    SliceEstimate,
)
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_rows
from loop.lake.rows import plain, to_arrow
from loop.lake.schemas import ESTIMATES, OUTCOME

_QUALITY = tuple(field.name for field in OUTCOME)
_NESTED = ("reach", "session_cost_usd", "session_wait_seconds", "slices")
_FIELDS = tuple(
    name
    for name in ESTIMATES.record_names()
    if name not in ("day", "run_id", "estimated_at_us", *_NESTED)
    and not name.startswith("quality_")
)


class EstimateTable:
    """The only writer of ``estimates``."""

    def __init__(self, log: DeltaLog, queries: LakeQueries) -> None:
        self._log = log
        self._queries = queries

    def write(self, run_id: str, estimate: PolicyEstimate) -> None:
        self._log.append(to_arrow(ESTIMATES, [_to_row(run_id, estimate)]))

    def of_run(self, run_id: str) -> list[PolicyEstimate]:
        """The run's estimates in the order they were stored."""
        table = self._queries.run(
            "SELECT * FROM estimates WHERE run_id = ? ORDER BY estimated_at_us, policy_digest",
            [run_id],
        )
        return [_to_estimate(row) for row in to_rows(table)]


def _to_row(run_id: str, estimate: PolicyEstimate) -> dict[str, Any]:
    document = asdict(estimate)
    quality = document["quality"]
    return (
        plain(estimate, _FIELDS)
        | {name: document[name] for name in _NESTED}
        | {f"quality_{name}": quality[name] for name in _QUALITY}
        | {"run_id": run_id, "estimated_at_us": time.time_ns() // 1000}
    )


def _to_estimate(row: dict[str, Any]) -> PolicyEstimate:
    return PolicyEstimate(
        **{name: row[name] for name in _FIELDS},
        reach=tuple(RuleReach(**reach) for reach in row["reach"]),
        quality=_outcome({name: row[f"quality_{name}"] for name in _QUALITY}),
        session_cost_usd=_known(row["session_cost_usd"]),
        session_wait_seconds=_known(row["session_wait_seconds"]),
        slices=tuple(_slice(item) for item in row["slices"] or ()),
    )


def _known(row: Mapping[str, Any] | None) -> OutcomeEstimate | None:
    return None if row is None else _outcome(row)


def _outcome(row: Mapping[str, Any]) -> OutcomeEstimate:
    found = {name: _interval(row[name]) for name in ("value", "difference")}
    # Rows of version 1 have no largest weight.
    weight = {"largest_weight": row["largest_weight"] or 0.0}
    return OutcomeEstimate(**{**row, **found, **weight, "refusals": tuple(row["refusals"])})


def _slice(row: Mapping[str, Any]) -> SliceEstimate:
    return SliceEstimate(**{**row, "difference": _interval(row["difference"])})


def _interval(row: Mapping[str, Any] | None) -> Interval | None:
    return None if row is None else Interval(**row)
