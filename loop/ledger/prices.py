"""Price books as JSON documents: the shipped one, a user's own file over it, and any exported one.

``docs/chargeback.md`` describes the form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

from loop.domain.errors import BadInput
from loop.domain.money import ONE, Multipliers, Price, PriceBook, Rates

SCHEMA = "turnwise.prices/1"
_MICROUSD = 1_000_000
RATES = ("input", "output", "cache_read", "cache_creation_5m", "cache_creation_1h")
MULTIPLIERS = ("speeds", "service_tiers", "inference_geos")
_DOCUMENT = {"schema", "version", "about", "replace", "prices"}
_ENTRY = {
    "model",
    "effective_from",
    "long_input",
    "web_search",
    "aliases",
    "source",
    *MULTIPLIERS,
    *RATES,
}
_LONG_INPUT = {"above_input_tokens", *RATES}
_LARGEST_MULTIPLIER = 1000

PriceKey = tuple[str, str]
"""Model and the day from which the price is in force."""

Prices = dict[PriceKey, Price]


def load_price_book(path: Path | None = None) -> PriceBook:
    """The shipped prices, extended by the file at ``path``.

    A file of the same form adds models and later prices; an entry for a model and day that is
    shipped replaces the shipped one. With ``"replace": true`` it stands alone. The book's version
    names both. Raises :class:`BadInput` naming the entry that can't be used.
    """
    shipped = files("loop.ledger").joinpath("prices.json").read_text(encoding="utf-8")
    version, prices, _ = read_document(shipped, "the shipped price book")
    if path is None:
        return PriceBook(version, prices.values())
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The price book {path} can't be read.", why=str(error)) from error
    own_version, own_prices, stands_alone = read_document(text, f"the price book {path}")
    if stands_alone:
        return PriceBook(own_version, own_prices.values())
    return PriceBook(f"{version}+{own_version}", (prices | own_prices).values())


def read_document(text: str, name: str) -> tuple[str, Prices, bool]:
    """The version, the prices and whether they stand alone. Raises :class:`BadInput`."""
    try:
        document = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name}: this is no JSON.", why=str(error)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadInput(f'{name}: it must be an object with "schema": "{SCHEMA}".')
    _refuse_unknown(document, _DOCUMENT, name)
    version, entries = document.get("version"), document.get("prices")
    if not isinstance(version, str) or not version:
        raise BadInput(f'{name}: "version" must be a text, to name it in every charge.')
    if not isinstance(document.get("replace", False), bool):
        raise BadInput(f'{name}: "replace" must be true or false.')
    return version, read_entries(entries, name), document.get("replace", False)


def read_entries(entries: object, name: str) -> Prices:
    """Prices from the list of a document. Raises :class:`BadInput` naming the entry."""
    if not isinstance(entries, list):
        raise BadInput(f'{name}: "prices" must be a list.')
    prices: Prices = {}
    for number, entry in enumerate(entries, start=1):
        price = read_entry(entry, f"{name}, entry {number}")
        key = (price.model, price.effective_from)
        if key in prices:
            raise BadInput(f"{name}, entry {number}: {price.model} has two prices of one day.")
        prices[key] = price
    return prices


def read_entry(entry: Any, where: str) -> Price:
    """One price. Raises :class:`BadInput` naming the key that can't be used."""
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: it must be an object.")
    _refuse_unknown(entry, _ENTRY, where)
    model, day = entry.get("model"), entry.get("effective_from")
    if not isinstance(model, str) or not model:
        raise BadInput(f'{where}: "model" must be a name.')
    if not isinstance(day, str) or not is_day(day):
        raise BadInput(f'{where}: "effective_from" must be a day, YYYY-MM-DD.')
    where = f"{where} ({model})"
    source, aliases = entry.get("source", ""), entry.get("aliases", [])
    if not isinstance(source, str):
        raise BadInput(f'{where}: "source" must be a text.')
    if not isinstance(aliases, list) or not all(isinstance(x, str) and x for x in aliases):
        raise BadInput(f'{where}: "aliases" must be a list of names.')
    input_rate, output, read, write_5m, write_1h = (
        _read_dollars(entry, name, where) for name in RATES
    )
    speeds, tiers, geos = (_read_multipliers(entry, name, where) for name in MULTIPLIERS)
    price = Price(
        model,
        day,
        input_rate,
        output,
        read,
        write_5m,
        write_1h,
        speeds=speeds,
        service_tiers=tiers,
        inference_geos=geos,
        web_search_microusd=(
            _read_dollars(entry, "web_search", where) if "web_search" in entry else None
        ),
        aliases=tuple(sorted(set(aliases) - {model})),
        source=source,
    )
    return _with_long_input(price, entry["long_input"], where) if "long_input" in entry else price


