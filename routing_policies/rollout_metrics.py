"""The statistical guardrails of a rollout: what must not get worse, tested at every look.

Each metric gives a session an outcome in [0, 1], more being better, and has a share of the plan's
alpha. A rollback on any of them is wrong with a chance of at most alpha over all of them (the union
bound). A promotion needs every one of them to be within its margin, each shown with 1 - alpha:
that all hold is an intersection-union test, which needs no correction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from loop.domain.estimates import Verdict
from loop.domain.sequential_tests import DifferenceTest, TestSettings
from routing_policies.number_words import points, signed_percent
from routing_policies.rollout_records import Action, Guardrail, RolloutPlan, SessionOutcome

QUALITY, TOOL_USE, FAILED_TURNS, COST, DURATION = (
    "quality",
    "tool use",
    "failed turns",
    "cost",
    "duration",
)
ALPHA_SHARES = {QUALITY: 0.4, TOOL_USE: 0.2, FAILED_TURNS: 0.2, COST: 0.1, DURATION: 0.1}
# Between these the logarithm of a mean turn is the outcome; beyond them it counts as the end.
SHORTEST_MS, LONGEST_MS = 50.0, 600_000.0
_DURATION_RANGE = math.log(LONGEST_MS / SHORTEST_MS)


@dataclass(frozen=True, slots=True)
class Metric:
    """``tolerance`` and ``margin`` are losses in the outcome's own units; ``words`` and ``unit``
    write a difference of outcomes as people read it, which ``falls`` or rises as it gets worse."""

    name: str
    outcome: Callable[[SessionOutcome], float | None]
    tolerance: float
    margin: float
    words: Callable[[float], str]
    unit: str = ""
    falls: bool = False

    def new_test(self, plan: RolloutPlan) -> DifferenceTest:
        # Half of the metric's alpha for the confidence sequence's upper side, half for the bets.
        return DifferenceTest(
            TestSettings(
                alpha=plan.alpha * ALPHA_SHARES[self.name] / 2,
                tolerance=self.tolerance,
                min_units=plan.min_units,
                min_canary_units=plan.min_canary_units,
                bound_alpha=plan.alpha / 2,
                keeps_running=self.name == QUALITY,
            )
        )


def metrics_of(plan: RolloutPlan) -> tuple[Metric, ...]:
    """What a plan watches, quality first."""
    others = plan.others
    metrics = [Metric(QUALITY, _quality, plan.tolerance, plan.margin, points, " points", True)]
    if others.tool_use is not None:
        margin = others.tool_use
        metrics.append(
            Metric(TOOL_USE, _tool_use, margin / 2, margin, points, " points", falls=True)
        )
    if others.failed_turns is not None:
        margin = others.failed_turns
        metrics.append(
            Metric(FAILED_TURNS, _unfailed, margin / 2, margin, _mirrored_points, " points")
        )
    if others.cost is not None and others.cost_reference is not None:
        reference = others.cost_reference
        scale = reference.mean_microusd / reference.cap_microusd
        cap = reference.cap_microusd
        metrics.append(
            Metric(
                COST,
                lambda session: _thrift(session, cap),
                others.cost * scale / 2,
                others.cost * scale,
                lambda difference: signed_percent(-difference / scale),
            )
        )
    if others.duration is not None:
        half, whole = (
            math.log1p(part) / _DURATION_RANGE for part in (others.duration / 2, others.duration)
        )
        metrics.append(Metric(DURATION, _speed, half, whole, _ratio))
    return tuple(metrics)


def guardrail_of(plan: RolloutPlan, metric: Metric, test: DifferenceTest) -> Guardrail:
    """What the sessions so far say of one metric; too few of them, or none, is inconclusive."""
    bounds, words = test.bounds(), metric.words
    name = "" if metric.name == QUALITY else f"{metric.name} "
    if bounds is None:
        reason = (
            f"{name}undecided: {test.units} of {plan.min_units} scored sessions, "
            f"{test.canary_units} of {plan.min_canary_units} in the canary"
        )
        return _guardrail(metric, "inconclusive", "none", reason, None, None, test.units)
    ends = (words(bounds.low), words(bounds.high))
    numbers = (
        f"difference {words(bounds.estimate)}{metric.unit}, {(1 - plan.alpha) * 100:g} % CS "
        f"{'…'.join(ends if metric.falls else ends[::-1])}, margin {words(-metric.margin)}; "
        f"n={test.units:,}"
    )
    if test.is_worse:
        accepted = words(-metric.tolerance) if metric.tolerance else "0"
        side = "below" if metric.falls else "above"
        reason = (
            f"{name}worse: {numbers}; {side} {accepted} since session {test.worse_at_unit:,} "
            f"by the {test.worse_by}"
        )
        value, limit = bounds.high, -metric.tolerance
        return _guardrail(metric, "failed", "roll_back", reason, value, limit, test.units)
    sound = bounds.low > -metric.margin
    reason = f"{name}{'not worse than the margin' if sound else 'undecided'}: {numbers}"
    verdict: Verdict = "passed" if sound else "inconclusive"
    return _guardrail(metric, verdict, "none", reason, bounds.low, -metric.margin, test.units)


def _guardrail(
    metric: Metric,
    verdict: Verdict,
    action: Action,
    reason: str,
    value: float | None,
    limit: float | None,
    units: int,
) -> Guardrail:
    return Guardrail(metric.name, "statistical", verdict, action, reason, value, limit, units)


def _quality(session: SessionOutcome) -> float | None:
    return session.quality


def _tool_use(session: SessionOutcome) -> float | None:
    return session.tool_use


def _unfailed(session: SessionOutcome) -> float | None:
    if not session.turns:
        return None
    return max(0.0, 1.0 - (session.errors + session.refusals) / session.turns)


def _thrift(session: SessionOutcome, cap_microusd: float) -> float | None:
    if session.cost_microusd is None or not session.turns:
        return None
    return 1.0 - min(max(session.cost_microusd, 0), cap_microusd) / cap_microusd


def _speed(session: SessionOutcome) -> float | None:
    if session.duration_ms is None:
        return None
    within = min(max(session.duration_ms, SHORTEST_MS), LONGEST_MS)
    return math.log(LONGEST_MS / within) / _DURATION_RANGE


def _mirrored_points(difference: float) -> str:
    return points(-difference)


def _ratio(difference: float) -> str:
    return f"×{math.exp(-difference * _DURATION_RANGE):.2f}"
