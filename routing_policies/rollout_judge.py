"""Judges a rollout: from its sessions to a report, and from the report to one step.

Both are pure functions of what is given, so a look can be repeated and nothing depends on how
often one looked: the tests are run anew over all matured sessions in the order of assignment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from loop.domain.sequential_tests import DifferenceTest, TestSettings
from routing_policies.number_words import duration, points
from routing_policies.rollout_guardrails import (
    hard_guardrails,
    judge_guardrails,
    measurement_guardrails,
    unreadable_guardrail,
)
from routing_policies.rollout_records import (
    CANARY,
    CONTROL,
    STABLE,
    Gateways,
    Guardrail,
    JudgeReading,
    PathPoint,
    RolloutPlan,
    RolloutReport,
    Step,
)
from routing_policies.rollout_units import Unit, Units, summarise_arm

PATH_POINTS = 120


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
) -> RolloutReport:
    """What the sessions say. Sessions younger than the maturation delay wait. ``reading`` is what
    a judge says of the arms, where quality is to be measured by one."""
    mature_before_us = now_us - round(plan.maturation_seconds * 1e6)
    matured = [unit for unit in units.of_arms if unit.outcome.assigned_at_us <= mature_before_us]
    scored = [unit for unit in matured if unit.outcome.quality is not None]
    test, path = _test_quality(plan, scored)
    bounds = test.bounds()
    quality = _quality_guardrail(plan, test)
    return RolloutReport(
        at_us=now_us,
        units=test.units,
        stage_units=sum(unit.stage == stage for unit in scored),
        canary_units=test.canary_units,
        waiting_units=len(units.of_arms) - len(matured),
        unscored_units=len(matured) - len(scored),
        estimate=test.estimate,
        low=bounds.low if bounds else None,
        high=bounds.high if bounds else None,
        running_low=test.running_low if math.isfinite(test.running_low) else None,
        running_high=test.running_high if math.isfinite(test.running_high) else None,
        e_value=test.e_value,
        is_worse=test.is_worse,
        is_not_inferior=bounds is not None and bounds.low > -plan.margin and not test.is_worse,
        quality_words=quality.reason,
        arms=tuple(summarise_arm(arm, units.sessions) for arm in (CANARY, STABLE, CONTROL)),
        guardrails=(
            *hard_guardrails(plan, units.of_arms),
            quality,
            *judge_guardrails(plan, reading),
            *measurement_guardrails(plan, units, matured, now_us),
        ),
        path=path,
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
        why = blocked.reason if blocked else report.quality_words
        limit = duration(plan.horizon_seconds)
        return Step("roll_back", f"inconclusive at the horizon of {limit}: {why}")
    if blocked is not None:
        return blocked
    if last_stage:
        return Step("wait", report.quality_words)
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
    left = plan.stage_dwell_seconds - (report.at_us - facts.stage_started_at_us) / 1e6
    if left > 0:
        return Step("wait", f"this stage lasts {duration(left)} more; {report.quality_words}")
    return None


def _test_quality(
    plan: RolloutPlan, scored: Sequence[Unit]
) -> tuple[DifferenceTest, tuple[PathPoint, ...]]:
    # Half of alpha for the confidence sequence's upper side, half for the betting test.
    settings = TestSettings(
        alpha=plan.alpha / 2,
        tolerance=plan.tolerance,
        min_units=plan.min_units,
        min_canary_units=plan.min_canary_units,
    )
    test = DifferenceTest(settings)
    stride = max(1, math.ceil(len(scored) / PATH_POINTS))
    path = []
    for unit in scored:
        quality = unit.outcome.quality
        if quality is None:
            continue
        test.add(quality, unit.is_canary, unit.probability)
        if test.units % stride == 0 or test.units == len(scored):
            bounds = test.bounds()
            if bounds is not None:
                at_us = unit.outcome.assigned_at_us
                path.append(PathPoint(test.units, at_us, bounds.estimate, bounds.low, bounds.high))
    return test, tuple(path)


def _quality_guardrail(plan: RolloutPlan, test: DifferenceTest) -> Guardrail:
    bounds = test.bounds()
    if bounds is None:
        reason = (
            f"undecided: {test.units} of {plan.min_units} scored sessions, "
            f"{test.canary_units} of {plan.min_canary_units} in the canary"
        )
        return Guardrail(
            "quality", "statistical", "inconclusive", "none", reason, None, None, test.units
        )
    numbers = (
        f"difference {points(bounds.estimate)} points, {(1 - plan.alpha) * 100:g} % CS "
        f"{points(bounds.low)}…{points(bounds.high)}, margin {points(-plan.margin)}; "
        f"n={test.units:,}"
    )
    if test.is_worse:
        accepted = points(-plan.tolerance) if plan.tolerance else "0"
        reason = (
            f"worse: {numbers}; below {accepted} since session {test.worse_at_unit:,} "
            f"by the {test.worse_by}"
        )
        return Guardrail(
            "quality",
            "statistical",
            "failed",
            "roll_back",
            reason,
            bounds.high,
            -plan.tolerance,
            test.units,
        )
    sound = bounds.low > -plan.margin
    reason = f"{'not worse than the margin' if sound else 'undecided'}: {numbers}"
    return Guardrail(
        "quality",
        "statistical",
        "passed" if sound else "inconclusive",
        "none",
        reason,
        bounds.low,
        -plan.margin,
        test.units,
    )
