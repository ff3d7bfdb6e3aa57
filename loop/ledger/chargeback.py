"""Chargeback: what was spent, by developer, session, repository, organization, model or day.

Sums are of integers in 128 bits, so they are exact at every level: the rows of any grouping add up
to the same total.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from loop.domain.errors import BadInput
from loop.lake import Lake
from loop.lake.rows import day_start_us

Grouping = Literal["developer", "session", "repo", "org", "model", "day"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

COLUMN_OF: dict[str, str] = {
    "developer": "developer",
    "session": "session_id",
    "repo": "repository",
    "org": "org_path",
    "model": "model",
    "day": "day",
}
"""The column that a grouping adds to each row."""

TOKEN_COLUMNS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_5m_tokens",
    "cache_creation_1h_tokens",
)
MAX_ORG_LEVEL = 4

SpendRow = dict[str, Any]

_TURNS = """
    SELECT *, coalesce(nullif(served_model, ''), requested_model) AS model,
        1 AS turn_count, CAST(cost_microusd IS NULL AS BIGINT) AS unpriced_count
    FROM turns"""
_CHARGES = "SELECT *, turns AS turn_count, unpriced_turns AS unpriced_count FROM charges"


def spend(
    lake: Lake,
    by: Sequence[str],
    since: str | None = None,
    until: str | None = None,
    *,
    level: int | None = None,
    from_rollup: bool = False,
) -> list[SpendRow]:
    """One row for each group, the dearest first.

    ``by`` names one or more of :data:`GROUPINGS`; none gives one row with the total. ``since`` and
    ``until`` are UTC days (``YYYY-MM-DD``) by which a turn began, the second exclusive. ``level``
    (1 to 4) cuts organization paths to their first levels. ``from_rollup`` reads ``charges``, which
    is as of the last roll-up, in place of the turns.

    A row has the groupings' own columns (:data:`COLUMN_OF`), then ``turns``, the five classes of
    tokens, ``cost_microusd`` and ``unpriced_turns``, all exact integers. ``turns`` counts requests
    whether served or failed; one that failed before any token was used costs 0. Unpriced turns are
    counted, not charged: ``cost_microusd`` is the sum of the priced ones and ``None`` where a group
    has none. The model is the served one, or the requested one when nothing was served.

    Raises :class:`BadInput` for an unknown grouping, day or level.
    """
    columns = _columns(by, level)
    conditions, parameters = ["true"], []
    for day, operator in ((since, ">="), (until, "<")):
        if day is not None:
            day_start_us(day)
            conditions.append(f"day {operator} ?")
            parameters.append(day)
    selected = [f"{expression} AS {name}" for name, expression in columns.items()]
    sums = [
        "coalesce(sum(turn_count), 0) AS turns",
        *(f"coalesce(sum({name}), 0) AS {name}" for name in TOKEN_COLUMNS),
        "CASE WHEN count(*) = 0 THEN 0 ELSE sum(cost_microusd) END AS cost_microusd",
        "coalesce(sum(unpriced_count), 0) AS unpriced_turns",
    ]
    order = ["cost_microusd DESC NULLS LAST", *columns]
    return lake.query(
        f"""
        SELECT {", ".join([*selected, *sums])}
        FROM ({_CHARGES if from_rollup else _TURNS}) AS charged
        WHERE {" AND ".join(conditions)}
        {"GROUP BY " + ", ".join(columns.values()) if columns else ""}
        ORDER BY {", ".join(order)}""",  # noqa: S608
        parameters,
    )


def _columns(by: Sequence[str], level: int | None) -> dict[str, str]:
    """The grouping's columns and the SQL of each."""
    if unknown := [name for name in by if name not in GROUPINGS]:
        raise BadInput(
            f"Spend can't be grouped by {unknown[0]!r}.",
            fix=f"One or more of {', '.join(GROUPINGS)}.",
        )
    columns = {COLUMN_OF[name]: f"charged.{COLUMN_OF[name]}" for name in by}
    if level is not None:
        if "org" not in by:
            raise BadInput("A level needs the grouping org.")
        if not 1 <= level <= MAX_ORG_LEVEL:
            raise BadInput(f"The level must lie between 1 and {MAX_ORG_LEVEL}, not at {level}.")
        columns["org_path"] = (
            f"array_to_string(list_slice(string_split(charged.org_path, '/'), 1, {level}), '/')"
        )
    return columns
