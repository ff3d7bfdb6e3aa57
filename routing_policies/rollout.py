"""The rollout controller: exposes a policy by stages, watches it, and ends in one of two ways.

Every change is one transaction of :class:`VersionStore`: the versions' moves and the publication
together, on the serial that was seen. The controller may be killed between any two statements and
goes on from what is recorded; calling :meth:`RolloutController.tick` again is always safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from loop.domain.errors import BadInput, Conflict, Refused
from loop.domain.lifecycle import Actor, ActorKind, State
from routing_policies.rollout_evidence import RolloutEvidence
from routing_policies.rollout_judge import (
    StageFacts,
    judge_rollout,
    judge_unreadable,
    next_step,
)
from routing_policies.rollout_publisher import RolloutPublisher
from routing_policies.rollout_quarantine import check_freeze, check_quarantine
from routing_policies.rollout_records import (
    ArrivedDecisions,
    DecisionLog,
    JudgeReading,
    RolloutPlan,
    RolloutReport,
    RolloutStatus,
    SessionOutcome,
)
from routing_policies.rollout_rows import Lease, RolloutRow, RolloutRows
from routing_policies.rollout_standing import (
    PublicationHistory,
    Standing,
    gateways_against,
    read_standing,
)
from routing_policies.rollout_status import sentence_of, status_of
from routing_policies.rollout_units import units_of
from routing_policies.transitions import Move, PolicyVersion
from routing_policies.version_store import NOT_AFTER_SECONDS, VersionStore

CONTROLLER = Actor(ActorKind.ROLLOUT, "controller")
LEASE_SECONDS = 30.0
PATIENCE_SECONDS = 10.0  # how long a person's step waits for a look to end


def rollout_id_of(version: int) -> str:
    """A version is rolled out once, so its number names the rollout."""
    return f"rollout-{version}"


class RolloutController:
    """Starts, watches and ends rollouts. Safe between threads and processes."""

    def __init__(
        self,
        store: VersionStore,
        *,
        not_after_seconds: int = NOT_AFTER_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._rows = RolloutRows(store.engine)
        self._history = PublicationHistory(store)
        self._publisher = RolloutPublisher(store, not_after_seconds)
        self._lease_seconds = lease_seconds
        # Kept for speed only: a controller that has none comes to the same verdicts.
        self._evidence: dict[str, RolloutEvidence] = {}

    def start(
        self,
        version: int,
        plan: RolloutPlan,
        actor: Actor,
        reason: str,
        *,
        override_quarantine: bool = False,
    ) -> RolloutStatus:
        """Publishes the first stage of an approved version.

        Raises :class:`Conflict` when the version isn't approved or the channel has a canary,
        :class:`Refused` while the document is in quarantine or the channel is frozen (a person may
        override both) or nothing stable is there to fall back to.
        """
        record = self._store.get(version)
        with self._leased(record.channel, PATIENCE_SECONDS):
            row = self._rows.find(rollout_id_of(version))
            if row is None:
                row = self._new_row(record, plan, actor, reason, override_quarantine)
                self._rows.create(row)
            elif record.state is not State.APPROVED:
                raise Conflict(
                    f"Version {version} is {record.state}; its rollout has begun already.",
                    fix=f"`turnwise rollout status {row.rollout_id}` shows it.",
                )
            self._publish_first(read_standing(self._store, self._history, row))
        return self.status(row.rollout_id)

    def tick(
        self,
        rollout_id: str,
        outcomes: Sequence[SessionOutcome] | None,
        reading: JudgeReading | None = None,
        arrived: ArrivedDecisions | None = None,
    ) -> RolloutStatus:
        """Looks once and takes at most one step.

        ``outcomes``: every session of this rollout as known now, in any order; ``None`` when they
        can't be read. ``reading``: what a judge says of the arms. ``arrived``: what has arrived of
        the gateways' log, to hold against what they say. Raises :class:`Unavailable` while another
        controller is at work, :class:`Conflict` when someone published meanwhile; both end well at
        the next tick.
        """
        channel = self._rows.load(rollout_id).channel
        now_us = self._store.now_us()
        with self._leased(channel) as lease:
            row = self._rows.load(rollout_id)
            standing = read_standing(self._store, self._history, row)
            if standing.state == "starting" or (
                standing.state == "canary" and not standing.exposures
            ):
                self._publish_first(standing)
            elif standing.has_ended:
                self._finish(standing, lease, outcomes, now_us)
                self._evidence.pop(rollout_id, None)
            else:
                self._watch(standing, lease, outcomes, now_us, reading, arrived)
        return self.status(rollout_id)

    def pause(self, rollout_id: str, actor: Actor, reason: str) -> RolloutStatus:
        """Holds a rollout at its stage; guardrails and the horizon still end it."""
        return self._steer(rollout_id, State.PAUSED, actor, reason)

    def resume(self, rollout_id: str, actor: Actor, reason: str) -> RolloutStatus:
        """Lets a paused rollout go on."""
        return self._steer(rollout_id, State.CANARY, actor, reason)

    def roll_back(self, rollout_id: str, actor: Actor, reason: str) -> RolloutStatus:
        """Ends a rollout now; after a promotion, brings the version before it back.

        Raises :class:`Conflict` when it was rolled back or replaced already.
        """
        self.roll_back_version(self._rows.load(rollout_id).version, actor, reason)
        return self.status(rollout_id)

    def roll_back_version(self, version: int, actor: Actor, reason: str) -> None:
        """Takes a version out of service, whether a rollout brought it there or not."""
        channel = self._store.get(version).channel
        with self._leased(channel, PATIENCE_SECONDS):
            record = self._store.get(version)
            if record.state is State.ACTIVE:
                self._publisher.restore_predecessor(record, actor, reason)
                return
            row = self._rows.find(rollout_id_of(version))
            if record.state is State.APPROVED:
                self._store.move(version, State.REJECTED, actor, reason)
            elif not record.state.is_canary():
                raise Conflict(f"Version {version} is {record.state}: it serves nobody.")
            elif row is None:
                self._store.move(version, State.ROLLED_BACK, actor, reason)
            else:
                standing = read_standing(self._store, self._history, row)
                evidence = {"rollout_id": row.rollout_id}
                self._publisher.roll_back(standing, actor, reason, evidence)

    def status(self, rollout_id: str) -> RolloutStatus:
        """Raises :class:`NotFound`."""
        return self._status_of(self._rows.load(rollout_id))

    def list_rollouts(self, channel: str | None = None) -> list[RolloutStatus]:
        """The newest first."""
        return [self._status_of(row) for row in self._rows.list(channel)]

    def open_rollouts(self) -> list[RolloutStatus]:
        """Those that need ticks, the oldest first: not ended, or not acknowledged everywhere."""
        rows = [
            row
            for row in reversed(self._rows.list())
            # What is rolled back everywhere stays so; there may be many of them.
            if row.step != "roll_back" or row.completed_serial is None
        ]
        statuses = [self._status_of(row) for row in rows]
        return [status for status in statuses if not status.finished]

    def _new_row(
        self,
        record: PolicyVersion,
        plan: RolloutPlan,
        actor: Actor,
        reason: str,
        override_quarantine: bool,
    ) -> RolloutRow:
        if not reason.strip():
            raise BadInput("A rollout needs a reason.", fix="Say why in a few words.")
        if record.state is not State.APPROVED:
            raise Conflict(
                f"Version {record.version} is {record.state}; only an approved one is rolled out."
            )
        stable = self._store.active_version(record.channel)
        if stable is None:
            raise Refused(
                f"Channel {record.channel} has no active version to compare with.",
                fix="Install the baseline first.",
            )
        other = self._store.canary_version(record.channel)
        if other is not None:
            raise Conflict(
                f"Version {other.version} is in canary in channel {record.channel}.",
                fix="Wait for its end, or roll it back.",
            )
        checks = (
            check_quarantine(
                self._store, record, plan.quarantine_hours, actor, override=override_quarantine
            ),
            check_freeze(
                self._store,
                record,
                plan.max_rollbacks_per_week,
                actor,
                override=override_quarantine,
            ),
        )
        overridden = "; ".join(filter(None, checks))
        rollout_id = rollout_id_of(record.version)
        return RolloutRow(
            rollout_id=rollout_id,
            channel=record.channel,
            version=record.version,
            stable_version=stable.version,
            plan=plan,
            salt=f"{rollout_id}-{record.digest.removeprefix('sha256:')[:8]}",
            started_by=actor,
            reason=f"{reason} ({overridden})" if overridden else reason,
            created_at_us=self._store.now_us(),
            looked_at_us=None,
            observed_at_us=None,
            completed_at_us=None,
            completed_serial=None,
            step="wait",
            sentence="started",
            report=None,
        )

    def _publish_first(self, standing: Standing) -> None:
        row = standing.row
        if standing.current is not None and standing.current.kill:
            raise Refused("The kill switch is on in this channel.", fix="Lift it first.")
        move = Move(row.version, State.CANARY, row.reason, {"plan": row.plan.to_document()})
        moves = [move] if standing.state == "starting" else []
        self._publisher.publish_stage(standing, 0, row.started_by, row.reason, moves)

    def _watch(
        self,
        standing: Standing,
        lease: Lease,
        outcomes: Sequence[SessionOutcome] | None,
        now_us: int,
        reading: JudgeReading | None,
        arrived: ArrivedDecisions | None,
    ) -> None:
        row, plan = standing.row, standing.row.plan
        log = None if arrived is None else self._log_of(standing, arrived, now_us)
        report = self._report(standing, outcomes, now_us, reading, log)
        gateways = gateways_against(
            standing.stage_serial, self._store.acknowledgements(row.channel), plan, now_us
        )
        facts = StageFacts(
            stage=standing.stage,
            started_at_us=standing.started_at_us,
            stage_started_at_us=standing.stage_started_at_us or standing.started_at_us,
            gateways=gateways,
            pause=standing.pause,
            obstacle=standing.obstacle,
        )
        step = next_step(plan, report, facts)
        evidence = {
            "rollout_id": row.rollout_id,
            "report": {**report.to_document(), "path": []},
        }
        if step.kind == "advance":
            self._publisher.publish_stage(standing, standing.stage + 1, CONTROLLER, step.reason)
        elif step.kind == "promote":
            self._publisher.promote(standing, CONTROLLER, step.reason, evidence)
        elif step.kind == "roll_back":
            self._publisher.roll_back(standing, CONTROLLER, step.reason, evidence)
        self._rows.record_look(
            row.rollout_id,
            lease,
            looked_at_us=now_us,
            observed_at_us=row.observed_at_us if outcomes is None else now_us,
            step=step.kind,
            sentence=sentence_of(standing, step),
            report=report.to_document(),
        )

    def _report(
        self,
        standing: Standing,
        outcomes: Sequence[SessionOutcome] | None,
        now_us: int,
        reading: JudgeReading | None = None,
        log: DecisionLog | None = None,
    ) -> RolloutReport:
        row = standing.row
        known = units_of(row.rollout_id, outcomes or (), standing.exposures)
        report = judge_rollout(
            row.plan,
            known,
            stage=standing.stage,
            now_us=now_us,
            reading=reading,
            log=log,
            evidence=self._evidence.setdefault(row.rollout_id, RolloutEvidence(row.plan)),
        )
        if outcomes is not None:
            return report
        if row.report is not None:
            report = RolloutReport.from_document(row.report)
        since_us = max(row.observed_at_us or 0, standing.started_at_us)
        silent = (now_us - since_us) / 1e6
        return judge_unreadable(row.plan, report, silent_seconds=silent, now_us=now_us)

    def _log_of(self, standing: Standing, arrived: ArrivedDecisions, now_us: int) -> DecisionLog:
        said = self._store.heartbeats(standing.row.rollout_id)
        since_us = max(arrived.newest_at_us, standing.started_at_us)
        return DecisionLog(
            said=sum(one.settled for one in said),
            arrived=sum(min(one.settled, arrived.by_instance.get(one.instance, 0)) for one in said),
            silent_seconds=(now_us - since_us) / 1e6,
        )

    def _finish(
        self,
        standing: Standing,
        lease: Lease,
        outcomes: Sequence[SessionOutcome] | None,
        now_us: int,
    ) -> None:
        """After the end: nothing of the canary in force, and every live gateway knows."""
        row = standing.row
        if standing.is_serving:
            self._publisher.withdraw(standing, CONTROLLER)
            standing = read_standing(self._store, self._history, row)
        report = row.report
        if row.step not in ("promote", "roll_back") and outcomes is not None and standing.end:
            # Killed between the end and the record of the look that brought it.
            report = self._report(standing, outcomes, standing.end.at_us).to_document()
        gateways = gateways_against(
            standing.final_serial, self._store.acknowledgements(row.channel), row.plan, now_us
        )
        completed = standing.completed_at_us
        if completed is None and (gateways.are_current or not standing.final_serial):
            completed = now_us
        self._rows.record_look(
            row.rollout_id,
            lease,
            looked_at_us=now_us,
            observed_at_us=row.observed_at_us,
            completed_at_us=completed,
            completed_serial=None if completed is None else standing.final_serial,
            step="promote" if standing.state == "promoted" else "roll_back",
            sentence=row.sentence,
            report=report,
        )

    def _leased(self, channel: str, patience_seconds: float = 0.0) -> AbstractContextManager[Lease]:
        return self._rows.leased(
            channel,
            now_us=self._store.now_us,
            seconds=self._lease_seconds,
            patience_seconds=patience_seconds,
        )

    def _steer(self, rollout_id: str, to: State, actor: Actor, reason: str) -> RolloutStatus:
        channel = self._rows.load(rollout_id).channel
        with self._leased(channel, PATIENCE_SECONDS):
            row = self._rows.load(rollout_id)
            standing = read_standing(self._store, self._history, row)
            self._publisher.steer(standing, to, actor, reason)
        return self.status(rollout_id)

    def _status_of(self, row: RolloutRow) -> RolloutStatus:
        standing = read_standing(self._store, self._history, row)
        acknowledgements = self._store.acknowledgements(row.channel)
        return status_of(standing, acknowledgements, self._store.now_us())
