"""One model's prices over all turns of a frame."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from loop.domain.money import TOKENS_PER_PRICE, Price, PriceBook, Rates

Integers = NDArray[np.int64]
UNPRICED = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PricePeriods:
    """The days on which any price changes, and the period between them that each turn lies in."""

    def __init__(self, book: PriceBook, started_at_us: Integers) -> None:
        self._book = book
        days = sorted({price.effective_from for price in book.prices()})
        self._days = ["0001-01-01", *days]
        edges = np.array([_microseconds(day) for day in days], np.int64)
        period = np.searchsorted(edges, started_at_us, side="right")
        is_single = len(period) > 0 and bool(period.min() == period.max())
        self._period: Integers | int = int(period[0]) if is_single else period

    def prices(self, model: str, total_input_tokens: Integers) -> tuple[Integers, ...]:
        """Micro-dollars per million tokens of uncached input, output, cache read, 5-minute write
        and 1-hour write: one number each, or ``(n,)`` where they differ inside the frame, by day
        or by the size of the request (shape ``(n,)``). :data:`UNPRICED` stands for none."""
        table = np.full((5, len(self._days)), UNPRICED, np.int64)
        long_table = table.copy()
        above = np.full(len(self._days), np.iinfo(np.int64).max, np.int64)
        for column, day in enumerate(self._days):
            price = self._book.find(model, day)
            if price is not None:
                table[:, column] = _five(price)
                if price.long_input_tokens is not None and price.long_input_rates is not None:
                    above[column] = price.long_input_tokens
                    long_table[:, column] = _five(price.long_input_rates)
        is_long = total_input_tokens > above[self._period]
        if not is_long.any():
            return tuple(np.asarray(row[self._period]) for row in table)
        return tuple(
            np.where(is_long, dear[self._period], plain[self._period])
            for plain, dear in zip(table, long_table, strict=True)
        )


def to_microusd(millionths: Integers) -> Integers:
    """Rounds half up, as every charge is rounded."""
    return (millionths + TOKENS_PER_PRICE // 2) // TOKENS_PER_PRICE


def _five(rates: Rates | Price) -> tuple[int, ...]:
    return (
        rates.input_microusd,
        rates.output_microusd,
        rates.cache_read_microusd,
        rates.cache_creation_5m_microusd,
        rates.cache_creation_1h_microusd,
    )


def _microseconds(day: str) -> int:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)
