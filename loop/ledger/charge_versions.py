"""Charge versions: what was priced anew, with which book, by whom and why.

Version 0 is the first pricing of each turn. Each re-pricing of a span of days is a higher version,
recorded here before the first turn is touched, so that what is rolled up from then on belongs to
it. The charges of older versions stay as they were.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Integer, String, Table, Text, func, select
from sqlalchemy.exc import IntegrityError

from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, NotFound

_VERSIONS = Table(
    "charge_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("from_day", String(10), nullable=False),
    Column("until_day", String(10), nullable=False),  # exclusive
    Column("price_version", String(64), nullable=False),
    Column("author", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("begun_at_us", BigInteger, nullable=False),
    Column("rewritten_at_us", BigInteger, nullable=True),
    Column("finished_at_us", BigInteger, nullable=True),
    Column("outcome", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class ChargeVersion:
    """One re-pricing of the days from ``from_day`` until ``until_day`` (exclusive)."""

    version: int
    from_day: str
    until_day: str
    price_version: str
    author: str
    reason: str
    begun_at_us: int
    rewritten_at_us: int | None  # when the last turn had its new cost
    finished_at_us: int | None  # None: it did not end; the drainer goes on with it
    outcome: Mapping[str, Any]

    def covers(self, day: str) -> bool:
        return self.from_day <= day < self.until_day


class ChargeVersionStore:
    """The only writer of ``charge_versions``. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: tuple[int, list[ChargeVersion]] = (-1, [])

    def list(self) -> list[ChargeVersion]:
        """Every version, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_VERSIONS).order_by(_VERSIONS.c.version)).all()
        return [_read(dict(row._mapping)) for row in rows]

    def currently(self) -> Callable[[str], int]:
        """Gives for a day the version that holds now; 0 where nothing was priced anew."""
        with self._engine.connect() as connection:
            newest = connection.scalar(select(func.max(_VERSIONS.c.version))) or 0
        if self._known[0] != newest:
            self._known = (newest, self.list())
        versions = self._known[1]
        return lambda day: max((one.version for one in versions if one.covers(day)), default=0)

    def begin(
        self,
        from_day: str,
        until_day: str,
        price_version: str,
        *,
        author: str,
        reason: str,
        outcome: Mapping[str, Any],
    ) -> ChargeVersion:
        """A new version, with what it is to change; or the one of the same days and book that did
        not come to its end.

        Raises :class:`Conflict` while another one has not.
        """
        if not author.strip() or not reason.strip():
            raise BadInput("A re-pricing needs an author and a reason.")
        known = self.list()
        for one in known:
            if one.finished_at_us is None:
                if (one.from_day, one.until_day, one.price_version) == (
                    from_day,
                    until_day,
                    price_version,
                ):
                    return one
                raise Conflict(
                    f"Charge version {one.version} has not come to its end: {one.from_day} until "
                    f"{one.until_day} by price book {one.price_version}.",
                    fix=f"`turnwise prices reprice --from {one.from_day} --until {one.until_day} "
                    f"--book {one.price_version}` goes on with it.",
                )
        row = {
            "version": (known[-1].version if known else 0) + 1,
            "from_day": from_day,
            "until_day": until_day,
            "price_version": price_version,
            "author": author[:255],
            "reason": reason,
            "begun_at_us": time.time_ns() // 1000,
            "rewritten_at_us": None,
            "finished_at_us": None,
            "outcome": json.dumps(dict(outcome), sort_keys=True),
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(_VERSIONS.insert().values(**row))
        except IntegrityError as error:
            raise Conflict("Another re-pricing has just begun.", fix="Try again.") from error
        return _read(row)

    def unfinished(self) -> ChargeVersion | None:
        """The version that has begun and not come to its end, if there is one."""
        with self._engine.connect() as connection:
            row = connection.execute(
                select(_VERSIONS).where(_VERSIONS.c.finished_at_us.is_(None))
            ).first()
        return None if row is None else _read(dict(row._mapping))

    def mark_rewritten(self, version: int) -> None:
        """Every turn of the version has its new cost."""
        self._update(version, "rewritten_at_us")

    def finish(self, version: int) -> None:
        """The version is rolled up as well."""
        self._update(version, "finished_at_us")

    def _update(self, version: int, column: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                _VERSIONS.update()
                .where(_VERSIONS.c.version == version, _VERSIONS.c[column].is_(None))
                .values({column: time.time_ns() // 1000})
            )
        self._known = (-1, [])

    def get(self, version: int) -> ChargeVersion:
        """Raises :class:`NotFound`."""
        for one in self.list():
            if one.version == version:
                return one
        raise NotFound(f"There is no charge version {version}.", fix="`turnwise prices charges`.")


def _read(row: Mapping[str, Any]) -> ChargeVersion:
    return ChargeVersion(**(dict(row) | {"outcome": json.loads(row["outcome"])}))
