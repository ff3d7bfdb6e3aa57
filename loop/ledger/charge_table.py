"""The rollup ``charges``: spend by day, organization path, developer, repository, session and
model, rebuilt from the turns a day at a time."""

from __future__ import annotations

from collections.abc import Collection

from loop.lake import Lake
from loop.lake.rows import day_start_us
from loop.ledger.chargeback import TOKEN_COLUMNS


def roll_up(lake: Lake, days: Collection[str]) -> int:
    """Rebuilds the charges of UTC days (``YYYY-MM-DD``) and returns how many rows they have.

    All the days are replaced in one commit; a day without turns ends up without charges. Running it
    again changes nothing. Raises :class:`BadInput` for a text that is no day.
    """
    wanted = sorted(set(days))
    for day in wanted:
        day_start_us(day)
    if not wanted:
        return 0
    sums = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in TOKEN_COLUMNS)
    return lake.replace_charges(
        f"""
        SELECT day, org_path, developer, repository, session_id,
            coalesce(nullif(served_model, ''), requested_model) AS model,
            count(*) AS turns,
            count(*) FILTER (cost_microusd IS NULL) AS unpriced_turns,
            {sums},
            CAST(sum(cost_microusd) AS BIGINT) AS cost_microusd
        FROM turns WHERE day IN (SELECT unnest(?))
        GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        [wanted],
        wanted,
    )
