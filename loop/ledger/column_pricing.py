"""Prices columns of turns at once: what :meth:`PriceBook.cost` gives row by row, to the
micro-dollar.

Turns of one day share few prices. Each combination of model and terms is looked up once, and the
tokens of all rows are multiplied in 64-bit integers. Rows whose products might not fit are priced
one by one, in integers of any size.
"""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loop.domain.errors import BadInput
from loop.domain.money import ONE, TOKENS_PER_PRICE, Price, PriceBook, Rates, Terms
from loop.domain.turns import TokenUsage

TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_5m_tokens",
    "cache_creation_1h_tokens",
)
PRICED = ("cost_microusd", "price_version", "unpriced_reason")
COLUMNS = (
    "requested_model",
    "served_model",
    "speed",
    "service_tier",
    "inference_geo",
    "web_search_requests",
    *TOKENS,
    *PRICED,
)
"""The columns that a price depends on, and those that it fills."""

_SAFE = 2.0**62
"""Half of what 64 bits hold: room for what estimates in floating point are off by."""

Ints = NDArray[np.int64]


class _Group(NamedTuple):
    """One combination of model and terms on a day. ``numerator`` / ``denominator`` is all
    multipliers and the tokens per price, reduced."""

    rates: tuple[int, ...] = (0,) * len(TOKENS)
    long_rates: tuple[int, ...] = (0,) * len(TOKENS)
    long_tokens: int = 2**63 - 1
    numerator: int = 1
    denominator: int = 1
    search_microusd: int = 0
    reason: str = ""  # why none of its turns has a price
    search_reason: str = ""  # why those with web searches have none
    is_wide: bool = False  # its own factors are beyond 64 bits: its turns go one by one


def price_columns(turns: pa.Table | pa.RecordBatch, day: str, book: PriceBook) -> pa.Table:
    """The columns :data:`PRICED` of turns that began on a UTC day, in the rows' order.

    ``turns`` has :data:`COLUMNS` under the record's names; null reads as the record's default.
    Turns of which the collectors know already that they have no price stay as they are. Raises
    :class:`BadInput` for a cost beyond 64 bits.
    """
    codes, keys = _combine(
        [
            charged_models(turns),
            *(_texts(turns, name) for name in ("speed", "service_tier", "inference_geo")),
        ]
    )
    groups = [_group_of(book, day, *key) for key in keys] or [_Group()]
    tokens = [_ints(turns, name) for name in TOKENS]
    searches = _ints(turns, "web_search_requests")

    total_input = sum(tokens) - tokens[1]
    is_long = total_input > _gather(groups, "long_tokens", codes)
    rates = [
        np.where(is_long, _nth(groups, "long_rates", n, codes), _nth(groups, "rates", n, codes))
        for n in range(len(TOKENS))
    ]
    numerator = _gather(groups, "numerator", codes)
    denominator = _gather(groups, "denominator", codes)
    search_microusd = _gather(groups, "search_microusd", codes)
    parts = sum(count * rate for count, rate in zip(tokens, rates, strict=True))
    costs: Ints = (2 * parts * numerator + denominator) // (2 * denominator)
    costs = costs + searches * search_microusd

    is_empty = ~np.logical_or.reduce([*(count != 0 for count in tokens), searches != 0])
    texts = ["", *(group.reason for group in groups), *(group.search_reason for group in groups)]
    lacks_price = np.array([bool(group.reason) for group in groups])[codes]
    lacks_search = np.array([bool(group.search_reason) for group in groups])[codes]
    reasons = np.where(lacks_search & (searches != 0), 1 + len(groups) + codes, 0)
    reasons = np.where(lacks_price, 1 + codes, reasons)
    reasons[is_empty] = 0
    costs[is_empty] = 0

    # Estimated with the larger of both rates: which one holds may have been miscounted, too.
    estimate = (
        2.0
        * numerator
        * sum(
            np.abs(count.astype(float))
            * np.maximum(_nth(groups, "rates", n, codes), _nth(groups, "long_rates", n, codes))
            for n, count in enumerate(tokens)
        )
        + 2.0 * denominator
    )
    estimate = np.maximum(estimate, np.abs(searches.astype(float)) * search_microusd)
    inputs = sum(np.abs(count.astype(float)) for count in tokens)
    wide = np.maximum(estimate, inputs) >= _SAFE
    wide |= np.array([group.is_wide for group in groups])[codes]
    known = pc.and_(
        pc.not_equal(_texts(turns, "unpriced_reason"), ""),
        pc.equal(_texts(turns, "price_version"), ""),
    )
    is_priced = (reasons == 0) & ~known.to_numpy(zero_copy_only=False)
    exact: list[int] | Ints = costs
    if (wide & ~is_empty).any():
        exact = costs.tolist()
        for row in np.flatnonzero(wide & ~is_empty & is_priced):
            usage = TokenUsage(*(int(count[row]) for count in tokens))
            model, speed, service_tier, inference_geo = keys[codes[row]]
            terms = Terms(speed, service_tier, inference_geo, int(searches[row]))
            cost = book.cost(model, day, usage, terms).microusd
            assert cost is not None
            exact[row] = cost
    try:
        priced = pa.array(exact, pa.int64(), mask=~is_priced)
    except (OverflowError, pa.ArrowInvalid) as error:
        raise BadInput("A cost does not fit into 64 bits.", why=str(error)) from error

    found = {
        "cost_microusd": priced,
        "price_version": pa.scalar(book.version),
        "unpriced_reason": pa.array(texts).take(pa.array(reasons)),
    }
    return pa.table({name: pc.if_else(known, _column(turns, name), found[name]) for name in PRICED})


