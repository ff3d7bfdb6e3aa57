"""Judges a rollout: from its sessions to a report, and from the report to one step.

Both are pure functions of what is given, so a look can be repeated and nothing depends on how
often one looked: the tests are run anew over all matured sessions in the order of assignment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from routing_policies.number_words import duration
from routing_policies.rollout_evidence import Matured, RolloutEvidence, path_point
from routing_policies.rollout_guardrails import (
    cap_guardrails,
    decision_guardrails,
    hard_guardrails,
    judge_guardrails,
    measurement_guardrails,
    unreadable_guardrail,
)
from routing_policies.rollout_metrics import QUALITY, guardrail_of
from routing_policies.rollout_records import (
    CANARY,
    CONTROL,
    STABLE,
    DecisionLog,
    Gateways,
    JudgeReading,
    PathPoint,
    RolloutPlan,
    RolloutReport,
    Step,
)
from routing_policies.rollout_units import Unit, Units, summarise_arm


@dataclass(frozen=True, slots=True)
class StageFacts:
    """Where a rollout stands at one look, from the recorded publications and moves.

    ``stage`` counts from 0; times are microseconds. ``obstacle`` says in words why nothing may be
    published now (someone else's publication, the kill switch), ``pause`` who paused it and why;
    each is "" when there is nothing to say.
    """

    stage: int
    started_at_us: int
    stage_started_at_us: int
    gateways: Gateways
    pause: str = ""
    obstacle: str = ""


def judge_rollout(
    plan: RolloutPlan,
    units: Units,
    *,
    stage: int,
    now_us: int,
    reading: JudgeReading | None = None,
    log: DecisionLog | None = None,
    evidence: RolloutEvidence | None = None,
) -> RolloutReport:
    """What the sessions say. Sessions younger than the maturation delay wait. ``reading`` is what
    a judge says of the arms, where quality is to be measured by one. ``log``: whether the decisions
    arrive. ``evidence`` of earlier looks under the same plan saves work and changes nothing."""
    evidence = evidence or RolloutEvidence(plan)
    mature_before_us = now_us - round(plan.maturation_seconds * 1e6)
    grown = [unit for unit in units.of_arms if unit.outcome.assigned_at_us <= mature_before_us]
    matured, split = evidence.matured(grown), evidence.split(units.of_arms)
    test = matured.tests[QUALITY]
    bounds = test.bounds()
    statistical = [
        guardrail_of(plan, metric, matured.tests[metric.name]) for metric in matured.metrics
    ]
    return RolloutReport(
        at_us=now_us,
        units=test.units,
        stage_units=matured.stage_scored.get(stage, 0),
        canary_units=test.canary_units,
        waiting_units=len(units.of_arms) - matured.units,
        unscored_units=matured.units - matured.scored,
        estimate=test.estimate,
        low=bounds.low if bounds else None,
        high=bounds.high if bounds else None,
        running_low=test.running_low if math.isfinite(test.running_low) else None,
        running_high=test.running_high if math.isfinite(test.running_high) else None,
        e_value=test.e_value,
        is_worse=test.is_worse,
        is_not_inferior=all(one.verdict == "passed" for one in statistical),
        quality_words=statistical[0].reason,
        undecided=tuple(one.reason for one in statistical if one.verdict == "inconclusive"),
        arms=tuple(summarise_arm(arm, units.sessions) for arm in (CANARY, STABLE, CONTROL)),
        guardrails=(
            *hard_guardrails(plan, units.of_arms),
            *statistical,
            *judge_guardrails(plan, reading),
            *decision_guardrails(plan, log),
            *measurement_guardrails(plan, units, matured, split, now_us),
            *cap_guardrails(plan, units.of_arms, now_us),
        ),
        path=_path_of(matured, grown),
    )


def judge_unreadable(
    plan: RolloutPlan, earlier: RolloutReport, *, silent_seconds: float, now_us: int
) -> RolloutReport:
    """The report of a look at which outcomes couldn't be read: what was known, and that."""
    return replace(earlier, at_us=now_us, guardrails=(unreadable_guardrail(plan, silent_seconds),))


def next_step(plan: RolloutPlan, report: RolloutReport, facts: StageFacts) -> Step:
    """One step: what is bad comes first, what is missing next, and only then a move on."""
    for guardrail in report.guardrails:
        if guardrail.action == "roll_back":
            return Step("roll_back", guardrail.reason)
    blocked = _blocked(plan, report, facts)
    last_stage = facts.stage == len(plan.canary_weights) - 1
    if blocked is None and last_stage and report.is_not_inferior:
        return Step("promote", report.quality_words)
    age = (report.at_us - facts.started_at_us) / 1e6
    if age >= plan.horizon_seconds:
        why = blocked.reason if blocked else "; ".join(report.undecided) or report.quality_words
        limit = duration(plan.horizon_seconds)
        return Step("roll_back", f"inconclusive at the horizon of {limit}: {why}")
    if blocked is not None:
        return blocked
    if last_stage:
        return Step("wait", "; ".join(report.undecided) or report.quality_words)
    stays = [guardrail.reason for guardrail in report.guardrails if guardrail.action == "stay"]
    if stays:
        return Step("wait", f"{'; '.join(stays)}; {report.quality_words}")
    share = plan.canary_weights[facts.stage + 1] / 100
    return Step("advance", f"on to {share:g} % canary: {report.quality_words}")


def _blocked(plan: RolloutPlan, report: RolloutReport, facts: StageFacts) -> Step | None:
    """Why the rollout stays where it is, or nothing."""
    if facts.obstacle:
        return Step("hold", facts.obstacle)
    if facts.pause:
        return Step("hold", f"{facts.pause}; {report.quality_words}")
    gateways = facts.gateways
    if gateways.rejected:
        return Step("hold", f"rejected by {'; '.join(gateways.rejected)}")
    if not gateways.live:
        limit = duration(plan.live_seconds)
        return Step("wait", f"no gateway has asked for the policy in the last {limit}")
    if gateways.behind:
        return Step("wait", f"serial {gateways.serial} is not in {', '.join(gateways.behind)} yet")
    holds = [guardrail.reason for guardrail in report.guardrails if guardrail.action == "hold"]
    if holds:
        return Step("hold", "; ".join(holds))
    if report.stage_units < plan.min_stage_units:
        return Step(
            "wait",
            f"{report.stage_units} of {plan.min_stage_units} scored sessions of this stage; "
            f"{report.quality_words}",
        )
    # A stage shorter than the delay would end before its first session counted.
    dwell = max(plan.stage_dwell_seconds, plan.maturation_seconds)
    left = dwell - (report.at_us - facts.stage_started_at_us) / 1e6
    if left > 0:
        return Step("wait", f"this stage lasts {duration(left)} more; {report.quality_words}")
    return None


def _path_of(matured: Matured, units: Sequence[Unit]) -> tuple[PathPoint, ...]:
    """The path, ending at the last scored session."""
    path, test = matured.path, matured.tests[QUALITY]
    if path and path[-1].units == test.units:
        return tuple(path)
    newest = next((unit for unit in reversed(units) if unit.outcome.quality is not None), None)
    last = path_point(test, newest.outcome.assigned_at_us) if newest else None
    return (*path, last) if last else tuple(path)
