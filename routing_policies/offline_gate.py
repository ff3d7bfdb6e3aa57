"""The offline gate: a candidate's estimate against written limits, with reasons in words.

Each check is passed, failed, inconclusive or error, and the report is the worst of them. Too
little data, or a quality that the log can't answer, is inconclusive and never passes; numbers
that can't be right are an error and say nothing about the policy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loop.domain.errors import BadInput
from loop.domain.estimates import (
    Interval,
    OutcomeEstimate,
    PolicyEstimate,
    SliceEstimate,
    Verdict,
)
from loop.domain.scores import QUALITY, QualityMeasure
from routing_policies.number_words import percent, points, signed_percent

WORST_FIRST: tuple[Verdict, ...] = ("error", "failed", "inconclusive", "passed")


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What an estimate must keep. Shares and qualities are between 0 and 1.

    ``max_quality_loss``: how far below the incumbent the low end of the 95 % interval of the
    quality difference may lie. ``max_calibration_residual``: how far the replay of the logged
    routes may be from the bill, as a share of the bill, either way. ``slice_significance``: the
    adjusted p value below which a slice is surely worse.
    """

    max_quality_loss: float = 0.02
    min_effective_sample_size: float = 100.0
    min_saving_share: float = 0.02
    max_calibration_residual: float = 0.05
    min_sessions: int = 200
    max_unpriced_share: float = 0.01
    slice_significance: float = 0.05

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"The gate's limit {name} is {value!r}.", fix="Write 0 or more.")


@dataclass(frozen=True, slots=True)
class UnitLimits:
    """What the estimate of one part of the organization must keep, in place of the general
    limits; ``min_saving_share`` may be below zero: what it may pay for the others' saving."""

    max_quality_loss: float
    min_effective_sample_size: float
    min_saving_share: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = -math.inf if name == "min_saving_share" else 0.0
            if not math.isfinite(value) or value < least:
                raise BadInput(f"The gate's limit {name} of a unit is {value!r}.")


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One number against one limit; ``value`` is ``None`` where it couldn't be had."""

    name: str
    value: float | None
    limit: float
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """The verdict on one candidate: the worst of its checks."""

    policy_digest: str
    verdict: Verdict
    checks: tuple[GateCheck, ...]

    def to_document(self) -> dict[str, Any]:
        return {
            "policy_digest": self.policy_digest,
            "verdict": self.verdict,
            "checks": [asdict(check) for check in self.checks],
        }

    def lines(self) -> list[str]:
        """For people: the verdict, then each check."""
        return [
            f"gate {self.verdict}: {self.reason}",
            *(f"  {check.verdict:<12} {check.name}: {check.reason}" for check in self.checks),
        ]

    @property
    def reason(self) -> str:
        """One sentence: what decided it."""
        if self.verdict == "passed":
            return f"all {len(self.checks)} checks kept their limits"
        return "; ".join(check.reason for check in self.checks if check.verdict == self.verdict)


