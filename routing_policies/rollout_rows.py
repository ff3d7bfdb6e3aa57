"""The tables of rollouts and of the lease that lets one controller work on a channel at a time.

A row holds what the registry doesn't: the plan, and the last look. Stage and state are read from
the publications and the versions' moves, which change in one transaction, so there is no second
copy that could disagree with them after a crash.
"""

from __future__ import annotations

import json
import time
import uuid
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
    Row,
    String,
    Table,
    Text,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from loop.control.store import metadata
from loop.domain.errors import Conflict, NotFound, Unavailable
from loop.domain.lifecycle import Actor
from loop.domain.policies import canonical_json
from routing_policies.rollout_records import RolloutPlan, StepKind

_RETRY_SECONDS = 0.05

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout_id", String(64), primary_key=True),
    Column("channel", String(64), nullable=False, index=True),
    Column("version", Integer, nullable=False, unique=True),
    Column("stable_version", Integer, nullable=False),
    Column("plan", Text, nullable=False),
    Column("salt", String(80), nullable=False),
    Column("started_by", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("looked_at_us", BigInteger),
    Column("observed_at_us", BigInteger),
    Column("completed_at_us", BigInteger),
    Column("completed_serial", Integer),
    Column("step", String(16), nullable=False),
    Column("sentence", Text, nullable=False),
    Column("report", Text),
)

