"""From the gate to approval: by a second person, or by a rule that was written down before.

Either is pinned to the review cycle that was looked at, so a decision about what was submitted
earlier can't land on what is under review now (:func:`loop.domain.lifecycle.check_move`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from loop.domain.errors import BadInput, Refused
from loop.domain.estimates import PolicyEstimate
from loop.domain.lifecycle import Actor, ActorKind, State, Transition
from routing_policies.number_words import percent, points
from routing_policies.offline_gate import GateReport
from routing_policies.transitions import PolicyVersion
from routing_policies.version_store import VersionStore

GATE = Actor(ActorKind.GATE, "offline-gate")
_STATES = {
    "passed": State.GATE_PASSED,
    "failed": State.GATE_FAILED,
    "inconclusive": State.GATE_INCONCLUSIVE,
}


@dataclass(frozen=True, slots=True)
class AutoApprovalRule:
    """A rule that approves in place of a person. ``written_by`` answers for it.

    ``min_saving_share`` is a share of cost; ``min_quality_low`` the lowest allowed low end of the
    95 % interval of the quality difference (0 to -1).
    """

    name: str
    written_by: str
    min_saving_share: float
    min_quality_low: float

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.written_by.strip():
            raise BadInput("An approval rule needs a name and someone who answers for it.")
        if not (0.0 <= self.min_saving_share <= 1.0 and -1.0 <= self.min_quality_low <= 1.0):
            raise BadInput("An approval rule's limits are shares of cost and of quality.")

    @property
    def text(self) -> str:
        """The rule in words, as it is stored with each approval."""
        return (
            f"approve when the gate passed, the saving is at least "
            f"{percent(self.min_saving_share)} and the quality difference's 95 % interval "
            f"starts at {points(self.min_quality_low)} points or above "
            f"(rule {self.name}, written by {self.written_by})"
        )

    def objections(self, report: GateReport, estimate: PolicyEstimate) -> list[str]:
        """Why the rule does not approve; none when it does."""
        found = []
        if report.verdict != "passed":
            found.append(f"the gate said {report.verdict}: {report.reason}")
        saving = estimate.saving_share
        if saving is None:
            found.append("the saving is not known")
        elif saving < self.min_saving_share:
            found.append(f"the saving is {percent(saving)}, below {percent(self.min_saving_share)}")
        difference = estimate.quality.difference
        if difference is None:
            found.append("the quality difference is not known")
        elif difference.low < self.min_quality_low:
            found.append(
                f"the quality difference may be as low as {points(difference.low)} points, "
                f"below {points(self.min_quality_low)}"
            )
        return found


def record_gate(store: VersionStore, version: int, report: GateReport) -> Transition | None:
    """Moves a version by the gate's verdict, the whole report as evidence.

    ``error`` moves nothing and returns ``None``: the policy was not judged. Raises
    :class:`Refused` for the report of another policy.
    """
    _check_digest(store.get(version), report.policy_digest)
    state = _STATES.get(report.verdict)
    if state is None:
        return None
    return store.move(version, state, GATE, report.reason, evidence=report.to_document())


def submit(store: VersionStore, version: int, actor: Actor, reason: str) -> int:
    """Puts a version under review; returns the review cycle that a decision must name."""
    return store.move(version, State.IN_REVIEW, actor, reason).review_cycle


def approve(
    store: VersionStore, version: int, actor: Actor, *, review_cycle: int, reason: str
) -> Transition:
    """A person's approval. Raises :class:`Refused` for the proposer's own or another kind of
    actor, :class:`Conflict` when ``review_cycle`` is not the current one."""
    if actor.kind is not ActorKind.PERSON:
        raise Refused(
            f"{actor} is no person.", fix="A rule approves through approve_by_rule, with its text."
        )
    return store.move(version, State.APPROVED, actor, reason, review_cycle=review_cycle)


def reject(
    store: VersionStore, version: int, actor: Actor, *, review_cycle: int | None, reason: str
) -> Transition:
    """Ends a version. ``review_cycle`` is needed while it is under review."""
    return store.move(version, State.REJECTED, actor, reason, review_cycle=review_cycle)


def approve_by_rule(
    store: VersionStore,
    version: int,
    rule: AutoApprovalRule,
    *,
    report: GateReport,
    estimate: PolicyEstimate,
    review_cycle: int,
) -> Transition:
    """Approves under a written rule, whose text and numbers become the reason.

    Raises :class:`Refused` with each objection when the rule does not hold, or when the report
    and the estimate are not about this version; the version stays under review for a person.
    """
    record = store.get(version)
    _check_digest(record, report.policy_digest)
    _check_digest(record, estimate.policy_digest)
    objections = rule.objections(report, estimate)
    if objections:
        raise Refused(
            f"The approval rule {rule.name} does not approve version {version}.",
            why="; ".join(objections),
            fix="A person may review it.",
        )
    quality = estimate.quality.difference
    low = 0.0 if quality is None else quality.low
    numbers = f"saving {percent(estimate.saving_share or 0.0)}, quality from {points(low)} points"
    return store.move(
        version,
        State.APPROVED,
        Actor(ActorKind.APPROVAL_RULE, rule.name),
        f"{rule.text}; here: {numbers}",
        evidence={"rule": asdict(rule), "gate": report.to_document()},
        review_cycle=review_cycle,
    )


def _check_digest(version: PolicyVersion, digest: str) -> None:
    if version.digest != digest:
        raise Refused(
            f"This was measured on another policy than version {version.version}.",
            why=f"{digest} is not {version.digest}.",
        )