def worst_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The first of :data:`WORST_FIRST` among them; of none: inconclusive."""
    found = set(verdicts)
    return next((verdict for verdict in WORST_FIRST if verdict in found), "inconclusive")


def judge_estimate(
    estimate: PolicyEstimate,
    limits: GateLimits | None = None,
    units: Mapping[str, UnitLimits] | None = None,
    measure: QualityMeasure | None = None,
) -> GateReport:
    """Holds an estimate against limits (the defaults of :class:`GateLimits`), and the slices of
    the organization's nodes that have limits of their own (``units``, by path) against those.

    ``measure`` is what quality was measured by (the deterministic one by default): one that may
    not decide anything makes the gate inconclusive, whatever its numbers are.
    """
    limits = limits or GateLimits()
    problem = _problem_of(estimate)
    if problem:
        checks: tuple[GateCheck, ...] = (GateCheck("estimate", None, 0.0, "error", problem),)
    else:
        checks = (
            _sessions(estimate, limits),
            _unpriced(estimate, limits),
            _calibration(estimate, limits),
            _saving(estimate, limits),
            _effective_sample_size(estimate.quality, limits),
            *_measure(measure or QualityMeasure()),
            _quality(estimate.quality, limits),
            *_worse_slices(estimate.slices, limits),
            *(
                check
                for path, own in (units or {}).items()
                for check in _unit(path, estimate.slices, own)
            ),
        )
    verdict = worst_of(check.verdict for check in checks)
    return GateReport(estimate.policy_digest, verdict, checks)


def _problem_of(estimate: PolicyEstimate) -> str:
    """What makes the numbers unusable, or nothing."""
    costs = (
        estimate.logged_cost_microusd,
        estimate.incumbent_cost_microusd,
        estimate.candidate_cost_microusd,
    )
    if estimate.sessions <= 0 or estimate.turns <= 0:
        return "the estimate covers no sessions: nothing was measured"
    if min(costs) < 0 or estimate.unpriced_turns > estimate.turns:
        return "the estimate holds a negative cost or more unpriced turns than turns"
    if estimate.logged_cost_microusd == 0 or estimate.incumbent_cost_microusd == 0:
        return "the logged sessions cost nothing, so no saving can be measured against them"
    quality = estimate.quality
    numbers = [quality.effective_sample_size, quality.support]
    for interval in (quality.value, quality.difference):
        if interval is not None:
            numbers += [interval.low, interval.estimate, interval.high]
            if interval.low > interval.high:
                return f"an interval runs from {interval.low} to {interval.high}"
    if not all(math.isfinite(number) for number in numbers):
        return "the quality estimate holds a number that is not finite"
    return ""


def _sessions(estimate: PolicyEstimate, limits: GateLimits) -> GateCheck:
    enough = estimate.sessions >= limits.min_sessions
    relation = "at least" if enough else "too few, fewer than"
    reason = f"{estimate.sessions:,} sessions, {relation} {limits.min_sessions:,}"
    verdict: Verdict = "passed" if enough else "inconclusive"
    return GateCheck("sessions", estimate.sessions, limits.min_sessions, verdict, reason)


def _unpriced(estimate: PolicyEstimate, limits: GateLimits) -> GateCheck:
    share, limit = estimate.unpriced_turns / estimate.turns, limits.max_unpriced_share
    known = share <= limit
    reason = (
        f"{percent(share)} of turns have no price, limit {percent(limit)}"
        if known
        else f"{percent(share)} of turns have no price, more than {percent(limit)}: "
        "the saving is not known"
    )
    return GateCheck("unpriced", share, limit, "passed" if known else "inconclusive", reason)


def _calibration(estimate: PolicyEstimate, limits: GateLimits) -> GateCheck:
    residual, limit = estimate.calibration_residual, limits.max_calibration_residual
    if residual is None:
        reason = "nothing was billed, so the replay can't be held against a bill"
        return GateCheck("calibration", None, limit, "inconclusive", reason)
    trusted = abs(residual) <= limit
    reason = f"the replay of the logged routes is {signed_percent(residual)} off the bill, " + (
        f"limit ±{percent(limit)}"
        if trusted
        else f"more than ±{percent(limit)}: the replay can't be trusted here"
    )
    return GateCheck(
        "calibration", residual, limit, "passed" if trusted else "inconclusive", reason
    )


def _saving(estimate: PolicyEstimate, limits: GateLimits) -> GateCheck:
    saving, limit = estimate.saving_share, limits.min_saving_share
    if saving is None:
        reason = "the policy in force cost nothing, so the saving is not known"
        return GateCheck("saving", None, limit, "inconclusive", reason)
    kept = saving >= limit
    reason = (
        f"saves {percent(saving)} of cost, at least {percent(limit)}"
        if kept
        else f"{'saves' if saving >= 0 else 'adds'} {percent(abs(saving))} "
        f"{'of' if saving >= 0 else 'to'} cost; it should save at least {percent(limit)}"
    )
    return GateCheck("saving", saving, limit, "passed" if kept else "failed", reason)


def _effective_sample_size(quality: OutcomeEstimate, limits: GateLimits) -> GateCheck:
    size, limit = quality.effective_sample_size, limits.min_effective_sample_size
    enough = size >= limit
    reason = (
        f"the log is worth {size:,.0f} sessions that the policy could have served, "
        f"{'at least' if enough else 'fewer than'} {limit:,.0f}"
    )
    verdict: Verdict = "passed" if enough else "inconclusive"
    return GateCheck("effective sample size", size, limit, verdict, reason)


def _measure(measure: QualityMeasure) -> tuple[GateCheck, ...]:
    if measure.evaluator == QUALITY and not measure.refusals:
        return ()
    if measure.refusals:
        reason = "; ".join(measure.refusals)
        return (GateCheck("quality measure", None, 0.0, "inconclusive", reason),)
    reason = f"quality by {measure.evaluator} {measure.version}, which agrees with people enough"
    return (GateCheck("quality measure", 1.0, 1.0, "passed", reason),)


def _quality(quality: OutcomeEstimate, limits: GateLimits) -> GateCheck:
    limit = -limits.max_quality_loss
    difference = quality.difference
    if difference is None or quality.refusals:
        why = "; ".join(quality.refusals) or "no estimate was made"
        reason = f"the log can't tell the quality of this policy: {why}"
        return GateCheck("quality", None, limit, "inconclusive", reason)
    return _difference("quality", difference, limit)


def _difference(name: str, difference: Interval, limit: float) -> GateCheck:
    numbers = (
        f"difference {points(difference.estimate)} points, "
        f"95 % interval {points(difference.low)}…{points(difference.high)}"
    )
    verdict: Verdict
    if difference.low >= limit:
        verdict, word = "passed", "all of it at or above"
    elif difference.high < limit:
        verdict, word = "failed", "all of it below"
    else:
        verdict, word = "inconclusive", "on both sides of"
    reason = f"{numbers}, {word} {points(limit)}"
    return GateCheck(name, difference.low, limit, verdict, reason)


def _worse_slices(slices: Sequence[SliceEstimate], limits: GateLimits) -> Iterator[GateCheck]:
    """A veto: a slice fails the policy if it is surely worse, and by more than is tolerated. That
    a slice is too small to tell is no reason to hold the others up."""
    judged = [part for part in slices if part.difference is not None]
    if not slices:
        return
    lowest = min((part.p_worse_holm or 0.0 for part in judged), default=None)
    worse = [
        f"{part.dimension} {part.name} ({points(part.difference.estimate)} points, adjusted "
        f"p {part.p_worse_holm:.3f})"
        for part in judged
        if part.difference is not None
        and part.p_worse_holm is not None
        and part.p_worse_holm < limits.slice_significance
        and part.difference.estimate < -limits.max_quality_loss
    ]
    told = f"of {len(slices)} slices {len(judged)} are large enough to tell"
    reason = (
        f"{told}; surely worse: {', '.join(worse)}" if worse else f"{told}; none is surely worse"
    )
    verdict: Verdict = "failed" if worse else "passed"
    yield GateCheck("slices", lowest, limits.slice_significance, verdict, reason)


def _unit(path: str, slices: Sequence[SliceEstimate], own: UnitLimits) -> Iterator[GateCheck]:
    """The checks of one node of the organization against its own limits."""
    part = next((p for p in slices if (p.dimension, p.name) == ("org_path", path)), None)
    if part is None or part.sessions == 0 or part.saving_share is None:
        reason = f"no priced sessions of {path} were looked at, so its limits can't be held"
        yield GateCheck(f"saving of {path}", None, own.min_saving_share, "inconclusive", reason)
        return
    kept = part.saving_share >= own.min_saving_share
    reason = (
        f"saves {percent(part.saving_share)} of its cost, "
        f"{'at least' if kept else 'less than'} {percent(own.min_saving_share)}"
    )
    yield GateCheck(
        f"saving of {path}", part.saving_share, own.min_saving_share,
        "passed" if kept else "failed", reason,
    )  # fmt: skip
    limit, size = -own.max_quality_loss, part.effective_sample_size
    if part.difference is None or size < own.min_effective_sample_size:
        reason = (
            f"the log is worth {size:,.0f} of its sessions, "
            f"{own.min_effective_sample_size:,.0f} are needed"
        )
        yield GateCheck(f"quality of {path}", None, limit, "inconclusive", reason)
        return
    yield _difference(f"quality of {path}", part.difference, limit)
