"""The offline gate: what passes, what fails, and what is neither."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput
from loop.domain.estimates import (
    Interval,
    OutcomeEstimate,
    PolicyEstimate,
    SliceEstimate,
    Verdict,
)
from routing_policies.offline_gate import (
    GateLimits,
    GateReport,
    UnitLimits,
    judge_estimate,
    worst_of,
)

LIMITS = GateLimits(
    max_quality_loss=0.02,
    min_effective_sample_size=100,
    min_saving_share=0.05,
    max_calibration_residual=0.05,
    min_sessions=200,
    max_unpriced_share=0.01,
)


def quality(
    low: float = -0.01, high: float = 0.02, *, size: float = 300.0, refusals: tuple[str, ...] = ()
) -> OutcomeEstimate:
    difference = Interval((low + high) / 2, low, high)
    return OutcomeEstimate(Interval(0.7, 0.65, 0.75), difference, 0.7, 500, size, 1.0, refusals)


GOOD = PolicyEstimate(
    policy_digest="sha256:1",
    sessions=500,
    turns=9000,
    logged_cost_microusd=1_000_000,
    incumbent_cost_microusd=1_010_000,
    candidate_cost_microusd=700_000,
    naive_cost_microusd=500_000,
    rerouted_turns=4000,
    reach=(),
    quality=quality(),
)


def verdict_of(report: GateReport, name: str) -> Verdict:
    return next(check.verdict for check in report.checks if check.name == name)


def test_an_estimate_within_every_limit_passes() -> None:
    report = judge_estimate(GOOD, LIMITS)
    assert report.verdict == "passed"
    assert {check.verdict for check in report.checks} == {"passed"}
    assert "saves 30.7 % of cost" in "\n".join(report.lines())


@pytest.mark.parametrize(
    ("estimate", "check", "verdict", "words"),
    [
        (replace(GOOD, sessions=199), "sessions", "inconclusive", "too few, fewer than 200"),
        (replace(GOOD, unpriced_turns=91), "unpriced", "inconclusive", "1.0 %"),
        (
            replace(GOOD, logged_cost_microusd=900_000),
            "calibration",
            "inconclusive",
            "+12.2 % off the bill",
        ),
        (replace(GOOD, candidate_cost_microusd=1_000_000), "saving", "failed", "saves 1.0 %"),
        (replace(GOOD, candidate_cost_microusd=1_111_000), "saving", "failed", "adds 10.0 %"),
        (
            replace(GOOD, quality=quality(size=99.0)),
            "effective sample size",
            "inconclusive",
            "fewer than 100",
        ),
        (
            replace(GOOD, quality=quality(-0.08, -0.03)),
            "quality",
            "failed",
            "95 % interval −8.0…−3.0, all of it below −2.0",
        ),
        (replace(GOOD, quality=quality(-0.03, 0.01)), "quality", "inconclusive", "both sides"),
        (
            replace(GOOD, quality=quality(refusals=("no session of this arm was logged",))),
            "quality",
            "inconclusive",
            "no session of this arm was logged",
        ),
    ],
)
def test_each_limit_decides_by_itself_and_says_why(
    estimate: PolicyEstimate, check: str, verdict: Verdict, words: str
) -> None:
    report = judge_estimate(estimate, LIMITS)
    assert report.verdict == verdict
    assert verdict_of(report, check) == verdict
    assert words in report.reason
    assert [other.name for other in report.checks if other.verdict != "passed"] == [check]


def part(
    name: str, estimate: float, p_holm: float, *, dimension: str = "org_path", saving: float = 0.3
) -> SliceEstimate:
    difference = Interval(estimate, estimate - 0.005, estimate + 0.005)
    return SliceEstimate(dimension, name, 90, 80, 60.0, saving, difference, p_holm, p_holm)


def test_a_slice_that_is_surely_worse_vetoes_and_one_too_small_does_not() -> None:
    small = SliceEstimate("language", "Rust", 3, 2, 1.0, 0.1, None)
    fine = part("Go", -0.03, 0.2, dimension="language")
    slight = part("Zig", -0.01, 0.001, dimension="language")
    report = judge_estimate(replace(GOOD, slices=(small, fine, slight)), LIMITS)
    assert report.verdict == "passed"
    assert verdict_of(report, "slices") == "passed"
    hurt = part("SQL", -0.08, 0.003, dimension="language")
    report = judge_estimate(replace(GOOD, slices=(small, fine, hurt)), LIMITS)
    assert report.verdict == "failed"
    assert report.reason.endswith("surely worse: language SQL (−8.0 points, adjusted p 0.003)")


@pytest.mark.parametrize(
    ("own", "verdict", "check"),
    [
        (UnitLimits(0.05, 50), "passed", ""),
        (UnitLimits(0.01, 50), "failed", "quality of acme/pay"),
        (UnitLimits(0.018, 50), "inconclusive", "quality of acme/pay"),
        (UnitLimits(0.05, 70), "inconclusive", "quality of acme/pay"),
        (UnitLimits(0.05, 50, 0.4), "failed", "saving of acme/pay"),
    ],
)
def test_a_unit_is_held_to_its_own_limits(own: UnitLimits, verdict: Verdict, check: str) -> None:
    estimate = replace(GOOD, slices=(part("acme/pay", -0.02, 1.0),))
    report = judge_estimate(estimate, LIMITS, {"acme/pay": own})
    assert report.verdict == verdict
    assert [c.name for c in report.checks if c.verdict != "passed"] == ([check] if check else [])
    missing = judge_estimate(GOOD, LIMITS, {"acme/pay": own})
    assert missing.verdict == "inconclusive"
    assert "no priced sessions of acme/pay" in missing.reason


def test_a_quality_that_the_log_cannot_tell_never_passes() -> None:
    unknown = OutcomeEstimate(None, None, None, 0, 0.0, 0.0, ("no support",))
    report = judge_estimate(replace(GOOD, quality=unknown), LIMITS)
    assert report.verdict == "inconclusive"
    assert "no support" in report.reason


def test_a_cost_that_fails_outweighs_what_is_not_known() -> None:
    estimate = replace(GOOD, sessions=10, candidate_cost_microusd=2_000_000)
    assert judge_estimate(estimate, LIMITS).verdict == "failed"


@pytest.mark.parametrize(
    "estimate",
    [
        replace(GOOD, sessions=0),
        replace(GOOD, turns=0),
        replace(GOOD, logged_cost_microusd=0),
        replace(GOOD, incumbent_cost_microusd=0),
        replace(GOOD, candidate_cost_microusd=-1),
        replace(GOOD, unpriced_turns=9001),
        replace(GOOD, quality=quality(math.nan, math.nan)),
        replace(GOOD, quality=quality(0.1, -0.1)),
        replace(GOOD, quality=quality(size=math.nan)),
    ],
)
def test_numbers_that_cannot_be_right_are_an_error_not_a_bad_policy(
    estimate: PolicyEstimate,
) -> None:
    report = judge_estimate(estimate, LIMITS)
    assert report.verdict == "error"
    assert report.reason


@settings(deadline=None)
@given(
    low=st.floats(-1, 1),
    width=st.floats(0, 1),
    sessions=st.integers(0, 1000),
    cost=st.integers(0, 2_000_000),
    size=st.floats(0, 1000),
    refused=st.booleans(),
)
def test_passing_means_that_every_limit_was_kept(
    low: float, width: float, sessions: int, cost: int, size: float, refused: bool
) -> None:
    estimate = replace(
        GOOD,
        sessions=sessions,
        candidate_cost_microusd=cost,
        quality=quality(low, low + width, size=size, refusals=("no",) if refused else ()),
    )
    report = judge_estimate(estimate, LIMITS)
    kept = (
        sessions >= 200
        and estimate.saving_share >= 0.05
        and size >= 100
        and low >= -0.02
        and not refused
    )
    assert (report.verdict == "passed") == kept
    assert json.loads(json.dumps(report.to_document()))["verdict"] == report.verdict


def test_the_worst_verdict_rules_and_nothing_is_not_enough() -> None:
    assert worst_of(["passed", "inconclusive", "failed", "error"]) == "error"
    assert worst_of(["passed", "inconclusive", "failed"]) == "failed"
    assert worst_of(["passed", "inconclusive"]) == "inconclusive"
    assert worst_of([]) == "inconclusive"


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_limits_that_limit_nothing_are_refused(value: float) -> None:
    with pytest.raises(BadInput):
        GateLimits(max_quality_loss=value)
