"""LiteLLM's price map: taken over exactly, or left out with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loop.domain.errors import BadInput
from loop.domain.money import PriceBook, Terms
from loop.domain.turns import TokenUsage
from loop.ledger.litellm_prices import read_litellm_map
from loop.ledger.price_changes import compare_prices, keep_terms, only_changes
from loop.ledger.prices import load_price_book

DAY = "2026-12-01"
OPUS: dict[str, Any] = {
    "litellm_provider": "anthropic",
    "mode": "chat",
    "input_cost_per_token": 4e-06,
    "output_cost_per_token": 2e-05,
    "cache_read_input_token_cost": 2e-07,
    "cache_creation_input_token_cost": 5e-06,
    "cache_creation_input_token_cost_above_1hr": 8e-06,
    "input_cost_per_token_batches": 2e-06,
    "output_cost_per_token_batches": 1e-05,
    "provider_specific_entry": {"fast": 2, "us": 1.1},
    "search_context_cost_per_query": {"search_context_size_low": 0.01},
}


def read(**entries: dict[str, Any]) -> Any:
    document = {"sample_spec": {"max_tokens": "a text"}} | entries
    return read_litellm_map(json.dumps(document), DAY, source="the map")


def test_an_entry_becomes_a_price_with_its_terms() -> None:
    (price,) = read(**{"claude-new-1": OPUS}).prices
    book = PriceBook("v", [price])
    usage = TokenUsage(1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000)
    assert book.cost("claude-new-1", DAY, usage).microusd == 37_200_000
    terms = Terms("fast", "batch", "us", 1)
    assert book.cost("claude-new-1", DAY, usage, terms).microusd == 37_200_000 * 11 // 10 + 10_000
    assert book.cost("claude-new-1", "2026-11-30", usage).microusd is None
    assert price.source == "the map"


def test_the_noise_of_binary_fractions_is_no_price() -> None:
    noisy = OPUS | {"input_cost_per_token": 1.0000000000000001e-07}
    (price,) = read(**{"claude-new-1": noisy}).prices
    assert price.input_microusd == 100_000


def test_long_input_has_rates_of_its_own() -> None:
    keys = [key for key in OPUS if key.startswith(("input_cost", "output_cost", "cache_"))]
    dear = {
        f"{key}_above_200k_tokens": 2 * OPUS[key] for key in keys if not key.endswith("batches")
    }
    (price,) = read(**{"claude-new-1": OPUS | dear}).prices
    assert price.long_input_tokens == 200_000
    assert price.long_input_rates is not None
    assert price.long_input_rates.cache_creation_1h_microusd == 16_000_000


def test_names_with_and_without_a_date_are_one_price_where_they_agree() -> None:
    same = read(**{"claude-new-1": OPUS, "claude-new-1-20261101": OPUS}).prices
    assert [price.model for price in same] == ["claude-new-1"]
    other = OPUS | {"output_cost_per_token": 3e-05, "output_cost_per_token_batches": 1.5e-05}
    found = read(**{"claude-new-1": OPUS, "claude-new-1-20261101": other}).prices
    assert [price.model for price in found] == ["claude-new-1", "claude-new-1-20261101"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cache_creation_input_token_cost_above_1hr": None}, "1-hour cache writes"),
        ({"input_cost_per_token": None}, "no price of tokens"),
        ({"input_cost_per_token": None, "cost_per_second": 0.01}, "by the second"),
        ({"input_cost_per_token": "dear"}, "is no price"),
        ({"input_cost_per_token": -1}, "is no price"),
        ({"input_cost_per_token": 1.00000005e-06}, "whole number"),
        ({"input_cost_per_token_above_200k_tokens": 1e-05}, "above 200K tokens"),
    ],
)
def test_what_can_not_be_represented_is_left_out_with_its_reason(
    change: dict[str, Any], reason: str
) -> None:
    entry = {key: value for key, value in (OPUS | change).items() if value is not None}
    found = read(**{"claude-new-1": entry, "gpt-5": OPUS})
    assert found.prices == ()
    ((name, said, entirely),) = [(row.name, row.reason, row.entirely) for row in found.left_out]
    assert (name, entirely) == ("claude-new-1", True)
    assert reason in said


def test_batch_prices_that_are_no_one_discount_are_left_out_alone() -> None:
    found = read(**{"claude-new-1": OPUS | {"input_cost_per_token_batches": 2.5e-06}})
    assert [price.service_tiers for price in found.prices] == [()]
    assert [row.entirely for row in found.left_out] == [False]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"a": 1}', '{"a": {"mode": "chat"}}'])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        read_litellm_map(text, DAY, source="s")


def test_the_difference_is_told_in_words() -> None:
    book = load_price_book()
    dearer = OPUS | {"input_cost_per_token": 5e-06, "input_cost_per_token_batches": 2.5e-06}
    found = read(**{"claude-opus-5-5": dearer, "claude-new-1": OPUS, "claude-haiku-4-5": OPUS})
    changes = {c.price.model: c for c in compare_prices(book, found.prices)}
    assert changes["claude-opus-5-5"].words.startswith("input $4 → $5 (+25.0 %)")
    assert changes["claude-new-1"].kind == "new model"
    assert compare_prices(book, book.prices()) == [
        change for change in compare_prices(book, book.prices()) if change.kind == "same"
    ]
    assert len(only_changes(changes.values())) == 3


def test_silence_withdraws_no_term() -> None:
    book = load_price_book()
    bare = {key: value for key, value in OPUS.items() if key.endswith(("token", "cost", "1hr"))}
    (price,) = read(**{"claude-opus-5-5": bare | {"litellm_provider": "anthropic"}}).prices
    assert (price.speeds, price.service_tiers) == ((), ())
    assert [c.kind for c in compare_prices(book, [keep_terms(book, price)])] == ["same"]
