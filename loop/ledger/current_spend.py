"""What is spent now, by day and owner: kept up to date from the turns of the days that changed.

Budgets are looked at every few seconds; adding up a month of turns each time would cost more than
it tells. So the sums of each day are kept in memory, and only days that turns were written to
since the last look are added up again.
"""

from __future__ import annotations

from collections.abc import Iterable

from loop.domain.budgets import SpendOfDay
from loop.lake import Lake

_SUMS = """
    SELECT day, org_path, developer, repository,
        coalesce(nullif(served_model, ''), requested_model) AS model,
        CAST(coalesce(sum(cost_microusd), 0) AS BIGINT) AS cost_microusd,
        CAST(count(*) FILTER (cost_microusd IS NULL) AS BIGINT) AS unpriced_turns
    FROM turns WHERE {days}
    GROUP BY ALL
"""


def changed_days(lake: Lake, revision: int, first_day: str = "") -> list[str]:
    """The days from ``first_day`` on of which turns were written at a higher revision, sorted.

    A turn that turns out to have begun on another day changes its old day as well.
    """
    rows = lake.query(
        """
        SELECT DISTINCT unnest([day, supersedes_from_day, supersedes_to_day]) AS day
        FROM turns_rows WHERE revision > ?""",
        [revision],
    )
    return sorted(row["day"] for row in rows if row["day"] and row["day"] >= first_day)


class CurrentSpend:
    """The spend of each day from ``first_day`` on. Not safe to use from several threads."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._revision = -1
        self._first_day = ""
        self._days: dict[str, list[SpendOfDay]] = {}

    @property
    def revision(self) -> int:
        """The lake's revision that the sums were read at; -1 before the first look."""
        return self._revision

    @property
    def first_day(self) -> str:
        return self._first_day

    def look(self, first_day: str) -> bool:
        """Brings the sums of the days from ``first_day`` on up to date; whether any changed.

        Raises :class:`Unavailable` when the lake does not answer.
        """
        revision = self._lake.max_revision()
        if not self._first_day or first_day < self._first_day:
            self._days = {}
            self._add_up("day >= ?", [first_day])
        elif revision > self._revision:
            days = changed_days(self._lake, self._revision, first_day)
            for day in days:
                self._days.pop(day, None)
            if days:
                self._add_up("day IN (SELECT unnest(?))", [days])
        elif first_day == self._first_day:
            return False
        self._days = {day: rows for day, rows in self._days.items() if day >= first_day}
        self._first_day, self._revision = first_day, revision
        return True

    def rows(self) -> Iterable[SpendOfDay]:
        for rows in self._days.values():
            yield from rows

    def _add_up(self, days: str, parameters: list[object]) -> None:
        for row in self._lake.query(_SUMS.format(days=days), parameters):
            self._days.setdefault(row["day"], []).append(SpendOfDay(**row))
