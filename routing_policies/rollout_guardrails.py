"""The guardrails of a rollout beside quality: hard limits, and whether the measuring works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loop.domain.sequential_tests import DifferenceTest, SampleRatioTest, TestSettings
from routing_policies.number_words import dollars, duration, percent, points, signed_percent
from routing_policies.rollout_records import Guardrail, JudgeReading, RolloutPlan, SessionOutcome
from routing_policies.rollout_units import Unit, Units

MISSING_ALPHA = 0.005  # of ever calling the arms' missing rates different while they are not
RATIO_ALPHA = 0.001
MAX_MISPLACED_SHARE = 0.01
_TELEMETRY_SESSIONS = 100


@dataclass(frozen=True, slots=True)
class _HardMetric:
    name: str
    limit: float | None
    measure: Callable[[Sequence[SessionOutcome]], float]
    words: Callable[[float], str]


def hard_guardrails(plan: RolloutPlan, units: Sequence[Unit]) -> list[Guardrail]:
    """Canary sessions with telemetry, cut into windows in the order of assignment.

    A window must be full; two in a row over the limit are a failure, and stay one.
    """
    limits = plan.hard
    metrics = (
        _HardMetric("error rate", limits.max_error_rate, _error_rate, percent),
        _HardMetric("refusal rate", limits.max_refusal_rate, _refusal_rate, percent),
        _HardMetric(
            "cost per session", limits.max_cost_per_session_microusd, _cost_per_session, dollars
        ),
    )
    canary = [unit.outcome for unit in units if unit.is_canary and unit.outcome.turns > 0]
    priced = [outcome for outcome in canary if outcome.cost_microusd is not None]
    return [
        _hard(
            metric,
            metric.limit,
            priced if metric.measure is _cost_per_session else canary,
            limits.window_sessions,
        )
        for metric in metrics
        if metric.limit is not None
    ]


def _hard(
    metric: _HardMetric,
    limit: float,
    sessions: Sequence[SessionOutcome],
    size: int,
) -> Guardrail:
    windows = [sessions[start : start + size] for start in range(0, len(sessions) - size + 1, size)]
    values = [metric.measure(window) for window in windows]
    units = size * len(windows)
    if not values:
        reason = f"{metric.name}: fewer than {size} canary sessions seen"
        return Guardrail(metric.name, "hard", "inconclusive", "none", reason, None, limit, 0)
    shown = metric.words(limit)
    for earlier, later in pairwise(values):
        if earlier > limit and later > limit:
            reason = (
                f"{metric.name} {metric.words(earlier)}, then {metric.words(later)} in two windows "
                f"of {size} canary sessions, limit {shown}"
            )
            return Guardrail(
                metric.name, "hard", "failed", "roll_back", reason, later, limit, units
            )
    last = values[-1]
    over = last > limit
    reason = (
        f"{metric.name} {metric.words(last)} in the last {size} canary sessions, limit {shown}"
        + ("; a second such window rolls back" if over else "")
    )
    return Guardrail(
        metric.name,
        "hard",
        "inconclusive" if over else "passed",
        "hold" if over else "none",
        reason,
        last,
        limit,
        units,
    )


def _error_rate(window: Sequence[SessionOutcome]) -> float:
    return sum(one.errors for one in window) / sum(one.turns for one in window)


def _refusal_rate(window: Sequence[SessionOutcome]) -> float:
    return sum(one.refusals for one in window) / sum(one.turns for one in window)


def _cost_per_session(window: Sequence[SessionOutcome]) -> float:
    return sum(one.cost_microusd or 0 for one in window) / len(window)


def measurement_guardrails(
    plan: RolloutPlan, units: Units, matured: Sequence[Unit], now_us: int
) -> list[Guardrail]:
    """Whether what is measured can be believed; all of these hold, one falls back in the end."""
    return [
        _silence(plan, matured, now_us),
        _telemetry(plan, matured),
        _missing_scores(matured),
        _sample_ratio(units.of_arms),
        _misplaced(units),
    ]


def judge_guardrails(plan: RolloutPlan, reading: JudgeReading | None) -> list[Guardrail]:
    """What a judge adds where quality is to be measured by one. It never rolls back: its sample
    comes late, and its interval is for one look. That the canary is worse holds the promotion."""
    if reading is None:
        return []
    name, units = reading.measure.evaluator, reading.judged_sessions
    difference = reading.difference
    if reading.measure.refusals:
        reason = f"left aside: {'; '.join(reading.measure.refusals)}"
        return [Guardrail(name, "measurement", "inconclusive", "none", reason, None, None, units)]
    if difference is None:
        reason = f"{name}: too few of the arms' {units:,} judged sessions are labelled"
        return [Guardrail(name, "measurement", "inconclusive", "none", reason, None, None, units)]
    is_worse = difference.high < -plan.tolerance
    reason = (
        f"{name}: corrected difference {points(difference.estimate)} points, 95 % interval "
        f"{points(difference.low)}…{points(difference.high)}, n={units:,}"
    )
    sound = difference.low > -plan.margin
    return [
        Guardrail(
            name,
            "statistical",
            "failed" if is_worse else "passed" if sound else "inconclusive",
            "hold" if is_worse else "none",
            f"worse by {reason}" if is_worse else reason,
            difference.high if is_worse else difference.low,
            -plan.tolerance if is_worse else -plan.margin,
            units,
        )
    ]


def unreadable_guardrail(plan: RolloutPlan, silent_seconds: float) -> Guardrail:
    """For a look at which the outcomes couldn't be read at all."""
    return _silence_verdict(
        plan, silent_seconds, f"no outcomes could be read for {duration(silent_seconds)}", 0
    )


