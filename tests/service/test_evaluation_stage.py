"""Scoring what changed, and only that."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Engine

from evaluators import CodeCorrectness, Faithfulness, ToolUse
from evaluators.contract import digest_trace, identity_of
from loop.control.stage_progress import StageLog
from loop.control.store import connect, metadata
from loop.domain.turns import SessionTrace
from loop.lake import Lake
from loop.lake.rows import day_of
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
    version = "newer"


class _OtherwiseSet(ToolUse):
    config_digest = "other"


@pytest.mark.parametrize("changed", [_NewerToolUse(), _OtherwiseSet()], ids=["version", "config"])
def test_a_new_identity_judges_every_session_and_makes_no_other_judge_again(
    lake: Lake, engine: Engine, changed: ToolUse
) -> None:
    evaluate_changed(lake, StageLog(engine))
    before = {(s.session_id, s.evaluator): s for s in lake.scores_of()}
    evaluators = (Faithfulness(), changed, CodeCorrectness())
    report = evaluate_changed(lake, StageLog(engine), evaluators=evaluators)
    assert (report.sessions, report.unchanged) == (2, 0)
    for score in lake.scores_of():
        is_new = score.evaluator in ("tool_use", QUALITY)
        assert (score != before[score.session_id, score.evaluator]) == is_new
        if score.evaluator == "tool_use":
            assert score.identity == identity_of(changed)
    again = evaluate_changed(lake, StageLog(engine), evaluators=evaluators)
    assert again.sessions == 0


class _Sealed(Lake):
    """A lake of which no text may be read."""

    def load_traces(self, session_ids: Collection[str]) -> list[SessionTrace]:
        raise AssertionError(f"read {sorted(session_ids)}")


def test_neither_a_new_price_nor_a_new_payer_reads_a_session_again(
    lake: Lake, engine: Engine, tmp_path: Path
) -> None:
    evaluate_changed(lake, StageLog(engine))
    stored = lake.scores_of()
    day = day_of(turn(1).started_at_us)
    change = {"cost_microusd": 9, "price_version": "later"}

    def charge(rows: pa.Table) -> pa.Table:
        return pa.table({name: pa.array([value] * len(rows)) for name, value in change.items()})

    assert lake.charge_anew(day, charge, charge_version=1, revision=2) == 2
    sealed = _Sealed.open(str(tmp_path / "lake"))
    report = evaluate_changed(sealed, StageLog(engine))
    assert (report.sessions, report.unchanged, report.revision) == (2, 2, 2)
    lake.write_turns([turn(1, "s2", org_path="elsewhere")], [content(1, "s2")], revision=3)
    assert lake.turns_of(["s2"])[0].org_path == "elsewhere"
    report = evaluate_changed(sealed, StageLog(engine))
    assert (report.sessions, report.unchanged) == (1, 1)
    assert lake.scores_of() == stored


_PASS = """
import os, signal, sys
from loop.control.stage_progress import StageLog
from loop.control.store import connect
from loop.lake import Lake
from loop.service import evaluation_stage

evaluation_stage.BATCH_TURNS = 1

def stop(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

lake = Lake.open(sys.argv[1])
evaluation_stage.evaluate_changed(lake, StageLog(connect(sys.argv[2])), on_progress=stop)
"""


def test_a_pass_that_is_killed_goes_on_where_it_was(
    lake: Lake, engine: Engine, tmp_path: Path
) -> None:
    names = [f"s{number}" for number in range(1, 6)]
    turns, texts = [turn(1, name) for name in names], [content(1, name) for name in names]
    lake.write_turns(turns, texts, revision=2)
    command = [sys.executable, "-c", _PASS, str(tmp_path / "lake"), str(engine.url)]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    first = lake.scores_of()
    assert {score.session_id for score in first} == {"s1", "s2"}

    told: list[tuple[int, int]] = []
    report = evaluate_changed(
        lake, StageLog(engine), on_progress=lambda done, total: told.append((done, total))
    )
    assert (report.sessions, report.unchanged) == (5, 2)
    assert lake.scores_of(["s1", "s2"]) == first
    assert {score.session_id for score in lake.scores_of()} == set(names)
    assert told[-1] == (5, 5)
    assert told == sorted(told)


def test_nothing_is_scored_while_the_lake_is_maintained(lake: Lake, engine: Engine) -> None:
    report = evaluate_changed(lake, StageLog(engine), may_write=lambda: nullcontext(False))
    assert (report.sessions, lake.scores_of()) == (0, [])
    assert evaluate_changed(lake, StageLog(engine)).sessions == 2
    assert {score.session_id for score in lake.scores_of()} == {"s1", "s2"}