rollout_leases = Table(
    "rollout_leases",
    metadata,
    Column("channel", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("token", Integer, nullable=False),
    Column("until_us", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """A stored rollout. ``observed_at_us``: when outcomes were last read; ``completed_*``: when
    every live gateway had applied which final serial; ``report``: the document of the last look,
    ``None`` before the first."""

    rollout_id: str
    channel: str
    version: int
    stable_version: int
    plan: RolloutPlan
    salt: str
    started_by: Actor
    reason: str
    created_at_us: int
    looked_at_us: int | None
    observed_at_us: int | None
    completed_at_us: int | None
    completed_serial: int | None
    step: StepKind
    sentence: str
    report: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a channel. ``token`` rises with each holder: a row written under a
    later token refuses an earlier one, so a controller that was asleep changes nothing."""

    channel: str
    holder: str
    token: int


class RolloutRows:
    """The only writer of ``rollouts`` and ``rollout_leases``.

    Methods raise :class:`Unavailable` when the database does not answer.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, row: RolloutRow) -> None:
        """Raises :class:`Conflict` when the version has a rollout already."""
        values = {
            "rollout_id": row.rollout_id,
            "channel": row.channel,
            "version": row.version,
            "stable_version": row.stable_version,
            "plan": canonical_json(row.plan.to_document()),
            "salt": row.salt,
            "started_by": str(row.started_by),
            "reason": row.reason,
            "created_at_us": row.created_at_us,
            "fence": 0,
            "step": row.step,
            "sentence": row.sentence,
        }
        try:
            with self._connection() as connection:
                connection.execute(insert(rollouts).values(**values))
        except IntegrityError as error:
            raise Conflict(
                f"Version {row.version} has a rollout already.", why=str(error.orig)
            ) from error

    def load(self, rollout_id: str) -> RolloutRow:
        """Raises :class:`NotFound`."""
        found = self.find(rollout_id)
        if found is None:
            raise NotFound(
                f"There is no rollout {rollout_id!r}.", fix="`turnwise rollout list` shows all."
            )
        return found

    def find(self, rollout_id: str) -> RolloutRow | None:
        query = select(rollouts).where(rollouts.c.rollout_id == rollout_id)
        with self._connection() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _row_of(row)

    def list(self, channel: str | None = None) -> list[RolloutRow]:
        """Rollouts, the newest first."""
        query = select(rollouts).order_by(
            rollouts.c.created_at_us.desc(), rollouts.c.version.desc()
        )
        if channel is not None:
            query = query.where(rollouts.c.channel == channel)
        with self._connection() as connection:
            return [_row_of(row) for row in connection.execute(query)]

    def record_look(
        self,
        rollout_id: str,
        lease: Lease,
        *,
        looked_at_us: int,
        observed_at_us: int | None,
        completed_at_us: int | None = None,
        completed_serial: int | None = None,
        step: StepKind,
        sentence: str,
        report: Mapping[str, Any] | None,
    ) -> None:
        """Writes what a look came to. Raises :class:`Conflict` under an outdated lease."""
        query = (
            update(rollouts)
            .where(rollouts.c.rollout_id == rollout_id, rollouts.c.fence <= lease.token)
            .values(
                fence=lease.token,
                looked_at_us=looked_at_us,
                observed_at_us=observed_at_us,
                completed_at_us=completed_at_us,
                completed_serial=completed_serial,
                step=step,
                sentence=sentence,
                report=None if report is None else canonical_json(report),
            )
        )
        with self._connection() as connection:
            if connection.execute(query).rowcount != 1:
                raise Conflict(
                    f"Another controller has taken over rollout {rollout_id}.",
                    why=f"It holds a later lease than number {lease.token}.",
                )

    @contextmanager
    def leased(
        self,
        channel: str,
        *,
        now_us: Callable[[], int],
        seconds: float,
        patience_seconds: float = 0.0,
    ) -> Iterator[Lease]:
        """Holds the channel for the block, at most for ``seconds`` if the holder dies.

        Waits ``patience_seconds`` for another holder, then raises :class:`Unavailable`.
        """
        give_up = time.monotonic() + patience_seconds
        while (lease := self._acquire(channel, now_us(), seconds)) is None:
            if time.monotonic() >= give_up:
                raise Unavailable(
                    f"Another controller is at work on channel {channel}.",
                    fix="Try again in a moment.",
                    retry_after_seconds=1,
                )
            time.sleep(_RETRY_SECONDS)
        try:
            yield lease
        finally:
            self._release(lease)

    def _acquire(self, channel: str, now_us: int, seconds: float) -> Lease | None:
        holder, until_us = uuid.uuid4().hex, now_us + round(seconds * 1e6)
        leases = rollout_leases.c
        taking = (
            update(rollout_leases)
            .where(leases.channel == channel, leases.until_us <= now_us)
            .values(holder=holder, token=leases.token + 1, until_us=until_us)
        )
        first = {"channel": channel, "holder": holder, "token": 1, "until_us": until_us}
        try:
            with self._connection() as connection:
                if connection.execute(taking).rowcount == 1:
                    return Lease(channel, holder, _token_of(connection, channel))
                if _token_of(connection, channel):
                    return None
                connection.execute(insert(rollout_leases).values(**first))
        except IntegrityError:
            return None  # another was the first in the same moment
        return Lease(channel, holder, 1)

    def _release(self, lease: Lease) -> None:
        leases = rollout_leases.c
        query = (
            update(rollout_leases)
            .where(leases.channel == lease.channel, leases.holder == lease.holder)
            .values(until_us=0)
        )
        with self._connection() as connection:
            connection.execute(query)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise Unavailable(
                "The control store does not answer.",
                why=str(error.orig),
                fix="Nothing was changed; try again.",
            ) from error


def _token_of(connection: Connection, channel: str) -> int:
    """0 when the channel was never leased."""
    query = select(rollout_leases.c.token).where(rollout_leases.c.channel == channel)
    token: int | None = connection.scalar(query)
    return token or 0


def _row_of(row: Row[Any]) -> RolloutRow:
    return RolloutRow(
        rollout_id=row.rollout_id,
        channel=row.channel,
        version=row.version,
        stable_version=row.stable_version,
        plan=RolloutPlan.from_document(json.loads(row.plan)),
        salt=row.salt,
        started_by=Actor.parse(row.started_by),
        reason=row.reason,
        created_at_us=row.created_at_us,
        looked_at_us=row.looked_at_us,
        observed_at_us=row.observed_at_us,
        completed_at_us=row.completed_at_us,
        completed_serial=row.completed_serial,
        step=row.step,
        sentence=row.sentence,
        report=None if row.report is None else json.loads(row.report),
    )
