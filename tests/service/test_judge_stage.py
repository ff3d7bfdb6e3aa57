"""Sessions are judged as far as consent and money go, and what comes back is kept as it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from evaluators.judge.sampling import draw, inclusion_probability
from loop.control.judge_calls import JudgeCall, JudgeCalls, JudgeLimits
from loop.control.store import connect, metadata
from loop.domain.errors import BadInput, NotFound
from loop.domain.estimates import Interval, OutcomeEstimate, PolicyEstimate
from loop.domain.policies import Arm, Publication
from loop.domain.scores import QualityMeasure
from loop.service import judge_results, judge_stage
from loop.service.command_line import turnwise
from loop.service.doctor import examine
from loop.service.judge_planning import JudgeOrder, plan_judging
from loop.service.quality_source import quality_measure, read_arms, read_quality
from routing_policies.offline_gate import judge_estimate
from routing_policies.rollout_judge import judge_rollout
from routing_policies.rollout_records import Guardrail, JudgeReading, RolloutPlan, SessionOutcome
from routing_policies.rollout_units import Units
from routing_policies.version_store import AS_REQUESTED
from tests.fakes.judge_api import FakeJudgeApi, answers_text, knows_controls
from tests.service.judged_sessions import ORG_PATH, JudgedHouse, judged_house, session
from tests.service.service_process import clean_environment


@pytest.fixture
def house(tmp_path: Path) -> Iterator[JudgedHouse]:
    with judged_house(tmp_path) as made:
        yield made


def test_a_dry_run_says_how_many_and_what_and_sends_nothing(house: JudgedHouse) -> None:
    house.add(session("s1"), session("s2"), session("early", hours_ago=0.01))
    row = house.run(dry_run=True)
    assert (row["considered"], row["planned"], row["sent"]) == (2, 2, 0)
    assert 0 < row["estimated_microusd"] < row["set_aside_microusd"]
    assert house.api.seen == []
    counted = house.run(dry_run=True, count_tokens=True)
    assert counted["estimated_microusd"] > 0
    assert house.api.paths() == ["POST /v1/messages/count_tokens"] * 2
    assert house.parts.judge_calls.unsettled() == []


def test_a_batch_is_sent_collected_and_not_sent_again(house: JudgedHouse) -> None:
    house.add(session("s1"), session("s2"))
    row = house.run()
    assert (row["sent"], row["judged"], len(row["batches"])) == (2, 0, 1)
    assert house.desk.show()["on_its_way"] == 2
    assert house.run()["judged_before"] == 2
    assert house.desk.collect() == {"settled": 2, "on_its_way": 0}
    scores = house.scores()
    assert {score.value for score in scores.values()} == {1.0}
    score = scores["s1"]
    assert score.evaluator == "judge_faithfulness"
    assert score.inclusion_probability == 1.0
    assert score.findings[0].verdict == "supported"
    spent = sum(one.cost_microusd for one in scores.values())
    assert spent == house.desk.show()["spent_microusd"] > 0
    assert spent < row["set_aside_microusd"]
    assert house.run()["judged_before"] == 2
    house.add(session("s1", hours_ago=1))  # it went on
    assert house.run()["sent"] == 1


def test_a_batch_costs_half(house: JudgedHouse) -> None:
    house.add(session("s1"))
    house.run(now=True)
    now = house.scores()["s1"].cost_microusd
    house.api._cached.clear()
    house.add(session("s1", hours_ago=1))
    house.run()
    house.desk.collect()
    assert house.scores()["s1"].cost_microusd == pytest.approx(now / 2, rel=0.01)


def test_money_ends_a_pass_before_the_limit_and_says_what_is_left(tmp_path: Path) -> None:
    with judged_house(tmp_path, JUDGE_BUDGET_USD="0.035", JUDGE_CONCURRENCY="2") as house:
        house.add(*(session(f"s{number}") for number in range(12)))
        row = house.run(now=True)
        assert 1 <= row["sent"] < 12
        assert row["left_unjudged"] == 12 - row["sent"]
        assert row["stopped_by"] == "the day's budget of $0.035"
        assert row["judged"] == row["sent"] == len(house.sent_bodies())
        assert house.desk.show()["spent_microusd"] <= 35_000
        # What was drawn first was judged: the rest is as random as the whole.
        order = sorted((f"s{number}" for number in range(12)), key=draw)
        assert set(house.scores()) == set(order[: row["sent"]])


def test_a_part_of_the_organization_has_a_budget_of_its_own(tmp_path: Path) -> None:
    with judged_house(tmp_path, JUDGE_BUDGETS="engineering/payments=0.00001") as house:
        house.add(session("s1"))
        assert house.run()["stopped_by"] == "the day's budget of $1e-05 for engineering/payments"
        assert house.sent_bodies() == []
    with judged_house(tmp_path / "other", JUDGE_BUDGETS="engineering/search=0.00001") as house:
        house.add(session("s1"))
        assert house.run()["sent"] == 1


def test_texts_go_only_where_there_is_consent(tmp_path: Path) -> None:
    with judged_house(
        tmp_path,
        JUDGE_ORG_PATHS="engineering/payments,research",
        CONTENT_MODES="research/secret=none,research/mild=redacted",
    ) as house:
        paths = {
            "yes": "engineering/payments/cards",
            "alike": "engineering/payments-two",
            "above": "engineering",
            "secret": "research/secret/lab",
            "mild": "research/mild",
        }
        house.add(*(session(name, org_path=path) for name, path in paths.items()))
        house.add(session("nobody", org_path="unattributed"))
        moved, texts = session("moved", org_path="engineering/search")
        house.add(([moved[0], replace(moved[1], org_path=ORG_PATH)], texts))
        row = house.run()
        assert (row["considered"], row["sent"], row["no_consent"]) == (7, 2, 5)
        house.desk.collect()
        assert set(house.scores()) == {"yes", "mild"}
    with judged_house(tmp_path / "none", JUDGE_ORG_PATHS="") as house:
        house.add(session("s1"))
        with pytest.raises(BadInput, match="No part of the organization"):
            house.run()
        assert house.api.seen == []


def test_failures_are_unscored_and_counted_by_reason(tmp_path: Path) -> None:
    answers = iter(["{}", "no", answers_text({1: "supported"})])

    def answer(body: Mapping[str, Any]) -> str:
        return next(answers, answers_text(knows_controls(body)))

    with judged_house(tmp_path, FakeJudgeApi(answer), JUDGE_CONCURRENCY="1") as house:
        house.add(*(session(f"s{number}") for number in range(5)))
        row = house.run(now=True)
        assert (row["sent"], row["judged"]) == (5, 2)
        assert row["unscored"] == {"off_menu": 2, "not_json": 1}
        scores = house.scores().values()
        assert sum(score.value is None for score in scores) == 3
        assert all(score.cost_microusd > 0 for score in scores)
        assert house.run(now=True)["judged_before"] == 5  # no second try until it fits
        (standing,) = house.desk.calibration()["rows"]
        assert standing["unscored"] == {"off_menu": 2, "not_json": 1}


def test_what_failed_in_a_batch_costs_nothing_and_comes_again(house: JudgedHouse) -> None:
    house.add(session("s1"), session("s2"), session("s3"))
    house.run()
    (batch,) = house.api.batches.values()
    names = [request["custom_id"] for request in batch.requests]
    house.api.batch_outcomes = {names[0]: "expired", names[1]: "errored"}
    house.desk.collect()
    scores = house.scores().values()
    assert sorted(score.cost_microusd > 0 for score in scores) == [False, False, True]
    assert house.run()["sent"] == 2


def test_a_busy_api_ends_a_pass_softly(house: JudgedHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    house.add(session("s1"), session("s2"))
    monkeypatch.setattr("evaluators.judge.model_api.FIRST_PAUSE_SECONDS", 0.0)
    house.api.statuses = [529] * 60
    row = house.run(now=True)
    assert (row["sent"], row["left_unjudged"]) == (0, 2)
    assert "529" in row["stopped_by"]
    assert house.desk.show()["spent_microusd"] == 0


def test_a_session_that_went_on_meanwhile_is_judged_anew(house: JudgedHouse) -> None:
    house.add(session("s1"))
    house.run()
    house.add(session("s1", hours_ago=1))
    house.desk.collect()
    assert house.scores() == {}
    assert house.desk.show()["spent_microusd"] > 0
    assert house.run()["sent"] == 1
    house.desk.collect()
    assert house.scores()["s1"].value == 1.0


def test_a_batch_whose_name_was_lost_is_found_by_its_requests(
    house: JudgedHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.add(session("s1"))
    monkeypatch.setattr(JudgeCalls, "mark_sent", _killed)
    with pytest.raises(KeyboardInterrupt):
        house.run()
    monkeypatch.undo()
    assert house.desk.collect() == {"settled": 0, "on_its_way": 1}
    monkeypatch.setattr(judge_results, "ADOPT_AFTER_US", 0)
    assert house.desk.collect() == {"settled": 1, "on_its_way": 0}
    assert house.scores()["s1"].value == 1.0


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_sample_draws_arms_alike_and_keeps_its_probabilities(tmp_path: Path) -> None:
    with judged_house(tmp_path, JUDGE_SAMPLE_RATE="0.1") as house:
        arms = {"stable": 0.8, "canary": 0.1, "control": 0.1}
        for number in range(300):
            arm = "canary" if number % 10 == 0 else "stable"
            house.add_later(session(f"s{number}", arm=arm, policy_serial=7))
        house.add_all()
        publication = Publication(
            channel="prod",
            serial=7,
            issued_at_us=0,
            not_after_us=1,
            salt="x",
            arms=tuple(
                Arm(name, round(weight * 10_000), 1, AS_REQUESTED) for name, weight in arms.items()
            ),
        )
        order = JudgeOrder(judge_stage.find_rubric("faithfulness"))
        plan = plan_judging(house.parts, order, {7: publication})
        probabilities = {one.arm: one.probability for one in plan.candidates}
        assert probabilities["canary"] == pytest.approx(0.1 / (3 * 0.1))
        assert probabilities["stable"] == pytest.approx(0.1 / (3 * 0.8))
        for one in plan.candidates:
            assert draw(one.session_id) < one.probability
        assert plan_judging(house.parts, order, {7: publication}).candidates == plan.candidates
        drawn = sum(one.arm == "canary" for one in plan.candidates)
        assert 3 <= drawn <= 18  # of 30, each with 1/3


@given(
    rate=st.floats(0.001, 1),
    weights=st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 1), min_size=2),
)
def test_arms_are_expected_to_have_as_many_judged_sessions(
    rate: float, weights: dict[str, float]
) -> None:
    total = sum(weights.values())
    chances = {arm: inclusion_probability(rate, arm, weights) for arm in weights}
    assert all(0 < chance <= 1 for chance in chances.values())
    shares = [chances[arm] * weights[arm] / total for arm in weights if chances[arm] < 1]
    assert max(shares, default=0) - min(shares, default=0) < 1e-12
    assert sum(chances[arm] * weights[arm] / total for arm in weights) <= rate + 1e-12


def plain_call(number: int, microusd: int, path: str = ORG_PATH) -> JudgeCall:
    return JudgeCall(
        day="2026-11-24",
        rubric="faithfulness",
        identity="0" * 16,
        version="1",
        model="m",
        purpose="sample",
        session_id=f"s{number}",
        session_ended_at_us=1,
        input_digest="d",
        org_path=path,
        arm="",
        probability=1.0,
        reserved_microusd=microusd,
    )


def test_threads_can_not_pass_a_limit_together(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'control.db'}")
    metadata.create_all(engine)
    calls = JudgeCalls(engine)
    limits = JudgeLimits(1_000, {ORG_PATH: 700})
    taken: list[int] = []

    def reserve(first: int) -> None:
        for number in range(first, first + 10):
            path = ORG_PATH if number % 2 else "elsewhere"
            reserved = calls.reserve([plain_call(number, 90, path)], limits)
            taken.extend([number] * len(reserved.taken))

    threads = [threading.Thread(target=reserve, args=(10 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = calls.spent("2026-11-24")
    assert sum(spent.values()) == 90 * len(taken) == 990
    assert spent[ORG_PATH] <= 700
    assert calls.reserve([plain_call(taken[0], 1)], limits).busy
    engine.dispose()


# What people say of it


def label_rows(house: JudgedHouse, bad: set[str]) -> list[dict[str, Any]]:
    return [
        {
            "session_id": call.session_id,
            "rubric": "faithfulness",
            "item": key,
            "value": "bad" if call.session_id in bad else "supported",
        }
        for call in house.parts.judge_calls.judged()
        for key in call.verdicts
    ]


def judged_many(house: JudgedHouse, bad: set[str]) -> None:
    """36 sessions; the judge calls those in ``bad`` contradicted."""

    def answer(body: Mapping[str, Any]) -> str:
        content = body["messages"][0]["content"]
        verdict = "contradicted" if any(f"tag {one}." in content for one in bad) else "supported"
        return answers_text(knows_controls(body, verdict))

    house.api.answer = answer
    for number in range(36):
        turns, texts = session(f"s{number}")
        house.add_later(
            (turns, [*texts[:2], replace(texts[2], text=f"Passed with tag s{number}.")])
        )
    house.add_all()
    house.run()
    house.desk.collect()


def test_a_judge_decides_only_once_it_has_agreed_with_people(tmp_path: Path) -> None:
    bad = {f"s{number}" for number in range(0, 36, 3)}
    with judged_house(
        tmp_path, JUDGE_MIN_LABELLED_SESSIONS="32", QUALITY_MEASURE="judge_faithfulness"
    ) as house:
        unknown = quality_measure(house.parts)
        assert unknown.refusals == ("judge_faithfulness has judged nothing yet",)
        judged_many(house, bad)
        refused = quality_measure(house.parts)
        assert "0 of its sessions are labelled, fewer than 32" in refused.refusals[0]
        assert read_quality(house.parts, house.parts.lake, refused) == {}
        rows = label_rows(house, bad)
        added = house.desk.add_labels({"actor": "ana", "rows": rows[:33]})
        assert added == {"rows": 33, "new": 33}
        assert house.desk.add_labels({"actor": "ana", "rows": rows[:33]})["new"] == 0
        measure = quality_measure(house.parts)
        assert measure.refusals == ()
        quality = read_quality(house.parts, house.parts.lake, measure)
        assert len(quality) == 36
        (row,) = house.desk.calibration()["rows"]
        assert row["may_decide"]
        assert row["agreement"]["kappa"]["estimate"] == 1.0
        assert row["mean"]["labelled_sessions"] == 33
        mean = row["mean"]["mean"]
        assert mean["low"] <= 2 / 3 <= mean["high"]
        assert sum(quality.values()) / 36 == pytest.approx(mean["estimate"])
        # Another identity starts from nothing.
        other = replace(house.parts.settings, judge_model="claude-sonnet-4-6")
        house.parts.settings = other
        assert quality_measure(house.parts).refusals == (unknown.refusals[0],)


def test_a_judge_that_disagrees_may_decide_nothing(tmp_path: Path) -> None:
    with judged_house(tmp_path, JUDGE_MIN_LABELLED_SESSIONS="32") as house:
        judged_many(house, {f"s{number}" for number in range(0, 36, 3)})
        rows = label_rows(house, {f"s{number}" for number in range(0, 36, 2)})
        house.desk.add_labels({"actor": "ana", "rows": rows})
        (row,) = house.desk.calibration()["rows"]
        assert not row["may_decide"]
        assert "the low end must reach 0.4" in row["refusals"][0]
        house.parts.settings = replace(house.parts.settings, quality_measure="judge_faithfulness")
        assert (
            quality_measure(house.parts)
            .refusals[0]
            .startswith(
                "judge_faithfulness may not decide anything: its agreement with people is kappa"
            )
        )
    with (
        judged_house(tmp_path / "other", QUALITY_MEASURE="nonsense") as house,
        pytest.raises(BadInput, match="no measure of quality"),
    ):
        quality_measure(house.parts)


def good_estimate() -> PolicyEstimate:
    interval = Interval(0.0, -0.001, 0.001)
    quality = OutcomeEstimate(interval, interval, 0.0, 500, 400.0, 1.0, ())
    return PolicyEstimate(
        policy_digest="sha256:0",
        sessions=500,
        turns=5_000,
        logged_cost_microusd=1_000_000,
        incumbent_cost_microusd=1_000_000,
        candidate_cost_microusd=500_000,
        naive_cost_microusd=500_000,
        rerouted_turns=10,
        unpriced_turns=0,
        modelled_cost_microusd=1_000_000,
        reach=(),
        quality=quality,
    )


def test_the_gate_passes_nothing_by_a_measure_that_may_not_decide() -> None:
    assert judge_estimate(good_estimate()).verdict == "passed"
    refused = QualityMeasure("judge_faithfulness", "1+m+0", ("it may not decide: no labels",))
    report = judge_estimate(good_estimate(), measure=refused)
    assert report.verdict == "inconclusive"
    assert report.reason == "it may not decide: no labels"
    allowed = QualityMeasure("judge_faithfulness", "1+m+0")
    assert judge_estimate(good_estimate(), measure=allowed).verdict == "passed"


def test_anchors_tell_when_the_same_judge_says_otherwise(tmp_path: Path) -> None:
    bad = {f"s{number}" for number in range(0, 36, 3)}
    with judged_house(tmp_path, JUDGE_MIN_LABELLED_SESSIONS="32") as house:
        judged_many(house, bad)
        house.desk.add_labels({"actor": "ana", "rows": label_rows(house, bad)})
        with pytest.raises(NotFound, match="no label"):
            house.desk.freeze_anchors(
                {"actor": "ana", "rubric": "faithfulness", "sessions": ["nobody"]}
            )
        frozen = house.desk.freeze_anchors({"actor": "ana", "rubric": "faithfulness"})
        assert frozen["anchors"] == 36
        for _ in range(2):
            assert house.run(anchors=True)["sent"] == 36
            house.desk.collect()
        (row,) = house.desk.calibration()["rows"]
        assert (row["drift"]["passes"], row["drift"]["flips"]) == (2, 0)
        assert row["may_decide"]
        house.api.answer = lambda body: answers_text(knows_controls(body, "unverified"))
        house.run(anchors=True)
        house.desk.collect()
        (row,) = house.desk.calibration()["rows"]
        assert row["drift"]["is_alarm"]
        assert "on 36 of 72 anchor items" in row["refusals"][-1]


def test_labels_are_imported_from_files_and_the_report_is_for_people(house: JudgedHouse) -> None:
    judged_many(house, set())
    rows = label_rows(house, set())
    path = house.folder / "labels.csv"
    lines = [f"{row['session_id']},faithfulness,{row['item']},1" for row in rows]
    path.write_text("\n".join(["session_id,rubric,item,value", *lines]))
    jsonl = house.folder / "more.jsonl"
    jsonl.write_text(json.dumps({**rows[0], "value": 0, "labeller": "lee", "note": "no"}) + "\n\n")
    environment = clean_environment(house.folder, **house.environment)

    def run(line: str, code: int = 0) -> str:
        result = CliRunner(env=environment).invoke(turnwise, line.split())
        assert result.exit_code == code, result.output
        return result.output

    answer = run(f"labels import {path} --as ana --json")
    assert json.loads(answer[answer.index("{") :]) == {"rows": 36, "new": 36}
    assert "1 labels read, 1 of them new." in run(f"labels import {jsonl} --as ana")
    assert len(json.loads(run("labels list --json"))["rows"]) == 37
    report = run("judge calibration")
    assert "kappa undefined on 36 items of 36 sessions" in report or "kappa 0.000" in report
    assert "may not decide" in report
    assert "on the way" in run("judge status")
    dry = run("judge run --dry-run --rubric tool_use")
    assert "would send 36 requests for about $" in dry
    path.write_text("session_id,rubric,value\ns1,faithfulness,2\n")
    assert "label 1: A label lies between 0 and 1" in run(f"labels import {path} --as ana", 2)
    path.write_text("session_id,rubric,value\ns1,faithfulness,not_checkable\n")
    assert "says nothing that could be compared" in run(f"labels import {path} --as ana", 2)


def test_an_erased_session_leaves_only_what_was_spent(house: JudgedHouse) -> None:
    judged_many(house, set())
    house.desk.add_labels({"actor": "ana", "rows": label_rows(house, set())})
    spent = house.desk.show()["spent_microusd"]
    house.parts.judge_calls.forget([f"s{number}" for number in range(36)])
    assert house.parts.labels.forget(["s1"]) == 1
    assert house.desk.show()["spent_microusd"] == spent
    assert house.desk.calibration()["rows"] == []
    assert len(house.parts.labels.current()) == 35


def test_the_scheduled_look_sends_and_collects(house: JudgedHouse) -> None:
    house.add(session("s1"))
    judge_stage.tick(house.parts)
    assert house.desk.show()["on_its_way"] == 2
    judge_stage.tick(house.parts)
    scores = [s for s in house.parts.lake.scores_of(["s1"]) if s.evaluator.startswith("judge_")]
    assert {score.evaluator for score in scores} == {"judge_faithfulness", "judge_tool_use"}
    assert house.parts.stage_log.read("judge").done == 2


def test_doctor_says_whether_it_can_judge(house: JudgedHouse) -> None:
    def check(**given: Any) -> dict[str, Any]:
        settings = replace(house.parts.settings, **given)
        return next(one for one in examine(settings) if one.check == "judge").as_row()

    assert "claude-haiku-4-5 judges 100.0% of sessions of engineering" in check()["detail"]
    assert check(anthropic_api_key="")["detail"].startswith("off: There is no key")
    unpriced = check(judge_model="claude-what-9-9")
    assert not unpriced["ok"]
    house.parts.settings = replace(house.parts.settings, judge_model="claude-what-9-9")
    house.add(session("s1"))
    with pytest.raises(BadInput, match="What the judge claude-what-9-9 costs is not known"):
        house.run()
    assert house.api.seen == []


def test_requests_keep_to_the_number_at_once(tmp_path: Path) -> None:
    with judged_house(tmp_path, JUDGE_CONCURRENCY="3") as house:
        house.add(*(session(f"s{number}") for number in range(9)))
        assert house.run(now=True)["judged"] == 9
        assert house.api.most_at_once <= 3


def test_without_a_key_nothing_is_sent(tmp_path: Path) -> None:
    with judged_house(tmp_path) as house:
        house.parts.settings = replace(house.parts.settings, anthropic_api_key="")
        house.add(session("s1"))
        assert "no key" in house.desk.show()["off_because"]
        with pytest.raises(BadInput, match="no key"):
            house.run()


def reading_guardrail(reading: JudgeReading) -> Guardrail:
    plan = RolloutPlan(canary_weights=(5000,))
    report = judge_rollout(plan, Units((), (), 0), stage=0, now_us=0, reading=reading)
    (found,) = [one for one in report.guardrails if one.name == "judge_faithfulness"]
    return found


@pytest.mark.parametrize(
    ("low", "high", "verdict", "action"),
    [
        (-0.2, -0.1, "failed", "hold"),
        (-0.2, 0.1, "inconclusive", "none"),
        (-0.01, 0.1, "passed", "none"),
    ],
)
def test_a_rollout_is_held_by_a_judge_and_never_rolled_back(
    low: float, high: float, verdict: str, action: str
) -> None:
    measure = QualityMeasure("judge_faithfulness", "1+m+0")
    difference = Interval((low + high) / 2, low, high)
    found = reading_guardrail(JudgeReading(measure, difference, 80))
    assert (found.verdict, found.action, found.units) == (verdict, action, 80)
    none = reading_guardrail(JudgeReading(measure, None, 80))
    assert (none.verdict, none.action) == ("inconclusive", "none")


def test_a_rollout_leaves_a_judge_aside_that_may_not_decide(tmp_path: Path) -> None:
    bad = {f"s{number}" for number in range(0, 36, 3)}
    arms = {f"s{n}": "canary" if n % 2 else "control" for n in range(36)}
    outcomes = [SessionOutcome(name, arm, 1, "r", 0, turns=1) for name, arm in arms.items()]
    with judged_house(
        tmp_path, JUDGE_MIN_LABELLED_SESSIONS="30", QUALITY_MEASURE="judge_faithfulness"
    ) as house:
        judged_many(house, bad)
        refused = read_arms(house.parts, outcomes)
        assert refused is not None
        found = reading_guardrail(refused)
        assert (found.verdict, found.action) == ("inconclusive", "none")
        assert found.reason.startswith("left aside: judge_faithfulness may not decide anything: 0")
        house.desk.add_labels({"actor": "ana", "rows": label_rows(house, bad)[:30]})
        reading = read_arms(house.parts, outcomes)
        assert reading is not None
        assert reading.measure.refusals == ()
        assert reading.judged_sessions == 36
        assert reading.difference is not None
        truth = (
            sum(n % 3 > 0 for n in range(1, 36, 2)) / 22
            - sum(n % 3 > 0 for n in range(0, 36, 2)) / 23
        )
        assert reading.difference.low <= truth <= reading.difference.high
        house.parts.settings = replace(house.parts.settings, quality_measure="quality")
        assert read_arms(house.parts, outcomes) is None
