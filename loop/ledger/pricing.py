"""Prices turns as they are assembled, so that what was charged once does not drift.

A session is assembled again whenever more of it arrives, perhaps months later. A turn that was
priced before keeps the book that it was first priced with; only a re-pricing changes that
(``docs/decisions/0010-a-charge-keeps-its-price.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from operator import attrgetter
from typing import Protocol

from loop.domain.days import utc_day
from loop.domain.errors import NotFound
from loop.domain.money import PriceBook, Terms
from loop.domain.turns import Charged, Turn

TurnKey = tuple[str, str]
"""Session id and turn id."""


class Books(Protocol):
    """Where price books are found: in force, and by the label that a turn carries."""

    def in_force(self) -> PriceBook: ...

    def find(self, name: str) -> PriceBook: ...


class ChargeVersions(Protocol):
    """Which charge version is current on a UTC day, as of the moment that it is asked."""

    def currently(self) -> Callable[[str], int]: ...


class Pricing:
    """Prices turns: each by the book that it was first priced with, new ones by that in force."""

    def __init__(self, books: Books, charge_versions: ChargeVersions) -> None:
        self._books = books
        self._charge_versions = charge_versions

    @classmethod
    def by(cls, book: PriceBook) -> Pricing:
        """Always by one book, where there are no versions."""
        only = _OneBook(book)
        return cls(only, only)

    def now(self) -> PricesNow:
        """What is in force at this moment: asked of the stores once for all turns of a write."""
        return PricesNow(self._books, self._books.in_force(), self._charge_versions.currently())


class PricesNow:
    """The prices and the charge versions of one moment."""

    def __init__(
        self, books: Books, in_force: PriceBook, charge_version_of: Callable[[str], int]
    ) -> None:
        self._books = books
        self._in_force = in_force
        self._charge_version_of = charge_version_of

    def price(self, turns: Iterable[Turn], stored: Mapping[TurnKey, Charged]) -> list[Turn]:
        """The turns with their cost. ``stored`` is how they were charged before, if they were."""
        by_turn = {turn_id: charged for (_, turn_id), charged in stored.items()}
        priced = []
        for turn in turns:
            # A request may turn out to belong to another session; its charge moves along.
            before = stored.get((turn.session_id, turn.turn_id)) or by_turn.get(turn.turn_id)
            book = self._in_force
            if before is not None and before.price_version:
                book = self._book(before.price_version)
                turn = replace(turn, charge_version=before.charge_version)
            elif current := self._charge_version_of(day_of_turn(turn)):
                turn = replace(turn, charge_version=current)
            priced.append(price(turn, book))
        return priced

    def _book(self, label: str) -> PriceBook:
        if label == self._in_force.version:
            return self._in_force
        try:
            return self._books.find(label)
        except NotFound:
            return self._in_force  # from another installation's control store


def price(turn: Turn, book: PriceBook) -> Turn:
    """The turn with its cost on the UTC day that it began; unpriced where that can't be known."""
    if turn.unpriced_reason and not turn.price_version:
        return turn  # the collectors know already that its tokens are not known
    terms = Terms(turn.speed, turn.service_tier, turn.inference_geo, turn.web_search_requests)
    cost = book.cost(turn.model, day_of_turn(turn), turn.usage, terms)
    values = [*_VALUES(turn)]
    values[_COST:_AFTER_COST] = cost.microusd, cost.price_version, cost.unpriced_reason
    return Turn(*values)


def day_of_turn(turn: Turn) -> str:
    """The UTC day that it began: what its price depends on."""
    return utc_day(turn.started_at_us)


_NAMES = [field.name for field in fields(Turn)]
_VALUES = attrgetter(*_NAMES)  # with Turn(*values) a third of the time of dataclasses.replace
_COST = _NAMES.index("cost_microusd")
_AFTER_COST = _COST + len(("cost_microusd", "price_version", "unpriced_reason"))


class _OneBook:
    def __init__(self, book: PriceBook) -> None:
        self._book = book

    def in_force(self) -> PriceBook:
        return self._book

    def find(self, name: str) -> PriceBook:
        return self._book

    def currently(self) -> Callable[[str], int]:
        return lambda day: 0
