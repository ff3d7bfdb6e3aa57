"""The guardrails of a rollout beside quality: hard limits, and whether the measuring works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loop.domain.estimates import Verdict
from routing_policies.number_words import dollars, duration, percent, points, signed_percent
from routing_policies.rollout_evidence import RATIO_ALPHA, Matured, Split
from routing_policies.rollout_records import (
    Action,
    DecisionLog,
    Guardrail,
    JudgeReading,
    RolloutPlan,
    SessionOutcome,
)
from routing_policies.rollout_units import Unit, Units

MAX_MISPLACED_SHARE = 0.01
_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class _HardMetric:
    name: str
    limit: float | None
    measure: Callable[[Sequence[SessionOutcome]], float]
    words: Callable[[float], str]


def hard_guardrails(plan: RolloutPlan, units: Sequence[Unit]) -> list[Guardrail]:
    """Canary sessions with telemetry (by the gateways' log: with answers), cut into windows in the
    order of assignment.

    A window must be full; two in a row over the limit are a failure, and stay one.
    """
    limits = plan.hard
    metrics = (
        _HardMetric("error rate", limits.max_error_rate, _error_rate, percent),
        _HardMetric("refusal rate", limits.max_refusal_rate, _refusal_rate, percent),
        _HardMetric(
            "gateway failure rate",
            limits.max_gateway_failure_rate,
            _gateway_failure_rate,
            percent,
        ),
        _HardMetric(
            "cost per session", limits.max_cost_per_session_microusd, _cost_per_session, dollars
        ),
    )
    canary = [unit.outcome for unit in units if unit.is_canary and unit.outcome.turns > 0]
    priced = [outcome for outcome in canary if outcome.cost_microusd is not None]
    answered = [
        unit.outcome for unit in units if unit.is_canary and unit.outcome.gateway_answers > 0
    ]
    seen: dict[Callable[[Sequence[SessionOutcome]], float], list[SessionOutcome]] = {
        _cost_per_session: priced,
        _gateway_failure_rate: answered,
    }
    return [
        _hard(metric, metric.limit, seen.get(metric.measure, canary), limits.window_sessions)
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


def _gateway_failure_rate(window: Sequence[SessionOutcome]) -> float:
    return sum(one.gateway_failures for one in window) / sum(one.gateway_answers for one in window)


def cap_guardrails(plan: RolloutPlan, units: Sequence[Unit], now_us: int) -> list[Guardrail]:
    """How far the canary has reached against the plan's caps; none for what is not capped."""
    caps, canary = plan.caps, [unit.outcome for unit in units if unit.is_canary]
    found = []
    developers = {outcome.developer for outcome in canary if outcome.developer}
    for what, count, cap in (
        ("canary sessions", len(canary), caps.max_canary_sessions),
        ("developers in the canary", len(developers), caps.max_canary_developers),
    ):
        if cap is not None:
            reached = count >= cap
            reason = f"{count:,} {what}, cap {cap:,}{': the ramp stops here' if reached else ''}"
            action: Action = "stay" if reached else "none"
            verdict: Verdict = "inconclusive" if reached else "passed"
            found.append(Guardrail(what, "cap", verdict, action, reason, count, cap, len(canary)))
    hourly = caps.max_canary_usd_per_hour
    if hourly is not None:
        recent = [one for one in canary if one.assigned_at_us > now_us - _HOUR_US]
        spent = sum(one.cost_microusd or 0 for one in recent)
        over = spent > hourly * 1e6
        found.append(
            Guardrail(
                "spend per hour",
                "cap",
                "failed" if over else "passed",
                "roll_back" if over else "none",
                f"the canary sessions of the last hour cost {dollars(spent)}, "
                f"cap {dollars(hourly * 1e6)}",
                spent,
                hourly * 1e6,
                len(recent),
            )
        )
    return found


def measurement_guardrails(
    plan: RolloutPlan, units: Units, matured: Matured, split: Split, now_us: int
) -> list[Guardrail]:
    """Whether what is measured can be believed; all of these hold, two fall back in the end."""
    return [
        _silence(plan, matured, now_us),
        _telemetry(plan, matured, now_us),
        _missing_scores(matured),
        _sample_ratio(split),
        _misplaced(units),
    ]


def decision_guardrails(plan: RolloutPlan, log: DecisionLog | None) -> list[Guardrail]:
    """A dead man's switch: gateways that say they decide, while their decisions don't arrive."""
    if log is None:
        return []
    share = log.arrived / log.said if log.said else 1.0
    words = (
        f"{log.arrived:,} of {log.said:,} decisions arrived that the gateways say they made, "
        f"at least {percent(plan.min_telemetry_share)} is needed"
    )
    if log.said >= plan.missing_sessions and share < plan.min_telemetry_share:
        return [
            _silence_verdict(
                plan,
                log.silent_seconds,
                f"{words}, the newest {duration(log.silent_seconds)} ago",
                log.said,
                "decisions arrive",
            )
        ]
    return [
        Guardrail(
            "decisions arrive",
            "measurement",
            "passed",
            "none",
            words,
            share,
            plan.min_telemetry_share,
            log.said,
        )
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


def _silence(plan: RolloutPlan, matured: Matured, now_us: int) -> Guardrail:
    """Matured canary sessions in a row, up to the newest, that nothing has scored."""
    silent = matured.silent
    if silent < plan.missing_sessions:
        reason = f"{silent} canary sessions in a row without a score"
        return Guardrail(
            "scores arrive",
            "measurement",
            "passed",
            "none",
            reason,
            silent,
            plan.missing_sessions,
            silent,
        )
    seconds = _overdue_seconds(plan, matured.silent_since_us, now_us)
    words = (
        f"the last {silent} canary sessions have no score, the first of them for "
        f"{duration(seconds)}"
    )
    return _silence_verdict(plan, seconds, words, silent)


def _overdue_seconds(plan: RolloutPlan, assigned_at_us: int, now_us: int) -> float:
    """How long a session that should have matured has lacked what is needed of it."""
    return (now_us - assigned_at_us) / 1e6 - plan.maturation_seconds


def _silence_verdict(
    plan: RolloutPlan, seconds: float, words: str, units: int, name: str = "scores arrive"
) -> Guardrail:
    past = seconds >= plan.fallback_seconds
    limit = duration(plan.fallback_seconds)
    return Guardrail(
        name,
        "measurement",
        "error",
        "roll_back" if past else "hold",
        f"could not measure: {words}, limit {limit}"
        if past
        else f"{words}; after {limit} it falls back",
        seconds,
        plan.fallback_seconds,
        units,
    )


def _telemetry(plan: RolloutPlan, matured: Matured, now_us: int) -> Guardrail:
    share, count = matured.telemetry_share, len(matured.telemetry)
    words = (
        f"telemetry came for {sum(matured.telemetry)} of the last {count} canary sessions, "
        f"at least {percent(plan.min_telemetry_share)} is needed"
    )
    if matured.is_dark:
        seconds = _overdue_seconds(plan, matured.dark_since_us, now_us)
        return _silence_verdict(
            plan, seconds, f"{words}, for {duration(seconds)}", count, "telemetry share"
        )
    return Guardrail(
        "telemetry share",
        "measurement",
        "passed",
        "none",
        words,
        share,
        plan.min_telemetry_share,
        count,
    )


def _missing_scores(matured: Matured) -> Guardrail:
    """Sessions that lack a score more often in one arm bias the difference of the rest."""
    test = matured.missing
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


def _sample_ratio(split: Split) -> Guardrail:
    """Over all sessions; where that is even, over those of the gateway that is most uneven."""
    where, test = "", split.whole
    if not test.is_mismatched:
        where, test = max(
            (("", test), *((f" at {name}", one) for name, one in split.by_gateway.items())),
            key=lambda pair: (pair[1].is_mismatched, not pair[0]),
        )
    counts = (
        f"{test.canary_units} canary and {test.control_units} control sessions{where}, "
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
        test.canary_units + test.control_units,
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
