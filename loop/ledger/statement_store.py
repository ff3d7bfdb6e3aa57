"""Closed statements: each is a durable record that is printed again byte for byte."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    select,
)
from sqlalchemy.exc import IntegrityError

from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, Corrupt, NotFound, Refused
from loop.lake import Lake
from loop.ledger.statement_formats import FORMATS, StatementFormat, check_format, render
from loop.ledger.statements import (
    ALL_ROWS,
    Condition,
    Month,
    Row,
    build_statement,
    canonical,
    seal,
)

_STATEMENTS = Table(
    "statements",
    metadata,
    Column("statement_id", String(40), primary_key=True),
    Column("month", String(7), nullable=False),
    Column("org_path", String(512), nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("closed_by", String(255), nullable=False),
    Column("closed_at_us", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),  # canonical JSON, zlib
    Column("renderings", LargeBinary, nullable=False),  # {format: text} as JSON, zlib
    UniqueConstraint("month", "org_path"),
)


class StatementStore:
    """The only writer of ``statements``; it adds and never changes."""

    def __init__(
        self,
        engine: Engine,
        lake: Lake,
        is_rolled_up: Callable[[str, str], bool] = lambda from_day, until_day: False,
    ) -> None:
        """``is_rolled_up`` says whether ``charges`` are as the turns of a span of days."""
        self._engine = engine
        self._lake = lake
        self._is_rolled_up = is_rolled_up

    def statements(self) -> list[Row]:
        """The closed statements, the newest month first."""
        columns = [column for column in _STATEMENTS.c if column.name not in _HEAVY]
        query = select(*columns).order_by(_STATEMENTS.c.month.desc(), _STATEMENTS.c.org_path)
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def find(self, month: Month, org_path: str) -> Row | None:
        """The closed statement's document. Raises :class:`Corrupt` for one that was changed."""
        with self._engine.connect() as connection:
            found = connection.execute(
                select(_STATEMENTS).where(
                    _STATEMENTS.c.month == month.name, _STATEMENTS.c.org_path == org_path
                )
            ).first()
        return None if found is None else _read(found._mapping)

    def printed(
        self,
        month: Month,
        org_path: str,
        kind: StatementFormat,
        billed: Mapping[str, Any] | None = None,
    ) -> str:
        """The closed statement as it was printed when it was closed, else a draft of now."""
        check_format(kind)
        with self._engine.connect() as connection:
            found = connection.execute(
                select(_STATEMENTS.c.renderings).where(
                    _STATEMENTS.c.month == month.name, _STATEMENTS.c.org_path == org_path
                )
            ).first()
        if found is not None:
            self.find(month, org_path)  # that it is what it was
            return str(json.loads(zlib.decompress(found.renderings))[kind])
        return render(self.draft(month, org_path, billed), kind)

    def draft(self, month: Month, org_path: str, billed: Mapping[str, Any] | None = None) -> Row:
        """The statement as it would be closed now."""
        return self._draft(month, org_path, self._closed(org_path, until=month), billed)

    def draft_part(self, month: Month, org_path: str, only: Condition) -> Row:
        """A draft of those rows of a path that a condition admits, without what was closed for
        the path: that has others' rows, too."""
        return self._draft(month, org_path, [], None, only)

    def _draft(
        self,
        month: Month,
        org_path: str,
        before: Sequence[Mapping[str, Any]],
        billed: Mapping[str, Any] | None,
        only: Condition = ALL_ROWS,
    ) -> Row:
        document = self._build(month, org_path, before, billed, only)
        if not document["lines"] and org_path and not before:
            raise NotFound(
                f"Nothing was charged to {org_path} in {month.name}.",
                fix="`turnwise spend by org` shows the paths.",
            )
        return seal(document, state="draft", closed_by="", closed_at_us=None)

    def close(
        self,
        month: Month,
        org_path: str,
        closed_by: str,
        billed: Mapping[str, Any] | None = None,
    ) -> Row:
        """Closes a month that is over, and returns the statement's document.

        Raises :class:`Refused` for a month that is not over, and :class:`Conflict` for one that
        is closed or lies before one that is.
        """
        today = datetime.now(UTC).date().isoformat()
        if today < month.end_day:
            raise Refused(
                f"{month.name} is not over.", fix=f"Close it from {month.end_day} (UTC) on."
            )
        if not closed_by.strip():
            raise BadInput("A statement needs somebody who closes it.")
        for row in self.statements():
            if row["org_path"] == org_path and row["month"] >= month.name:
                raise Conflict(
                    f"{row['month']} is closed for {org_path or 'all'}.",
                    fix="What changed since then stands in the next statement as adjustments.",
                )
        document = self._build(month, org_path, self._closed(org_path, until=month), billed)
        sealed = seal(
            document, state="closed", closed_by=closed_by, closed_at_us=time.time_ns() // 1000
        )
        renderings = {kind: render(sealed, kind) for kind in FORMATS}
        row = {
            "statement_id": sealed["statement_id"],
            "month": month.name,
            "org_path": org_path,
            "content_hash": sealed["content_hash"],
            "closed_by": closed_by[:255],
            "closed_at_us": sealed["closed_at_us"],
            "document": zlib.compress(canonical(sealed).encode()),
            "renderings": zlib.compress(json.dumps(renderings).encode()),
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(_STATEMENTS.insert().values(**row))
        except IntegrityError as error:
            raise Conflict(f"{month.name} has just been closed by another.") from error
        return sealed

    def _build(
        self,
        month: Month,
        org_path: str,
        before: Sequence[Mapping[str, Any]],
        billed: Mapping[str, Any] | None,
        only: Condition = ALL_ROWS,
    ) -> Row:
        first = Month.parse(str(before[0]["month"])) if before else month
        return build_statement(
            self._lake,
            month,
            org_path,
            before,
            billed,
            only=only,
            from_rollup=self._is_rolled_up(first.first_day, month.end_day),
        )

    def _closed(self, org_path: str, until: Month) -> list[Row]:
        query = (
            select(_STATEMENTS)
            .where(_STATEMENTS.c.org_path == org_path, _STATEMENTS.c.month < until.name)
            .order_by(_STATEMENTS.c.month)
        )
        with self._engine.connect() as connection:
            return [_read(row._mapping) for row in connection.execute(query)]


_HEAVY = frozenset({"document", "renderings"})


def _read(row: Any) -> Row:
    document: Row = json.loads(zlib.decompress(row["document"]))
    content = {
        key: value for key, value in document.items() if key not in ("statement_id", "content_hash")
    }
    digest = hashlib.sha256(canonical(content).encode()).hexdigest()
    if not digest == document["content_hash"] == row["content_hash"]:
        raise Corrupt(f"The stored statement {row['statement_id']} is not what was closed.")
    return document
