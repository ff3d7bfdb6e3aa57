"""Prices turns anew: a new charge version, never an edit.

Turns are priced by their columns, a day at a time, and stored again at a higher revision; what they
were charged before stays in ``charges`` under the older version. Two processes take part: the one
that rolls up charges begins and ends the version, the one that drains writes the turns. Each step
can be cut off and done again: a turn that has its new cost is not written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from loop.domain.errors import BadInput
from loop.domain.money import PriceBook
from loop.lake import Lake
from loop.lake.rows import day_start_us
from loop.ledger.charge_table import ChargeTable
from loop.ledger.charge_versions import ChargeVersion, ChargeVersionStore
from loop.ledger.column_pricing import COLUMNS, charged_models, price_columns

Revising = Callable[[], AbstractContextManager[int]]
"""Holds other writers of turns up and gives a revision above all of theirs."""

OnProgress = Callable[[int, int], None]
"""Is told how many turns are done, of about how many."""


def _no_progress(done: int, total: int) -> None: ...


@dataclass(slots=True)
class ModelDifference:
    """What changes for one model. Costs are sums over the turns that have one."""

    turns: int = 0
    changed: int = 0  # turns whose cost changes
    before_microusd: int = 0
    after_microusd: int = 0
    unpriced_before: int = 0
    unpriced_after: int = 0

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

    def preview(
        self,
        book: PriceBook,
        from_day: str,
        until_day: str,
        on_progress: OnProgress = _no_progress,
    ) -> RepricingReport:
        """What pricing the days from ``from_day`` until ``until_day`` (exclusive) would change."""
        _check_span(from_day, until_day)
        report = RepricingReport(from_day, until_day, book.version)
        total, done = self._lake.count_turns(from_day, until_day), 0
        for day, turns in self._lake.turns_by_day(COLUMNS, from_day, until_day):
            _add_differences(report.models, turns, price_columns(turns, day, book))
            done += turns.num_rows
            on_progress(done, max(done, total))
        (row,) = self._lake.query(
            "SELECT count(DISTINCT session_id) AS n FROM turns WHERE day >= ? AND day < ?",
            [from_day, until_day],
        )
        report.sessions = row["n"]
        return report

    def begin(
        self,
        book: PriceBook,
        from_day: str,
        until_day: str,
        *,
        author: str,
        reason: str,
        on_progress: OnProgress = _no_progress,
    ) -> ChargeVersion:
        """Records the version with what it is to change; from then on the days belong to it.

        Raises :class:`Conflict` while another re-pricing has not come to its end.
        """
        outcome = self.preview(book, from_day, until_day, on_progress).as_dict()
        return self._charges.supersede(
            self._lake.days_of_turns(from_day, until_day),
            lambda: self._versions.begin(
                from_day, until_day, book.version, author=author, reason=reason, outcome=outcome
            ),
        )

    def rewrite(
        self, version: ChargeVersion, book: PriceBook, revising: Revising
    ) -> Iterator[tuple[int, int]]:
        """Stores the turns with their new cost, about a million for each step; yields how many
        are done, of how many. Raises :class:`Conflict` where another process drains."""
        span = (version.from_day, version.until_day)
        total, done = self._lake.count_turns(*span), 0
        for day in self._lake.days_of_turns(*span):
            written = -1
            while written:
                with revising() as revision:
                    written = self._lake.charge_anew(
                        day,
                        lambda turns, day=day: price_columns(turns, day, book),  # type: ignore[misc]
                        charge_version=version.version,
                        revision=revision,
                    )
                done += written
                yield done, max(done, total)
        self._versions.mark_rewritten(version.version)

    def progress(self, version: ChargeVersion) -> tuple[int, int]:
        """How many turns of a version are written, of how many."""
        (row,) = self._lake.query(
            "SELECT count(*) FILTER (charge_version >= ?) AS done, count(*) AS total FROM turns "
            "WHERE day >= ? AND day < ?",
            [version.version, version.from_day, version.until_day],
        )
        return row["done"], row["total"]

    def finish(self, version: ChargeVersion) -> None:
        """Rolls up the days of a version whose turns are written."""
        self._charges.roll_up(self._lake.days_of_turns(version.from_day, version.until_day))
        self._versions.finish(version.version)


def _add_differences(models: dict[str, ModelDifference], before: pa.Table, after: pa.Table) -> None:
    """Adds what changes to the sums of each model; sums are of 128 bits."""
    old, new = (table["cost_microusd"].combine_chunks() for table in (before, after))
    is_equal = pc.or_(
        pc.equal(old, new).fill_null(False), pc.and_(pc.is_null(old), pc.is_null(new))
    )
    wide = pa.decimal128(38, 0)
    sums = pa.table(
        {
            "model": charged_models(before),
            "turns": pa.repeat(pa.scalar(1, pa.int64()), len(old)),
            "changed": pc.invert(is_equal).cast(pa.int64()),
            "before_microusd": old.fill_null(0).cast(wide),
            "after_microusd": new.fill_null(0).cast(wide),
            "unpriced_before": pc.is_null(old).cast(pa.int64()),
            "unpriced_after": pc.is_null(new).cast(pa.int64()),
        }
    )
    names = ModelDifference.__slots__
    for row in sums.group_by("model").aggregate([(name, "sum") for name in names]).to_pylist():
        difference = models.setdefault(row["model"], ModelDifference())
        for name in names:
            setattr(difference, name, getattr(difference, name) + int(row[f"{name}_sum"]))


def _check_span(from_day: str, until_day: str) -> None:
    if day_start_us(from_day) >= day_start_us(until_day):
        raise BadInput(
            f"There is no day from {from_day} until {until_day}.",
            fix="--until is the day to stop before.",
        )
