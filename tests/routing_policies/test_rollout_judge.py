"""The judge of rollouts: words, order of reasons, and the records that it reads and writes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput, Corrupt
from loop.domain.policies import Arm, Publication, RoutingPolicy, choose_arm
from routing_policies.number_words import dollars, duration, percent, points, signed_percent
from routing_policies.rollout_judge import StageFacts, judge_rollout, next_step
from routing_policies.rollout_records import (
    Gateways,
    Guardrail,
    HardLimits,
    RolloutPlan,
    RolloutReport,
    SessionOutcome,
)
from routing_policies.rollout_units import Exposure, units_of

POLICY = RoutingPolicy("p", ())
PUBLICATION = Publication(
    serial=7,
    channel="prod",
    arms=(
        Arm("canary", 5000, 2, POLICY),
        Arm("stable", 0, 1, POLICY),
        Arm("control", 5000, 1, POLICY),
    ),
    salt="salt",
    issued_at_us=0,
    not_after_us=10**15,
    rollout_id="rollout-2",
)
EXPOSURES = {7: Exposure(PUBLICATION, 0)}
PLAN = RolloutPlan(canary_weights=(5000,), margin=0.05, maturation_seconds=0, stage_dwell_seconds=0)
CURRENT = Gateways(serial=7, live=("g",), behind=(), rejected=(), stale=())
FACTS = StageFacts(stage=0, started_at_us=0, stage_started_at_us=0, gateways=CURRENT)
NOW_US = 10_000_000_000


def sessions(count: int, difference: float = 0.0, **changes: Any) -> list[SessionOutcome]:
    draw = random.Random(4)
    found = []
    for number in range(count):
        session_id = f"s{number}"
        arm, _ = choose_arm(PUBLICATION, session_id)
        quality = draw.gauss(0.6, 0.1) + difference * (arm.name == "canary")
        values: dict[str, Any] = {
            "quality": min(1.0, max(0.0, quality)),
            "cost_microusd": 1000,
            "turns": 5,
            "tool_use": 0.9,
            "duration_ms": 4000.0,
            **(changes if arm.name == "canary" else {}),
        }
        found.append(SessionOutcome(session_id, arm.name, 7, "rollout-2", number, **values))
    return found


def judged(outcomes: list[SessionOutcome], plan: RolloutPlan = PLAN) -> RolloutReport:
    units = units_of("rollout-2", outcomes, EXPOSURES)
    return judge_rollout(plan, units, stage=0, now_us=NOW_US)


def test_verdicts_on_quality_read_as_sentences() -> None:
    assert judged(sessions(10)).quality_words == (
        "undecided: 10 of 200 scored sessions, 5 of 30 in the canary"
    )
    sound = judged(sessions(2000)).quality_words
    assert sound.startswith("not worse than the margin: difference ")
    assert "95 % CS −" in sound
    assert sound.endswith("margin −5.0; n=2,000")
    worse = judged(sessions(600, -0.1)).quality_words
    assert worse.startswith("worse: difference −")
    assert "; below 0 since session 2" in worse


def test_the_path_is_bounded_and_ends_at_the_last_session() -> None:
    report = judged(sessions(2000))
    assert len(report.path) <= 121
    assert report.path[-1].units == 2000
    assert (report.path[-1].low, report.path[-1].high) == (report.low, report.high)


def test_a_sound_policy_is_promoted_and_a_bad_one_is_not_saved_by_a_pause() -> None:
    assert next_step(PLAN, judged(sessions(2000)), FACTS).kind == "promote"
    paused = StageFacts(0, 0, 0, CURRENT, pause="paused by ann: x")
    assert next_step(PLAN, judged(sessions(2000)), paused).kind == "hold"
    assert next_step(PLAN, judged(sessions(2000, -0.2)), paused).kind == "roll_back"


def test_without_a_live_gateway_nothing_moves_on() -> None:
    nobody = Gateways(serial=7, live=(), behind=(), rejected=(), stale=("g",))
    step = next_step(PLAN, judged(sessions(2000)), StageFacts(0, 0, 0, nobody))
    assert (step.kind, "no gateway" in step.reason) == ("wait", True)


def test_a_bad_policy_is_rolled_back_at_the_horizon_for_being_bad() -> None:
    plan = RolloutPlan(canary_weights=(5000,), maturation_seconds=0, horizon_seconds=1)
    assert next_step(plan, judged(sessions(600, -0.2), plan), FACTS).reason.startswith("worse")
    held = next_step(plan, judged(sessions(600), plan), FACTS)
    assert held.kind == "roll_back"
    assert held.reason.startswith("inconclusive at the horizon of 1 s: ")


def guardrail(report: RolloutReport, name: str) -> Guardrail:
    return next(one for one in report.guardrails if one.name == name)


def test_a_limit_of_zero_allows_nothing_and_none_allows_all() -> None:
    plan = RolloutPlan(
        canary_weights=(5000,),
        hard=HardLimits(
            max_error_rate=0.0,
            max_refusal_rate=None,
            max_gateway_failure_rate=None,
            window_sessions=10,
        ),
    )
    report = judged(sessions(100, errors=1, refusals=5), plan)
    assert guardrail(report, "error rate").action == "roll_back"
    assert {one.name for one in report.guardrails if one.kind == "hard"} == {"error rate"}


def test_unpriced_sessions_do_not_count_as_cheap() -> None:
    plan = RolloutPlan(canary_weights=(5000,), hard=HardLimits(max_cost_per_session_microusd=10))
    outcomes = sessions(200, cost_microusd=None)
    found = guardrail(judged(outcomes, plan), "cost per session")
    assert (found.verdict, found.action) == ("inconclusive", "none")
    assert judged(outcomes, plan).arms[0].cost_per_session_microusd is None


def test_a_tolerated_loss_does_not_roll_back() -> None:
    strict, lenient = (
        PLAN,
        RolloutPlan(canary_weights=(5000,), margin=0.1, tolerance=0.08, maturation_seconds=0),
    )
    outcomes = sessions(1500, -0.04)
    assert judged(outcomes, strict).is_worse
    assert not judged(outcomes, lenient).is_worse


@settings(deadline=None)
@given(st.permutations(range(40)))
def test_the_order_in_which_outcomes_are_given_does_not_matter(order: list[int]) -> None:
    outcomes = sessions(40)
    assert judged([outcomes[index] for index in order]) == judged(outcomes)


def test_a_report_and_a_plan_survive_json() -> None:
    report = judged(sessions(400))
    copy = json.loads(json.dumps(report.to_document()))
    assert RolloutReport.from_document(copy) == report
    plan = RolloutPlan(hard=HardLimits(max_cost_per_session_microusd=5))
    assert RolloutPlan.from_document(json.loads(json.dumps(plan.to_document()))) == plan
    assert RolloutPlan.from_document({}) == RolloutPlan()
    with pytest.raises(Corrupt):
        RolloutReport.from_document({"at_us": 1})


@pytest.mark.parametrize(
    "document",
    [
        {"canary_weights": []},
        {"canary_weights": [500, 500]},
        {"canary_weights": [0]},
        {"canary_weights": [6000]},
        {"canary_weights": ["x"]},
        {"margin": 0},
        {"margin": 0.01, "tolerance": 0.02},
        {"alpha": 1},
        {"min_stage_units": 0},
        {"horizon_seconds": float("nan")},
        {"hard": {"window_sessions": 0}},
        {"hard": {"limit": 1}},
        {"stages": [1]},
    ],
)
def test_plans_that_cannot_work_are_refused(document: Mapping[str, Any]) -> None:
    with pytest.raises(BadInput):
        RolloutPlan.from_document(document)


def test_numbers_read_well() -> None:
    assert [points(-0.003), points(0.02)] == ["−0.3", "+2.0"]
    assert [percent(0.31), signed_percent(-0.02)] == ["31.0 %", "−2.0 %"]
    assert dollars(1_234_500) == "$1.2345"
    assert [duration(seconds) for seconds in (0, 45, 7500, 7 * 86_400, -3)] == [
        "0 s",
        "45 s",
        "2 h 5 min",
        "7 d",
        "0 s",
    ]
