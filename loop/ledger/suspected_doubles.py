"""Requests that are probably charged twice: a gateway's span that names neither the session nor an
id of the request, and the client's own report of it.

Spans of another convention that name no session are turns of their own, under ``trace:`` and their
trace's id. One of them is suspected where a turn that the client told of has the same model and the
same tokens of each class (cache writes taken together: gateways don't split them), and began or
ended within :data:`WITHIN_US` of it. Each turn is paired once at most, with the nearest.

Both stay charged: equal counts are likely, not proof, and what is dropped by likelihood can't be
explained to who pays. So the amount is shown, and mended at its source (docs/conventions.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loop.lake import Lake
from loop.lake.rows import day_start_us
from loop.ledger.chargeback import CHARGED_MODEL

WITHIN_US = 5_000_000
CLIENT_SOURCES = ("otlp-log", "otlp-span", "otlp-metric", "transcript", "raw-body")

_CLIENT = f"[{', '.join(repr(source) for source in CLIENT_SOURCES)}]"
_TOLD = f"""
    SELECT session_id, turn_id, day, org_path, sources, started_at_us, ended_at_us, cost_microusd,
        {CHARGED_MODEL} AS model, input_tokens, output_tokens, cache_read_tokens,
        cache_creation_5m_tokens + cache_creation_1h_tokens AS written_tokens
    FROM turns"""  # noqa: S608
_OF_TRACE = "session_id >= 'trace:' AND session_id < 'trace;'"
_DOUBLES = f"""
    WITH traced AS (
        SELECT * FROM ({_TOLD} WHERE {_OF_TRACE} AND NOT list_has_any(sources, {_CLIENT}))
        WHERE {{within}} AND {{only}}
            AND input_tokens + output_tokens + cache_read_tokens + written_tokens > 0
    ), told AS (
        SELECT * FROM ({_TOLD} WHERE NOT ({_OF_TRACE}) AND list_has_any(sources, {_CLIENT}))
        WHERE {{only}}
            AND started_at_us <= (SELECT max(ended_at_us) FROM traced) + {WITHIN_US}
            AND ended_at_us >= (SELECT min(started_at_us) FROM traced) - {WITHIN_US}
    ), pairs AS (
        SELECT traced.*, told.session_id AS of_session_id, told.turn_id AS of_turn_id,
            told.org_path AS of_org_path,
            least(abs(told.started_at_us - traced.started_at_us),
                abs(told.ended_at_us - traced.ended_at_us)) AS apart_us
        FROM traced JOIN told
            USING (model, input_tokens, output_tokens, cache_read_tokens, written_tokens)
        WHERE apart_us <= {WITHIN_US}
    )
    SELECT session_id, turn_id, day, org_path, model, sources, started_at_us, cost_microusd,
        of_session_id, of_turn_id, of_org_path, apart_us
    FROM pairs
    QUALIFY row_number() OVER (PARTITION BY session_id, turn_id
            ORDER BY apart_us, of_session_id, of_turn_id) = 1
        AND row_number() OVER (PARTITION BY of_session_id, of_turn_id
            ORDER BY apart_us, session_id, turn_id) = 1
    ORDER BY started_at_us, session_id, turn_id"""  # noqa: S608


def suspected_doubles(
    lake: Lake,
    since: str | None = None,
    until: str | None = None,
    *,
    only: tuple[str, Sequence[object]] = ("true", ()),
) -> list[dict[str, Any]]:
    """One row for each turn that is probably a second charge, the earliest first.

    ``session_id``, ``turn_id``, ``day``, ``org_path``, ``model``, ``sources`` and
    ``cost_microusd`` are of the turn that a span told of; ``of_session_id``, ``of_turn_id`` and
    ``of_org_path`` of the client's. ``only`` is as for :func:`~loop.ledger.chargeback.spend`, and
    holds for both. Raises :class:`BadInput` for a text that is no day.
    """
    conditions: list[str] = ["true"]
    parameters: list[object] = []
    for day, operator in ((since, ">="), (until, "<")):
        if day is not None:
            day_start_us(day)
            conditions.append(f"day {operator} ?")
            parameters.append(day)
    condition, of_view = only
    return lake.query(
        _DOUBLES.format(within=" AND ".join(conditions), only=condition),
        [*parameters, *of_view, *of_view],
    )
