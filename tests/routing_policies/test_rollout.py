"""Rollouts as stories: how they end, what holds them, and who may steer them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from loop.control.store import connect, metadata
from loop.domain.errors import BadInput, Conflict, NotFound, Refused, Unavailable
from loop.domain.lifecycle import State
from routing_policies.rollout import CONTROLLER, RolloutController
from routing_policies.rollout_records import SessionOutcome
from routing_policies.rollout_rows import RolloutRows
from tests.fakes.rollout_world import ANN, BOB, PLAN, RolloutWorld, scratch_engine, shifted
from tests.servers.postgres_server import postgres_server


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = scratch_engine(tmp_path / "control.db")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def world_on_postgres(postgres_url: str) -> Iterator[RolloutWorld]:
    engine = connect(postgres_url)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    yield RolloutWorld(engine)
    engine.dispose()


@pytest.fixture
def world(engine: Engine) -> RolloutWorld:
    return RolloutWorld(engine)


def arms_in_force(world: RolloutWorld) -> list[tuple[str, int, int]]:
    record = world.store.current_publication()
    assert record is not None
    return [(arm.name, arm.weight, arm.policy_version) for arm in record.publication.arms]


def test_a_policy_that_is_as_good_is_promoted_through_every_stage(world: RolloutWorld) -> None:
    status = world.start()
    assert arms_in_force(world) == [("canary", 2500, 2), ("stable", 5000, 1), ("control", 2500, 1)]
    world.canary = shifted(+3)
    status = world.run(status.rollout_id)
    assert status.state == "promoted"
    assert status.finished
    assert status.sentence.startswith("promoted: not worse than the margin: difference +")
    assert arms_in_force(world) == [("stable", 10_000, 2)]
    assert world.store.get(2).state is State.ACTIVE
    assert world.store.get(1).state is State.SUPERSEDED
    stages = [entry.what for entry in status.log if entry.serial]
    assert stages == [
        "serial 2: canary 25 %, stable 50 %, control 25 %",
        "serial 3: canary 50 %, stable 0 %, control 50 %",
        "serial 4: stable 100 %",
    ]
    world.store.verify_chain()


def test_a_worse_policy_is_rolled_back_with_numbers(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.canary = shifted(-10)
    status = world.run(rollout_id)
    assert status.state == "rolled_back"
    assert status.rollback_complete
    assert status.end_reason.startswith("worse: difference −")
    assert "95 % CS −" in status.end_reason
    assert arms_in_force(world) == [("stable", 10_000, 1)]
    assert world.store.get(1).state is State.ACTIVE
    assert status.report is not None
    assert status.report["units"] < 1500
    assert status.report["path"][-1]["high"] < 0.02


def test_a_rollback_is_complete_only_when_the_live_gateways_know(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    status = world.controller.roll_back(rollout_id, ANN, "support calls")
    assert status.state == "rolled_back"
    assert not status.finished
    assert status.gateways.behind == ("gateway-1", "gateway-2")
    assert status.sentence.endswith("waiting for the gateways to acknowledge")
    world.store.record_ack("gateway-1", world.store.current_serial(), "applied")
    assert world.tick(rollout_id).gateways.behind == ("gateway-2",)
    assert [one.rollout_id for one in world.controller.open_rollouts()] == [rollout_id]
    world.wait(61)  # gateway-2 has gone silent
    world.store.record_seen("gateway-1")
    status = world.tick(rollout_id)
    assert status.rollback_complete
    assert status.gateways.stale == ("gateway-2",)
    assert world.controller.open_rollouts() == []


def test_a_session_keeps_its_bucket_through_ramp_and_rollback(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.run(rollout_id, looks=12)
    world.controller.roll_back(rollout_id, ANN, "enough")
    salts = {record.publication.salt for record in world.store.publications()[1:]}
    assert len(salts) == 1
    world.start(name="another")
    assert world.store.publications()[-1].publication.salt not in salts


def test_a_stage_waits_for_sessions_time_and_acknowledgements(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    assert "0 of 40 scored sessions" in world.tick(rollout_id).sentence
    world.serve(150, seconds_apart=2.0)
    world.wait(121)
    world.pull()
    assert "this stage lasts 2 min 59 s more" in world.tick(rollout_id).sentence
    world.wait(601)
    status = world.tick(rollout_id)
    assert "no gateway has asked for the policy in the last 1 min" in status.sentence
    world.pull()
    world.gateways.append("gateway-3")
    world.store.record_seen("gateway-3")
    assert "serial 2 is not in gateway-3 yet" in world.tick(rollout_id).sentence
    assert world.controller.status(rollout_id).stage == 1
    world.pull()
    assert world.tick(rollout_id).stage == 2


def test_a_gateway_that_rejects_the_policy_holds_the_stage(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.serve(150)
    world.wait(600)
    world.pull()
    world.store.record_ack("gateway-9", 2, "rejected", "unknown measure")
    status = world.tick(rollout_id)
    assert status.step == "hold"
    assert "rejected by gateway-9 (unknown measure)" in status.sentence


def test_sessions_count_only_when_they_have_matured(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.serve(60, seconds_apart=1.0)
    report = world.tick(rollout_id).report
    assert report is not None
    assert report["units"] == 0
    assert report["waiting_units"] > 20
    world.wait(121)
    report = world.tick(rollout_id).report
    assert report is not None
    assert report["waiting_units"] == 0
    assert report["units"] > 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"errors": 4}, "error rate 40.0 %, then 40.0 % in two windows of 20 canary sessions"),
        ({"refusals": 3}, "refusal rate 30.0 %"),
        ({"cost_microusd": 1_500_000}, "cost per session $1.5000, then $1.5000"),
    ],
)
def test_a_hard_limit_rolls_back_before_any_score(
    world: RolloutWorld, change: dict[str, int], words: str
) -> None:
    rollout_id = world.start().rollout_id
    world.canary = lambda outcome: replace(outcome, quality=None, **change)
    status = world.run(rollout_id, sessions=40)
    assert status.state == "rolled_back"
    assert words in status.end_reason
    assert world.served <= 300


def test_one_bad_window_is_not_two(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    bad = iter(range(20))
    world.canary = lambda outcome: replace(outcome, errors=10 if next(bad, None) else 0)
    world.serve(120)
    status = world.tick(rollout_id)
    assert status.state == "canary"
    world.serve(100)
    assert world.tick(rollout_id).state == "canary"


def test_missing_scores_hold_and_past_their_limit_fall_back(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.serve(60)
    world.every = lambda outcome: replace(outcome, quality=None, turns=0)
    world.serve(200)
    world.wait(121)
    world.pull()
    status = world.tick(rollout_id)
    assert status.step == "hold"
    assert "canary sessions have no score" in status.sentence
    assert "after 30 min it falls back" in status.sentence
    world.wait(1800)
    world.pull()
    status = world.tick(rollout_id)
    assert status.state == "rolled_back"
    assert status.end_reason.startswith("could not measure: the last ")


def test_outcomes_that_cannot_be_read_hold_and_past_their_limit_fall_back(
    world: RolloutWorld,
) -> None:
    rollout_id = world.start().rollout_id
    world.serve(100)
    world.pull()
    seen = world.tick(rollout_id).report
    world.wait(900)
    world.pull()
    status = world.controller.tick(rollout_id, None)
    assert (status.state, status.step) == ("canary", "hold")
    assert "no outcomes could be read for 15 min" in status.sentence
    assert seen is not None
    assert status.report is not None
    assert status.report["units"] == seen["units"]
    world.wait(900)
    status = world.controller.tick(rollout_id, None)
    assert status.end_reason.startswith("could not measure: no outcomes could be read for 30 min")


def test_outcomes_that_were_never_readable_fall_back_too(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.wait(1801)
    assert world.controller.tick(rollout_id, None).state == "rolled_back"


def test_no_sessions_at_all_is_no_reason_to_fall_back(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.wait(20_000)
    world.pull()
    status = world.tick(rollout_id)
    assert (status.state, status.step) == ("canary", "wait")


def test_an_uneven_split_holds(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.serve(2000, seconds_apart=1.0)
    dropped = 0
    for index, outcome in reversed(list(enumerate(world.outcomes))):
        if outcome.arm == "control" and dropped < 150:
            del world.outcomes[index]
            dropped += 1
    world.wait(600)
    world.pull()
    status = world.tick(rollout_id)
    assert status.step == "hold"
    assert "the split is not as published" in status.sentence
    assert status.stage == 1


def test_scores_missing_in_one_arm_only_hold(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    every_third = iter(range(10**6))
    world.canary = lambda outcome: replace(
        outcome, quality=None if next(every_third) % 3 == 0 else outcome.quality
    )
    world.serve(800, seconds_apart=2.0)
    world.wait(600)
    world.pull()
    status = world.tick(rollout_id)
    assert status.step == "hold"
    assert "the arms are not missing alike" in status.sentence


def test_sessions_reported_in_an_arm_that_is_not_theirs_hold(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.every = lambda outcome: replace(outcome, arm="control")
    world.serve(200)
    world.wait(600)
    world.pull()
    status = world.tick(rollout_id)
    assert status.step == "hold"
    assert "not in the arm that their serial gives them" in status.sentence


def test_the_first_arm_of_a_session_counts_once(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.serve(100)
    canary = next(one for one in world.outcomes if one.arm == "canary")
    world.outcomes.append(replace(canary, arm="stable", assigned_at_us=world.now_us, quality=0.0))
    world.outcomes.append(replace(canary, rollout_id="rollout-99", assigned_at_us=0, quality=0.0))
    world.wait(121)
    report = world.tick(rollout_id).report
    assert report is not None
    assert sum(arm["sessions"] for arm in report["arms"]) == 100
    assert min(point["low"] for point in report["path"] or [{"low": 0}]) > -1


def test_a_look_does_not_depend_on_the_looks_before_it(tmp_path: Path) -> None:
    reports = []
    for looks in (1, 25):
        engine = scratch_engine(tmp_path / f"{looks}.db")
        world = RolloutWorld(engine)
        plan = replace(PLAN, min_stage_units=10_000)
        rollout_id = world.start(plan).rollout_id
        for _ in range(looks):
            world.serve(750 // looks)
            world.tick(rollout_id)
        world.wait(121)
        status = world.tick(rollout_id)
        assert status.report is not None
        reports.append(json.loads(json.dumps(dict(status.report))))
        engine.dispose()
    assert reports[0] == reports[1]


def test_what_is_undecided_at_the_horizon_does_not_ship(world: RolloutWorld) -> None:
    plan = replace(PLAN, horizon_seconds=20_000, margin=0.001)
    rollout_id = world.start(plan).rollout_id
    status = world.run(rollout_id, sessions=400)
    assert status.state == "rolled_back"
    assert status.end_reason.startswith("inconclusive at the horizon of 5 h 33 min: undecided")
    assert world.store.get(1).state is State.ACTIVE


def test_a_paused_rollout_holds_until_it_is_resumed(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.canary = shifted(+3)
    status = world.controller.pause(rollout_id, ANN, "release day")
    assert status.state == "paused"
    assert "paused by ann: release day" in status.sentence
    for _ in range(10):
        world.serve(100)
        world.pull()
        status = world.tick(rollout_id)
    assert (status.state, status.stage, status.step) == ("paused", 1, "hold")
    assert world.controller.resume(rollout_id, BOB, "it went well").state == "canary"
    assert world.run(rollout_id).state == "promoted"


def test_a_paused_rollout_is_still_rolled_back_when_it_is_worse(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.canary = shifted(-10)
    world.controller.pause(rollout_id, ANN, "release day")
    assert world.run(rollout_id).state == "rolled_back"


def test_an_ended_rollout_cannot_be_steered(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.controller.roll_back(rollout_id, ANN, "enough")
    for steer in (world.controller.pause, world.controller.resume, world.controller.roll_back):
        with pytest.raises(Conflict):
            steer(rollout_id, ANN, "again")
    assert arms_in_force(world) == [("stable", 10_000, 1)]


def test_a_rolled_back_policy_is_in_quarantine(world: RolloutWorld) -> None:
    world.controller.roll_back(world.start().rollout_id, ANN, "enough")
    again = world.approved()
    with pytest.raises(Refused, match="quarantine for 1 d more"):
        world.controller.start(again, PLAN, BOB, "again")
    with pytest.raises(Refused):
        world.controller.start(again, PLAN, CONTROLLER, "again", override_quarantine=True)
    status = world.controller.start(again, PLAN, BOB, "fixed", override_quarantine=True)
    assert status.log[-1].reason.endswith("fixed (quarantine of 1 d overridden by bob)")
    world.controller.roll_back(status.rollout_id, ANN, "still bad")
    third = world.approved()
    world.wait(25 * 3600)
    with pytest.raises(Refused, match="rolled back 2 times"):
        world.controller.start(third, PLAN, BOB, "again")
    world.wait(23 * 3600)
    assert world.controller.start(third, PLAN, BOB, "again").state == "canary"


def test_another_policy_is_not_in_quarantine(world: RolloutWorld) -> None:
    world.controller.roll_back(world.start().rollout_id, ANN, "enough")
    assert world.start(name="another").state == "canary"


def test_a_promotion_can_be_undone(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.canary = shifted(+3)
    assert world.run(rollout_id).state == "promoted"
    status = world.controller.roll_back(rollout_id, ANN, "month end")
    assert (status.state, status.finished) == ("rolled_back", False)
    assert arms_in_force(world) == [("stable", 10_000, 1)]
    assert world.store.get(1).state is State.ACTIVE
    world.pull()
    assert world.tick(rollout_id).rollback_complete


def test_undoing_a_promotion_ends_the_canary_beside_it(world: RolloutWorld) -> None:
    first = world.start().rollout_id
    world.canary = shifted(+3)
    assert world.run(first).state == "promoted"
    second = world.start(name="next").rollout_id
    world.controller.roll_back(first, ANN, "month end")
    status = world.controller.status(second)
    assert status.state == "rolled_back"
    assert status.end_reason == "its stable version 2 was rolled back"
    assert arms_in_force(world) == [("stable", 10_000, 1)]


def test_a_baseline_without_predecessor_cannot_be_rolled_back(world: RolloutWorld) -> None:
    with pytest.raises(Refused, match="No version was active"):
        world.controller.roll_back_version(1, ANN, "try")


def test_only_approved_versions_start_and_one_at_a_time(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    with pytest.raises(Conflict, match="in canary"):
        world.controller.start(world.approved("another"), PLAN, BOB, "too")
    with pytest.raises(Conflict, match="begun already"):
        world.controller.start(2, PLAN, BOB, "again")
    with pytest.raises(Conflict, match="only an approved"):
        world.controller.start(1, PLAN, BOB, "again")
    with pytest.raises(BadInput):
        world.controller.start(3, PLAN, BOB, " ")
    assert [one.rollout_id for one in world.controller.list_rollouts()] == [rollout_id]
    with pytest.raises(NotFound):
        world.controller.status("rollout-77")


def test_the_kill_switch_is_not_undone_by_a_rollout(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    arms = arms_in_force(world)
    world.store.publish("prod", arms, salt="s", actor=ANN, reason="stop", kill=True)
    world.serve(200)
    world.wait(600)
    world.pull()
    status = world.tick(rollout_id)
    assert status.step == "hold"
    assert "kill switch" in status.sentence
    world.controller.roll_back(rollout_id, ANN, "enough")
    record = world.store.current_publication()
    assert record is not None
    assert record.publication.kill


def test_someone_elses_publication_is_left_alone(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.store.publish("prod", [("stable", 10_000, 1)], salt="other", actor=ANN, reason="mine")
    world.pull()
    status = world.tick(rollout_id)
    assert status.step == "hold"
    assert "serial 3 was published by someone else" in status.sentence
    status = world.controller.roll_back(rollout_id, ANN, "then end it")
    assert status.state == "rolled_back"
    assert world.store.current_serial() == 3
    assert world.tick(rollout_id).finished


def test_a_version_that_is_moved_out_of_canary_by_hand_is_withdrawn(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.store.move(2, State.ROLLED_BACK, ANN, "by hand")
    assert arms_in_force(world)[0][0] == "canary"
    world.tick(rollout_id)
    assert arms_in_force(world) == [("stable", 10_000, 1)]
    world.pull()
    assert world.tick(rollout_id).rollback_complete


def test_a_renewal_changes_nothing_for_a_rollout(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.serve(100)
    before = world.tick(rollout_id)
    world.wait(13 * 3600)
    assert world.store.renew("prod", CONTROLLER) is not None
    world.pull()
    status = world.controller.status(rollout_id)
    assert status.stage_started_at_us == before.stage_started_at_us
    world.serve(100)
    world.wait(121)
    world.pull()
    status = world.tick(rollout_id)
    assert status.stage == 2


def test_two_controllers_take_turns(world: RolloutWorld, engine: Engine) -> None:
    rollout_id = world.start().rollout_id
    rows = RolloutRows(engine)
    other = RolloutController(world.store)
    with (
        rows.leased("prod", now_us=lambda: world.now_us, seconds=30),
        pytest.raises(Unavailable, match="Another controller"),
    ):
        other.tick(rollout_id, [])
    assert other.tick(rollout_id, []).state == "canary"


def test_a_person_waits_for_a_look_to_end(world: RolloutWorld, engine: Engine) -> None:
    rollout_id = world.start().rollout_id
    rows = RolloutRows(engine)
    with ThreadPoolExecutor(1) as threads:
        with rows.leased("prod", now_us=lambda: world.now_us, seconds=30):
            asked = threads.submit(world.controller.roll_back, rollout_id, ANN, "now")
            time.sleep(0.2)
            assert not asked.done()
            assert world.store.get(2).state is State.CANARY
        assert asked.result(timeout=20).state == "rolled_back"


def race(world: RolloutWorld, rollout_id: str) -> None:
    """Four controllers look at once, again and again."""
    world.serve(130)
    world.wait(121)
    world.pull()

    def look(_: int) -> None:
        try:
            RolloutController(world.store).tick(rollout_id, world.outcomes)
        except (Conflict, Unavailable):
            return

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(look, range(16)))
    world.tick(rollout_id)
    weights = [record.publication.arms[0].weight for record in world.store.publications()]
    assert weights == [10_000, 2500, 5000]


def test_controllers_that_race_take_each_step_once(world: RolloutWorld) -> None:
    race(world, world.start().rollout_id)


@pytest.mark.postgres
def test_rollouts_run_on_postgresql(world_on_postgres: RolloutWorld) -> None:
    world = world_on_postgres
    rollout_id = world.start().rollout_id
    race(world, rollout_id)
    world.canary = shifted(-10)
    status = world.run(rollout_id)
    assert status.rollback_complete
    assert status.end_reason.startswith("worse: ")
    with pytest.raises(Conflict):
        world.controller.start(2, PLAN, BOB, "again")
    world.store.verify_chain()


def test_a_controller_that_slept_through_its_lease_changes_nothing(
    world: RolloutWorld, engine: Engine
) -> None:
    rollout_id = world.start().rollout_id
    rows = RolloutRows(engine)
    with rows.leased("prod", now_us=lambda: world.now_us, seconds=30) as asleep:
        world.wait(31)
        current = world.controller.tick(rollout_id, [])
        with pytest.raises(Conflict, match="taken over"):
            rows.record_look(
                rollout_id,
                asleep,
                looked_at_us=world.now_us,
                observed_at_us=None,
                step="promote",
                sentence="from long ago",
                report=None,
            )
    assert world.controller.status(rollout_id).sentence == current.sentence


def test_a_step_that_was_decided_before_a_pause_cannot_follow_it(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    seen = world.store.current_serial()
    world.controller.pause(rollout_id, ANN, "wait")
    with pytest.raises(Conflict):
        world.store.publish(
            "prod",
            [("canary", 5000, 2), ("stable", 0, 1), ("control", 5000, 1)],
            salt="s",
            actor=CONTROLLER,
            reason="advance",
            rollout_id=rollout_id,
            expected_serial=seen,
        )


def test_a_status_is_json(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.serve(400)
    document = world.tick(rollout_id).to_document()
    copy = json.loads(json.dumps(document))
    assert copy["rollback_complete"] is False
    assert copy["report"]["guardrails"][0]["name"] == "error rate"
    assert copy["plan"]["hard"]["max_error_rate"] == 0.2


def test_outcomes_of_unknown_serials_are_counted_not_used(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    stray = SessionOutcome("s", "canary", 77, rollout_id, world.now_us, 0.5, 1, 1)
    report = world.controller.tick(rollout_id, [stray]).report
    assert report is not None
    assert report["waiting_units"] == 0
    assert any("1 of 1 sessions" in one["reason"] for one in report["guardrails"])
