"""Prices turns anew: a new charge version, never an edit.

The turns are written again at a higher revision; what they were charged before stays in
``charges`` under the older version. Two processes take part: the one that rolls up charges begins
and ends the version, the one that drains writes the turns. Each step can be cut off and done again:
a turn that has its new cost is not written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from loop.domain.errors import BadInput
from loop.domain.money import PriceBook
from loop.domain.turns import Turn
from loop.lake import Lake
from loop.lake.rows import day_start_us
from loop.ledger.charge_table import ChargeTable
from loop.ledger.charge_versions import ChargeVersion, ChargeVersionStore
from loop.ledger.pricing import day_of_turn, price

SESSIONS_PER_BATCH = 500
"""Bounds memory, and how long new records wait while the turns of a batch are written."""

Revising = Callable[[], AbstractContextManager[int]]
"""Holds other writers of turns up and gives a revision above all of theirs."""


@dataclass(slots=True)
class ModelDifference:
    """What changes for one model. Costs are sums over the turns that have one."""

    turns: int = 0
    changed: int = 0  # turns whose cost changes
    before_microusd: int = 0
    after_microusd: int = 0
    unpriced_before: int = 0
    unpriced_after: int = 0

    def add(self, before: Turn, after: Turn) -> None:
        self.turns += 1
        self.changed += before.cost_microusd != after.cost_microusd
        self.before_microusd += before.cost_microusd or 0
        self.after_microusd += after.cost_microusd or 0
        self.unpriced_before += before.cost_microusd is None
        self.unpriced_after += after.cost_microusd is None

    def as_row(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class RepricingReport:
    """What pricing a span of days by a book changes."""

    from_day: str
    until_day: str
    price_version: str
    sessions: int = 0
    models: dict[str, ModelDifference] = field(default_factory=dict)

    def total(self) -> ModelDifference:
        sums = ModelDifference()
        for difference in self.models.values():
            for name, value in difference.as_row().items():
                setattr(sums, name, getattr(sums, name) + value)
        return sums

    def as_dict(self) -> dict[str, Any]:
        rows = [{"model": model, **self.models[model].as_row()} for model in sorted(self.models)]
        return {
            "from": self.from_day,
            "until": self.until_day,
            "price_version": self.price_version,
            "sessions": self.sessions,
            **self.total().as_row(),
            "rows": rows,
        }


class Repricing:
    """Prices the turns of a span of days by one book."""

    def __init__(self, lake: Lake, charges: ChargeTable, versions: ChargeVersionStore) -> None:
        self._lake = lake
        self._charges = charges
        self._versions = versions

    def preview(self, book: PriceBook, from_day: str, until_day: str) -> RepricingReport:
        """What pricing the days from ``from_day`` until ``until_day`` (exclusive) would change."""
        _check_span(from_day, until_day)
        report = RepricingReport(from_day, until_day, book.version)
        for batch, _ in self._batches(from_day, until_day):
            self._reprice(batch, book, report, charge_version=0)
        return report

    def begin(
        self, book: PriceBook, from_day: str, until_day: str, *, author: str, reason: str
    ) -> ChargeVersion:
        """Records the version with what it is to change; from then on the days belong to it.

        Raises :class:`Conflict` while another re-pricing has not come to its end.
        """
        outcome = self.preview(book, from_day, until_day).as_dict()
        return self._charges.supersede(
            self._days(from_day, until_day),
            lambda: self._versions.begin(
                from_day, until_day, book.version, author=author, reason=reason, outcome=outcome
            ),
        )

    def rewrite(
        self, version: ChargeVersion, book: PriceBook, revising: Revising
    ) -> Iterator[tuple[int, int]]:
        """Writes the turns with their new cost, a batch of sessions for each step; yields how
        many sessions are done, of how many. Raises :class:`Conflict` where another process
        drains."""
        span = (version.from_day, version.until_day)
        report = RepricingReport(*span, book.version)
        for batch, progress in self._batches(*span):
            with revising() as revision:
                turns = self._reprice(batch, book, report, charge_version=version.version)
                self._lake.rewrite_turns(turns, revision=revision)
            yield progress
        self._versions.mark_rewritten(version.version)

    def finish(self, version: ChargeVersion) -> None:
        """Rolls up the days of a version whose turns are written."""
        self._charges.roll_up(self._days(version.from_day, version.until_day))
        self._versions.finish(version.version)

    def _reprice(
        self,
        session_ids: list[str],
        book: PriceBook,
        report: RepricingReport,
        *,
        charge_version: int,
    ) -> list[Turn]:
        """All turns of the sessions, those of the span priced anew and added to the report."""
        turns = []
        for turn in self._lake.turns_of(session_ids):
            if report.from_day <= day_of_turn(turn) < report.until_day:
                priced = replace(price(turn, book), charge_version=charge_version)
                report.models.setdefault(turn.model, ModelDifference()).add(turn, priced)
                turn = priced
            turns.append(turn)
        report.sessions += len(session_ids)
        return turns

    def _batches(
        self, from_day: str, until_day: str
    ) -> Iterator[tuple[list[str], tuple[int, int]]]:
        """Sessions with turns in the span, and how many are done with them, of how many."""
        rows = self._lake.query(
            "SELECT DISTINCT session_id FROM turns WHERE day >= ? AND day < ? ORDER BY session_id",
            [from_day, until_day],
        )
        session_ids = [row["session_id"] for row in rows]
        for start in range(0, len(session_ids), SESSIONS_PER_BATCH):
            batch = session_ids[start : start + SESSIONS_PER_BATCH]
            yield batch, (start + len(batch), len(session_ids))

    def _days(self, from_day: str, until_day: str) -> list[str]:
        return _days_of(
            self._lake.query(
                "SELECT DISTINCT day FROM turns WHERE day >= ? AND day < ?", [from_day, until_day]
            )
        )


def _days_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(row["day"] for row in rows)


def _check_span(from_day: str, until_day: str) -> None:
    if day_start_us(from_day) >= day_start_us(until_day):
        raise BadInput(
            f"There is no day from {from_day} until {until_day}.",
            fix="--until is the day to stop before.",
        )
