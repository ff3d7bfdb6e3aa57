"""The price book: shipped prices with the days they took effect, and a user's own over them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

from loop.domain.errors import BadInput
from loop.domain.money import Price, PriceBook, Rates

SCHEMA = "turnwise.prices/1"
_MICROUSD = 1_000_000
_RATES = ("input", "output", "cache_read", "cache_creation_5m", "cache_creation_1h")
_DOCUMENT = {"schema", "version", "about", "replace", "prices"}
_ENTRY = {"model", "effective_from", "long_input", *_RATES}
_LONG_INPUT = {"above_input_tokens", *_RATES}


def load_price_book(path: Path | None = None) -> PriceBook:
    """The shipped prices, extended by the file at ``path``.

    A file of the same form adds models and later prices; an entry for a model and day that is
    shipped replaces the shipped one. With ``"replace": true`` it stands alone. The book's version
    names both. Raises :class:`BadInput` naming the entry that can't be used.
    """
    shipped = files("loop.ledger").joinpath("prices.json").read_text(encoding="utf-8")
    version, prices, _ = _read_document(shipped, "the shipped price book")
    if path is None:
        return PriceBook(version, prices.values())
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The price book {path} can't be read.", why=str(error)) from error
    own_version, own_prices, stands_alone = _read_document(text, f"the price book {path}")
    if stands_alone:
        return PriceBook(own_version, own_prices.values())
    return PriceBook(f"{version}+{own_version}", (prices | own_prices).values())


def _read_document(text: str, name: str) -> tuple[str, dict[tuple[str, str], Price], bool]:
    try:
        document = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except ValueError as error:
        raise BadInput(f"{name}: this is no JSON.", why=str(error)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadInput(f'{name}: it must be an object with "schema": "{SCHEMA}".')
    _refuse_unknown(document, _DOCUMENT, name)
    version, entries = document.get("version"), document.get("prices")
    if not isinstance(version, str) or not version:
        raise BadInput(f'{name}: "version" must be a text, to name it in every charge.')
    if not isinstance(entries, list):
        raise BadInput(f'{name}: "prices" must be a list.')
    if not isinstance(document.get("replace", False), bool):
        raise BadInput(f'{name}: "replace" must be true or false.')
    prices: dict[tuple[str, str], Price] = {}
    for number, entry in enumerate(entries, start=1):
        price = _read_entry(entry, f"{name}, entry {number}")
        key = (price.model, price.effective_from)
        if key in prices:
            raise BadInput(f"{name}, entry {number}: {price.model} has two prices of one day.")
        prices[key] = price
    return version, prices, document.get("replace", False)


def _read_entry(entry: Any, where: str) -> Price:
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: it must be an object.")
    _refuse_unknown(entry, _ENTRY, where)
    model, day = entry.get("model"), entry.get("effective_from")
    if not isinstance(model, str) or not model:
        raise BadInput(f'{where}: "model" must be a name.')
    if not isinstance(day, str) or not _is_day(day):
        raise BadInput(f'{where}: "effective_from" must be a day, YYYY-MM-DD.')
    where = f"{where} ({model})"
    input_rate, output, read, write_5m, write_1h = (
        _read_rate(entry, name, where) for name in _RATES
    )
    price = Price(model, day, input_rate, output, read, write_5m, write_1h)
    if "long_input" not in entry:
        return price
    long_input = entry["long_input"]
    if not isinstance(long_input, dict):
        raise BadInput(f'{where}: "long_input" must be an object.')
    _refuse_unknown(long_input, _LONG_INPUT, where)
    tokens = long_input.get("above_input_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens <= 0:
        raise BadInput(f'{where}: "above_input_tokens" must be a whole number above 0.')
    long_rates = Rates(*(_read_rate(long_input, name, where) for name in _RATES))
    return replace(price, long_input_tokens=tokens, long_input_rates=long_rates)


def _read_rate(entry: dict[str, Any], name: str, where: str) -> int:
    """Micro-dollars per million tokens from dollars per million, exactly."""
    value = entry.get(name)
    if not isinstance(value, int | Decimal) or isinstance(value, bool) or value < 0:
        raise BadInput(
            f'{where}: "{name}" must be a price, not {value!r}.',
            fix="Write dollars per million tokens as a number.",
        )
    microusd = Decimal(value) * _MICROUSD
    if microusd != microusd.to_integral_value() or microusd >= 10**15:
        raise BadInput(f'{where}: "{name}" is not a whole number of micro-dollars.')
    return int(microusd)


def _refuse_unknown(found: dict[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(found) - known):
        raise BadInput(f"{where}: unknown key {unknown[0]!r}.", fix=f"Known: {sorted(known)}.")


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
