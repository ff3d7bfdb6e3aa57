"""What a rollout publishes: each change of exposure, with its moves, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loop.domain.errors import Conflict, Refused
from loop.domain.lifecycle import Actor, State
from loop.domain.policies import BUCKETS
from routing_policies.rollout_records import CANARY, CONTROL, STABLE
from routing_policies.rollout_standing import Standing
from routing_policies.transitions import Move, PolicyVersion
from routing_policies.version_store import VersionStore


class RolloutPublisher:
    """Every method publishes on the serial that the caller's standing has seen, and so raises
    :class:`Conflict` when another publication, or a pause, came between."""

    def __init__(self, store: VersionStore, not_after_seconds: int) -> None:
        self._store = store
        self._not_after_seconds = not_after_seconds

    def publish_stage(
        self, standing: Standing, stage: int, actor: Actor, reason: str, moves: Sequence[Move] = ()
    ) -> None:
        """Canary, stable and control of one stage (from 0), in that order of buckets."""
        row, weight = standing.row, standing.row.plan.canary_weights[stage]
        stable = self._stable_of(row.channel).version
        self._store.publish(
            row.channel,
            [
                (CANARY, weight, row.version),
                (STABLE, BUCKETS - 2 * weight, stable),
                (CONTROL, weight, stable),
            ],
            salt=row.salt,
            actor=actor,
            reason=f"stage {stage + 1} of {len(row.plan.canary_weights)}: {reason}",
            rollout_id=row.rollout_id,
            not_after_seconds=self._not_after_seconds,
            moves=moves,
            expected_serial=standing.seen_serial,
        )

    def promote(
        self, standing: Standing, actor: Actor, reason: str, evidence: Mapping[str, Any]
    ) -> None:
        """The canary serves every session, and what was stable is superseded."""
        row = standing.row
        stable = self._stable_of(row.channel)
        self._publish_all(
            standing,
            row.version,
            actor,
            f"promoted: {reason}",
            [
                Move(stable.version, State.SUPERSEDED, f"replaced by version {row.version}"),
                Move(row.version, State.ACTIVE, reason, evidence),
            ],
        )

    def roll_back(
        self, standing: Standing, actor: Actor, reason: str, evidence: Mapping[str, Any]
    ) -> None:
        """The stable version serves every session again, under a new serial."""
        row = standing.row
        move = Move(row.version, State.ROLLED_BACK, reason, evidence)
        if standing.is_serving:
            stable = self._stable_of(row.channel)
            self._publish_all(standing, stable.version, actor, f"rolled back: {reason}", [move])
        else:
            # Someone else's publication is in force: this canary serves nobody already.
            self._store.move(move.version, move.to, actor, reason, evidence)

    def withdraw(self, standing: Standing, actor: Actor) -> None:
        """After a version was moved out of canary by itself: what gateways pull must follow."""
        row = standing.row
        stable = self._stable_of(row.channel)
        reason = f"version {row.version} is out of canary"
        self._publish_all(standing, stable.version, actor, reason, [])

    def steer(self, standing: Standing, to: State, actor: Actor, reason: str) -> None:
        """Pauses or resumes. A serial of its own, so that no step decided before can follow."""
        row, current = standing.row, standing.current
        move = Move(row.version, to, reason, {"rollout_id": row.rollout_id})
        if current is None or not standing.is_serving:
            self._store.move(move.version, move.to, actor, reason, move.evidence)
            return
        self._store.publish(
            row.channel,
            [(arm.name, arm.weight, arm.policy_version) for arm in current.arms],
            salt=current.salt,
            actor=actor,
            reason=f"{'paused' if to is State.PAUSED else 'resumed'}: {reason}",
            rollout_id=current.rollout_id,
            not_after_seconds=self._not_after_seconds,
            kill=current.kill,
            moves=[move],
            expected_serial=standing.seen_serial,
        )

    def restore_predecessor(self, record: PolicyVersion, actor: Actor, reason: str) -> None:
        """The version that was active before ``record`` serves every session again.

        A canary that ran beside it ends too: its control is gone. Raises :class:`Refused` when
        none was active before.
        """
        earlier = [
            (move.sequence, version.version)
            for version in self._store.list_versions(
                channel=record.channel, states=(State.SUPERSEDED,)
            )
            for move in self._store.transitions(version.version)
            if move.to_state is State.SUPERSEDED
        ]
        current = self._store.current_publication(record.channel)
        if not earlier or current is None:
            raise Refused(
                f"No version was active in channel {record.channel} before {record.version}.",
                fix="Throw the kill switch, or publish another approved version.",
            )
        predecessor = max(earlier)[1]
        moves = [
            Move(record.version, State.ROLLED_BACK, reason),
            Move(predecessor, State.ACTIVE, f"version {record.version} was rolled back"),
        ]
        canary = self._store.canary_version(record.channel)
        if canary is not None:
            why = f"its stable version {record.version} was rolled back"
            moves.append(Move(canary.version, State.ROLLED_BACK, why))
        self._store.publish(
            record.channel,
            [(STABLE, BUCKETS, predecessor)],
            salt=current.publication.salt,
            actor=actor,
            reason=f"rolled back: {reason}",
            not_after_seconds=self._not_after_seconds,
            kill=current.publication.kill,
            moves=moves,
            expected_serial=current.publication.serial,
        )

    def _publish_all(
        self, standing: Standing, version: int, actor: Actor, reason: str, moves: Sequence[Move]
    ) -> None:
        """One arm for every session, on the rollout's salt: nobody changes bucket."""
        self._store.publish(
            standing.row.channel,
            [(STABLE, BUCKETS, version)],
            salt=standing.row.salt,
            actor=actor,
            reason=reason,
            not_after_seconds=self._not_after_seconds,
            kill=standing.current is not None and standing.current.kill,
            moves=moves,
            expected_serial=standing.seen_serial,
        )

    def _stable_of(self, channel: str) -> PolicyVersion:
        stable = self._store.active_version(channel)
        if stable is None:
            raise Conflict(
                f"Channel {channel} has no active version to fall back to.",
                fix="Throw the kill switch, then publish an approved version.",
            )
        return stable
