"""A price book over the turns of a frame: rates by day, size of request and terms of service."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loop.domain.money import ONE, TOKENS_PER_PRICE, Price, PriceBook, Rates, Terms
from optimizers.turn_columns import Integers, code_type
from optimizers.turn_frame import TurnFrame

UNPRICED = -1
Rows = slice | NDArray[np.signedinteger[Any]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Tokens(NamedTuple):
    """The five classes of tokens that are priced apart, each ``(k,)``."""

    input: Integers
    output: Integers
    cache_read: Integers
    cache_creation_5m: Integers
    cache_creation_1h: Integers


def to_microusd(millionths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rounds half up, as every charge is rounded."""
    return (millionths + TOKENS_PER_PRICE // 2) // TOKENS_PER_PRICE


class PricedTurns:
    """What the turns of a frame cost at a book's prices; see :meth:`on`."""

    def __init__(self, book: PriceBook, frame: TurnFrame) -> None:
        self._book = book
        days = sorted({price.effective_from for price in book.prices()})
        self._days = ["0001-01-01", *days]
        edges = np.array([_microseconds(day) for day in days], np.int64)
        period = np.searchsorted(edges, frame.started_at_us, side="right")
        self.period = period.astype(code_type(len(self._days)))
        self.periods = np.unique(self.period).tolist()
        self.terms, codes = _distinct_terms(frame)
        self.special = np.flatnonzero((codes > 0) | (frame.web_search_requests > 0))
        self.special_terms = codes[self.special]
        self.searches = frame.web_search_requests[self.special].astype(np.int64)

    def on(self, model: str) -> ModelPrices:
        """The prices of one model."""
        prices = {period: self._book.find(model, self._days[period]) for period in self.periods}
        return ModelPrices(self, prices)


class ModelPrices:
    """One model's prices in the periods of a frame."""

    def __init__(self, turns: PricedTurns, prices: dict[int, Price | None]) -> None:
        self._turns = turns
        size = 1 + max(prices, default=0)
        self._rates = np.full((5, size), UNPRICED, np.int64)
        self._long_rates = self._rates.copy()
        self._above = np.full(size, np.iinfo(np.int64).max, np.int64)
        self._search = np.full(size, UNPRICED, np.int64)
        # A product of multipliers as numerator and denominator; 0 where a term has no price.
        shape = (len(turns.terms), size)
        self._numerator, self._denominator = np.zeros(shape, np.int64), np.ones(shape, np.int64)
        for period, price in prices.items():
            if price is None:
                continue
            self._rates[:, period] = _five(price)
            if price.long_input_tokens is not None and price.long_input_rates is not None:
                self._above[period] = price.long_input_tokens
                self._long_rates[:, period] = _five(price.long_input_rates)
            if price.web_search_microusd is not None:
                self._search[period] = price.web_search_microusd
            for code, terms in enumerate(turns.terms):
                factor = _multiplier(price, terms)
                self._numerator[code, period] = factor.numerator
                self._denominator[code, period] = factor.denominator
        self._single = turns.periods[0] if len(turns.periods) == 1 else None

    def cost(self, rows: Rows, tokens: Tokens) -> NDArray[np.int64]:
        """Micro-dollars of these tokens for the turns in ``rows`` (a slice, or ascending row
        numbers), rounded as every charge is; :data:`UNPRICED` where no price is known."""
        millionths = self.millionths(rows, tokens)
        cost = to_microusd(millionths)
        unpriced = self._rates[0, self._period(rows)] == UNPRICED
        if unpriced.any():
            cost[np.broadcast_to(unpriced, cost.shape)] = UNPRICED
        self._apply_terms(rows, millionths, cost)
        return cost

    def millionths(self, rows: Rows, tokens: Tokens) -> NDArray[np.int64]:
        """The sum of tokens times their rates at standard terms, not rounded."""
        millionths = np.zeros(len(tokens.input), np.int64)
        for rate, count in zip(self._rates_of(rows, tokens), tokens, strict=True):
            millionths += rate * count
        return millionths

    def read_discount(
        self, rows: Rows, tokens: Tokens, is_long_lived: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """What each token costs less that is read from the cache and not written, in millionths
        of a micro-dollar."""
        _, _, read, short, long = self._rates_of(rows, tokens)
        return np.asarray(np.where(is_long_lived, long, short) - read)

    def is_standard(self, rows: slice) -> NDArray[np.bool_]:
        """Which turns neither have special terms nor made searches."""
        standard = np.ones(rows.stop - rows.start, bool)
        special = self._turns.special
        first, end = np.searchsorted(special, [rows.start, rows.stop])
        standard[special[first:end] - rows.start] = False
        return standard

    def _period(self, rows: Rows) -> Any:
        return self._turns.period[rows] if self._single is None else self._single

    def _rates_of(self, rows: Rows, tokens: Tokens) -> NDArray[np.int64]:
        """Of the five classes, shape ``(5,)`` or ``(5, k)``."""
        period = self._period(rows)
        total = tokens.input + tokens.cache_read + tokens.cache_creation_5m
        total = total + tokens.cache_creation_1h
        rates: NDArray[np.int64] = self._rates[:, period]
        is_long = total > self._above[period]
        if not is_long.any():
            return rates
        long_rates = self._long_rates[:, period].reshape(5, -1)
        return np.where(is_long, long_rates, rates.reshape(5, -1))

    def _apply_terms(self, rows: Rows, millionths: Integers, cost: Integers) -> None:
        """Prices anew the rows among these that were served at special terms."""
        turns = self._turns
        if len(turns.special) == 0:
            return
        if isinstance(rows, slice):
            first, end = np.searchsorted(turns.special, [rows.start, rows.stop])
            which = np.arange(first, end)
            place = turns.special[which] - rows.start
        else:
            found = np.minimum(np.searchsorted(turns.special, rows), len(turns.special) - 1)
            place = np.flatnonzero(turns.special[found] == rows)
            which = found[place]
        if len(which) == 0:
            return
        row = turns.special[which]
        period, terms, searches = (
            turns.period[row],
            turns.special_terms[which],
            turns.searches[which],
        )
        numerator = self._numerator[terms, period]
        whole = self._denominator[terms, period] * TOKENS_PER_PRICE
        charged = (millionths[place] * numerator + whole // 2) // whole
        charged += np.where(searches > 0, searches * self._search[period], 0)
        known = (numerator > 0) & ((searches == 0) | (self._search[period] != UNPRICED))
        known &= self._rates[0, period] != UNPRICED
        cost[place] = np.where(known, charged, UNPRICED)


def _distinct_terms(frame: TurnFrame) -> tuple[list[Terms], Integers]:
    """The combinations of terms in a frame, standard ones first, and each turn's code."""
    columns = (frame.speed, frame.service_tier, frame.inference_geo)
    terms: list[Terms] = [Terms()]
    code_of: dict[Terms, int] = {}
    of_words = []
    for words in product(*(column.values or ("",) for column in columns)):
        found = Terms(words[0], words[1], words[2])
        if found.is_standard:
            of_words.append(0)
            continue
        if found not in code_of:
            code_of[found] = len(terms)
            terms.append(found)
        of_words.append(code_of[found])
    codes = np.zeros(len(frame), code_type(len(terms)))
    if len(terms) > 1:
        place = np.zeros(len(frame), np.int32)
        for column in columns:
            place = place * max(1, len(column.values)) + column.codes
        codes = np.array(of_words, codes.dtype)[place]
    return terms, codes


def _multiplier(price: Price, terms: Terms) -> Fraction:
    """The product of a price's multipliers for the terms; 0 where one has no price. A model
    without a fast mode serves at standard speed: a gateway drops what it does not take."""
    try:
        multipliers = price.multipliers_of(terms)
    except LookupError:
        return _multiplier(price, replace(terms, speed="")) if terms.speed else Fraction(0)
    factor = Fraction(1)
    for multiplier in multipliers:
        factor *= Fraction(multiplier, ONE)
    return factor


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
