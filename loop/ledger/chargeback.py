"""Chargeback: what was spent, by developer, session, repository, organization, model or day.

Sums are of integers in 128 bits, so they are exact at every level: the rows of any grouping add up
to the same total.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from loop.domain.errors import BadInput
from loop.lake import KEY_COLUMNS, KEY_PARTS, Lake, Order
from loop.lake.rows import day_start_us
from loop.ledger.charge_versions import ChargeVersion

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

ERASED = "erased"
"""The developer (and session) that charges of erased persons are kept under, summed up."""
_TOKENS = ", ".join(TOKEN_COLUMNS)
_COUNTED = (
    f"{_TOKENS}, cost_microusd, {{table}}.turns AS turn_count, unpriced_turns AS unpriced_count"
)
_CHARGES = f"""
    SELECT day, org_path, developer, repository, session_id, model,
        {_COUNTED.format(table="charges")}
    FROM charges JOIN (
        SELECT day, max(coalesce(charge_version, 0)) AS newest
        FROM charges WHERE {{within}} GROUP BY day
    ) USING (day)
    WHERE coalesce(charge_version, 0) = newest AND {{within}}"""  # noqa: S608
"""The newest version of each day, of what lies within a condition."""
_DAILY = f"""
    SELECT day, org_path, developer, '{ERASED}' AS repository, '{ERASED}' AS session_id, model,
        {_COUNTED.format(table="daily_charges")}
    FROM daily_charges"""  # noqa: S608
_DAILY_KEY: tuple[Grouping, ...] = ("developer", "org", "model", "day")
"""Of each there is one row: grouped by all of them, there is nothing left to add up."""
_AMOUNTS = (
    ("turn_count", "turns"),
    *((name, name) for name in (*TOKEN_COLUMNS, "cost_microusd")),
    ("unpriced_count", "unpriced_turns"),
)
CHARGED_MODEL = "coalesce(nullif(served_model, ''), requested_model)"
_TURNS = f"""
    SELECT day, org_path, developer, repository, session_id,
        {CHARGED_MODEL} AS model,
        {_TOKENS}, cost_microusd,
        1 AS turn_count, CAST(cost_microusd IS NULL AS BIGINT) AS unpriced_count
    FROM {{table}}"""  # noqa: S608
_KEY = {  # in the order of _TURNS
    name: KEY_COLUMNS.get(name, "''")
    for name in ("day", "org_path", "developer", "repository", "session_id", "model")
}
_KEYED = f"""
    SELECT {", ".join(f"{sql} AS {name}" for name, sql in _KEY.items())},
        {_TOKENS}, cost_microusd, turn_count, unpriced_count
    FROM (
        SELECT {KEY_PARTS}, {", ".join(f"sum({name}) AS {name}" for name in TOKEN_COLUMNS)},
            sum(cost_microusd) AS cost_microusd, count(*) AS turn_count,
            count(*) - count(cost_microusd) AS unpriced_count
        FROM turns_keyed WHERE {{within}} GROUP BY charge_key)"""  # noqa: S608
"""Turns of settled files, summed up by what they are charged under."""
_SUPERSEDED = f"""
    SELECT day, org_path, developer, '' AS repository, '' AS session_id,
        {CHARGED_MODEL} AS model,
        {", ".join(f"-CAST({name} AS HUGEINT)" for name in (*TOKEN_COLUMNS, "cost_microusd"))},
        -1 AS turn_count, -CAST(cost_microusd IS NULL AS BIGINT) AS unpriced_count
    FROM turns_superseded"""  # noqa: S608
"""What to take off these sums again."""
ROLLED_UP_CHARGES = _CHARGES.format(within="true")
"""What was charged as of the last roll-up."""
_OF_ERASED = f"developer = '{ERASED}'"
TURN_CHARGES = f"{_TURNS.format(table='turns')} UNION ALL {_CHARGES.format(within=_OF_ERASED)}"
"""What is charged by the turns themselves, and what erased persons were charged."""


def spend(
    lake: Lake,
    by: Sequence[str],
    since: str | None = None,
    until: str | None = None,
    *,
    level: int | None = None,
    from_rollup: bool = False,
    charge_version: int | None = None,
    repricings: Sequence[ChargeVersion] = (),
    only: tuple[str, Sequence[object]] = ("true", ()),
) -> list[SpendRow]:
    """One row for each group, the dearest first.

    ``by`` names one or more of :data:`GROUPINGS`; none gives one row with the total. ``since`` and
    ``until`` are UTC days (``YYYY-MM-DD``) by which a turn began, the second exclusive. ``level``
    (1 to 4) cuts organization paths to their first levels. ``from_rollup`` reads ``charges``, which
    is as of the last roll-up, in place of the turns. ``charge_version`` shows what was charged
    before the later ones of the ``repricings``, which are all that there were. ``only`` is a
    condition over the columns ``day`` and ``org_path``, with its parameters: rows beside it are
    neither shown nor counted.

    A row has the groupings' own columns (:data:`COLUMN_OF`), then ``turns``, the five classes of
    tokens, ``cost_microusd`` and ``unpriced_turns``, all exact integers. ``turns`` counts requests
    whether served or failed; one that failed before any token was used costs 0. Unpriced turns are
    counted, not charged: ``cost_microusd`` is the sum of the priced ones and ``None`` where a group
    has none. The model is the served one, or the requested one when nothing was served.

    Raises :class:`BadInput` for an unknown grouping, day or level.
    """
    columns = _columns(by, level)
    conditions, parameters = [only[0]], [*only[1]]
    for day, operator in ((since, ">="), (until, "<")):
        if day is not None:
            day_start_us(day)
            conditions.append(f"day {operator} ?")
            parameters.append(day)
    within = " AND ".join(conditions)
    source, times = (_rollup(lake, by), 0) if from_rollup else _turns(lake, by, within)
    inner = parameters * times
    if charge_version is not None:
        source, days = _as_charged(charge_version, repricings, source)
        inner += days
    parameters = [*inner, *parameters]
    selected = [f"{expression} AS {name}" for name, expression in columns.items()]
    is_grouped = source == _DAILY and level is None and set(_DAILY_KEY) <= set(by)
    sums = (
        [f"{expression} AS {name}" for expression, name in _AMOUNTS]
        if is_grouped
        else [
            "coalesce(sum(turn_count), 0) AS turns",
            *(f"coalesce(sum({name}), 0) AS {name}" for name in TOKEN_COLUMNS),
            """CASE WHEN coalesce(sum(turn_count), 0) = 0 THEN 0
                WHEN sum(turn_count) > sum(unpriced_count) THEN sum(cost_microusd)
                END AS cost_microusd""",
            "coalesce(sum(unpriced_count), 0) AS unpriced_turns",
        ]
    )
    grouped = f"GROUP BY {', '.join(columns.values())} HAVING sum(turn_count) > 0"
    order: Order = [("cost_microusd", "descending"), *((name, "ascending") for name in columns)]
    return lake.query(
        f"""
        SELECT {", ".join([*selected, *sums])}
        FROM ({source}) AS charged
        WHERE {within}
        {grouped if columns and not is_grouped else ""}""",  # noqa: S608
        parameters,
        order=order,
    )


def unpriced_reasons(
    lake: Lake,
    since: str | None = None,
    until: str | None = None,
    *,
    only: tuple[str, Sequence[object]] = ("true", ()),
) -> list[SpendRow]:
    """Why turns have no cost: ``reason``, ``model`` and ``turns``, the most frequent first.

    ``only`` is as for :func:`spend`."""
    conditions, parameters = ["cost_microusd IS NULL", only[0]], [*only[1]]
    for day, operator in ((since, ">="), (until, "<")):
        if day is not None:
            day_start_us(day)
            conditions.append(f"day {operator} ?")
            parameters.append(day)
    return lake.query(
        f"""
        SELECT coalesce(unpriced_reason, '') AS reason,
            coalesce(nullif(served_model, ''), requested_model) AS model, count(*) AS turns
        FROM turns WHERE {" AND ".join(conditions)}
        GROUP BY ALL ORDER BY turns DESC, reason, model""",  # noqa: S608
        parameters,
    )


def _rollup(lake: Lake, by: Sequence[str]) -> str:
    """``daily_charges`` have a fraction of the rows of ``charges``, but not all of the columns."""
    is_coarse = not {"session", "repo"} & set(by) and lake.has_daily_charges()
    return _DAILY if is_coarse else ROLLED_UP_CHARGES


def _turns(lake: Lake, by: Sequence[str], within: str) -> tuple[str, int]:
    """What turns are charged, and how often it names the condition ``within``."""
    erased = _CHARGES.format(within=_OF_ERASED)
    if "repo" not in by and lake.has_daily_charges():
        erased = f"{_DAILY} WHERE {_OF_ERASED}"
    if {"session", "repo"} & set(by):
        return f"{_TURNS.format(table='turns')} UNION ALL {erased}", 0
    keyed, others = _KEYED.format(within=within), _TURNS.format(table="turns_unkeyed")
    return " UNION ALL ".join((keyed, _SUPERSEDED, others, erased)), 1


def _as_charged(
    version: int, repricings: Sequence[ChargeVersion], current: str
) -> tuple[str, list[str]]:
    """Days that were priced anew after a version come from the charges as of that version."""
    newest = max((one.version for one in repricings), default=0)
    if not 0 <= version <= newest:
        raise BadInput(
            f"There is no charge version {version}.",
            why=f"The newest is {newest}.",
            fix="`turnwise prices charges` lists them.",
        )
    later = [one for one in repricings if one.version > version]
    if not later:
        return current, []
    superseded = " OR ".join("(day >= ? AND day < ?)" for _ in later)
    days = [day for one in later for day in (one.from_day, one.until_day)]
    within = f"({superseded}) AND coalesce(charge_version, 0) <= {version:d}"
    sql = f"""
        SELECT * FROM ({current}) WHERE NOT ({superseded})
        UNION ALL {_CHARGES.format(within=within)}"""  # noqa: S608
    return sql, days * 3


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
