"""The provider's reports as they were taken in: kept whole, the newest rules for each day."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Integer, LargeBinary, String, Table, func, select
from sqlalchemy.exc import IntegrityError

from loop.control.store import metadata
from loop.domain.errors import Conflict
from loop.ledger.billing_reports import BilledLine, BillingReport, ReportKind
from loop.ledger.statements import Month, canonical

_REPORTS = Table(
    "billing_reports",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(8), nullable=False),
    Column("source", String(512), nullable=False),
    Column("first_day", String(10), nullable=False),
    Column("last_day", String(10), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("author", String(255), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),  # canonical JSON, zlib
)
_ATTEMPTS = 5


class BillingStore:
    """The only writer of ``billing_reports``; it adds and never changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, report: BillingReport, author: str) -> int:
        """Keeps a report and returns its number; one that is there already is not kept twice."""
        text = canonical(report.to_document())
        digest = hashlib.sha256(text.encode()).hexdigest()
        for _ in range(_ATTEMPTS):
            with self._engine.connect() as connection:
                newest = connection.execute(
                    select(_REPORTS.c.number, _REPORTS.c.digest)
                    .where(_REPORTS.c.kind == report.kind)
                    .order_by(_REPORTS.c.number.desc())
                    .limit(1)
                ).first()
                number = (connection.scalar(select(func.max(_REPORTS.c.number))) or 0) + 1
            if newest is not None and newest.digest == digest:
                return int(newest.number)
            row: dict[str, Any] = {
                "number": number,
                "kind": report.kind,
                "source": report.source[:512],
                "first_day": min(report.days, default=""),
                "last_day": max(report.days, default=""),
                "digest": digest,
                "author": author[:255],
                "at_us": time.time_ns() // 1000,
                "document": zlib.compress(text.encode()),
            }
            try:
                with self._engine.begin() as connection:
                    connection.execute(_REPORTS.insert().values(**row))
            except IntegrityError:
                continue
            return number
        raise Conflict("Others are taking in reports.", fix="Try again.")

    def lines(self, month: Month, kind: ReportKind) -> dict[str, list[BilledLine]]:
        """By day that any report covers, the lines of the newest one that does."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(_REPORTS.c.document)
                .where(
                    _REPORTS.c.kind == kind,
                    _REPORTS.c.first_day < month.end_day,
                    _REPORTS.c.last_day >= month.first_day,
                )
                .order_by(_REPORTS.c.number)
            ).all()
        found: dict[str, list[BilledLine]] = {}
        for row in rows:
            report = BillingReport.from_document(json.loads(zlib.decompress(row.document)))
            days = [day for day in report.days if month.first_day <= day < month.end_day]
            found |= {day: [] for day in days}
            for line in report.lines:
                if line.day in found and line.day in days:
                    found[line.day].append(line)
        return found
