"""Prices of many turns at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from loop.domain.money import TOKENS_PER_PRICE, PriceBook
from optimizers.replay_assumptions import undated

Integers = NDArray[np.int64]
UNPRICED = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000


class PriceColumns:
    """A price book laid out by (model, period): a period lies between two days on which any
    price changes. ``models`` are looked up as they are named, else without their date suffix."""

    def __init__(self, book: PriceBook, models: tuple[str, ...], started_at_us: Integers) -> None:
        days = sorted({price.effective_from for price in book.prices()})
        edges = [_microseconds(day) for day in days]
        periods = ["0001-01-01", *days]
        self._table = np.full((len(models), len(periods), 5), UNPRICED, np.int64)
        for row, model in enumerate(models):
            for column, day in enumerate(periods):
                price = book.find(model, day) or book.find(undated(model), day)
                if price is not None:
                    self._table[row, column] = (
                        price.input_microusd,
                        price.output_microusd,
                        price.cache_read_microusd,
                        price.cache_creation_5m_microusd,
                        price.cache_creation_1h_microusd,
                    )
        self._period = np.searchsorted(np.array(edges, np.int64), started_at_us, side="right")
        if len(started_at_us) and self._period.min() == self._period.max():
            self._single: int | None = int(self._period[0])
        else:
            self._single = None

    def cost(
        self,
        model: Integers,
        rows: Integers,
        uncached: Integers,
        output: Integers,
        read: Integers,
        write_5m: Integers,
        write_1h: Integers,
    ) -> Integers:
        """Micro-dollars of each row, rounded half up; :data:`UNPRICED` where no price is known.

        All arrays have one length; ``rows`` are the rows of the frame (they set the day).
        """
        millionths = np.zeros(len(model), np.int64)
        prices = (
            self._table[:, self._single] if self._single is not None else self._table.reshape(-1, 5)
        )
        if self._single is None:
            model = model * self._table.shape[1] + self._period[rows]
        for column, tokens in enumerate((uncached, output, read, write_5m, write_1h)):
            millionths += prices[:, column][model] * tokens
        cost = (millionths + TOKENS_PER_PRICE // 2) // TOKENS_PER_PRICE
        is_unpriced = prices[:, 0] == UNPRICED
        if is_unpriced.any():
            cost[is_unpriced[model]] = UNPRICED
        return cost


def _microseconds(day: str) -> int:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) // _DAY_US * _DAY_US
