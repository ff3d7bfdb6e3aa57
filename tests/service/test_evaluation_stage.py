"""Scoring what changed, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from evaluators import CodeCorrectness, Faithfulness, ToolUse
from evaluators.contract import digest_trace
from loop.control.stage_progress import StageLog
from loop.control.store import connect, metadata
from loop.lake import Lake
from loop.service.evaluation_stage import QUALITY, evaluate_changed
from tests.lake.lake_records import content, turn


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path / 'control.db'}")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake.open(str(tmp_path / "lake"))
    turns = [turn(1, "s1"), turn(1, "s2")]
    lake.write_turns(turns, [content(1, "s1"), content(1, "s2")], revision=1)
    return lake


def test_a_pass_scores_every_session_once_and_a_second_one_nothing(
    lake: Lake, engine: Engine
) -> None:
    first = evaluate_changed(lake, StageLog(engine))
    assert (first.sessions, first.unchanged) == (2, 0)
    stored = lake.scores_of()
    assert {score.evaluator for score in stored} == {
        "faithfulness",
        "tool_use",
        "code_correctness",
        QUALITY,
    }
    (trace,) = lake.load_traces(["s1"])
    digests = {score.input_digest for score in stored if score.session_id == "s1"}
    assert digests == {digest_trace(trace)}
    assert all(score.scored_at_us for score in stored)

    version = lake.versions()["scores"]
    again = evaluate_changed(lake, StageLog(engine))
    assert (again.sessions, again.revision) == (0, first.revision)
    everything = evaluate_changed(lake, StageLog(engine), everything=True)
    assert (everything.sessions, everything.unchanged) == (2, 2)
    assert everything.unscored == first.unscored
    assert lake.versions()["scores"] == version
    assert lake.scores_of() == stored


def test_a_session_that_grew_is_scored_again_and_the_others_are_not(
    lake: Lake, engine: Engine
) -> None:
    evaluate_changed(lake, StageLog(engine))
    before = {(s.session_id, s.evaluator): s for s in lake.scores_of()}
    lake.write_turns([turn(1, "s1"), turn(2, "s1")], [content(1, "s1")], revision=2)
    report = evaluate_changed(lake, StageLog(engine))
    assert (report.sessions, report.unchanged) == (1, 0)
    for score in lake.scores_of():
        known = before[score.session_id, score.evaluator]
        assert (score == known) == (score.session_id == "s2")


def test_a_pass_that_ended_before_it_was_recorded_is_not_paid_twice(
    lake: Lake, engine: Engine
) -> None:
    evaluate_changed(lake, StageLog(engine))
    StageLog(engine).record("evaluate", revision=0, at_us=1, done=0)
    report = evaluate_changed(lake, StageLog(engine))
    assert (report.sessions, report.unchanged) == (2, 2)


class _NewerToolUse(ToolUse):
    version = "2"


def test_a_new_version_of_an_evaluator_scores_again(lake: Lake, engine: Engine) -> None:
    evaluate_changed(lake, StageLog(engine))
    evaluators = (Faithfulness(), _NewerToolUse(), CodeCorrectness())
    report = evaluate_changed(lake, StageLog(engine), evaluators=evaluators, everything=True)
    assert (report.sessions, report.unchanged) == (2, 0)
    versions = {s.evaluator_version for s in lake.scores_of() if s.evaluator == "tool_use"}
    assert versions == {"2"}
