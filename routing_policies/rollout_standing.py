"""Where a rollout stands, read from what is recorded: its versions' moves and publications.

Nothing of this is stored a second time, so after a crash between any two steps it is still true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loop.domain.errors import Corrupt
from loop.domain.lifecycle import State, Transition
from loop.domain.policies import Publication
from routing_policies.acknowledgements import Acknowledgement
from routing_policies.publications import PublicationRecord
from routing_policies.rollout_records import (
    CANARY,
    CONTROL,
    Gateways,
    LogEntry,
    RolloutPlan,
    RolloutState,
)
from routing_policies.rollout_rows import RolloutRow
from routing_policies.rollout_units import Exposure
from routing_policies.transitions import PolicyVersion
from routing_policies.version_store import VersionStore

_STATES: dict[State, RolloutState] = {
    State.APPROVED: "starting",
    State.CANARY: "canary",
    State.PAUSED: "paused",
    State.ACTIVE: "promoted",
    State.SUPERSEDED: "promoted",
    State.ROLLED_BACK: "rolled_back",
}


class PublicationHistory:
    """A channel's publications, read again only when a new one was made: they never change."""

    def __init__(self, store: VersionStore) -> None:
        self._store = store
        self._known: dict[str, tuple[PublicationRecord, ...]] = {}

    def of(self, channel: str) -> tuple[PublicationRecord, ...]:
        """The oldest first."""
        known = self._known.get(channel, ())
        if not known or known[-1].publication.serial != self._store.current_serial(channel):
            known = tuple(self._store.publications(channel))
            self._known[channel] = known
        return known


@dataclass(frozen=True, slots=True)
class Standing:
    """A rollout at one look. ``records`` are the channel's publications from its first one on;
    ``current`` is the channel's newest, ``seen_serial`` its serial (0: none)."""

    row: RolloutRow
    version: PolicyVersion
    moves: tuple[Transition, ...]
    exposures: dict[int, Exposure]
    records: tuple[PublicationRecord, ...]
    current: Publication | None

    @property
    def seen_serial(self) -> int:
        return self.current.serial if self.current else 0

    @property
    def state(self) -> RolloutState:
        return _STATES.get(self.version.state, "withdrawn")

    @property
    def has_ended(self) -> bool:
        return self.state in ("promoted", "rolled_back", "withdrawn")

    @property
    def is_serving(self) -> bool:
        """The publication in force has this rollout's canary arm."""
        return self.current is not None and self.current.serial in self.exposures

    @property
    def stage(self) -> int:
        """From 0; -1 before the first."""
        return self.exposures[max(self.exposures)].stage if self.exposures else -1

    @property
    def stable_version(self) -> int:
        """The version that control serves."""
        if not self.exposures:
            return self.row.stable_version
        arms = self.exposures[max(self.exposures)].publication.arms
        return next(arm.policy_version for arm in arms if arm.name == CONTROL)

    @property
    def started_at_us(self) -> int:
        if not self.exposures:
            return self.row.created_at_us
        return self.exposures[min(self.exposures)].publication.issued_at_us

    @property
    def stage_serial(self) -> int:
        """The first serial of the current stage; 0 before the first."""
        serials = [serial for serial, one in self.exposures.items() if one.stage == self.stage]
        return min(serials, default=0)

    @property
    def stage_started_at_us(self) -> int | None:
        serial = self.stage_serial
        return self.exposures[serial].publication.issued_at_us if serial else None

    @property
    def final_serial(self) -> int:
        """The publication that ended the exposure, which every gateway must apply.

        0 when there is none: nothing was exposed, or the canary is still being served.
        """
        if not self.has_ended or not self.exposures or self.is_serving:
            return 0
        for record in self.records:
            publication = record.publication
            served = {arm.policy_version for arm in publication.arms}
            if publication.serial > max(self.exposures) and (
                self.state == "promoted" or self.version.version not in served
            ):
                return publication.serial
        return 0

    @property
    def completed_at_us(self) -> int | None:
        """When every live gateway had acknowledged the end, ``None`` before."""
        # That a promotion was acknowledged says nothing about a rollback after it.
        if self.has_ended and self.row.completed_serial == self.final_serial:
            return self.row.completed_at_us
        return None

    @property
    def end(self) -> Transition | None:
        """The move that ended it."""
        if not self.has_ended or not self.moves:
            return None
        ends = (State.ACTIVE, State.ROLLED_BACK, State.REJECTED)
        return next((move for move in reversed(self.moves) if move.to_state in ends), None)

    @property
    def pause(self) -> str:
        """By whom and why, when it is paused."""
        if self.version.state is not State.PAUSED:
            return ""
        return f"paused by {self.moves[-1].actor.name}: {self.moves[-1].reason}"

    @property
    def obstacle(self) -> str:
        """Why the controller must not publish a stage now."""
        if self.current is None or self.current.kill:
            return "the kill switch is on: every request passes as it is"
        if not self.is_serving:
            return f"serial {self.current.serial} was published by someone else in this channel"
        return ""

    def log(self) -> tuple[LogEntry, ...]:
        """Moves and publications in the order in which they were made."""
        entries = [
            LogEntry(
                move.at_us, f"{move.from_state} → {move.to_state}", str(move.actor), move.reason
            )
            for move in self.moves
            if move.from_state is not None
        ]
        for record in self.records:
            publication = record.publication
            if publication.serial not in self.exposures and publication.serial != self.final_serial:
                continue
            arms = ", ".join(f"{arm.name} {arm.weight / 100:g} %" for arm in publication.arms)
            entries.append(
                LogEntry(
                    publication.issued_at_us,
                    f"serial {publication.serial}: {arms}",
                    str(record.actor),
                    record.reason,
                    publication.serial,
                )
            )
        return tuple(sorted(entries, key=lambda entry: entry.at_us))


