"""Estimates: what candidate policies would have done, by the run that asked."""

from __future__ import annotations

import time
from typing import Any

from loop.domain.estimates import Interval, PolicyEstimate, QualityEstimate, RuleReach
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_rows
from loop.lake.rows import plain, to_arrow
from loop.lake.schemas import ESTIMATES, INTERVAL, RULE_REACH

_QUALITY = ("snips", "sessions", "effective_sample_size", "support")
_INTERVALS = ("value", "difference")
_FIELDS = tuple(
    name
    for name in ESTIMATES.record_names()
    if name not in ("day", "run_id", "estimated_at_us", "reach") and not name.startswith("quality_")
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
    quality = estimate.quality
    row = plain(estimate, _FIELDS) | {f"quality_{n}": getattr(quality, n) for n in _QUALITY}
    for name in _INTERVALS:
        interval = getattr(quality, name)
        names = [field.name for field in INTERVAL]
        row[f"quality_{name}"] = None if interval is None else plain(interval, names)
    return row | {
        "run_id": run_id,
        "estimated_at_us": time.time_ns() // 1000,
        "reach": [plain(reach, [field.name for field in RULE_REACH]) for reach in estimate.reach],
        "quality_refusals": list(quality.refusals),
    }


def _to_estimate(row: dict[str, Any]) -> PolicyEstimate:
    intervals: dict[str, Any] = {}
    for name in _INTERVALS:
        interval = row[f"quality_{name}"]
        intervals[name] = None if interval is None else Interval(**interval)
    quality = QualityEstimate(
        **intervals,
        **{name: row[f"quality_{name}"] for name in _QUALITY},
        refusals=tuple(row["quality_refusals"]),
    )
    return PolicyEstimate(
        **{name: row[name] for name in _FIELDS},
        reach=tuple(RuleReach(**reach) for reach in row["reach"]),
        quality=quality,
    )
