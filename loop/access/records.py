"""The record of every change of who may do what and who is charged: append-only, hash-chained.

Each change of a credential, of the organization tree, of the directory or of a rule appends one
:class:`AccessRecord` in the transaction that makes it. The newest record's number is the *version*
of all of these: whoever holds them in memory reads them again when it moved on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, Corrupt, Unavailable
from loop.domain.hash_chain import FIRST_HASH, hash_of, link_problem
from loop.domain.policies import canonical_json

_LOCK_KEY = 7_453_018_267  # any number that nothing else in the database locks

access_records = Table(
    "access_records",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("verb", String(40), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("credential", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
)


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something: the name that was given, the credential that it came with, and why."""

    name: str
    credential: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise BadInput("Say who acts.", fix='Send "actor".')


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """One change. ``verb`` is such as ``token.create`` or ``node.move``; ``details`` says what was
    and what is."""

    sequence: int  # 1, 2, 3 …
    at_us: int
    verb: str
    subject: str
    actor: str
    credential: str
    reason: str
    details: Mapping[str, Any]
    previous_hash: str

    @property
    def hash(self) -> str:
        return hash_of(self.to_document())

    def to_document(self) -> dict[str, Any]:
        return {
            "sequence": self.sequence,
            "at_us": self.at_us,
            "verb": self.verb,
            "subject": self.subject,
            "actor": self.actor,
            "credential": self.credential,
            "reason": self.reason,
            "details": dict(self.details),
            "previous_hash": self.previous_hash,
        }


def utc_now_us() -> int:
    return time.time_ns() // 1000


class AccessLog:
    """Transactions over the tables of ``loop.access``, each with its record.

    ``now_us`` gives the time that is written. Listeners are called after each change that this
    object has committed.
    """

    def __init__(self, engine: Engine, now_us: Callable[[], int] = utc_now_us) -> None:
        self.engine = engine
        self.now_us = now_us
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def version(self) -> int:
        """The number of the newest record, 0 before the first."""
        with self.reading() as connection:
            return version_of(connection)

    def records(self, after: int = 0, limit: int | None = None) -> list[AccessRecord]:
        """The records with higher numbers, in their order."""
        query = (
            select(access_records)
            .where(access_records.c.sequence > after)
            .order_by(access_records.c.sequence)
        )
        with self.reading() as connection:
            rows = connection.execute(query if limit is None else query.limit(limit)).all()
        return [_record_of(row) for row in rows]

    def verify(self) -> int:
        """Checks the whole chain; returns how many records it has. Raises :class:`Corrupt`."""
        previous_hash, count = FIRST_HASH, 0
        query = select(access_records).order_by(access_records.c.sequence)
        with self.reading() as connection:
            for row in connection.execute(query):
                count += 1
                record = _record_of(row)
                problem = link_problem(
                    place=count,
                    sequence=record.sequence,
                    previous_hash=record.previous_hash,
                    expected_previous=previous_hash,
                    computed_hash=record.hash,
                    stored_hash=row.hash,
                )
                if problem:
                    raise Corrupt(
                        f"The record of access changes is broken: number {record.sequence} "
                        f"({record.verb} {record.subject}) {problem}.",
                        fix="Restore the control database from a backup.",
                    )
                previous_hash = row.hash
        return count

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction under the one lock of these tables; listeners hear of it afterwards."""
        with _answering(), self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            try:
                yield connection
            except IntegrityError as error:
                raise Conflict(
                    "The control store refused the change.",
                    why=str(error.orig),
                    fix="Another change came first: look again.",
                ) from error
        for listener in self._listeners:
            listener()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with _answering(), self.engine.connect() as connection:
            yield connection

    def append(
        self,
        connection: Connection,
        verb: str,
        subject: str,
        author: Author,
        details: Mapping[str, Any],
    ) -> AccessRecord:
        """Adds the record of a change to the transaction that makes it."""
        last = connection.execute(
            select(access_records.c.sequence, access_records.c.hash)
            .order_by(access_records.c.sequence.desc())
            .limit(1)
        ).one_or_none()
        written = canonical_json(dict(details))
        record = AccessRecord(
            sequence=1 if last is None else last.sequence + 1,
            at_us=self.now_us(),
            verb=verb,
            subject=subject,
            actor=author.name.strip(),
            credential=author.credential,
            reason=author.reason,
            details=json.loads(written),
            previous_hash=FIRST_HASH if last is None else last.hash,
        )
        document = record.to_document() | {"details": written, "hash": record.hash}
        connection.execute(insert(access_records).values(**document))
        return record


def version_of(connection: Connection) -> int:
    return int(connection.scalar(select(func.max(access_records.c.sequence))) or 0)


def _record_of(row: Any) -> AccessRecord:
    return AccessRecord(
        row.sequence,
        row.at_us,
        row.verb,
        row.subject,
        row.actor,
        row.credential,
        row.reason,
        json.loads(row.details),
        row.previous_hash,
    )


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Unavailable(
            "The control store does not answer.",
            why=str(error.orig),
            fix="Nothing was changed; try again.",
        ) from error
