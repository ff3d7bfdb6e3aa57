"""The table of publications: what gateways were told, by serial, kept for ever.

Off-policy estimation needs the arms and weights of every serial that a decision names, so no row
is ever changed or removed. The payload text stored here is, byte for byte, what is signed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    Row,
    String,
    Table,
    Text,
    func,
    insert,
    select,
)

from loop.control.store import metadata
from loop.domain.budget_pauses import BudgetPause
from loop.domain.errors import BadInput, Corrupt, NotFound, Refused
from loop.domain.hash_chain import FIRST_HASH
from loop.domain.lifecycle import Actor
from loop.domain.policies import BUCKETS, Arm, Publication, canonical_json
from loop.domain.policy_documents import parse_publication
from routing_policies.transitions import load_version

_ARM_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")

publications = Table(
    "publications",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=False),
    Column("channel", String(64), nullable=False, index=True),
    Column("payload", Text, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("issued_at_us", BigInteger, nullable=False),
    Column("previous_hash", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
)


@dataclass(frozen=True, slots=True)
class PublicationRecord:
    """A publication as stored: ``payload`` is the canonical JSON text that is signed."""

    publication: Publication
    payload: str
    actor: Actor
    reason: str


def arms_of(connection: Connection, arms: Sequence[tuple[str, int, int]]) -> tuple[Arm, ...]:
    """Loads the policies of ``(name, weight in 1/10,000, version)``.

    Raises :class:`BadInput` for weights or names that can't be served, :class:`Refused` for a
    version that isn't approved.
    """
    names = [name for name, _, _ in arms]
    weights = [weight for _, weight, _ in arms]
    if len(set(names)) != len(names) or not all(map(_ARM_NAME.fullmatch, names)):
        raise BadInput(
            f"The arms are named {', '.join(names) or 'not at all'}.",
            fix="Give each its own name of letters, digits, '.', '_' and '-'.",
        )
    if any(weight < 0 for weight in weights) or sum(weights) != BUCKETS:
        raise BadInput(
            f"The arms' weights are {weights}; they must be 0 or more and sum to {BUCKETS}."
        )
    loaded = []
    for name, weight, number in arms:
        version = load_version(connection, number)
        if not version.state.may_be_published():
            raise Refused(
                f"Version {number} is {version.state} and can't be published.",
                fix="Only approved, canary and active versions can.",
            )
        loaded.append(Arm(name, weight, number, version.policy))
    return tuple(loaded)


def insert_publication(
    connection: Connection,
    *,
    channel: str,
    arms: tuple[Arm, ...],
    salt: str,
    rollout_id: str,
    kill: bool,
    not_after_seconds: int,
    actor: Actor,
    reason: str,
    at_us: int,
    pauses: tuple[BudgetPause, ...] | None = None,
) -> Publication:
    """Writes the next serial; the caller holds the write lock. Without ``pauses`` those in force
    stay: whatever is published, a used-up budget is not forgotten."""
    if not_after_seconds <= 0:
        raise BadInput("A publication must stay valid for at least one second.")
    if not salt or not channel:
        raise BadInput("A publication needs a channel and a salt.")
    last_serial, previous_hash = _last(connection)
    if pauses is None:
        current = load_current(connection, channel)
        pauses = () if current is None else current.publication.pauses
    publication = Publication(
        serial=last_serial + 1,
        channel=channel,
        arms=arms,
        salt=salt,
        issued_at_us=at_us,
        not_after_us=at_us + not_after_seconds * 1_000_000,
        rollout_id=rollout_id,
        kill=kill,
        pauses=pauses,
    )
    payload = canonical_json(publication.to_document())
    parse_publication(json.loads(payload))  # what no client could read must not be published
    connection.execute(
        insert(publications).values(
            serial=publication.serial,
            channel=channel,
            payload=payload,
            actor=str(actor),
            reason=reason,
            issued_at_us=at_us,
            previous_hash=previous_hash,
            hash=_hash(previous_hash, payload, str(actor), reason),
        )
    )
    return publication


def republish(
    connection: Connection,
    current: Publication,
    *,
    actor: Actor,
    reason: str,
    not_after_seconds: int,
    at_us: int,
    pauses: tuple[BudgetPause, ...] | None = None,
) -> Publication:
    """The same arms under the next serial, with other pauses where these are given."""
    return insert_publication(
        connection,
        channel=current.channel,
        arms=current.arms,
        salt=current.salt,
        rollout_id=current.rollout_id,
        kill=current.kill,
        not_after_seconds=not_after_seconds,
        actor=actor,
        reason=reason,
        at_us=at_us,
        pauses=pauses,
    )


def load_publication(connection: Connection, serial: int) -> PublicationRecord:
    """One publication; raises :class:`NotFound`."""
    row = connection.execute(
        select(publications).where(publications.c.serial == serial)
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no publication with serial {serial}.")
    return record_of(row)


def load_current(connection: Connection, channel: str) -> PublicationRecord | None:
    row = connection.execute(
        select(publications)
        .where(publications.c.channel == channel)
        .order_by(publications.c.serial.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else record_of(row)


def current_serial(connection: Connection, channel: str) -> int:
    """The serial in force in a channel, 0 when nothing was published."""
    query = select(func.max(publications.c.serial)).where(publications.c.channel == channel)
    return connection.scalar(query) or 0


def record_of(row: Row[Any]) -> PublicationRecord:
    return PublicationRecord(
        parse_publication(json.loads(row.payload)), row.payload, Actor.parse(row.actor), row.reason
    )


def verify_publications(connection: Connection) -> int:
    """Checks the hash chain over all publications; raises :class:`Corrupt`."""
    previous_hash, count = FIRST_HASH, 0
    for row in connection.execute(select(publications).order_by(publications.c.serial)):
        count += 1
        expected = _hash(previous_hash, row.payload, row.actor, row.reason)
        if row.serial != count or row.previous_hash != previous_hash or row.hash != expected:
            raise Corrupt(
                f"The record of publications is broken at serial {row.serial}.",
                why="A row was altered, removed or put in another order.",
                fix="Restore the control database from a backup; publish nothing from this one.",
            )
        previous_hash = row.hash
    return count


def _last(connection: Connection) -> tuple[int, str]:
    """Serial and hash of the newest publication of any channel."""
    row = connection.execute(
        select(publications.c.serial, publications.c.hash)
        .order_by(publications.c.serial.desc())
        .limit(1)
    ).one_or_none()
    return (0, FIRST_HASH) if row is None else (row.serial, row.hash)


def _hash(previous_hash: str, payload: str, actor: str, reason: str) -> str:
    return hashlib.sha256(
        canonical_json([previous_hash, payload, actor, reason]).encode()
    ).hexdigest()
