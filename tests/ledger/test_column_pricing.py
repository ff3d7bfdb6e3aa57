"""Pricing by columns is pricing row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput
from loop.domain.money import Price, PriceBook, Rates
from loop.domain.turns import TokenUsage, Turn
from loop.ledger.column_pricing import COLUMNS, TOKENS, price_columns
from loop.ledger.pricing import day_of_turn, price
from tests.lake.lake_records import turn

DAY = day_of_turn(turn(0))
MODELS = ("claude-opus-4-7", "anthropic/claude-opus-4-7", "claude-haiku-4-5-20251001", "m", "", "z")
WORDS = ("", "standard", "fast", "batch", "us", "odd")
rates = st.builds(Rates, *[st.integers(0, 10**8)] * 5)
terms = st.dictionaries(st.sampled_from(WORDS[2:]), st.integers(0, 6 * 10**6)).map(
    lambda found: tuple(sorted(found.items()))
)
prices = st.builds(
    lambda model, day, own, long_tokens, long_rates, *more: Price(
        model,
        day,
        own.input_microusd,
        own.output_microusd,
        own.cache_read_microusd,
        own.cache_creation_5m_microusd,
        own.cache_creation_1h_microusd,
        long_tokens,
        long_rates,
        *more,
    ),
    st.sampled_from(["claude-opus-4-7", "claude-haiku-4-5", "m", "other"]),
    st.sampled_from(["2020-01-01", DAY, "2099-01-01"]),
    rates,
    st.none() | st.integers(0, 1000) | st.just(2**64),
    st.none() | rates,
    terms,
    terms,
    terms,
    st.none() | st.integers(0, 10**6) | st.just(2**62),
    st.sampled_from([(), ("z",)]),
)
counts = st.integers(0, 2000) | st.integers(0, 2**34)
turns = st.builds(
    lambda usage, **fields: turn(0, usage=usage, **fields),
    st.just(TokenUsage()) | st.builds(TokenUsage, *[counts] * 5),
    requested_model=st.sampled_from(MODELS),
    served_model=st.sampled_from(MODELS),
    speed=st.sampled_from(WORDS),
    service_tier=st.sampled_from(WORDS),
    inference_geo=st.sampled_from(WORDS),
    web_search_requests=st.sampled_from([0, 0, 1, 7]),
    cost_microusd=st.none() | st.integers(0, 5),
    price_version=st.sampled_from(["", "old"]),
    unpriced_reason=st.sampled_from(["", "tokens are not known"]),
)


def columns_of(found: list[Turn]) -> pa.Table:
    kinds = {n: pa.int64() for n in (*TOKENS, "web_search_requests", "cost_microusd")}
    return pa.table(
        {
            name: pa.array(
                [getattr(t.usage if name in TOKENS else t, name) for t in found],
                kinds.get(name, pa.string()),
            )
            for name in COLUMNS
        }
    )


def by_row(one: Turn, book: PriceBook) -> dict[str, Any]:
    priced = price(one, book)
    return {n: getattr(priced, n) for n in ("cost_microusd", "price_version", "unpriced_reason")}


@settings(max_examples=60, deadline=None)
@given(st.lists(prices, max_size=6), st.lists(turns, max_size=8))
def test_columns_are_priced_as_rows_are(listed: list[Price], found: list[Turn]) -> None:
    book = PriceBook("b", listed)
    expected = [by_row(one, book) for one in found]
    if any((row["cost_microusd"] or 0) >= 2**63 for row in expected):
        with pytest.raises(BadInput):
            price_columns(columns_of(found), DAY, book)
    else:
        assert price_columns(columns_of(found), DAY, book).to_pylist() == expected


def test_null_reads_as_not_stated_and_halves_round_up() -> None:
    half = 500_000
    listed = Price("m", "2020-01-01", half, half, half, half, half)
    found = [turn(0, served_model="m", usage=TokenUsage(tokens)) for tokens in (1, 2, 3)]
    table = columns_of(found)
    for name in ("speed", "service_tier", "inference_geo", "web_search_requests"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.nulls(3, table[name].type))
    for book in (PriceBook("b", [listed]), PriceBook("b", [replace(listed, aliases=("n",))])):
        assert price_columns(table, DAY, book)["cost_microusd"].to_pylist() == [1, 1, 2]