def _silence(plan: RolloutPlan, matured: Sequence[Unit], now_us: int) -> Guardrail:
    """Matured canary sessions in a row, up to the newest, that nothing has scored."""
    silent: list[Unit] = []
    for unit in reversed([unit for unit in matured if unit.is_canary]):
        if unit.outcome.quality is not None:
            break
        silent.append(unit)
    if len(silent) < plan.missing_sessions:
        reason = f"{len(silent)} canary sessions in a row without a score"
        return Guardrail(
            "scores arrive",
            "measurement",
            "passed",
            "none",
            reason,
            len(silent),
            plan.missing_sessions,
            len(silent),
        )
    since_us = silent[-1].outcome.assigned_at_us + round(plan.maturation_seconds * 1e6)
    seconds = (now_us - since_us) / 1e6
    words = (
        f"the last {len(silent)} canary sessions have no score, the first of them for "
        f"{duration(seconds)}"
    )
    return _silence_verdict(plan, seconds, words, len(silent))


def _silence_verdict(plan: RolloutPlan, seconds: float, words: str, units: int) -> Guardrail:
    if seconds >= plan.fallback_seconds:
        reason = f"could not measure: {words}, limit {duration(plan.fallback_seconds)}"
        return Guardrail(
            "scores arrive",
            "measurement",
            "error",
            "roll_back",
            reason,
            seconds,
            plan.fallback_seconds,
            units,
        )
    reason = f"{words}; after {duration(plan.fallback_seconds)} it falls back"
    return Guardrail(
        "scores arrive",
        "measurement",
        "error",
        "hold",
        reason,
        seconds,
        plan.fallback_seconds,
        units,
    )


def _telemetry(plan: RolloutPlan, matured: Sequence[Unit]) -> Guardrail:
    latest = [unit for unit in matured if unit.is_canary][-_TELEMETRY_SESSIONS:]
    seen = sum(unit.outcome.turns > 0 for unit in latest)
    share = seen / len(latest) if latest else 1.0
    low = len(latest) >= plan.missing_sessions and share < plan.min_telemetry_share
    return Guardrail(
        "telemetry share",
        "measurement",
        "error" if low else "passed",
        "hold" if low else "none",
        f"telemetry came for {seen} of the last {len(latest)} canary sessions, "
        f"at least {percent(plan.min_telemetry_share)} is needed",
        share,
        plan.min_telemetry_share,
        len(latest),
    )


def _missing_scores(matured: Sequence[Unit]) -> Guardrail:
    """Sessions that lack a score more often in one arm bias the difference of the rest."""
    test = DifferenceTest(TestSettings(alpha=MISSING_ALPHA / 2))
    for unit in matured:
        test.add(float(unit.outcome.quality is None), unit.is_canary, unit.probability)
    uneven = test.running_low > 0 or test.running_high < 0
    estimate = test.estimate or 0.0
    return Guardrail(
        "missing scores",
        "measurement",
        "inconclusive" if uneven else "passed",
        "hold" if uneven else "none",
        f"canary sessions lack a score {signed_percent(estimate)} as often as control's"
        + (": the arms are not missing alike" if uneven else ", which may be chance"),
        estimate,
        None,
        test.units,
    )


def _sample_ratio(units: Sequence[Unit]) -> Guardrail:
    test = SampleRatioTest(alpha=RATIO_ALPHA)
    for unit in units:
        test.add(unit.is_canary, unit.probability)
    counts = (
        f"{test.canary_units} canary and {test.control_units} control sessions, "
        f"{test.expected_canary_units:.0f} canary expected"
    )
    return Guardrail(
        "sample ratio",
        "measurement",
        "inconclusive" if test.is_mismatched else "passed",
        "hold" if test.is_mismatched else "none",
        f"{counts}: the split is not as published, so the arms can't be compared"
        if test.is_mismatched
        else counts,
        test.p_value,
        RATIO_ALPHA,
        len(units),
    )


def _misplaced(units: Units) -> Guardrail:
    total = len(units.sessions) + units.misplaced
    share = units.misplaced / total if total else 0.0
    wrong = share > MAX_MISPLACED_SHARE
    return Guardrail(
        "assignment",
        "measurement",
        "inconclusive" if wrong else "passed",
        "hold" if wrong else "none",
        f"{units.misplaced} of {total} sessions were not in the arm that their serial gives them",
        share,
        MAX_MISPLACED_SHARE,
        total,
    )
