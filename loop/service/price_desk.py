"""Price books and re-pricings, as the API, the command line and ``doctor`` show and change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loop.domain.errors import BadInput
from loop.domain.money import PriceBook
from loop.ledger.price_book_store import PriceBookVersion
from loop.ledger.price_changes import compare_prices, describe_price, keep_terms, only_changes
from loop.ledger.prices import read_entries, write_document, write_entry
from loop.service.assemble import Parts
from loop.service.documents import flag, person, reason, text
from loop.service.repricing_stage import noting, price_anew, repricing_of


class PriceDesk:
    """Reads and changes prices; each method returns what the API answers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list_books(self) -> dict[str, Any]:
        rows = [_version_row(version) for version in self._parts.price_books.versions()]
        return {"rows": rows, "next": None}

    def show_book(self, version: str, model: str | None = None) -> dict[str, Any]:
        """The prices of a version (``latest``: that in force), of one model where given."""
        book = self._parts.price_books.find(version)
        prices = book.prices()
        if model is not None:
            found = book.find(model, "9999-12-31")
            names = {model, found.model} if found else {model}
            prices = tuple(p for p in prices if p.model in names or model in p.aliases)
        rows = [write_entry(price) | {"words": describe_price(price)} for price in prices]
        return {"price_version": book.version, "rows": rows, "next": None}

    def export_book(self, version: str) -> dict[str, Any]:
        book = self._parts.price_books.find(version)
        return write_document(book.prices(), book.version)

    def change_prices(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a new version with these ``prices`` over the book in force, unless ``dry_run``.

        With ``keep_terms`` what a price does not state besides its rates stays as it was.
        """
        book = self._parts.price_books.in_force()
        prices = list(read_entries(document.get("prices"), "the prices").values())
        if flag(document, "keep_terms"):
            prices = [keep_terms(book, price) for price in prices]
        expected = document.get("expected")
        if expected is not None and not isinstance(expected, str):
            raise BadInput("expected must be the label of a price book.")
        changes = compare_prices(book, prices)
        changed = only_changes(changes)
        made = book
        if changed and not flag(document, "dry_run"):
            made = self._parts.price_books.add(
                changed,
                author=person(document).name,
                reason=reason(document),
                expected=expected or book.version,
            )
        return {
            "price_version": made.version,
            "before": book.version,
            "changed": len(changed),
            "same": len(changes) - len(changed),
            "rows": [change.as_row() for change in changes if change.kind != "same"],
            "next": None,
        }

    def list_charge_versions(self) -> dict[str, Any]:
        rows = [
            {
                "charge_version": one.version,
                "from": one.from_day,
                "until": one.until_day,
                "price_version": one.price_version,
                "author": one.author,
                "reason": one.reason,
                "begun_at_us": one.begun_at_us,
                "finished_at_us": one.finished_at_us,
                "outcome": dict(one.outcome),
            }
            for one in reversed(self._parts.charge_versions.list())
        ]
        return {"rows": rows, "next": None}

    def reprice(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Prices the days ``from`` until ``until`` (exclusive) anew by the book in force, or by
        ``book``; with ``dry_run`` says only what would change.

        ``GET /v1/lake/work`` tells meanwhile how far it is. Once the version is recorded it comes
        to its end even when whoever asked goes away, or this process ends.
        """
        with self._parts.work.running("reprice"):
            return self._reprice(document)

    def _reprice(self, document: Mapping[str, Any]) -> dict[str, Any]:
        parts = self._parts
        book: PriceBook = parts.price_books.find(text(document, "book", "latest"))
        from_day, until_day = text(document, "from"), text(document, "until")
        if flag(document, "dry_run"):
            preview = repricing_of(parts).preview(
                book, from_day, until_day, noting(parts, "turns compared")
            )
            return {**preview.as_dict(), "charge_version": None}
        version = price_anew(
            parts,
            book,
            from_day,
            until_day,
            author=person(document).name,
            reason=reason(document),
        )
        return {**version.outcome, "charge_version": version.version}


def _version_row(version: PriceBookVersion) -> dict[str, Any]:
    return {
        "price_version": version.label,
        "author": version.author,
        "reason": version.reason,
        "at_us": version.at_us,
        "digest": version.digest,
    }
