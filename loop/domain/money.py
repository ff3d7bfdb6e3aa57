"""Money in integer micro-dollars: prices, their effective dates, and the cost of a turn.

A price is micro-dollars per million tokens ($5 per million is 5,000,000), so every product is an
integer and sums are exact at every level.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from loop.domain.turns import TokenUsage

TOKENS_PER_PRICE = 1_000_000
_RELEASE_DATE = re.compile(r"-20[0-9]{6}\Z")


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-dollars per million tokens of each class."""

    input_microusd: int
    output_microusd: int
    cache_read_microusd: int
    cache_creation_5m_microusd: int
    cache_creation_1h_microusd: int


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-dollars per million tokens of each class, from ``effective_from`` (ISO day, UTC) on.

    Some models charge *all* tokens of a request at other rates once its total input exceeds a
    number of tokens: ``long_input_rates`` above ``long_input_tokens``.
    """

    model: str
    effective_from: str
    input_microusd: int
    output_microusd: int
    cache_read_microusd: int
    cache_creation_5m_microusd: int
    cache_creation_1h_microusd: int
    long_input_tokens: int | None = None
    long_input_rates: Rates | None = None

    def rates_of(self, usage: TokenUsage) -> Rates | Price:
        """The rates that a request of this size is charged at."""
        if self.long_input_tokens is None or self.long_input_rates is None:
            return self
        is_long = usage.total_input_tokens > self.long_input_tokens
        return self.long_input_rates if is_long else self


@dataclass(frozen=True, slots=True)
class Cost:
    """``microusd`` is ``None`` when the turn is unpriced, and ``unpriced_reason`` says why."""

    microusd: int | None
    price_version: str
    unpriced_reason: str = ""


def cost_microusd(usage: TokenUsage, price: Price) -> int:
    """The cost of one request, rounded half up to the micro-dollar."""
    rates = price.rates_of(usage)
    millionths = (
        usage.input_tokens * rates.input_microusd
        + usage.output_tokens * rates.output_microusd
        + usage.cache_read_tokens * rates.cache_read_microusd
        + usage.cache_creation_5m_tokens * rates.cache_creation_5m_microusd
        + usage.cache_creation_1h_tokens * rates.cache_creation_1h_microusd
    )
    return (millionths + TOKENS_PER_PRICE // 2) // TOKENS_PER_PRICE


class PriceBook:
    """Prices by model and day. ``version`` names the book that a charge was made with.

    A model is looked up by its exact name, then without a release date at its end
    (``claude-haiku-4-5-20251001`` is priced as ``claude-haiku-4-5``); never by likeness.
    """

    def __init__(self, version: str, prices: Iterable[Price]) -> None:
        self.version = version
        self._by_model: dict[str, list[Price]] = {}
        for price in sorted(prices, key=lambda price: (price.model, price.effective_from)):
            self._by_model.setdefault(price.model, []).append(price)

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self._by_model))

    def prices(self) -> tuple[Price, ...]:
        return tuple(price for model in self.models() for price in self._by_model[model])

    def knows(self, model: str) -> bool:
        """Whether the book has any price of the model, on whatever day."""
        return bool(self._prices_of(model))

    def find(self, model: str, day: str) -> Price | None:
        """The price in force on that day, or ``None``."""
        prices = self._prices_of(model)
        index = bisect_right([price.effective_from for price in prices], day)
        return prices[index - 1] if index else None

    def cost(self, model: str, day: str, usage: TokenUsage) -> Cost:
        """Prices one request; unknown models and days before the first price are unpriced."""
        if usage == TokenUsage():
            return Cost(0, self.version)
        price = self.find(model, day)
        if price is not None:
            return Cost(cost_microusd(usage, price), self.version)
        if self.knows(model):
            return Cost(None, self.version, f"no price of {model} is in force on {day}")
        return Cost(None, self.version, f"unknown model {model or '(none)'}")

    def _prices_of(self, model: str) -> list[Price]:
        if model in self._by_model:
            return self._by_model[model]
        return self._by_model.get(_RELEASE_DATE.sub("", model), [])