def charged_models(turns: pa.Table | pa.RecordBatch) -> Any:
    """What each turn is charged as: the served model, or the requested one if none is known."""
    served = _texts(turns, "served_model")
    return pc.if_else(pc.equal(served, ""), _texts(turns, "requested_model"), served)


def _group_of(
    book: PriceBook, day: str, model: str, speed: str, service_tier: str, inference_geo: str
) -> _Group:
    # A turn with tokens says why there is no price; without any it costs nothing.
    price = book.find(model, day)
    if price is None:
        return _Group(reason=book.cost(model, day, TokenUsage(1)).unpriced_reason)
    try:
        multipliers = price.multipliers_of(Terms(speed, service_tier, inference_geo))
    except LookupError as error:
        return _Group(reason=str(error))
    numerator, denominator = 1, TOKENS_PER_PRICE
    for multiplier in multipliers:
        numerator, denominator = numerator * multiplier, denominator * ONE
    shared = gcd(numerator, denominator)
    has_long = price.long_input_tokens is not None and price.long_input_rates is not None
    long_rates = price.long_input_rates if has_long and price.long_input_rates else price
    group = _Group(
        _rates(price),
        _rates(long_rates),
        price.long_input_tokens if has_long and price.long_input_tokens is not None else 2**63 - 1,
        numerator // shared,
        denominator // shared,
        price.web_search_microusd or 0,
    )
    if price.web_search_microusd is None:
        terms = Terms(web_search_requests=1)
        reason = book.cost(model, day, TokenUsage(), terms).unpriced_reason
        group = group._replace(search_reason=reason)
    factors = (
        group.numerator,
        group.denominator,
        group.search_microusd,
        *group.rates,
        *group.long_rates,
    )
    if max(factors) >= _SAFE or group.long_tokens >= 2**63:
        return _Group(search_reason=group.search_reason, is_wide=True)
    return group


def _rates(rates: Rates | Price) -> tuple[int, ...]:
    return (
        rates.input_microusd,
        rates.output_microusd,
        rates.cache_read_microusd,
        rates.cache_creation_5m_microusd,
        rates.cache_creation_1h_microusd,
    )


def _combine(columns: list[Any]) -> tuple[Ints, list[tuple[str, ...]]]:
    """A number for each distinct combination of texts, by row, and the combinations."""
    codes: Ints = np.zeros(len(columns[0]), np.int64)
    keys: list[tuple[str, ...]] = [()]
    for column in columns:
        encoded = _flat(column).dictionary_encode()
        words = encoded.dictionary.to_pylist()
        both = codes * max(len(words), 1) + encoded.indices.to_numpy()
        dense = pa.array(both).dictionary_encode()
        keys = [
            (*keys[n // len(words)], words[n % len(words)]) for n in dense.dictionary.to_pylist()
        ]
        codes = dense.indices.to_numpy().astype(np.int64)
    return codes, keys


def _gather(groups: list[_Group], name: str, codes: Ints) -> Ints:
    found: Ints = np.array([getattr(group, name) for group in groups], np.int64)[codes]
    return found


def _nth(groups: list[_Group], name: str, position: int, codes: Ints) -> Ints:
    found: Ints = np.array([getattr(group, name)[position] for group in groups], np.int64)[codes]
    return found


def _column(turns: pa.Table | pa.RecordBatch, name: str) -> Any:
    return _flat(turns.column(name))


def _texts(turns: pa.Table | pa.RecordBatch, name: str) -> Any:
    return _column(turns, name).fill_null("")


def _ints(turns: pa.Table | pa.RecordBatch, name: str) -> Ints:
    found: Ints = _column(turns, name).fill_null(0).to_numpy(zero_copy_only=False)
    return found


def _flat(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
