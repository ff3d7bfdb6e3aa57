"""Each guardrail of a rollout: what trips it; and nothing is concluded from what is missing."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput, Refused
from loop.domain.policies import choose_arm
from routing_policies.rollout import CONTROLLER, RolloutController
from routing_policies.rollout_evidence import RolloutEvidence
from routing_policies.rollout_judge import StageFacts, judge_rollout, next_step
from routing_policies.rollout_records import (
    ArrivedDecisions,
    CostReference,
    ExposureCaps,
    Gateways,
    Guardrail,
    OtherMargins,
    RolloutPlan,
    RolloutReport,
    RolloutStatus,
    SessionOutcome,
)
from routing_policies.rollout_units import units_of
from tests.fakes.rollout_world import (
    ANN,
    BOB,
    PLAN,
    RolloutWorld,
    exposures_at,
    scratch_engine,
)

EXPOSURES = exposures_at(5000)
OTHERS = OtherMargins(cost_reference=CostReference(500_000, 2_000_000))
WATCHED = RolloutPlan(
    canary_weights=(5000,),
    margin=0.05,
    maturation_seconds=0,
    stage_dwell_seconds=0,
    others=OTHERS,
)
FACTS = StageFacts(
    0, 0, 0, Gateways(serial=7, live=("g",), behind=(), rejected=(), stale=()), "", ""
)
NOW_US = 10_000_000_000


def sessions(
    count: int, canary: dict[str, Any] | None = None, **every: Any
) -> list[SessionOutcome]:
    """Sessions alike in both arms, but for ``canary`` (values, or functions of the outcome)."""
    draw = random.Random(4)
    found = []
    for number in range(count):
        arm, _ = choose_arm(EXPOSURES[7].publication, f"s{number}")
        outcome = SessionOutcome(
            session_id=f"s{number}",
            arm=arm.name,
            serial=7,
            rollout_id="rollout-2",
            assigned_at_us=number,
            quality=min(1.0, max(0.0, draw.gauss(0.6, 0.1))),
            cost_microusd=round(draw.lognormvariate(13, 0.5)),
            turns=20,
            errors=draw.random() < 0.2,
            duration_ms=draw.lognormvariate(8.5, 0.3),
            tool_use=min(1.0, draw.gauss(0.9, 0.05)),
            gateway_answers=20,
            gateway="edge",
            developer=f"d{number % 40}",
        )
        changes = {**every, **((canary or {}) if arm.name == "canary" else {})}
        values = {name: one(outcome) if callable(one) else one for name, one in changes.items()}
        found.append(replace(outcome, **values))
    return found


def judged(outcomes: list[SessionOutcome], plan: RolloutPlan = WATCHED) -> RolloutReport:
    units = units_of("rollout-2", outcomes, EXPOSURES)
    return judge_rollout(plan, units, stage=0, now_us=NOW_US)


def guardrail(report: RolloutReport, name: str) -> Guardrail:
    return next(one for one in report.guardrails if one.name == name)


def test_what_is_alike_passes_every_guardrail_and_is_promoted() -> None:
    report = judged(sessions(2000))
    assert {one.verdict for one in report.guardrails} == {"passed"}
    assert next_step(WATCHED, report, FACTS).kind == "promote"
    words = {one.name: one.reason for one in report.guardrails if one.kind == "statistical"}
    assert set(words) == {"quality", "tool use", "failed turns", "cost", "duration"}
    assert words["duration"].startswith("duration not worse than the margin: difference ×")
    assert words["duration"].endswith("margin ×1.50; n=2,000")
    assert words["cost"].endswith("margin +25.0 %; n=2,000")
    assert words["failed turns"].endswith("margin +5.0; n=2,000")


@pytest.mark.parametrize(
    ("name", "canary", "words"),
    [
        ("tool use", {"tool_use": lambda one: one.tool_use - 0.1}, "difference −"),
        ("failed turns", {"errors": 3}, "difference +"),
        ("failed turns", {"refusals": 3}, "difference +"),
        ("cost", {"cost_microusd": lambda one: one.cost_microusd * 2}, "difference +"),
        ("duration", {"duration_ms": lambda one: one.duration_ms * 2}, "difference ×2.0"),
    ],
)
def test_each_metric_rolls_back_by_itself(name: str, canary: dict[str, Any], words: str) -> None:
    report = judged(sessions(2000, canary))
    found = guardrail(report, name)
    assert found.reason.startswith(f"{name} worse: {words}")
    assert (found.verdict, found.action) == ("failed", "roll_back")
    step = next_step(WATCHED, report, FACTS)
    assert (step.kind, step.reason) == ("roll_back", found.reason)
    assert guardrail(report, "quality").verdict == "passed"


@pytest.mark.parametrize(
    ("missing", "step"),
    [
        ("quality", "roll_back"),  # long since: see "scores arrive"
        ("tool_use", "wait"),
        ("duration_ms", "wait"),
        ("cost_microusd", "wait"),
    ],
)
def test_nothing_is_promoted_on_what_was_not_measured(missing: str, step: str) -> None:
    report = judged(sessions(2000, **{missing: None}))
    assert next_step(WATCHED, report, FACTS).kind == step
    assert not report.is_not_inferior
    assert any("0 of 200 scored sessions" in words for words in report.undecided)
    late = replace(report, at_us=round(WATCHED.horizon_seconds * 1e6) + 1)
    assert next_step(WATCHED, late, FACTS).kind == "roll_back"


def test_what_is_not_watched_decides_nothing() -> None:
    plan = replace(WATCHED, others=OtherMargins(None, None, None, None))
    report = judged(sessions(2000, {"duration_ms": 500_000.0, "tool_use": None}), plan)
    assert [one.name for one in report.guardrails if one.kind == "statistical"] == ["quality"]
    assert next_step(plan, report, FACTS).kind == "promote"


def test_failures_in_the_gateways_own_log_need_no_telemetry() -> None:
    blind = sessions(120, {"gateway_failures": 8}, turns=0, quality=None, cost_microusd=None)
    report = judged(blind)
    found = guardrail(report, "gateway failure rate")
    assert found.reason == (
        "gateway failure rate 40.0 %, then 40.0 % in two windows of 20 canary sessions, "
        "limit 20.0 %"
    )
    assert next_step(WATCHED, report, FACTS).kind == "roll_back"
    assert guardrail(judged(sessions(120, gateway_answers=0)), found.name).verdict == "inconclusive"


def test_telemetry_that_stays_away_falls_back_in_the_end() -> None:
    outcomes = sessions(600)
    dark = [replace(one, turns=0) if n >= 400 and n % 2 else one for n, one in enumerate(outcomes)]
    units = units_of("rollout-2", dark, EXPOSURES)
    limit_us = round(WATCHED.fallback_seconds * 1e6)
    for now_us, action in ((NOW_US - 9_000_000_000, "hold"), (limit_us + 600, "roll_back")):
        report = judge_rollout(WATCHED, units, stage=0, now_us=now_us)
        found = guardrail(report, "telemetry share")
        assert (found.verdict, found.action) == ("error", action)
        assert "telemetry came for" in found.reason
    assert found.reason.startswith("could not measure: ")


def test_a_split_that_is_uneven_at_one_gateway_holds() -> None:
    at = iter(range(10**6))
    outcomes = [
        replace(one, gateway="kong" if next(at) % 3 == 0 else "edge") for one in sessions(3000)
    ]
    kept = [
        one
        for number, one in enumerate(outcomes)
        if not (one.gateway == "kong" and one.arm == "canary" and number % 2)
    ]
    found = guardrail(judged(kept), "sample ratio")
    assert found.action == "hold"
    assert "control sessions at kong," in found.reason or "control sessions," in found.reason
    assert guardrail(judged(outcomes), "sample ratio").action == "none"


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        (ExposureCaps(max_canary_sessions=100), "canary sessions, cap 100: the ramp stops here"),
        (ExposureCaps(max_canary_developers=40), "40 developers in the canary, cap 40: the ramp"),
    ],
)
def test_beyond_a_cap_the_ramp_stops(caps: ExposureCaps, words: str) -> None:
    plan = replace(WATCHED, canary_weights=(2500, 5000), caps=caps)
    step = next_step(plan, judged(sessions(2000), plan), FACTS)
    assert step.kind == "wait"
    assert words in step.reason
    assert next_step(replace(plan, caps=ExposureCaps()), judged(sessions(2000)), FACTS).kind == (
        "advance"
    )


def test_a_canary_that_spends_too_much_in_an_hour_is_rolled_back() -> None:
    plan = replace(WATCHED, caps=ExposureCaps(max_canary_usd_per_hour=1.0))
    early = NOW_US - 3_600_000_001
    cheap = sessions(40, cost_microusd=100_000)
    old = [replace(one, assigned_at_us=early, cost_microusd=10**9) for one in cheap]
    assert guardrail(judged(old, plan), "spend per hour").action == "none"
    now = [replace(one, assigned_at_us=NOW_US - 10) for one in cheap]
    found = guardrail(judged(now, plan), "spend per hour")
    assert found.action == "roll_back"
    assert found.reason.endswith("cap $1.0000")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: OtherMargins(duration=0.0),
        lambda: ExposureCaps(max_canary_sessions=0),
        lambda: CostReference(2.0, 1.0),
        lambda: CostReference(float("nan"), 1.0),
        lambda: RolloutPlan.from_document({"others": {"speed": 1}}),
        lambda: RolloutPlan(max_rollbacks_per_week=0),
    ],
)
def test_plans_that_could_not_work_are_refused(wrong: Any) -> None:
    with pytest.raises(BadInput):
        wrong()


def test_a_plan_with_everything_in_it_survives_its_document() -> None:
    plan = replace(WATCHED, caps=ExposureCaps(5, 6, 7.5))
    assert RolloutPlan.from_document(plan.to_document()) == plan


def test_a_log_of_decisions_that_stopped_is_told_from_a_rollout_without_sessions(
    tmp_path: Path,
) -> None:
    engine = scratch_engine(tmp_path / "control.db")
    world = RolloutWorld(engine)
    rollout_id = world.start().rollout_id

    def beat(decided: int) -> None:
        world.store.record_seen("gateway-1", rollout_id=rollout_id, decided=decided)

    def look(arrived: int, newest_at_us: int = 0) -> RolloutStatus:
        world.pull()
        log = ArrivedDecisions({"gateway-1": arrived}, newest_at_us)
        return world.controller.tick(rollout_id, [], arrived=log)

    beat(40)
    assert look(0).step == "wait"  # what was said a moment ago need not have arrived
    world.wait(61)
    beat(90)
    status = look(20)
    assert status.step == "hold"
    assert "20 of 40 decisions arrived that the gateways say they made" in status.sentence
    assert look(32).step == "wait"
    world.wait(PLAN.fallback_seconds - 61 - 1)
    beat(200)
    assert look(20).state == "canary"
    newest_at_us = world.now_us - 1_000_000
    world.wait(2)
    assert look(20, newest_at_us).state == "canary"  # some of it arrives
    status = look(20)
    assert status.state == "rolled_back"
    assert status.end_reason.startswith("could not measure: 20 of 90 decisions arrived")
    beat(3)  # a process that began anew
    assert [one.settled for one in world.store.heartbeats(rollout_id)] == [0]
    engine.dispose()


def test_a_channel_in_which_rollout_after_rollout_fails_is_frozen(tmp_path: Path) -> None:
    engine = scratch_engine(tmp_path / "control.db")
    world = RolloutWorld(engine)
    for number in range(3):
        rollout_id = world.start(name=f"try-{number}").rollout_id
        world.controller.roll_back(rollout_id, ANN, "no")
        world.wait(86_400)
    fourth = world.approved("try-3")
    with pytest.raises(Refused, match=r"frozen for 4 d more"):
        world.controller.start(fourth, PLAN, BOB, "again")
    with pytest.raises(Refused):
        world.controller.start(fourth, PLAN, CONTROLLER, "again", override_quarantine=True)
    world.wait(4 * 86_400 + 1)
    assert RolloutController(world.store).start(fourth, PLAN, BOB, "later").state == "canary"
    engine.dispose()


edits = st.lists(
    st.tuples(
        st.sampled_from(["append", "score", "insert", "remove"]),
        st.integers(1, 400),
        st.integers(0, 10**6),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=12)
@given(edits)
def test_evidence_kept_between_looks_changes_no_report(
    changes: list[tuple[str, int, int]],
) -> None:
    pool = sessions(1000)
    outcomes, evidence = pool[:600], RolloutEvidence(WATCHED)
    for kind, count, place in [("append", 1, 0), *changes]:
        at = place % max(1, len(outcomes))
        if kind == "append":
            known = {one.session_id for one in outcomes}
            outcomes += [one for one in pool if one.session_id not in known][:count]
        elif kind == "score":
            outcomes[at] = replace(outcomes[at], quality=0.1, tool_use=None, turns=0)
        elif kind == "insert":
            outcomes.insert(at, replace(outcomes[at], session_id=f"late-{place}", arm="canary"))
        else:
            del outcomes[at : at + count]
        units = units_of("rollout-2", outcomes, EXPOSURES)
        kept = judge_rollout(WATCHED, units, stage=0, now_us=NOW_US, evidence=evidence)
        assert kept == judge_rollout(WATCHED, units, stage=0, now_us=NOW_US)
