"""Clusters the low-scoring sessions anew, keeping the ids of the clusters that are still there."""

from __future__ import annotations

import time

from evaluators.session_clusters import cluster_sessions
from evaluators.session_features import ScoredSession
from loop.control.stage_progress import StageLog
from loop.domain.clusters import SessionCluster
from loop.domain.scores import Score
from loop.lake import Lake

MAX_SESSIONS = 20_000
"""Bounds memory and time: of more, the newest are clustered."""


def cluster_low_scoring(lake: Lake, stage_log: StageLog, *, seed: int = 0) -> list[SessionCluster]:
    """Reads the newest scored sessions, clusters those that went badly, and stores the result."""
    rows = lake.query(
        "SELECT session_id, CAST(sum(cost_microusd) AS BIGINT) AS cost_microusd FROM turns "
        "GROUP BY session_id ORDER BY max(started_at_us) DESC LIMIT ?",
        [MAX_SESSIONS],
    )
    costs = {row["session_id"]: row["cost_microusd"] or 0 for row in rows}
    scores: dict[str, list[Score]] = {}
    for score in lake.scores_of(list(costs)):
        scores.setdefault(score.session_id, []).append(score)
    sessions = [
        ScoredSession(trace, tuple(scores.get(trace.session_id, ())), costs[trace.session_id])
        for trace in lake.load_traces(list(costs))
    ]
    now_us = time.time_ns() // 1000
    clusters = cluster_sessions(
        sessions, previous=lake.latest_clusters(), seed=seed, clustered_at_us=now_us
    )
    lake.write_clusters(clusters)
    stage_log.record(
        "cluster",
        revision=stage_log.read("evaluate").revision,
        at_us=now_us,
        done=len(clusters),
        note=f"{len(clusters)} clusters of {sum(len(c.session_ids) for c in clusters)} sessions",
    )
    return clusters
