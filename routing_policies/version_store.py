"""Policy versions, their moves and what was published: the one writer of these tables.

Every write is one transaction under one lock (SQLite's write lock, an advisory lock in
PostgreSQL), so two controllers can act at once and at most one of them wins. What must never
happen is refused twice: by the checks here and by unique indexes in the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from loop.domain.budget_pauses import BudgetPause
from loop.domain.errors import Conflict, Unavailable
from loop.domain.lifecycle import Actor, ActorKind, State, Transition, verify_chain
from loop.domain.policies import BUCKETS, Publication, RoutingPolicy
from routing_policies import acknowledgements as acks
from routing_policies import publications as published
from routing_policies import transitions as moves_table
from routing_policies.acknowledgements import Acknowledgement, AckStatus
from routing_policies.heartbeats import Heartbeat, load_heartbeats, write_heartbeat
from routing_policies.publications import PublicationRecord
from routing_policies.transitions import Move, PolicyVersion

_LOCK_KEY = 7_453_018_265  # any number that nothing else in the database locks
NOT_AFTER_SECONDS = 24 * 3600
AS_REQUESTED = RoutingPolicy(
    name="as-requested", rules=(), description="Leaves every request with the model it names."
)


def utc_now_us() -> int:
    return time.time_ns() // 1000


class VersionStore:
    """The policy registry over the control store.

    Safe between threads and processes. ``now_us`` gives the time that is written.
    """

    def __init__(self, engine: Engine, now_us: Callable[[], int] = utc_now_us) -> None:
        self.engine = engine
        self.now_us = now_us
        self._listeners: list[Callable[[Publication], None]] = []

    def subscribe(self, listener: Callable[[Publication], None]) -> None:
        """Calls ``listener`` after each publication that this object has committed."""
        self._listeners.append(listener)

    def propose(
        self,
        policy: RoutingPolicy,
        proposer: Actor,
        run_id: str = "",
        parent_version: int | None = None,
        channel: str = "prod",
    ) -> int:
        """Stores an immutable policy; returns its version.

        Raises :class:`Conflict` while the same document is open in the channel.
        """
        with self._writing() as connection:
            return moves_table.insert_version(
                connection,
                policy,
                channel=channel,
                proposer=proposer,
                run_id=run_id,
                parent_version=parent_version,
                at_us=self.now_us(),
            )

    def get(self, version: int) -> PolicyVersion:
        """Raises :class:`NotFound`."""
        with self._reading() as connection:
            return moves_table.load_version(connection, version)

    def list_versions(
        self, *, channel: str | None = None, states: Sequence[State] = ()
    ) -> list[PolicyVersion]:
        """Versions in their order, the oldest first."""
        query = select(moves_table.policy_versions).order_by(moves_table.policy_versions.c.version)
        if channel is not None:
            query = query.where(moves_table.policy_versions.c.channel == channel)
        if states:
            query = query.where(moves_table.policy_versions.c.state.in_(states))
        with self._reading() as connection:
            return [moves_table.version_of(row) for row in connection.execute(query)]

    def by_digest(self, digest: str) -> list[PolicyVersion]:
        """Every version that holds this document, the oldest first."""
        query = (
            select(moves_table.policy_versions)
            .where(moves_table.policy_versions.c.digest == digest)
            .order_by(moves_table.policy_versions.c.version)
        )
        with self._reading() as connection:
            return [moves_table.version_of(row) for row in connection.execute(query)]

    def active_version(self, channel: str = "prod") -> PolicyVersion | None:
        found = self.list_versions(channel=channel, states=(State.ACTIVE,))
        return found[0] if found else None

    def canary_version(self, channel: str = "prod") -> PolicyVersion | None:
        """The version in canary, paused ones included."""
        found = self.list_versions(channel=channel, states=(State.CANARY, State.PAUSED))
        return found[0] if found else None

    def move(
        self,
        version: int,
        to: State,
        actor: Actor,
        reason: str,
        evidence: Mapping[str, Any] | None = None,
        review_cycle: int | None = None,
    ) -> Transition:
        """Makes one legal move, durably.

        Raises what :func:`loop.domain.lifecycle.check_move` raises, and :class:`Conflict` when
        another version has the place (one active and one canary per channel).
        """
        step = Move(version, to, reason, evidence or {}, review_cycle)
        with self._writing() as connection:
            return moves_table.apply_move(connection, step, actor, self.now_us())

    def transitions(self, version: int | None = None) -> list[Transition]:
        """The recorded moves in their order, of one version or of all."""
        query = moves_table.transitions_in_order(version)
        with self._reading() as connection:
            return [moves_table.transition_of(row) for row in connection.execute(query)]

    def verify_chain(self) -> int:
        """Checks both hash chains; returns the number of records. Raises :class:`Corrupt`."""
        with self._reading() as connection:
            return self.check(connection)

    @staticmethod
    def check(connection: Connection) -> int:
        """:meth:`verify_chain` inside a transaction of the caller's."""
        rows = connection.execute(moves_table.transitions_in_order())
        checked = verify_chain((moves_table.transition_of(row), row.hash) for row in rows)
        moves_table.check_versions(connection)
        return checked + published.verify_publications(connection)

    def publish(
        self,
        channel: str,
        arms: Sequence[tuple[str, int, int]],
        *,
        salt: str,
        actor: Actor,
        reason: str,
        rollout_id: str = "",
        not_after_seconds: int = NOT_AFTER_SECONDS,
        kill: bool = False,
        moves: Sequence[Move] = (),
        expected_serial: int | None = None,
    ) -> Publication:
        """Publishes arms, each ``(name, weight in 1/10,000, version)``, under the next serial.

        ``moves`` are made in the same transaction, by the same actor, and count for what may be
        published. With ``expected_serial`` (0: nothing yet) a publisher says which publication of
        the channel it saw; raises :class:`Conflict` when another came between.
        """
        with self._writing() as connection:
            seen = published.current_serial(connection, channel)
            if expected_serial is not None and expected_serial != seen:
                raise Conflict(
                    f"Channel {channel} is at serial {seen}, not {expected_serial}.",
                    why="Someone else published in between.",
                    fix="Look at the current publication and decide again.",
                )
            at_us = self.now_us()
            # Places are vacated before they are taken: the indexes are checked at each row.
            for step in sorted(moves, key=lambda step: step.to.is_exposed()):
                moves_table.apply_move(connection, step, actor, at_us)
            publication = published.insert_publication(
                connection,
                channel=channel,
                arms=published.arms_of(connection, arms),
                salt=salt,
                rollout_id=rollout_id,
                kill=kill,
                not_after_seconds=not_after_seconds,
                actor=actor,
                reason=reason,
                at_us=at_us,
            )
        return self._tell(publication)

    def install_baseline(
        self, channel: str = "prod", *, not_after_seconds: int = NOT_AFTER_SECONDS
    ) -> Publication:
        """Gives a channel its first active version and publication: every request as it is.

        Does nothing when the channel has a publication; returns the current one.
        """
        actor = Actor(ActorKind.INSTALLATION, "turnwise")
        reason = "first start: every request keeps its model"
        with self._writing() as connection:
            current = published.load_current(connection, channel)
            if current is not None:
                return current.publication
            at_us = self.now_us()
            version = moves_table.insert_version(
                connection,
                AS_REQUESTED,
                channel=channel,
                proposer=actor,
                run_id="",
                parent_version=None,
                at_us=at_us,
            )
            moves_table.apply_move(connection, Move(version, State.ACTIVE, reason), actor, at_us)
            publication = published.insert_publication(
                connection,
                channel=channel,
                arms=published.arms_of(connection, [("stable", BUCKETS, version)]),
                salt=f"{channel}-{version}",
                rollout_id="",
                kill=False,
                not_after_seconds=not_after_seconds,
                actor=actor,
                reason=reason,
                at_us=at_us,
            )
        return self._tell(publication)

    def publish_pauses(
        self,
        channel: str,
        pauses: Sequence[BudgetPause],
        actor: Actor,
        reason: str,
        *,
        not_after_seconds: int = NOT_AFTER_SECONDS,
    ) -> Publication | None:
        """Publishes what is in force with these pauses in place of its own; ``None`` when they are
        the same, or nothing is in force."""
        with self._writing() as connection:
            record = published.load_current(connection, channel)
            if record is None or record.publication.pauses == tuple(pauses):
                return None
            publication = published.republish(
                connection,
                record.publication,
                actor=actor,
                reason=reason,
                not_after_seconds=not_after_seconds,
                at_us=self.now_us(),
                pauses=tuple(pauses),
            )
        return self._tell(publication)

    def renew(
        self, channel: str, actor: Actor, *, not_after_seconds: int = NOT_AFTER_SECONDS
    ) -> Publication | None:
        """Publishes the same content again once half of its life has passed, else ``None``.

        Gateways drop a publication when it expires; the scheduler calls this every few minutes.
        """
        with self._writing() as connection:
            record = published.load_current(connection, channel)
            if record is None:
                return None
            current, at_us = record.publication, self.now_us()
            if at_us < (current.issued_at_us + current.not_after_us) // 2:
                return None
            publication = published.republish(
                connection,
                current,
                actor=actor,
                reason=f"renewal of serial {current.serial} before it expires",
                not_after_seconds=not_after_seconds,
                at_us=at_us,
            )
        return self._tell(publication)

    def current_publication(self, channel: str = "prod") -> PublicationRecord | None:
        with self._reading() as connection:
            return published.load_current(connection, channel)

    def current_serial(self, channel: str = "prod") -> int:
        """0 when nothing was published."""
        with self._reading() as connection:
            return published.current_serial(connection, channel)

    def publication(self, serial: int) -> PublicationRecord:
        """Raises :class:`NotFound`."""
        with self._reading() as connection:
            return published.load_publication(connection, serial)

    def publications(self, channel: str | None = None) -> list[PublicationRecord]:
        """Every publication ever made, the oldest first."""
        table = published.publications
        query = select(table).order_by(table.c.serial)
        if channel is not None:
            query = query.where(table.c.channel == channel)
        with self._reading() as connection:
            return [published.record_of(row) for row in connection.execute(query)]

    def record_ack(
        self,
        instance: str,
        serial: int,
        status: AckStatus,
        error: str = "",
        at_us: int | None = None,
        *,
        channel: str = "prod",
        gateway: str = "",
    ) -> None:
        """Records what a gateway did with a serial."""
        with self._writing() as connection:
            acks.write_ack(
                connection,
                instance=instance,
                serial=serial,
                status=status,
                error=error,
                at_us=self.now_us() if at_us is None else at_us,
                channel=channel,
                gateway=gateway,
            )

    def record_seen(
        self,
        instance: str,
        *,
        channel: str = "prod",
        gateway: str = "",
        rollout_id: str = "",
        decided: int = 0,
    ) -> None:
        """Records that a gateway instance polls now, having ``decided`` so often in a rollout."""
        at_us = self.now_us()
        with self._writing() as connection:
            acks.write_seen(
                connection, instance=instance, channel=channel, gateway=gateway, at_us=at_us
            )
            if rollout_id:
                write_heartbeat(
                    connection,
                    instance=instance,
                    rollout_id=rollout_id,
                    decided=decided,
                    at_us=at_us,
                )

    def heartbeats(self, rollout_id: str) -> list[Heartbeat]:
        """What gateways say of how often they have decided in a rollout."""
        with self._reading() as connection:
            return load_heartbeats(connection, rollout_id)

    def acknowledgements(self, channel: str = "prod") -> list[Acknowledgement]:
        """Every known gateway instance of the channel with the serial that it has applied."""
        with self._reading() as connection:
            return acks.load_acknowledgements(connection, channel)

    def _tell(self, publication: Publication) -> Publication:
        for listener in self._listeners:
            listener(publication)
        return publication

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._answering(), self.engine.begin() as connection:
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

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._answering(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise Unavailable(
                "The control store does not answer.",
                why=str(error.orig),
                fix="Nothing was changed; try again.",
            ) from error
