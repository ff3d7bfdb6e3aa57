"""The tables of policy versions and their transitions, and the writes inside one transaction.

:class:`routing_policies.version_store.VersionStore` opens the transactions and holds the lock;
nothing else writes these tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    text,
    update,
)

from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, Corrupt, NotFound, Refused
from loop.domain.hash_chain import FIRST_HASH
from loop.domain.lifecycle import Actor, ActorKind, State, Transition, check_move
from loop.domain.policies import RoutingPolicy, canonical_json
from loop.domain.policy_documents import parse_policy

policy_versions = Table(
    "policy_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("channel", String(64), nullable=False),
    Column("digest", String(80), nullable=False, index=True),
    Column("document", Text, nullable=False),
    Column("proposer", String(255), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("parent_version", Integer),
    Column("state", String(32), nullable=False),
    Column("review_cycle", Integer, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)
# The database itself refuses a second active version and a second canary in one channel.
for _name, _states in (("active", "'active'"), ("canary", "'canary', 'paused'")):
    _where = text(f"state IN ({_states})")
    Index(
        f"uq_policy_versions_one_{_name}",
        policy_versions.c.channel,
        unique=True,
        sqlite_where=_where,
        postgresql_where=_where,
    )

policy_transitions = Table(
    "policy_transitions",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False, index=True),
    Column("from_state", String(32)),
    Column("to_state", String(32), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("review_cycle", Integer, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("previous_hash", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
)


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A stored policy and where it stands. ``version`` counts up from 1 over all channels."""

    version: int
    channel: str
    policy: RoutingPolicy
    digest: str
    proposer: Actor
    run_id: str
    parent_version: int | None
    state: State
    review_cycle: int
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Move:
    """A state move to make; several may land in one transaction with a publication.

    ``review_cycle`` is needed to approve or reject what is in review.
    """

    version: int
    to: State
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    review_cycle: int | None = None


def insert_version(
    connection: Connection,
    policy: RoutingPolicy,
    *,
    channel: str,
    proposer: Actor,
    run_id: str,
    parent_version: int | None,
    at_us: int,
) -> int:
    """Stores a policy as the next version; returns its number.

    Raises :class:`Conflict` while the same document is open in the channel,
    :class:`NotFound` for an unknown parent.
    """
    versions = policy_versions.c
    if parent_version is not None:
        load_version(connection, parent_version)
    twins = select(versions.version, versions.state).where(
        versions.channel == channel, versions.digest == policy.digest
    )
    for twin, state in connection.execute(twins):
        if State(state).is_open():
            raise Conflict(
                f"The same policy is {state} already as version {twin}.",
                fix=f"Go on with version {twin}.",
            )
    number = 1 + (connection.scalar(select(func.max(versions.version))) or 0)
    connection.execute(
        insert(policy_versions).values(
            version=number,
            channel=channel,
            digest=policy.digest,
            document=policy.to_json(),
            proposer=str(proposer),
            run_id=run_id,
            parent_version=parent_version,
            state=State.PROPOSED,
            review_cycle=0,
            created_at_us=at_us,
        )
    )
    evidence = {
        "policy_digest": policy.digest,
        "channel": channel,
        "run_id": run_id,
        "parent_version": parent_version,
    }
    _append(connection, number, None, State.PROPOSED, proposer, "proposed", evidence, 0, at_us)
    return number


def apply_move(connection: Connection, move: Move, actor: Actor, at_us: int) -> Transition:
    """Makes one move and records it; the caller holds the write lock."""
    current = load_version(connection, move.version)
    check_move(
        version=move.version,
        state=current.state,
        to=move.to,
        actor=actor,
        proposer=current.proposer,
        current_cycle=current.review_cycle,
        review_cycle=move.review_cycle,
    )
    if actor.kind is ActorKind.INSTALLATION:
        _check_installation(connection, current)
    if move.to is State.ACTIVE or (move.to.is_canary() and not current.state.is_canary()):
        _check_place(connection, current, move.to)
    cycle = current.review_cycle + (move.to is State.IN_REVIEW)
    connection.execute(
        update(policy_versions)
        .where(policy_versions.c.version == move.version)
        .values(state=move.to, review_cycle=cycle)
    )
    return _append(
        connection,
        move.version,
        current.state,
        move.to,
        actor,
        move.reason,
        move.evidence,
        cycle,
        at_us,
    )


def load_version(connection: Connection, version: int) -> PolicyVersion:
    """One version; raises :class:`NotFound`."""
    found = connection.execute(
        select(policy_versions).where(policy_versions.c.version == version)
    ).one_or_none()
    if found is None:
        raise NotFound(
            f"There is no policy version {version}.", fix="`turnwise policy list` shows all."
        )
    return version_of(found)


