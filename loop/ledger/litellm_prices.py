"""Reads LiteLLM's price map: what of it can be represented as prices, and why the rest can't.

The map (``model_prices_and_context_window.json``) gives dollars per token. It is read as decimal
numbers, so that nothing is rounded on the way to micro-dollars per million tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any

from loop.domain.errors import BadInput
from loop.domain.model_names import plain_name
from loop.domain.money import ONE, Multipliers, Price, Rates

_TOKENS = 1_000_000
_MICROUSD = 1_000_000
_KEYS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_creation_5m": "cache_creation_input_token_cost",
    "cache_creation_1h": "cache_creation_input_token_cost_above_1hr",
}
_WORDS = {
    "input": "input",
    "output": "output",
    "cache_read": "cache reads",
    "cache_creation_5m": "5-minute cache writes",
    "cache_creation_1h": "1-hour cache writes",
}
_ABOVE = re.compile(r"_above_([0-9]+)k_tokens\Z")
_NOISE = Decimal("1e-9")  # of a price: what 0.1 + 0.2 leaves behind when a map is written
_GEOS = frozenset({"us"})  # of provider_specific_entry; its other names are speeds
_SPEEDS = frozenset({"fast"})


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What of an entry was not taken over. ``entirely``: the model got no price from it."""

    name: str
    reason: str
    entirely: bool = True


@dataclass(frozen=True, slots=True)
class LiteLlmPrices:
    prices: tuple[Price, ...]
    left_out: tuple[LeftOut, ...]


def read_litellm_map(
    text: str, effective_from: str, *, source: str, models: str = "*claude*"
) -> LiteLlmPrices:
    """The prices of the entries whose name matches the glob ``models``, in force from a day on.

    Names of one model on one platform (with and without a release date) become one price where
    they agree. Raises :class:`BadInput` for a text that is no such map.
    """
    try:
        document = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError) as error:
        raise BadInput("This is no JSON.", why=str(error)) from error
    entries = {
        name: entry
        for name, entry in (document.items() if isinstance(document, dict) else ())
        if isinstance(entry, dict) and "litellm_provider" in entry
    }
    if not entries:
        raise BadInput(
            "This is no price map of LiteLLM's.",
            fix="Give model_prices_and_context_window.json of its repository or package.",
        )
    found: dict[str, Price] = {}
    left_out: list[LeftOut] = []
    for name in sorted(entries, key=lambda name: (plain_name(name) != name, name)):
        if not fnmatchcase(name, models):
            continue
        try:
            price = _read_entry(name, entries[name], effective_from, source, left_out)
        except ValueError as error:
            left_out.append(LeftOut(name, str(error)))
            continue
        _add(found, price)
    ordered = tuple(found[name] for name in sorted(found))
    return LiteLlmPrices(ordered, tuple(sorted(left_out, key=lambda row: (row.name, row.reason))))


def _add(found: dict[str, Price], price: Price) -> None:
    """Under the plain name; under its own where the plain one costs something else."""
    plain = replace(price, model=plain_name(price.model))
    if found.setdefault(plain.model, plain) != plain:
        found[price.model] = price


def _read_entry(
    name: str, entry: Mapping[str, Any], day: str, source: str, left_out: list[LeftOut]
) -> Price:
    if "input_cost_per_token" not in entry:
        if "cost_per_second" in entry or "input_cost_per_second" in entry:
            raise ValueError("priced by the second of reserved capacity, not by tokens")
        raise ValueError("it states no price of tokens")
    if missing := [_WORDS[kind] for kind, key in _KEYS.items() if key not in entry]:
        raise ValueError(f"it states no price of {' and '.join(missing)}")
    rates = {kind: _microusd(entry, key) for kind, key in _KEYS.items()}
    input_rate, output, read, write_5m, write_1h = rates.values()
    price = Price(name, day, input_rate, output, read, write_5m, write_1h, source=source)
    price = _with_long_input(price, entry)
    batch = _batch(entry, rates, name, left_out)
    speeds, geos = _provider_terms(entry, name, left_out)
    if "regional_endpoint_uplift_multiplier" in entry:
        reason = "the regional endpoints' uplift: a request's telemetry does not tell its endpoint"
        left_out.append(LeftOut(name, reason, entirely=False))
    return replace(
        price,
        service_tiers=batch,
        speeds=speeds,
        inference_geos=geos,
        web_search_microusd=_web_search(entry, name, left_out),
    )


