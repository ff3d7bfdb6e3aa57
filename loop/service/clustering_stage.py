"""Clusters the low-scoring sessions anew, keeping the ids of the clusters that are still there.

Sessions are described (``profiles``) when they are scored, or here, a batch of traces at a time,
where that was not done or was done by older code; a clustering reads the descriptions. So a run
costs what is new plus some seconds, and holds no traces of more than one batch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from evaluators.policy_contrast import Routed
from evaluators.session_clusters import Clustering, ProfiledSession, cluster_sessions
from evaluators.session_features import PROFILE_VERSION, profile_session
from loop.control.stage_progress import StageLog
from loop.domain.clusters import SessionProfile
from loop.domain.scores import QUALITY, Score
from loop.lake import Lake
from loop.lake.cluster_table import to_profile

MAX_SESSIONS = 50_000
"""Bounds memory and time: of more, the newest are clustered."""
SESSIONS_PER_BATCH = 500
PROFILES_PER_COMMIT = 2_000
_UNPROFILED = f"""
    SELECT scores.session_id FROM scores LEFT JOIN profiles USING (session_id)
    WHERE scores.evaluator = '{QUALITY}' AND scores.value IS NOT NULL
    AND scores.session_id IN (SELECT unnest(?))
    AND (profiles.profile_version IS DISTINCT FROM ?
        OR profiles.scored_at_us IS DISTINCT FROM scores.scored_at_us)"""  # noqa: S608
_WINDOW = f"""
    WITH newest AS (
        SELECT
            session_id,
            min(day) AS first_day,
            CAST(sum(cost_microusd) AS BIGINT) AS cost_microusd,
            arg_min(repository, started_at_us) AS repository,
            mode(coalesce(nullif(served_model, ''), requested_model)) AS model,
            arg_min(policy_serial, started_at_us)
                FILTER (policy_serial IS NOT NULL AND policy_version IS NOT NULL) AS serial,
            arg_min(policy_version, started_at_us)
                FILTER (policy_serial IS NOT NULL AND policy_version IS NOT NULL) AS policy_version
        FROM turns GROUP BY session_id
        ORDER BY max(started_at_us) DESC, session_id LIMIT ?)
    SELECT newest.*, scores.value AS quality FROM newest JOIN scores USING (session_id)
    WHERE scores.evaluator = '{QUALITY}' ORDER BY first_day, session_id"""  # noqa: S608
_KINDS = ("prompt", "tool_input")
"""The texts that a profile is made from; what tools returned is most of a session's bytes."""


def cluster_low_scoring(
    lake: Lake,
    stage_log: StageLog,
    *,
    seed: int = 0,
    max_sessions: int = MAX_SESSIONS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Clustering:
    """Describes what was scored since, clusters the newest scored sessions, stores the result.

    Clusters have the names that they had, if any (:mod:`loop.service.cluster_naming`).
    """
    revision = stage_log.read("evaluate").revision
    rows = lake.query(_WINDOW, [max_sessions])
    profile_new(lake, [row["session_id"] for row in rows], on_progress)
    now_us = time.time_ns() // 1000
    found = cluster_sessions(
        _read_window(lake, rows), previous=lake.latest_clusters(), seed=seed, clustered_at_us=now_us
    )
    lake.write_clusters(found.clusters)
    stage_log.record(
        "cluster", revision=revision, at_us=now_us, done=len(found.clusters), note=_note(found)
    )
    return found


def profile_new(
    lake: Lake,
    session_ids: list[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Describes those of the sessions whose scores are newer than their profile; how many.

    Sessions of one day should stand together in ``session_ids``: then files are read once.
    """
    rows = lake.query(_UNPROFILED, [session_ids, PROFILE_VERSION])
    unprofiled = {row["session_id"] for row in rows}
    wanted = [session_id for session_id in session_ids if session_id in unprofiled]
    made: list[SessionProfile] = []
    for start in range(0, len(wanted), SESSIONS_PER_BATCH):
        batch = wanted[start : start + SESSIONS_PER_BATCH]
        scores: dict[str, list[Score]] = defaultdict(list)
        for score in lake.scores_of(batch):
            scores[score.session_id].append(score)
        now_us = time.time_ns() // 1000
        for trace in lake.load_traces(batch, _KINDS):
            made.append(profile_session(trace, scores[trace.session_id], profiled_at_us=now_us))
        if len(made) >= PROFILES_PER_COMMIT:
            lake.write_profiles(made)
            made = []
        on_progress(start + len(batch), len(wanted))
    if made:
        lake.write_profiles(made)
    return len(wanted)


def _read_window(lake: Lake, rows: list[dict[str, Any]]) -> list[ProfiledSession]:
    ids = [row["session_id"] for row in rows]
    profiles = {
        row["session_id"]: to_profile(row)
        for row in lake.query(
            "SELECT * FROM profiles WHERE session_id IN (SELECT unnest(?))", [ids]
        )
    }
    nothing = SessionProfile("", PROFILE_VERSION, 0, ())
    return [
        ProfiledSession(
            profile=profiles.get(row["session_id"], nothing),
            quality=row["quality"] if row["session_id"] in profiles else None,
            cost_microusd=row["cost_microusd"] or 0,
            repository=row["repository"],
            model=row["model"],
            routed=Routed(row["serial"], row["policy_version"])
            if row["serial"] is not None
            else None,
        )
        for row in rows
    ]


def _note(found: Clustering) -> str:
    groups = [cluster for cluster in found.clusters if cluster.kind == "group"]
    changed = ", ".join(
        f"{count} {word}"
        for word, count in (
            ("new", sum(c.state in ("new", "split") for c in groups)),
            ("gone", sum(c.kind == "group" for c in found.gone)),
        )
        if count
    )
    note = (
        f"{len(groups)} clusters of {found.low:,} low-scoring of {found.scored:,} scored sessions"
    )
    return f"{note}; {changed}" if changed else note
