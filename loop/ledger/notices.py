"""Notices on their way to people: queued with what they tell of, sent until they have arrived.

A notice may arrive twice (its sender was stopped before it could note the first), never not at all;
its id tells the receiver.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    String,
    Table,
    Text,
    insert,
    select,
    update,
)

from loop.control.store import metadata

Channel = Literal["webhook", "email"]

_NOTICES = Table(
    "notices",
    metadata,
    Column("notice_id", String(32), primary_key=True),
    Column("channel", String(8), nullable=False),
    Column("created_at_us", BigInteger, nullable=False, index=True),
    Column("subject", String(255), nullable=False),
    Column("text", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("recipients", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at_us", BigInteger, nullable=False),
    Column("sent_at_us", BigInteger, nullable=True),
    Column("problem", Text, nullable=False),
)
GIVE_UP_US = 3 * 86_400 * 1_000_000
_FIRST_PAUSE_US, _LONGEST_PAUSE_US = 5_000_000, 3_600_000_000


@dataclass(frozen=True, slots=True)
class Notice:
    """``text`` is for people, ``document`` for programs; ``recipients`` are e-mail addresses."""

    channel: Channel
    subject: str
    text: str
    document: Mapping[str, Any]
    created_at_us: int
    recipients: tuple[str, ...] = ()
    notice_id: str = field(default_factory=lambda: "n_" + secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class NoticeRecord:
    """A notice and how its sending went; ``problem`` is the last failure."""

    notice: Notice
    attempts: int
    sent_at_us: int | None
    problem: str


def add_notice(connection: Connection, notice: Notice) -> None:
    """Queues a notice within the transaction of what it tells of."""
    connection.execute(
        insert(_NOTICES).values(
            notice_id=notice.notice_id,
            channel=notice.channel,
            created_at_us=notice.created_at_us,
            subject=notice.subject[:255],
            text=notice.text,
            document=json.dumps(notice.document),
            recipients=json.dumps(notice.recipients),
            attempts=0,
            next_at_us=notice.created_at_us,
            sent_at_us=None,
            problem="",
        )
    )


class NoticeQueue:
    """The queue as its sender sees it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def due(self, now_us: int, limit: int = 100) -> list[NoticeRecord]:
        """Those to be sent now, the oldest first. What could not be sent for three days is let
        be: :meth:`latest` still shows it."""
        query = (
            select(_NOTICES)
            .where(
                _NOTICES.c.sent_at_us.is_(None),
                _NOTICES.c.next_at_us <= now_us,
                _NOTICES.c.created_at_us > now_us - GIVE_UP_US,
            )
            .order_by(_NOTICES.c.created_at_us)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [_record_of(row) for row in connection.execute(query)]

    def latest(self, limit: int = 50) -> list[NoticeRecord]:
        """The newest first."""
        query = select(_NOTICES).order_by(_NOTICES.c.created_at_us.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [_record_of(row) for row in connection.execute(query)]

    def note_sent(self, notice_id: str, at_us: int) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                update(_NOTICES)
                .where(_NOTICES.c.notice_id == notice_id)
                .values(sent_at_us=at_us, attempts=_NOTICES.c.attempts + 1, problem="")
            )

    def note_failed(self, record: NoticeRecord, problem: str, at_us: int) -> None:
        """It is tried again after a pause that grows up to an hour."""
        pause_us = min(_LONGEST_PAUSE_US, _FIRST_PAUSE_US * 2**record.attempts)
        with self._engine.begin() as connection:
            connection.execute(
                update(_NOTICES)
                .where(_NOTICES.c.notice_id == record.notice.notice_id)
                .values(attempts=record.attempts + 1, problem=problem, next_at_us=at_us + pause_us)
            )


def _record_of(row: Any) -> NoticeRecord:
    notice = Notice(
        row.channel,
        row.subject,
        row.text,
        json.loads(row.document),
        row.created_at_us,
        tuple(json.loads(row.recipients)),
        row.notice_id,
    )
    return NoticeRecord(notice, row.attempts, row.sent_at_us, row.problem)
