"""Money in integer micro-dollars: prices, their effective dates, and the cost of a turn.

A price is micro-dollars per million tokens ($5 per million is 5,000,000), and a multiplier is in
millionths (1.1 is 1,100,000), so every product is an integer and sums are exact at every level.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from loop.domain.model_names import names_of
from loop.domain.quick_records import quickly_made
from loop.domain.turns import TokenUsage

TOKENS_PER_PRICE = 1_000_000
ONE = 1_000_000
"""A multiplier of 1, in millionths."""

STANDARD_WORDS = frozenset({"", "standard", "normal", "global", "not_available"})
"""What sources call a request that no special term applies to (``normal`` is the client's)."""

Multipliers = tuple[tuple[str, int], ...]
"""(term, millionths) pairs, by term: ``(("batch", 500_000),)``."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Terms:
    """How a request was served, where that changes its price; empty is not stated."""

    speed: str = ""
    service_tier: str = ""
    inference_geo: str = ""
    web_search_requests: int = 0

    @property
    def is_standard(self) -> bool:
        """Whether no multiplier applies (searches are charged apart)."""
        words = {self.speed, self.service_tier, self.inference_geo}
        return words <= STANDARD_WORDS


STANDARD = Terms()


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
    number of tokens: ``long_input_rates`` above ``long_input_tokens``. The multipliers apply to
    all classes of tokens and to each other; a term that has none here has no known price.
    ``aliases`` are further names of exactly this price; ``source`` says where it was read.
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
    speeds: Multipliers = ()
    service_tiers: Multipliers = ()
    inference_geos: Multipliers = ()
    web_search_microusd: int | None = None  # for one search
    aliases: tuple[str, ...] = ()
    source: str = ""

    def rates_of(self, usage: TokenUsage) -> Rates | Price:
        """The rates that a request of this size is charged at."""
        if self.long_input_tokens is None or self.long_input_rates is None:
            return self
        is_long = usage.total_input_tokens > self.long_input_tokens
        return self.long_input_rates if is_long else self

    def multipliers_of(self, terms: Terms) -> tuple[int, ...]:
        """The multipliers, in millionths, of the terms that are not standard.

        Raises :class:`LookupError` naming the first term that has no price.
        """
        if terms == STANDARD:
            return ()
        found = []
        for kind, known, word in (
            ("speed", self.speeds, terms.speed),
            ("service tier", self.service_tiers, terms.service_tier),
            ("inference geography", self.inference_geos, terms.inference_geo),
        ):
            if word in STANDARD_WORDS:
                continue
            multiplier = dict(known).get(word)
            if multiplier is None:
                raise LookupError(f"no price of {self.model} for the {kind} {word}")
            found.append(multiplier)
        return tuple(found)


@quickly_made
@dataclass(frozen=True, slots=True)
class Cost:
    """``microusd`` is ``None`` when the turn is unpriced, and ``unpriced_reason`` says why."""

    microusd: int | None
    price_version: str
    unpriced_reason: str = ""


def cost_microusd(usage: TokenUsage, price: Price, terms: Terms = STANDARD) -> int:
    """The cost of one request, rounded half up to the micro-dollar, once.

    Raises :class:`LookupError` saying which of the terms has no price.
    """
    rates = price.rates_of(usage)
    parts = (
        usage.input_tokens * rates.input_microusd
        + usage.output_tokens * rates.output_microusd
        + usage.cache_read_tokens * rates.cache_read_microusd
        + usage.cache_creation_5m_tokens * rates.cache_creation_5m_microusd
        + usage.cache_creation_1h_tokens * rates.cache_creation_1h_microusd
    )
    whole = TOKENS_PER_PRICE
    for multiplier in price.multipliers_of(terms):
        parts *= multiplier
        whole *= ONE
    searches = 0
    if terms.web_search_requests:
        if price.web_search_microusd is None:
            raise LookupError(f"no price of {price.model} for web searches")
        searches = terms.web_search_requests * price.web_search_microusd
    return (parts + whole // 2) // whole + searches


class PriceBook:
    """Prices by model and day. ``version`` names the book that a charge was made with.

    A model is looked up by the names that :func:`names_of` gives, the exact one first; never by
    likeness.
    """

    def __init__(self, version: str, prices: Iterable[Price]) -> None:
        self.version = version
        self._prices = tuple(sorted(prices, key=lambda price: (price.model, price.effective_from)))
        self._by_name: dict[str, list[Price]] = {}
        # An alias yields to a price of the same day under the name itself: those go in last.
        for price in self._prices:
            for alias in price.aliases:
                self._by_name.setdefault(alias, []).append(price)
        for price in self._prices:
            self._by_name.setdefault(price.model, []).append(price)
        for found in self._by_name.values():
            found.sort(key=lambda price: price.effective_from)
        self._days_by_name = {
            name: [price.effective_from for price in found] for name, found in self._by_name.items()
        }

    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(price.model for price in self._prices))

    def prices(self) -> tuple[Price, ...]:
        return self._prices

    def knows(self, model: str) -> bool:
        """Whether the book has any price of the model, on whatever day."""
        return any(name in self._by_name for name in names_of(model))

    def find(self, model: str, day: str) -> Price | None:
        """The price in force on that day under the first of the model's names that has one."""
        for name in names_of(model):
            index = bisect_right(self._days_by_name.get(name, ()), day)
            if index:
                return self._by_name[name][index - 1]
        return None

    def cost(self, model: str, day: str, usage: TokenUsage, terms: Terms = STANDARD) -> Cost:
        """Prices one request.

        Unknown models, days before the first price and terms without a price are unpriced.
        """
        if usage == TokenUsage() and not terms.web_search_requests:
            return Cost(0, self.version)
        price = self.find(model, day)
        if price is not None:
            try:
                return Cost(cost_microusd(usage, price, terms), self.version)
            except LookupError as error:
                return Cost(None, self.version, str(error))
        if self.knows(model):
            return Cost(None, self.version, f"no price of {model} is in force on {day}")
        return Cost(None, self.version, f"unknown model {model or '(none)'}")