def read_standing(store: VersionStore, history: PublicationHistory, row: RolloutRow) -> Standing:
    """Raises :class:`Corrupt` for a publication of the rollout that its plan doesn't have."""
    # The publications come first: when a move lands in between, the serial that was seen is
    # outdated, and nothing can be published on it.
    channel = history.of(row.channel)
    exposures = {
        record.publication.serial: exposure
        for record in channel
        if (exposure := _exposure_of(row, record.publication)) is not None
    }
    first = min(exposures, default=0)
    records = tuple(one for one in channel if first and one.publication.serial >= first)
    return Standing(
        row=row,
        version=store.get(row.version),
        moves=tuple(store.transitions(row.version)),
        exposures=exposures,
        records=records,
        current=channel[-1].publication if channel else None,
    )


def gateways_against(
    serial: int, acknowledgements: Sequence[Acknowledgement], plan: RolloutPlan, now_us: int
) -> Gateways:
    """The gateways that asked within ``plan.live_seconds`` must have applied ``serial``."""
    alive_since_us = now_us - round(plan.live_seconds * 1e6)
    live = [ack for ack in acknowledgements if ack.seen_at_us >= alive_since_us]
    rejecting = [
        ack
        for ack in live
        if ack.last_status == "rejected"
        and ack.last_serial >= serial
        and not ack.has_applied(serial)
    ]
    refused = {ack.instance for ack in rejecting}
    return Gateways(
        serial=serial,
        live=tuple(ack.instance for ack in live),
        behind=tuple(
            ack.instance
            for ack in live
            if not ack.has_applied(serial) and ack.instance not in refused
        ),
        rejected=tuple(f"{ack.instance} ({ack.last_error or 'no reason'})" for ack in rejecting),
        stale=tuple(
            ack.instance
            for ack in acknowledgements
            if ack.seen_at_us < alive_since_us and not ack.has_applied(serial)
        ),
    )


def _exposure_of(row: RolloutRow, publication: Publication) -> Exposure | None:
    if publication.rollout_id != row.rollout_id:
        return None
    weight = next((arm.weight for arm in publication.arms if arm.name == CANARY), 0)
    if weight not in row.plan.canary_weights:
        raise Corrupt(
            f"Serial {publication.serial} gives rollout {row.rollout_id} a canary weight of "
            f"{weight}, which its plan does not have."
        )
    return Exposure(publication, row.plan.canary_weights.index(weight))
