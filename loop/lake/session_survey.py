"""What is stored of sessions, without reading their texts: how much, and whether it has changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from loop.lake.data_files import DataFile
from loop.lake.queries import LakeQueries, to_rows

_SURVEY = """
    WITH asked AS (
        SELECT session_id, min(day) AS day, count(*) AS turns,
            sum(hash(turn_id, started_at_us, ended_at_us, sequence, agent_id, request_class, status,
                attempts, stop_reason, requested_model, served_model, repository, client_version,
                input_tokens, output_tokens, cache_read_tokens, cache_creation_5m_tokens,
                cache_creation_1h_tokens, tool_calls)) AS total
        FROM turns GROUP BY session_id
    ), told AS (
        SELECT session_id, min(day) AS day, sum(chars) AS chars,
            sum(hash(turn_id, kind, tool_use_id, at_us, sequence, state, source, digest)) AS total
        FROM contents GROUP BY session_id
    )
    SELECT session_id, least(asked.day, told.day) AS day,
        CAST(coalesce(turns, 0) AS BIGINT) AS turns, CAST(coalesce(chars, 0) AS BIGINT) AS chars,
        concat(asked.total, ' ', told.total) AS digest
    FROM asked FULL JOIN told USING (session_id)"""
"""The digest is over what an evaluator may read (``evaluators.contract``): neither prices nor who
is charged. Sums of hashes need no order. DuckDB's hash may change with its version: then sessions
are read once more, and not judged again."""


@dataclass(frozen=True, slots=True)
class SessionRows:
    """What is stored of a session, without its texts. ``digest`` changes with whatever an evaluator
    may read of it, and not with prices or who is charged."""

    session_id: str
    day: str  # the first
    turns: int
    chars: int  # of all texts, as their sources state it
    digest: str


def survey(
    queries: LakeQueries, session_ids: Collection[str], files: Mapping[str, Sequence[DataFile]]
) -> list[SessionRows]:
    """Of the sessions that have turns or texts, in the given order."""
    rows = queries.run(_SURVEY, files=files, sessions=session_ids)
    by_id = {row["session_id"]: SessionRows(**row) for row in to_rows(rows)}
    return [by_id[session_id] for session_id in session_ids if session_id in by_id]
