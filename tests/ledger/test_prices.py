"""The price book: what the client charges, exact arithmetic, and clear refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.domain.errors import BadInput
from loop.domain.model_names import names_of, plain_name
from loop.domain.money import Price, PriceBook, Rates, Terms, cost_microusd
from loop.domain.turns import TokenUsage
from loop.ledger.prices import load_price_book, read_entries, write_document

DAY = "2026-11-20"
tokens = st.integers(0, 2**40)
usages = st.builds(TokenUsage, tokens, tokens, tokens, tokens, tokens)
rates = st.integers(0, 10**9)
multipliers = st.tuples(*[st.integers(1, 6 * 10**6)] * 3)
ENTRY = {
    "model": "my-model",
    "effective_from": "2026-01-01",
    "input": 2.5,
    "output": 10,
    "cache_read": 0.25,
    "cache_creation_5m": 3.125,
    "cache_creation_1h": 5,
}


def write_book(folder: Path, *entries: dict[str, Any], **given_: Any) -> Path:
    document = {"schema": "turnwise.prices/1", "version": "own-1", "prices": entries} | given_
    path = folder / "prices.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("model", "dollars_per_million"),
    [
        ("claude-opus-4-7", (5, 25, 0.5, 6.25, 10)),
        ("claude-sonnet-4-6", (3, 15, 0.3, 3.75, 6)),
        ("claude-haiku-4-5", (1, 5, 0.1, 1.25, 2)),
    ],
)
def test_the_shipped_prices_are_those_that_the_client_charges(
    model: str, dollars_per_million: tuple[float, ...]
) -> None:
    book = load_price_book()
    for position, dollars in enumerate(dollars_per_million):
        usage = TokenUsage(*(1_000_000 if i == position else 0 for i in range(5)))
        assert book.cost(model, DAY, usage).microusd == dollars * 1_000_000


def test_a_release_date_is_an_alias_and_likeness_is_not() -> None:
    book = load_price_book()
    usage = TokenUsage(1000, 100, 10, 5, 1)
    expected = book.cost("claude-haiku-4-5", DAY, usage)
    assert book.cost("claude-haiku-4-5-20251001", DAY, usage) == expected
    for stranger in (
        "claude-haiku-4-5-2025100",
        "claude-haiku-4-5-20251001-x",
        "claude-haiku-4-5-latest",
        "claude-haiku-4",
        "CLAUDE-HAIKU-4-5",
        "us.anthropic.claude-haiku-4-5-20251002x-v1:0",
        "openrouter/anthropic/claude-haiku-4.5",
        "",
    ):
        cost = book.cost(stranger, DAY, usage)
        assert cost.microusd is None
        assert cost.unpriced_reason.startswith("unknown model")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("claude-haiku-4-5", "claude-haiku-4-5"),
        ("claude-haiku-4-5[1m]", "claude-haiku-4-5"),
        ("anthropic/claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("litellm_proxy/anthropic/claude-haiku-4-5", "claude-haiku-4-5"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "us.anthropic.claude-haiku-4-5"),
        ("bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0", "us.anthropic.claude-haiku-4-5"),
        ("bedrock/converse/anthropic.claude-opus-4-6-v1", "anthropic.claude-opus-4-6"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-7",
            "us.anthropic.claude-opus-4-7",
        ),
        ("claude-haiku-4-5@20251001", "vertex_ai/claude-haiku-4-5"),
        ("vertex_ai/claude-opus-4-7@default", "vertex_ai/claude-opus-4-7"),
        ("azure_ai/claude-opus-4-7", "azure_ai/claude-opus-4-7"),
        (
            "bedrock/us-gov-west-1/anthropic.claude-haiku-4-5-20251001-v1:0",
            "bedrock/us-gov-west-1/anthropic.claude-haiku-4-5",
        ),
    ],
)
def test_each_spelling_of_a_model_has_one_plain_name(name: str, plain: str) -> None:
    assert plain_name(name) == plain
    assert names_of(name)[0] == name
    assert plain_name(plain) == plain


def test_a_platform_has_its_own_price() -> None:
    book, usage = load_price_book(), TokenUsage(100_000)
    costs = {
        name: book.cost(name, DAY, usage).microusd
        for name in (
            "claude-haiku-4-5",
            "global.anthropic.claude-haiku-4-5-20251001-v1:0",
            "us.anthropic.claude-haiku-4-5-20251001-v1:0",
            "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "claude-haiku-4-5@20251001",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc",
        )
    }
    assert list(costs.values()) == [100_000, 100_000, 110_000, 360_000, 100_000, None]


@pytest.mark.parametrize(
    ("terms", "microusd"),
    [
        (Terms(), 4_000_000),
        (Terms("standard", "standard", "global"), 4_000_000),
        (Terms(speed="fast"), 8_000_000),
        (Terms(service_tier="batch"), 2_000_000),
        (Terms(inference_geo="us"), 4_400_000),
        (Terms("fast", "standard", "us", 3), 8_830_000),
    ],
)
def test_terms_multiply_the_rates(terms: Terms, microusd: int) -> None:
    book = load_price_book()
    assert book.cost("claude-opus-5-5", DAY, TokenUsage(1_000_000), terms).microusd == microusd


@pytest.mark.parametrize(
    ("model", "terms", "said"),
    [
        ("claude-opus-5-5", Terms(service_tier="priority"), "service tier priority"),
        ("claude-opus-5-5", Terms(inference_geo="eu"), "inference geography eu"),
        ("claude-opus-4-7", Terms(speed="fast"), "speed fast"),
        ("my-model", Terms(web_search_requests=1), "web searches"),
    ],
)
def test_terms_without_a_price_are_unpriced(
    tmp_path: Path, model: str, terms: Terms, said: str
) -> None:
    cost = load_price_book(write_book(tmp_path, ENTRY)).cost(model, DAY, TokenUsage(5), terms)
    assert cost.microusd is None
    assert said in cost.unpriced_reason


@given(usages, st.builds(Price, st.just("m"), st.just("2026-01-01"), *[rates] * 5), multipliers)
def test_terms_are_exact_and_rounded_once(
    usage: TokenUsage, price: Price, millionths: tuple[int, int, int]
) -> None:
    fast, batch, us = millionths
    price = replace(
        price,
        speeds=(("fast", fast),),
        service_tiers=(("batch", batch),),
        inference_geos=(("us", us),),
    )
    cost = cost_microusd(usage, price, Terms("fast", "batch", "us"))
    exact = Fraction(
        usage.input_tokens * price.input_microusd
        + usage.output_tokens * price.output_microusd
        + usage.cache_read_tokens * price.cache_read_microusd
        + usage.cache_creation_5m_tokens * price.cache_creation_5m_microusd
        + usage.cache_creation_1h_tokens * price.cache_creation_1h_microusd,
        10**6,
    ) * Fraction(fast * batch * us, 10**18)
    assert Fraction(-1, 2) < cost - exact <= Fraction(1, 2)


def test_an_exact_name_goes_before_its_alias() -> None:
    dated = Price("m-20260101", "2026-01-01", 7, 7, 7, 7, 7)
    book = PriceBook("v", [dated, Price("m", "2026-01-01", 1, 1, 1, 1, 1)])
    assert book.find("m-20260101", DAY) is dated


def test_a_price_holds_from_its_day_until_the_next() -> None:
    days = ["2026-01-01", "2026-06-01"]
    book = PriceBook("v", [Price("m", day, *[n] * 5) for n, day in enumerate(days)])
    found = {day: book.find("m", day) for day in ("2025-12-31", "2026-05-31", "2026-06-01")}
    assert found["2025-12-31"] is None
    assert "in force" in book.cost("m", "2025-12-31", TokenUsage(1)).unpriced_reason
    assert [price and price.effective_from for price in found.values()] == [None, *days]


@given(usages, st.builds(Price, st.just("m"), st.just("2026-01-01"), *[rates] * 5))
def test_a_cost_is_exact_and_rounded_half_up(usage: TokenUsage, price: Price) -> None:
    exact = Fraction(
        usage.input_tokens * price.input_microusd
        + usage.output_tokens * price.output_microusd
        + usage.cache_read_tokens * price.cache_read_microusd
        + usage.cache_creation_5m_tokens * price.cache_creation_5m_microusd
        + usage.cache_creation_1h_tokens * price.cache_creation_1h_microusd,
        1_000_000,
    )
    cost = cost_microusd(usage, price)
    assert Fraction(-1, 2) < cost - exact <= Fraction(1, 2)


@given(usages, st.integers(1, 2**42))
def test_a_long_input_changes_the_rates_of_all_its_tokens(usage: TokenUsage, limit: int) -> None:
    low, high = Rates(1, 2, 3, 4, 5), Rates(10, 20, 30, 40, 50)
    names = Rates.__dataclass_fields__
    flat = {name: getattr(low, name) for name in names}
    dear = {name: getattr(high, name) for name in names}
    price = Price("m", "2026-01-01", **flat, long_input_tokens=limit, long_input_rates=high)
    plain = Price("m", "2026-01-01", **(dear if usage.total_input_tokens > limit else flat))
    assert cost_microusd(usage, price) == cost_microusd(usage, plain)


def test_the_shipped_long_input_rates_apply() -> None:
    book = load_price_book()
    assert book.cost("claude-haiku-5-5", DAY, TokenUsage(100_000)).microusd == 10_000
    assert book.cost("claude-haiku-5-5", DAY, TokenUsage(1, 0, 100_000)).microusd == 5_001


def test_a_document_gives_its_prices_back() -> None:
    book = load_price_book()
    entries = json.loads(json.dumps(write_document(book.prices(), "v")))["prices"]
    assert tuple(read_entries(entries, "it").values()) == book.prices()


def test_an_own_book_extends_replaces_or_stands_alone(tmp_path: Path) -> None:
    cheaper = ENTRY | {"model": "claude-opus-4-7", "effective_from": "2026-06-01"}
    book = load_price_book(write_book(tmp_path, ENTRY, cheaper))
    assert book.version == f"{load_price_book().version}+own-1"
    assert book.cost("my-model", DAY, TokenUsage(2)).microusd == 5
    assert book.cost("claude-opus-4-7", "2026-05-31", TokenUsage(2)).microusd == 10
    assert book.cost("claude-opus-4-7", "2026-06-01", TokenUsage(2)).microusd == 5
    alone = load_price_book(write_book(tmp_path, ENTRY, replace=True))
    assert (alone.version, alone.models()) == ("own-1", ("my-model",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"effective_from": "1.1.2026"}, "effective_from"),
        ({"effective_from": "20260101"}, "effective_from"),
        ({"input": -1}, "input"),
        ({"input": "5"}, "input"),
        ({"output": True}, "output"),
        ({"output": None}, "output"),
        ({"cache_read": 0.0000001}, "cache_read"),
        ({"cache_read": 1e300}, "cache_read"),
        ({"colour": "red"}, "colour"),
        ({"long_input": 5}, "long_input"),
        ({"speeds": 2}, "speeds"),
        ({"speeds": {"fast": "2"}}, "speeds"),
        ({"service_tiers": {"batch": -0.5}}, "service_tiers"),
        ({"inference_geos": {"us": 1.0000001}}, "inference_geos"),
        ({"web_search": "0.01"}, "web_search"),
        ({"aliases": "other-name"}, "aliases"),
        ({"source": 5}, "source"),
        ({"long_input": {"above_input_tokens": 0}}, "above_input_tokens"),
        ({"long_input": {"above_input_tokens": 5, "input": 1}}, "output"),
    ],
)
def test_a_broken_entry_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=f"entry 2.*{said}"):
        load_price_book(write_book(tmp_path, ENTRY, ENTRY | {"model": "other"} | change))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"schema": "turnwise.prices/9"}',
        '{"schema": "turnwise.prices/1", "prices": []}',
        '{"schema": "turnwise.prices/1", "version": "v", "prices": {}}',
        '{"schema": "turnwise.prices/1", "version": "v", "prices": [], "replace": 1}',
        '{"schema": "turnwise.prices/1", "version": "v", "prices": [NaN]}',
        '{"schema": "turnwise.prices/1", "version": "v", "prices": [1]}',
        '{"schema": "turnwise.prices/1", "version": "v", "prices": [], "x": 1}',
        "\udcff",
    ],
)
def test_a_broken_book_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput):
        load_price_book(path)
    with pytest.raises(BadInput):
        load_price_book(tmp_path / "absent.json")


def test_two_prices_of_one_day_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="two prices"):
        load_price_book(write_book(tmp_path, ENTRY, ENTRY))