def write_entry(price: Price) -> dict[str, Any]:
    """The JSON form of a price; :func:`read_entry` gives the same price back."""
    entry: dict[str, Any] = {"model": price.model, "effective_from": price.effective_from}
    entry |= _write_rates(price)
    if price.long_input_tokens is not None and price.long_input_rates is not None:
        long_input = {"above_input_tokens": price.long_input_tokens}
        entry["long_input"] = long_input | _write_rates(price.long_input_rates)
    for name in MULTIPLIERS:
        if multipliers := getattr(price, name):
            entry[name] = {word: _number(millionths) for word, millionths in multipliers}
    if price.web_search_microusd is not None:
        entry["web_search"] = _number(price.web_search_microusd)
    if price.aliases:
        entry["aliases"] = list(price.aliases)
    if price.source:
        entry["source"] = price.source
    return entry


def write_document(prices: Iterable[Price], version: str) -> dict[str, Any]:
    """A document that stands alone, its entries in order of model and day."""
    ordered = sorted(prices, key=lambda price: (price.model, price.effective_from))
    entries = [write_entry(price) for price in ordered]
    return {"schema": SCHEMA, "version": version, "replace": True, "prices": entries}


def digest_of(prices: Iterable[Price]) -> str:
    """SHA-256 of the canonical form of the prices: equal books have equal digests."""
    entries = write_document(prices, "-")["prices"]
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _with_long_input(price: Price, long_input: Any, where: str) -> Price:
    if not isinstance(long_input, dict):
        raise BadInput(f'{where}: "long_input" must be an object.')
    _refuse_unknown(long_input, _LONG_INPUT, where)
    tokens = long_input.get("above_input_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens <= 0:
        raise BadInput(f'{where}: "above_input_tokens" must be a whole number above 0.')
    long_rates = Rates(*(_read_dollars(long_input, name, where) for name in RATES))
    return replace(price, long_input_tokens=tokens, long_input_rates=long_rates)


def _read_dollars(entry: Mapping[str, Any], name: str, where: str) -> int:
    """Micro-dollars from dollars (per million tokens, or per search), exactly."""
    value = entry.get(name)
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool) or not value >= 0:
        raise BadInput(
            f'{where}: "{name}" must be a price, not {value!r}.',
            fix="Write dollars per million tokens (per search for web_search) as a number.",
        )
    microusd = Decimal(str(value)) * _MICROUSD
    if microusd != microusd.to_integral_value() or microusd >= 10**15:
        raise BadInput(f'{where}: "{name}" is not a whole number of micro-dollars.')
    return int(microusd)


def _read_multipliers(entry: Mapping[str, Any], name: str, where: str) -> Multipliers:
    given = entry.get(name, {})
    if not isinstance(given, dict):
        raise BadInput(f'{where}: "{name}" must be an object of multipliers by name.')
    found = []
    for word, value in given.items():
        is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        millionths = Decimal(str(value)) * ONE if is_number else Decimal(-1)
        if not 0 <= millionths <= _LARGEST_MULTIPLIER * ONE or millionths % 1:
            raise BadInput(
                f'{where}: "{name}" of {word!r} must be a multiplier, not {value!r}.',
                fix='Write a number with at most six decimals, such as {"batch": 0.5}.',
            )
        found.append((word, int(millionths)))
    return tuple(sorted(found))


def _write_rates(rates: Rates | Price) -> dict[str, int | float]:
    return {name: _number(getattr(rates, f"{name}_microusd")) for name in RATES}


def _number(millionths: int) -> int | float:
    """Exact: below 10^15 a quotient by a million has no more digits than a float keeps."""
    whole, rest = divmod(millionths, _MICROUSD)
    return millionths / _MICROUSD if rest else whole


def _refuse_unknown(found: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(found) - known):
        raise BadInput(f"{where}: unknown key {unknown[0]!r}.", fix=f"Known: {sorted(known)}.")


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")
