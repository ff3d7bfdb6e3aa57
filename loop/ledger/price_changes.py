"""What a set of prices would change in a book, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from loop.domain.money import ONE, Price, PriceBook, Rates
from loop.ledger.prices import MULTIPLIERS, RATES

ChangeKind = Literal["new model", "new price", "correction", "same"]
_WORDS = {
    "input": "input",
    "output": "output",
    "cache_read": "cache read",
    "cache_creation_5m": "5-minute write",
    "cache_creation_1h": "1-hour write",
}
_TERMS = {
    "speeds": "speed",
    "service_tiers": "service tier",
    "inference_geos": "inference geography",
}


@dataclass(frozen=True, slots=True)
class PriceChange:
    """``new price``: from that day on; ``correction``: of a price of that very day."""

    kind: ChangeKind
    price: Price
    words: str

    def as_row(self) -> dict[str, Any]:
        return {
            "model": self.price.model,
            "effective_from": self.price.effective_from,
            "change": self.kind,
            "words": self.words,
        }


def compare_prices(book: PriceBook, prices: Iterable[Price]) -> list[PriceChange]:
    """One change for each price, in order of model and day."""
    stored = {(price.model, price.effective_from): price for price in book.prices()}
    changes = []
    for price in sorted(prices, key=lambda price: (price.model, price.effective_from)):
        before = book.find(price.model, price.effective_from)
        at_that_day = stored.get((price.model, price.effective_from))
        if before is not None and _charges(before) == _charges(price):
            changes.append(PriceChange("same", price, "no change"))
        elif before is None:
            kind: ChangeKind = "new price" if book.knows(price.model) else "new model"
            changes.append(PriceChange(kind, price, describe_price(price)))
        else:
            kind = "correction" if at_that_day is not None else "new price"
            words = "; ".join(_differences(before, price))
            changes.append(PriceChange(kind, price, words + _until(book, price)))
    return changes


def keep_terms(book: PriceBook, price: Price) -> Price:
    """The price with the terms that it does not state (batch, speed, geography, web search) as the
    book has them for the model on that day: a source's silence withdraws nothing."""
    before = book.find(price.model, price.effective_from)
    if before is None:
        return price
    stated = {
        kind: tuple(sorted((dict(getattr(before, kind)) | dict(getattr(price, kind))).items()))
        for kind in MULTIPLIERS
    }
    searches = price.web_search_microusd
    return replace(
        price,
        speeds=stated["speeds"],
        service_tiers=stated["service_tiers"],
        inference_geos=stated["inference_geos"],
        web_search_microusd=before.web_search_microusd if searches is None else searches,
    )


def only_changes(changes: Iterable[PriceChange]) -> list[Price]:
    """The prices of the changes that are any."""
    return [change.price for change in changes if change.kind != "same"]


def describe_price(price: Price) -> str:
    """A price in one line, dollars per million tokens."""
    parts = [f"{_WORDS[name]} {_dollars(_rate(price, name))}" for name in RATES]
    if price.long_input_rates is not None:
        long_parts = (f"{_WORDS[n]} {_dollars(_rate(price.long_input_rates, n))}" for n in RATES)
        parts.append(f"above {price.long_input_tokens:,} tokens of input: {', '.join(long_parts)}")
    for kind in MULTIPLIERS:
        parts += [f"{_TERMS[kind]} {w} × {m / ONE:g}" for w, m in getattr(price, kind)]
    if price.web_search_microusd is not None:
        parts.append(f"web search {_dollars(price.web_search_microusd)}")
    return ", ".join(parts)


def _charges(price: Price) -> Price:
    """The price without what changes no charge."""
    return replace(price, model="", effective_from="", aliases=(), source="")


def _differences(before: Price, after: Price) -> list[str]:
    found = [*_rate_differences(before, after, "")]
    if before.long_input_tokens != after.long_input_tokens:
        found.append(
            f"long input from {_tokens(before.long_input_tokens)} to "
            f"{_tokens(after.long_input_tokens)}"
        )
    if before.long_input_rates and after.long_input_rates:
        found += _rate_differences(before.long_input_rates, after.long_input_rates, "long ")
    for kind in MULTIPLIERS:
        old, new = dict(getattr(before, kind)), dict(getattr(after, kind))
        found += [
            f"{_TERMS[kind]} {word} {_times(old.get(word))} → {_times(new.get(word))}"
            for word in sorted(old | new)
            if old.get(word) != new.get(word)
        ]
    if before.web_search_microusd != after.web_search_microusd:
        searches = (before.web_search_microusd, after.web_search_microusd)
        found.append("web search {} → {}".format(*(_dollars(value) for value in searches)))
    return found


def _rate_differences(before: Rates | Price, after: Rates | Price, kind: str) -> list[str]:
    found = []
    for name in RATES:
        old, new = _rate(before, name), _rate(after, name)
        if old != new:
            share = f" ({100 * (new - old) / old:+.1f} %)" if old else ""
            found.append(f"{kind}{_WORDS[name]} {_dollars(old)} → {_dollars(new)}{share}")
    return found


def _until(book: PriceBook, price: Price) -> str:
    later = [
        other.effective_from
        for other in book.prices()
        if other.model == price.model and other.effective_from > price.effective_from
    ]
    return f"; in force until {min(later)}, from when the book has a later price" if later else ""


def _rate(rates: Rates | Price, name: str) -> int:
    return int(getattr(rates, f"{name}_microusd"))


def _dollars(microusd: int | None) -> str:
    return "none" if microusd is None else f"${microusd / ONE:,.6f}".rstrip("0").rstrip(".")


def _times(millionths: int | None) -> str:
    return "none" if millionths is None else f"× {millionths / ONE:g}"


def _tokens(tokens: int | None) -> str:
    return "none" if tokens is None else f"{tokens:,} tokens"
