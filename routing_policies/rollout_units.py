"""The units of a rollout's tests: sessions, each in one arm, in the order of assignment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loop.domain.policies import Publication, choose_arm
from routing_policies.rollout_records import CANARY, CONTROL, ArmSummary, SessionOutcome


@dataclass(frozen=True, slots=True)
class Exposure:
    """One publication of a rollout and the stage (from 0) that it belongs to."""

    publication: Publication
    stage: int

    def canary_probability(self) -> float:
        """Of canary among canary and control: one half when they are matched."""
        weights = {arm.name: arm.weight for arm in self.publication.arms}
        return weights[CANARY] / (weights[CANARY] + weights[CONTROL])


@dataclass(frozen=True, slots=True)
class Unit:
    """A session of canary or control."""

    outcome: SessionOutcome
    is_canary: bool
    probability: float
    stage: int


@dataclass(frozen=True, slots=True)
class Units:
    """``of_arms`` in the order of assignment (ties by session id); ``sessions`` are all first
    outcomes, the stable arm's too. ``misplaced`` counts sessions whose arm is not the one that
    their serial gives them, or whose serial is not of this rollout; no test uses them."""

    of_arms: tuple[Unit, ...]
    sessions: tuple[SessionOutcome, ...]
    misplaced: int


def units_of(
    rollout_id: str, outcomes: Iterable[SessionOutcome], exposures: Mapping[int, Exposure]
) -> Units:
    """Outcomes in any order, several per session allowed: the earliest decides its arm."""
    first: dict[str, SessionOutcome] = {}
    for outcome in outcomes:
        if outcome.rollout_id != rollout_id:
            continue
        known = first.get(outcome.session_id)
        if known is None or _order(outcome) < _order(known):
            first[outcome.session_id] = outcome
    sessions = sorted(first.values(), key=lambda one: (one.assigned_at_us, one.session_id))
    units: list[Unit] = []
    placed: list[SessionOutcome] = []
    for outcome in sessions:
        exposure = exposures.get(outcome.serial)
        if exposure is None:
            continue
        arm, _ = choose_arm(exposure.publication, outcome.session_id)
        if arm.name != outcome.arm:
            continue
        placed.append(outcome)
        if outcome.arm in (CANARY, CONTROL):
            probability = exposure.canary_probability()
            units.append(Unit(outcome, outcome.arm == CANARY, probability, exposure.stage))
    return Units(tuple(units), tuple(placed), len(sessions) - len(placed))


def summarise_arm(arm: str, sessions: Iterable[SessionOutcome]) -> ArmSummary:
    """Counts and means of one arm."""
    own = [outcome for outcome in sessions if outcome.arm == arm]
    qualities = [outcome.quality for outcome in own if outcome.quality is not None]
    costs = [
        outcome.cost_microusd
        for outcome in own
        if outcome.cost_microusd is not None and outcome.turns > 0
    ]
    return ArmSummary(
        arm=arm,
        sessions=len(own),
        scored=len(qualities),
        turns=sum(outcome.turns for outcome in own),
        errors=sum(outcome.errors for outcome in own),
        refusals=sum(outcome.refusals for outcome in own),
        quality_mean=sum(qualities) / len(qualities) if qualities else None,
        cost_per_session_microusd=sum(costs) / len(costs) if costs else None,
    )


def _order(outcome: SessionOutcome) -> tuple[int, int]:
    return outcome.assigned_at_us, outcome.serial
