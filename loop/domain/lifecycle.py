"""The life of a policy version: its states, the one table of legal moves, and the record of each.

Every move is a :class:`Transition` in one hash chain over the whole store, so an edited, removed
or reordered record is found by :func:`verify_chain`. Approval needs a second person and is pinned
to a *review cycle*: an approval of what was reviewed earlier can't land on what is reviewed now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loop.domain.errors import BadInput, Conflict, Corrupt, Refused
from loop.domain.hash_chain import FIRST_HASH, hash_of, link_problem


class State(StrEnum):
    """The states of a policy version."""

    PROPOSED = "proposed"
    GATE_PASSED = "gate_passed"
    GATE_FAILED = "gate_failed"
    GATE_INCONCLUSIVE = "gate_inconclusive"
    IN_REVIEW = "in_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    CANARY = "canary"
    PAUSED = "paused"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled_back"

    def is_final(self) -> bool:
        """No move leads on; the same document may be proposed again as a new version."""
        return self in (State.GATE_FAILED, State.REJECTED, State.ROLLED_BACK)

    def is_canary(self) -> bool:
        """Holds the one canary place of its channel (a paused canary keeps its sessions)."""
        return self in (State.CANARY, State.PAUSED)

    def is_exposed(self) -> bool:
        """Real sessions may be routed by it now."""
        return self is State.ACTIVE or self.is_canary()

    def may_be_published(self) -> bool:
        """May be an arm of a publication: exposed already, or approved to be."""
        return self.is_exposed() or self is State.APPROVED

    def is_open(self) -> bool:
        """On its way: neither ended nor replaced."""
        return not self.is_final() and self is not State.SUPERSEDED


class ActorKind(StrEnum):
    """Who moves a version. ``installation`` only lays the first policy, which changes nothing."""

    PERSON = "person"
    OPTIMIZER = "optimizer"
    GATE = "gate"
    APPROVAL_RULE = "approval_rule"
    ROLLOUT = "rollout"
    INSTALLATION = "installation"


@dataclass(frozen=True, slots=True)
class Actor:
    """Someone or something that acts; written ``kind:name``."""

    kind: ActorKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Actor:
        """Reads ``kind:name``; raises :class:`BadInput`."""
        kind, colon, name = text.partition(":")
        if kind not in set(ActorKind) or not colon or not name.strip():
            raise BadInput(
                f"{text!r} names no actor.",
                fix=f"Write kind:name with one of {', '.join(ActorKind)}.",
            )
        return cls(ActorKind(kind), name.strip())

    def is_same_as(self, other: Actor) -> bool:
        """The same one, however the name is capitalised."""
        return self.kind is other.kind and (
            self.name.strip().casefold() == other.name.strip().casefold()
        )


_PERSON = frozenset({ActorKind.PERSON})
_GATE = frozenset({ActorKind.GATE})
_REVIEWERS = frozenset({ActorKind.PERSON, ActorKind.APPROVAL_RULE})
_ROLLOUT = frozenset({ActorKind.ROLLOUT})
_ROLLOUT_OR_PERSON = frozenset({ActorKind.ROLLOUT, ActorKind.PERSON})

LEGAL_MOVES: Mapping[tuple[State, State], frozenset[ActorKind]] = {
    (State.PROPOSED, State.GATE_PASSED): _GATE,
    (State.PROPOSED, State.GATE_FAILED): _GATE,
    (State.PROPOSED, State.GATE_INCONCLUSIVE): _GATE,
    (State.PROPOSED, State.REJECTED): _PERSON,
    # Only a policy that changes no request, and only where nothing was active before.
    (State.PROPOSED, State.ACTIVE): frozenset({ActorKind.INSTALLATION}),
    # More data may settle it; by itself it never advances.
    (State.GATE_INCONCLUSIVE, State.GATE_PASSED): _GATE,
    (State.GATE_INCONCLUSIVE, State.GATE_FAILED): _GATE,
    (State.GATE_INCONCLUSIVE, State.IN_REVIEW): _PERSON,
    (State.GATE_INCONCLUSIVE, State.REJECTED): _PERSON,
    (State.GATE_PASSED, State.IN_REVIEW): frozenset({ActorKind.PERSON, ActorKind.GATE}),
    (State.GATE_PASSED, State.REJECTED): _PERSON,
    (State.IN_REVIEW, State.APPROVED): _REVIEWERS,
    (State.IN_REVIEW, State.REJECTED): _REVIEWERS,
    # Sent back to be gated on other data; the next review is a new cycle.
    (State.IN_REVIEW, State.PROPOSED): _PERSON,
    (State.APPROVED, State.CANARY): _ROLLOUT_OR_PERSON,
    (State.APPROVED, State.ACTIVE): _PERSON,
    (State.APPROVED, State.REJECTED): _PERSON,
    (State.CANARY, State.ACTIVE): _ROLLOUT,
    (State.CANARY, State.PAUSED): _ROLLOUT_OR_PERSON,
    (State.CANARY, State.ROLLED_BACK): _ROLLOUT_OR_PERSON,
    (State.PAUSED, State.CANARY): _ROLLOUT_OR_PERSON,
    (State.PAUSED, State.ROLLED_BACK): _ROLLOUT_OR_PERSON,
    (State.ACTIVE, State.SUPERSEDED): _ROLLOUT_OR_PERSON,
    (State.ACTIVE, State.ROLLED_BACK): _ROLLOUT_OR_PERSON,
    (State.SUPERSEDED, State.ACTIVE): _ROLLOUT_OR_PERSON,
}


def next_states(state: State) -> tuple[State, ...]:
    """Where a version in ``state`` may go, in the order of the table."""
    return tuple(to for (start, to) in LEGAL_MOVES if start is state)


def check_move(
    *,
    version: int,
    state: State,
    to: State,
    actor: Actor,
    proposer: Actor,
    current_cycle: int,
    review_cycle: int | None = None,
) -> None:
    """Returns when the move is legal.

    ``current_cycle`` counts the reviews that the version has entered; ``review_cycle`` is the one
    that the actor looked at, and must be given for a decision on a review. Raises
    :class:`Conflict` when the version is elsewhere or was submitted again since,
    :class:`Refused` when this actor may not make the move, and for one's own proposal.
    """
    allowed = LEGAL_MOVES.get((state, to))
    if allowed is None:
        onward = ", ".join(next_states(state)) or "nowhere: the state is final"
        raise Conflict(
            f"Version {version} is {state}; it can't become {to}.",
            fix=f"From {state} it may go to {onward}.",
        )
    if actor.kind not in allowed:
        raise Refused(
            f"A {actor.kind} may not move version {version} from {state} to {to}.",
            fix=f"This move belongs to: {', '.join(sorted(allowed))}.",
        )
    if state is not State.IN_REVIEW or to not in (State.APPROVED, State.REJECTED):
        return
    if to is State.APPROVED and actor.is_same_as(proposer):
        raise Refused(
            f"{actor.name} proposed version {version} and so can't approve it.",
            fix="Ask a second person to review it.",
        )
    if review_cycle != current_cycle:
        raise Conflict(
            f"Version {version} is in review cycle {current_cycle}; the decision is about "
            f"{'none' if review_cycle is None else review_cycle}.",
            why="It was submitted again since, or the decision doesn't say what was reviewed.",
            fix=f"Look at it again and decide on cycle {current_cycle}.",
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """One move, as recorded. ``from_state`` is ``None`` for the proposal itself."""

    sequence: int  # 1, 2, 3 … over the whole store
    version: int
    from_state: State | None
    to_state: State
    actor: Actor
    reason: str
    review_cycle: int
    at_us: int
    previous_hash: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-256 in hex over every field, the hash before it included."""
        return hash_of(self.to_document())

    def to_document(self) -> dict[str, Any]:
        return {
            "sequence": self.sequence,
            "version": self.version,
            "from": self.from_state,
            "to": self.to_state,
            "actor": str(self.actor),
            "reason": self.reason,
            "evidence": dict(self.evidence),
            "review_cycle": self.review_cycle,
            "at_us": self.at_us,
            "previous_hash": self.previous_hash,
        }


def verify_chain(transitions: Iterable[tuple[Transition, str]]) -> int:
    """Checks transitions in their order against the hashes stored beside them.

    Returns how many were checked; raises :class:`Corrupt` naming the first one that is wrong:
    altered, out of its place, missing, or a move that no version could have made.
    """
    previous_hash, count = FIRST_HASH, 0
    states: dict[int, State] = {}
    for transition, stored_hash in transitions:
        count += 1
        problem = link_problem(
            place=count,
            sequence=transition.sequence,
            previous_hash=transition.previous_hash,
            expected_previous=previous_hash,
            computed_hash=transition.hash,
            stored_hash=stored_hash,
        )
        if not problem and transition.from_state is not states.get(transition.version):
            problem = "starts from a state that the version was not in"
        if (
            not problem
            and transition.from_state is not None
            and (transition.from_state, transition.to_state) not in LEGAL_MOVES
        ):
            problem = "is no legal move"
        if problem:
            raise Corrupt(
                f"The record of policy transitions is broken: number {transition.sequence} "
                f"(version {transition.version}) {problem}.",
                fix="Restore the control database from a backup; publish nothing from this one.",
            )
        states[transition.version] = transition.to_state
        previous_hash = stored_hash
    return count
