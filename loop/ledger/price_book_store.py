"""The price books that ever were in force: immutable versions in the control store.

Each version is a whole book, content-hashed. The newest is in force: it prices turns that were
never priced. A turn keeps the version that it was first priced with until a re-pricing
(``docs/decisions/0010-a-charge-keeps-its-price.md``), so an older version must always be found.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Engine, Integer, String, Table, Text, func, select
from sqlalchemy.exc import IntegrityError

from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, Corrupt, NotFound
from loop.domain.money import Price, PriceBook
from loop.ledger.prices import PriceKey, Prices, digest_of, read_entries, write_entry

_BOOKS = Table(
    "price_books",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("prices", Text, nullable=False),
    Column("own", Text, nullable=False),  # keys of the prices that are not the base's
    Column("author", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
_DIGEST_CHARS = 12
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class PriceBookVersion:
    """One version. ``label`` is what turns, charges and statements carry as ``price_version``."""

    number: int
    digest: str
    author: str
    reason: str
    at_us: int

    @property
    def label(self) -> str:
        return f"v{self.number}-{self.digest[:_DIGEST_CHARS]}"


class PriceBookStore:
    """The only writer of ``price_books``. Safe to use from several threads and processes."""

    def __init__(self, engine: Engine, base: PriceBook) -> None:
        """``base`` is what the product ships with the installation's own file over it; a base that
        is new since the last time becomes part of a new version, over which prices that were set
        or imported stay as they are."""
        self._engine = engine
        self._base = base
        self._books: dict[int, PriceBook] = {}
        self._is_installed = False

    def versions(self) -> list[PriceBookVersion]:
        """Every version, the newest first."""
        self._install_base()
        with self._engine.connect() as connection:
            rows = connection.execute(select(*_HEAD).order_by(_BOOKS.c.number.desc())).all()
        return [PriceBookVersion(*row) for row in rows]

    def in_force(self) -> PriceBook:
        """The newest version."""
        self._install_base()
        with self._engine.connect() as connection:
            number = connection.scalar(select(func.max(_BOOKS.c.number)))
        return self.book(int(number or 0))

    def book(self, number: int) -> PriceBook:
        """A version by its number. Raises :class:`NotFound`, and :class:`Corrupt` for one whose
        content is not what it was."""
        if number not in self._books:
            self._install_base()
            with self._engine.connect() as connection:
                row = connection.execute(select(_BOOKS).where(_BOOKS.c.number == number)).first()
            if row is None:
                raise NotFound(
                    f"There is no price book {number}.", fix="`turnwise prices list` shows all."
                )
            prices = read_entries(json.loads(row.prices), f"price book {number}")
            if digest_of(prices.values()) != row.digest:
                raise Corrupt(f"The stored price book {number} is not what it was.")
            label = PriceBookVersion(number, row.digest, row.author, row.reason, row.at_us).label
            self._books[number] = PriceBook(label, prices.values())
        return self._books[number]

    def find(self, name: str) -> PriceBook:
        """A version by its number, its label or ``latest``. Raises :class:`NotFound`."""
        if name in ("", "latest"):
            return self.in_force()
        number = name.removeprefix("v").split("-", 1)[0]
        if number.isascii() and number.isdecimal() and len(number) < _DIGEST_CHARS:
            book = self.book(int(number))
            if name in (number, f"v{number}", book.version):
                return book
        raise NotFound(f"There is no price book {name!r}.", fix="`turnwise prices list` shows all.")

    def add(
        self,
        prices: Iterable[Price],
        *,
        author: str,
        reason: str,
        expected: str | None = None,
    ) -> PriceBook:
        """Makes a version of the book in force with these prices over it, and returns it.

        A price of a model and day that are there already replaces it (in the new version only).
        Prices that change nothing make no version. Raises :class:`Conflict` when the book in force
        is not ``expected`` (a label) any more.
        """
        if not author.strip() or not reason.strip():
            raise BadInput("A change of prices needs an author and a reason.")
        added = {(price.model, price.effective_from): price for price in prices}
        for _ in range(_ATTEMPTS):
            current = self.in_force()
            if expected and current.version != expected:
                raise Conflict(
                    f"The price book in force is {current.version}, not {expected}.",
                    fix="Look at the difference again.",
                )
            merged = _by_key(current.prices()) | added
            if digest_of(merged.values()) == digest_of(current.prices()):
                return current
            number = _number_of(current)
            own = {*self._own_keys(number), *added}
            if self._append(number + 1, merged, own, author, reason):
                return self.in_force()
        raise Conflict("The price book is being changed by others.", fix="Try again.")

    def _install_base(self) -> None:
        """Puts a base that is new since the last version under the prices set by hand."""
        if self._is_installed:
            return
        digest = digest_of(self._base.prices())
        for _ in range(_ATTEMPTS):
            with self._engine.connect() as connection:
                newest = connection.execute(
                    select(_BOOKS).order_by(_BOOKS.c.number.desc()).limit(1)
                ).first()
            if newest is not None and newest.base_digest == digest:
                self._is_installed = True
                return
            own: Prices = {}
            if newest is not None:
                stored = read_entries(json.loads(newest.prices), f"price book {newest.number}")
                own = {key: stored[key] for key in _read_keys(newest.own)}
            number = newest.number + 1 if newest is not None else 1
            merged = _by_key(self._base.prices()) | own
            self._append(number, merged, own, "turnwise", f"the prices of {self._base.version}")
        raise Conflict("The price book is being changed by others.", fix="Try again.")

    def _own_keys(self, number: int) -> list[PriceKey]:
        with self._engine.connect() as connection:
            own = connection.scalar(select(_BOOKS.c.own).where(_BOOKS.c.number == number))
        return _read_keys(own or "[]")

    def _append(
        self, number: int, prices: Prices, own: Iterable[PriceKey], author: str, reason: str
    ) -> bool:
        """Whether the number was still free."""
        entries = [write_entry(prices[key]) for key in sorted(prices)]
        row = {
            "number": number,
            "digest": digest_of(prices.values()),
            "base_digest": digest_of(self._base.prices()),
            "prices": json.dumps(entries, separators=(",", ":"), ensure_ascii=False),
            "own": json.dumps(sorted(own), separators=(",", ":"), ensure_ascii=False),
            "author": author[:255],
            "reason": reason,
            "at_us": time.time_ns() // 1000,
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(_BOOKS.insert().values(**row))
        except IntegrityError:
            return False
        return True


_HEAD = (_BOOKS.c.number, _BOOKS.c.digest, _BOOKS.c.author, _BOOKS.c.reason, _BOOKS.c.at_us)


def _number_of(book: PriceBook) -> int:
    return int(book.version.removeprefix("v").split("-", 1)[0])


def _read_keys(text: str) -> list[PriceKey]:
    return [(model, day) for model, day in json.loads(text)]


def _by_key(prices: Iterable[Price]) -> Prices:
    return {(price.model, price.effective_from): price for price in prices}
