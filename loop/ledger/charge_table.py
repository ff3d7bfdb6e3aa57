"""The rollup ``charges``: spend by day, organization path, developer, repository, session, model
and price book, rebuilt from the turns a day at a time.

A day that was priced anew has rows of several charge versions. Only those of its current version
are rebuilt; the older ones stay as they were when they were superseded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from loop.lake import Lake
from loop.lake.rows import day_start_us
from loop.ledger.charge_versions import ChargeVersion, ChargeVersionStore
from loop.ledger.chargeback import ERASED, TOKEN_COLUMNS

_COLUMNS = (
    "day",
    "org_path",
    "developer",
    "repository",
    "session_id",
    "model",
    "turns",
    "unpriced_turns",
    *TOKEN_COLUMNS,
    "cost_microusd",
)


def _first_version(day: str) -> int:
    return 0


class ChargeTable:
    """The only writer of ``charges`` in a process. Safe to use from several threads."""

    def __init__(self, lake: Lake, versions: ChargeVersionStore) -> None:
        self._lake = lake
        self._versions = versions
        self._lock = threading.RLock()

    def roll_up(self, days: Collection[str]) -> int:
        """Rebuilds the current charges of UTC days and returns how many rows they have."""
        with self._lock:
            return roll_up(self._lake, days, self._versions.currently())

    def supersede(self, days: Collection[str], begin: Callable[[], ChargeVersion]) -> ChargeVersion:
        """Rolls up the days as they are, then begins the version that supersedes them: nothing is
        rolled up in between, so the old version stays as it was charged."""
        with self._lock:
            self.roll_up(days)
            return begin()


def roll_up(
    lake: Lake, days: Collection[str], version_of: Callable[[str], int] = _first_version
) -> int:
    """Rebuilds the charges of UTC days (``YYYY-MM-DD``) and returns how many rows they have.

    ``version_of`` gives the charge version that is current on a day. All the days are replaced in
    one commit; a day without turns ends up without charges. Running it again changes nothing.
    What was charged to persons who were erased has no turns any more: it stays as it is, and is
    part of the current version. Raises :class:`BadInput` for a text that is no day.
    """
    wanted = sorted(set(days))
    for day in wanted:
        day_start_us(day)
    if not wanted:
        return 0
    sums = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in TOKEN_COLUMNS)
    columns = ", ".join(_COLUMNS)
    return lake.replace_charges(
        f"""
        WITH wanted AS (SELECT unnest(?) AS day, unnest(?) AS charge_version)
        SELECT day, org_path, developer, repository, session_id,
            coalesce(nullif(served_model, ''), requested_model) AS model,
            count(*) AS turns,
            count(*) FILTER (cost_microusd IS NULL) AS unpriced_turns,
            {sums},
            CAST(sum(cost_microusd) AS BIGINT) AS cost_microusd,
            wanted.charge_version, coalesce(price_version, '') AS price_version
        FROM turns JOIN wanted USING (day)
        GROUP BY ALL
        UNION ALL
        SELECT {columns}, coalesce(charges.charge_version, 0), coalesce(price_version, '')
        FROM charges JOIN wanted USING (day)
        WHERE coalesce(charges.charge_version, 0) < wanted.charge_version
        UNION ALL
        SELECT * FROM (
            SELECT {columns}, wanted.charge_version, coalesce(price_version, '')
            FROM charges JOIN wanted USING (day) WHERE developer = '{ERASED}'
            QUALIFY coalesce(charges.charge_version, 0)
                = max(coalesce(charges.charge_version, 0)) OVER (PARTITION BY day))
        ORDER BY ALL""",  # noqa: S608
        [wanted, [version_of(day) for day in wanted]],
        wanted,
    )


def keep_sums_of_erased(
    lake: Lake,
    charges: ChargeTable,
    developer: str,
    sessions: Collection[str],
    erasure_id: str,
) -> int:
    """Moves what a developer and their sessions were charged to the developer ``erased``, summed
    up by day, organization, repository and model, in one commit. Returns the number of days.

    To be called before the turns are erased. Calling it again does nothing.
    """
    log = lake.tables["charges"]
    mark = _mark(erasure_id)
    if log.transaction_number(mark) is not None:
        return 0
    mine = "(developer = ? OR session_id IN (SELECT unnest(?)))"
    parameters: list[object] = [developer, sorted(sessions)]
    days = {
        row["day"]
        for table in ("turns", "charges")
        for row in lake.query(f"SELECT DISTINCT day FROM {table} WHERE {mine}", parameters)  # noqa: S608
    }
    if not days:
        return 0
    charges.roll_up(days)
    summed = ("turns", "unpriced_turns", *TOKEN_COLUMNS, "cost_microusd")
    sums = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in summed)
    # A repository's name may be that of a person.
    lake.replace_charges(
        f"""
        SELECT day, org_path,
            CASE WHEN {mine} THEN '{ERASED}' ELSE developer END AS developer,
            CASE WHEN {mine} AND contains(lower(repository), lower(?)) THEN '{ERASED}'
                ELSE repository END AS repository,
            CASE WHEN {mine} THEN '{ERASED}' ELSE session_id END AS session_id,
            model, {sums}, charge_version, price_version
        FROM charges WHERE day IN (SELECT unnest(?)) GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        [*parameters, *parameters, developer.split("@")[0], *parameters, sorted(days)],
        days,
        transaction=(mark, 1),
    )
    return len(days)


def give_back_sums(
    lake: Lake, charges: ChargeTable, sessions: Collection[str], erasure_id: str, number: int
) -> int:
    """Takes off the developer ``erased`` what the turns of sessions say that stay after all, once
    :func:`keep_sums_of_erased` has moved their charges there. Returns the number of days.

    The totals are those of before, whatever part of the turns is left. ``number`` rises with each
    call of one erasure; calling it again with the same one does nothing.
    """
    log = lake.tables["charges"]
    if log.transaction_number(_mark(erasure_id)) is None:
        return 0  # it was cut off before the charges were moved
    mark = f"{_mark(erasure_id)}.given_back"
    done = log.transaction_number(mark)
    if done is not None and done >= number:
        return 0
    named = sorted(sessions)
    days = [
        row["day"]
        for row in lake.query(
            "SELECT DISTINCT day FROM turns WHERE session_id IN (SELECT unnest(?))", [named]
        )
    ]
    if not days:
        return 0
    charges.roll_up(days)
    summed = ("turns", "unpriced_turns", *TOKEN_COLUMNS, "cost_microusd")
    kept = ", ".join(("day", "org_path", "developer", "repository", "session_id", "model"))
    sums = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in summed)
    taken_off = ", ".join(f"-{name} AS {name}" for name in summed)
    lake.replace_charges(
        f"""
        WITH current AS (SELECT * FROM charges WHERE day IN (SELECT unnest(?)))
        SELECT {kept}, {sums}, charge_version, price_version FROM (
            SELECT {kept}, {", ".join(summed)}, charge_version, price_version FROM current
            UNION ALL
            SELECT day, org_path, '{ERASED}', repository, '{ERASED}', model, {taken_off},
                charge_version, price_version
            FROM current WHERE session_id IN (SELECT unnest(?))
            QUALIFY coalesce(charge_version, 0)
                = max(coalesce(charge_version, 0)) OVER (PARTITION BY day))
        GROUP BY ALL HAVING sum(turns) <> 0 OR sum(cost_microusd) <> 0 ORDER BY ALL""",  # noqa: S608
        [days, named],
        days,
        transaction=(mark, number),
    )
    return len(days)


def _mark(erasure_id: str) -> str:
    return f"turnwise.erasure.{erasure_id}"
