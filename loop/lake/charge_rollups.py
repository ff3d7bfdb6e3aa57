"""The rollups of charges: ``charges`` by session, and from it ``daily_charges`` without sessions.

Each roll-up has a number of its own, committed with both tables. Where they carry the same one,
``daily_charges`` says what ``charges`` says; where not (a crash between the two commits, a table
restored, a store from before there were daily charges), readers take ``charges``, and the next
roll-up builds all days anew.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from loop.domain.errors import BadInput
from loop.lake.delta_log import ROLLED_UP, DeltaLog, new_number
from loop.lake.queries import LakeQueries
from loop.lake.rows import to_stored
from loop.lake.schemas import CHARGES, DAILY_CHARGES

_SUMS = ", ".join(
    f"CAST(sum(charges.{column.name}) AS BIGINT) AS {column.name}"
    for column in DAILY_CHARGES.columns
    if column.name not in ("day", "org_path", "developer", "model")
)
_DAILY = f"""
    SELECT day, org_path, developer, model, {_SUMS}
    FROM charges JOIN (
        SELECT day, max(coalesce(charge_version, 0)) AS newest
        FROM charges WHERE day IN (SELECT unnest(?)) GROUP BY day
    ) USING (day)
    WHERE coalesce(charge_version, 0) = newest
    GROUP BY ALL ORDER BY ALL"""  # noqa: S608


class ChargeRollups:
    """The only writer of ``charges`` and ``daily_charges``."""

    def __init__(self, charges: DeltaLog, daily: DeltaLog, queries: LakeQueries) -> None:
        self._charges = charges
        self._daily = daily
        self._queries = queries

    def replace(
        self,
        sql: str,
        parameters: Sequence[object],
        days: Collection[str],
        transaction: tuple[str, int] | None,
    ) -> int:
        """Replaces the charges of the days by the rows of a SELECT; returns how many rows."""
        with self._charges.write_lock:
            was_in_step = self.are_in_step()
            rows = self._queries.run(sql, parameters)
            number = (ROLLED_UP, new_number())
            numbers = [number] if transaction is None else [number, transaction]
            self._charges.replace_days(to_stored(CHARGES, rows), days, transactions=numbers)
            stale = set(days) if was_in_step else set(days) | self._all_days()
            self._replace_daily(stale, number)
        return int(rows.num_rows)

    def are_in_step(self) -> bool:
        """Whether ``daily_charges`` are the sums of the current ``charges``."""
        number = self._daily.snapshot().rolled_up
        return number is not None and number == self._charges.snapshot().rolled_up

    def _replace_daily(self, days: Collection[str], number: tuple[str, int]) -> None:
        try:
            rows = self._queries.run(_DAILY, [sorted(days)])
        except BadInput:
            return  # a sum beyond 64 bits: readers add the charges up, in 128
        self._daily.replace_days(to_stored(DAILY_CHARGES, rows), days, transactions=[number])

    def _all_days(self) -> set[str]:
        files = [*self._charges.snapshot().files, *self._daily.snapshot().files]
        return {file.day for file in files}