def version_of(row: Row[Any]) -> PolicyVersion:
    return PolicyVersion(
        version=row.version,
        channel=row.channel,
        policy=parse_policy(json.loads(row.document)),
        digest=row.digest,
        proposer=Actor.parse(row.proposer),
        run_id=row.run_id,
        parent_version=row.parent_version,
        state=State(row.state),
        review_cycle=row.review_cycle,
        created_at_us=row.created_at_us,
    )


def transition_of(row: Row[Any]) -> Transition:
    return Transition(
        sequence=row.sequence,
        version=row.version,
        from_state=None if row.from_state is None else State(row.from_state),
        to_state=State(row.to_state),
        actor=Actor.parse(row.actor),
        reason=row.reason,
        review_cycle=row.review_cycle,
        at_us=row.at_us,
        previous_hash=row.previous_hash,
        evidence=json.loads(row.evidence),
    )


def transitions_in_order(version: int | None = None) -> Select[Any]:
    query = select(policy_transitions).order_by(policy_transitions.c.sequence)
    return query if version is None else query.where(policy_transitions.c.version == version)


def check_versions(connection: Connection) -> None:
    """Holds the versions against their recorded moves; raises :class:`Corrupt`.

    So the end of the chain can't be cut off, nor a document exchanged, without being found.
    """
    states: dict[int, str] = {}
    digests: dict[int, str] = {}
    for row in connection.execute(transitions_in_order()):
        states[row.version] = row.to_state
        if row.from_state is None:
            digests[row.version] = json.loads(row.evidence)["policy_digest"]
    rows = connection.execute(select(policy_versions)).all()
    for row in rows:
        document = f"sha256:{hashlib.sha256(row.document.encode()).hexdigest()}"
        if states.get(row.version) != row.state or digests.get(row.version) != document:
            raise Corrupt(
                f"Version {row.version} is not what the record of its moves says.",
                why="Its state or document was changed behind the store, or moves were removed.",
                fix="Restore the control database from a backup; publish nothing from this one.",
            )
    if len(rows) != len(states):
        raise Corrupt("The record of moves names versions that are gone.")


def _append(
    connection: Connection,
    version: int,
    from_state: State | None,
    to_state: State,
    actor: Actor,
    reason: str,
    evidence: Mapping[str, Any],
    review_cycle: int,
    at_us: int,
) -> Transition:
    if not reason.strip():
        raise BadInput("A move needs a reason.", fix="Say why in a few words.")
    last = connection.execute(
        select(policy_transitions.c.sequence, policy_transitions.c.hash)
        .order_by(policy_transitions.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    written = canonical_json(dict(evidence))
    transition = Transition(
        sequence=1 if last is None else last.sequence + 1,
        version=version,
        from_state=from_state,
        to_state=to_state,
        actor=actor,
        reason=reason,
        review_cycle=review_cycle,
        at_us=at_us,
        previous_hash=FIRST_HASH if last is None else last.hash,
        evidence=json.loads(written),  # what a reader will get: tuples are lists by then
    )
    connection.execute(
        insert(policy_transitions).values(
            sequence=transition.sequence,
            version=version,
            from_state=from_state,
            to_state=to_state,
            actor=str(actor),
            reason=reason,
            evidence=written,
            review_cycle=review_cycle,
            at_us=at_us,
            previous_hash=transition.previous_hash,
            hash=transition.hash,
        )
    )
    return transition


def _check_place(connection: Connection, version: PolicyVersion, to: State) -> None:
    taken = (State.ACTIVE,) if to is State.ACTIVE else (State.CANARY, State.PAUSED)
    holder = connection.scalar(
        select(policy_versions.c.version).where(
            policy_versions.c.channel == version.channel,
            policy_versions.c.version != version.version,
            policy_versions.c.state.in_(taken),
        )
    )
    if holder is not None:
        raise Conflict(
            f"Version {version.version} can't become {to}: version {holder} is that already "
            f"in channel {version.channel}.",
            fix=f"Move version {holder} away in the same step.",
        )


def _check_installation(connection: Connection, version: PolicyVersion) -> None:
    earlier = connection.scalar(
        select(func.count())
        .select_from(policy_transitions)
        .join(policy_versions, policy_versions.c.version == policy_transitions.c.version)
        .where(
            policy_versions.c.channel == version.channel,
            policy_transitions.c.to_state == State.ACTIVE,
        )
    )
    if earlier or version.policy.models():
        raise Refused(
            f"Version {version.version} can't be installed without a review.",
            why="Only a first policy that leaves every request as it is needs none.",
            fix="Propose it, and have it gated and approved.",
        )
