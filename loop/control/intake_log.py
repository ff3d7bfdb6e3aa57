"""How much came in per source and hour, and what became of it: the sums, exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Engine, String, Table, select, update
from sqlalchemy.exc import OperationalError

from loop.control.store import metadata
from loop.domain.errors import Unavailable

_KEY = ("hour_us", "kind", "content_type", "credential", "outcome", "reason")
_COUNTS = Table(
    "intake_counts",
    metadata,
    Column("hour_us", BigInteger, primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("content_type", String(16), primary_key=True),
    Column("credential", String(255), primary_key=True),
    Column("outcome", String(32), primary_key=True),
    Column("reason", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
_POSITIONS = Table(
    "intake_positions",
    metadata,
    Column("journal", String(64), primary_key=True),
    Column("position", BigInteger, nullable=False),
)


class IntakeLog:
    """The only writer of ``intake_counts`` and ``intake_positions``.

    Both change in one transaction, so the counts of a position are added once however often it
    is told, and a position that is told late is told before any later one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, journal: str, position: int, rows: Sequence[Sequence[Any]]) -> None:
        """Adds rows of (hour_us, kind, content_type, credential, outcome, reason, count), unless
        that position of the journal or a later one is in. Raises :class:`Unavailable`."""
        with _store_errors(), self._engine.begin() as connection:
            done = connection.scalar(
                select(_POSITIONS.c.position).where(_POSITIONS.c.journal == journal)
            )
            if done is not None and done >= position:
                return
            if done is None:
                connection.execute(_POSITIONS.insert().values(journal=journal, position=position))
            else:
                moved = update(_POSITIONS).where(_POSITIONS.c.journal == journal)
                connection.execute(moved.values(position=position))
            for *key, count in rows:
                _add(connection, dict(zip(_KEY, key, strict=True)), int(count))

    def rows(
        self, *, since_us: int | None = None, until_us: int | None = None
    ) -> list[dict[str, Any]]:
        """The counts of the hours in [since, until), in order of the key. Raises
        :class:`Unavailable`."""
        query = select(_COUNTS).order_by(*(_COUNTS.c[name] for name in _KEY))
        if since_us is not None:
            query = query.where(_COUNTS.c.hour_us >= since_us)
        if until_us is not None:
            query = query.where(_COUNTS.c.hour_us < until_us)
        with _store_errors(), self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]


def _add(connection: Connection, key: dict[str, Any], count: int) -> None:
    key["credential"] = key["credential"][:255]
    same = [_COUNTS.c[name] == value for name, value in key.items()]
    raised = update(_COUNTS).where(*same).values(count=_COUNTS.c["count"] + count)
    if connection.execute(raised).rowcount == 0:
        connection.execute(_COUNTS.insert().values(**key, count=count))


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Unavailable(
            "The control database does not answer.",
            why=str(error.orig),
            fix="Check TURNWISE_DATABASE_URL and that the server runs.",
        ) from error