def _with_long_input(price: Price, entry: Mapping[str, Any]) -> Price:
    limits = {int(match[1]) for key in entry if (match := _ABOVE.search(key))}
    if not limits:
        if "tiered_pricing" in entry:
            raise ValueError("it is priced in tiers of a form of its own (tiered_pricing)")
        return price
    if len(limits) > 1:
        raise ValueError(f"it has several limits of long input: {sorted(limits)} thousand tokens")
    limit = limits.pop()
    keys = {kind: f"{key}_above_{limit}k_tokens" for kind, key in _KEYS.items()}
    if missing := [_WORDS[kind] for kind, key in keys.items() if key not in entry]:
        raise ValueError(f"above {limit}K tokens it states no price of {' and '.join(missing)}")
    long_rates = Rates(*(_microusd(entry, key) for key in keys.values()))
    return replace(price, long_input_tokens=limit * 1000, long_input_rates=long_rates)


def _batch(
    entry: Mapping[str, Any], rates: Mapping[str, int], name: str, left_out: list[LeftOut]
) -> Multipliers:
    """One discount for all classes, as the provider states it for batches.

    The map has none for 1-hour writes; those of the other classes must agree.
    """
    stated = {
        kind: _exact(entry[f"{key}_batches"]) * _TOKENS * _MICROUSD
        for kind, key in _KEYS.items()
        if f"{key}_batches" in entry
    }
    shares = {value / rates[kind] for kind, value in stated.items() if rates[kind]}
    if not shares:
        return ()
    share = next(iter(shares))
    if not {"input", "output"} <= set(stated) or any(
        abs(other - share) > _NOISE * share for other in shares
    ):
        reason = "the batch prices: they are no one discount for all classes of tokens"
        left_out.append(LeftOut(name, reason, entirely=False))
        return ()
    return (("batch", _whole(share * ONE, "the batch discount")),)


def _provider_terms(
    entry: Mapping[str, Any], name: str, left_out: list[LeftOut]
) -> tuple[Multipliers, Multipliers]:
    speeds: list[tuple[str, int]] = []
    geos: list[tuple[str, int]] = []
    for word, value in sorted((entry.get("provider_specific_entry") or {}).items()):
        target = geos if word in _GEOS else speeds if word in _SPEEDS else None
        if target is None:
            left_out.append(LeftOut(name, f"its term {word!r}, not known here", entirely=False))
        else:
            target.append((word, _whole(_exact(value) * ONE, f"the multiplier of {word!r}")))
    return tuple(speeds), tuple(geos)


def _web_search(entry: Mapping[str, Any], name: str, left_out: list[LeftOut]) -> int | None:
    prices = set((entry.get("search_context_cost_per_query") or {}).values())
    if len(prices) > 1:
        reason = "web searches: their price depends on the size of the search context"
        left_out.append(LeftOut(name, reason, entirely=False))
    if len(prices) != 1:
        return None
    return _whole(_exact(prices.pop()) * _MICROUSD, "the price of a web search")


def _microusd(entry: Mapping[str, Any], key: str) -> int:
    return _whole(_exact(entry[key]) * _TOKENS * _MICROUSD, key)


def _exact(value: Any) -> Decimal:
    try:
        number = Decimal(value)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ValueError(f"{value!r} is no price") from error
    if not number.is_finite() or number < 0:
        raise ValueError(f"{value} is no price")
    return number


def _whole(value: Decimal, what: str) -> int:
    """The whole number that it is, but for what binary fractions leave behind."""
    nearest = value.to_integral_value()
    if abs(value - nearest) > _NOISE * max(value, Decimal(1)) or nearest >= 10**15:
        raise ValueError(f"{what} is not a whole number of micro-dollars per million tokens")
    return int(nearest)
