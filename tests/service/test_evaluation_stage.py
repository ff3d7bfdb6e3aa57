"""Scoring what changed, and only that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Engine

from evaluators import CodeCorrectness, Faithfulness, ToolUse, default_evaluators
from evaluators.contract import digest_trace, identity_of
from loop.control.stage_progress import StageLog
from loop.control.store import connect, metadata
from loop.domain.scores import QUALITY
from loop.domain.turns import SessionTrace
from loop.lake import Lake
from loop.lake.rows import day_of
from loop.service import evaluation_stage
from loop.service.evaluation_stage import evaluate_changed
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


@pytest.fixture
def old_install(tmp_path: Path) -> Path:
    """A folder to import from first, by which turnwise names no evaluators."""
    folder = tmp_path / "old"
    (folder / "turnwise-0.0.1.dist-info").mkdir(parents=True)
    described = "Metadata-Version: 2.1\nName: turnwise\nVersion: 0.0.1\n"
    (folder / "turnwise-0.0.1.dist-info" / "METADATA").write_text(described)
    return folder


def test_an_environment_without_evaluators_says_how_to_mend_it(
    old_install: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "loop.service", "evaluate", "--data", str(tmp_path / "data")]
    environment = os.environ | {"PYTHONPATH": str(old_install)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 4, done.stderr
    assert "No evaluator is installed" in done.stderr
    assert "Install turnwise into it again" in done.stderr


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is to judge, it is worth the start of processes, in small batches."""
    monkeypatch.setattr(evaluation_stage, "SHARED_TURNS", 1)
    monkeypatch.setattr(evaluation_stage, "BATCH_TURNS", 4)


def _write_many(lake: Lake) -> list[str]:
    names = [f"t{number:02}" for number in range(20)]
    turns, texts = [turn(1, name) for name in names], [content(1, name) for name in names]
    lake.write_turns(turns, texts, revision=2)
    return ["s1", "s2", *names]


def _judging_processes() -> list[int]:
    """Those that this process started and that still run."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return [int(pid) for pid in children if "judging_processes" in _command_line(pid)]


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()  # a zombie has none
    except OSError:
        return ""


@pytest.mark.usefixtures("shared")
def test_processes_judge_as_one_does_even_when_they_are_lost(
    lake: Lake, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    names = _write_many(lake)
    judged_by: list[list[int]] = []
    killed: list[int] = []

    def lose_one(done: int, total: int) -> None:
        judged_by.append(_judging_processes())
        if done and not killed:
            killed.append(judged_by[-1][-1])
            os.kill(killed[0], signal.SIGKILL)

    report = evaluate_changed(lake, StageLog(engine), processes=2, on_progress=lose_one)
    assert (report.sessions, report.unchanged) == (22, 0)
    assert len(judged_by[0]) == 2
    assert "a process that judges sessions is lost" in caplog.text
    assert _judging_processes() == []
    traces = {trace.session_id: trace for trace in lake.load_traces(names)}
    stored = lake.query("SELECT count(*) AS n FROM scores_rows")[0]["n"]
    assert stored == len(names) * 4  # each once
    for score in lake.scores_of():
        if score.evaluator != QUALITY:
            judge = next(e for e in default_evaluators() if e.name == score.evaluator)
            expected = judge.evaluate(traces[score.session_id])
            assert replace(score, scored_at_us=0, rows_digest="") == expected
    assert evaluate_changed(lake, StageLog(engine), everything=True, processes=2).unchanged == 22


@pytest.mark.usefixtures("shared")
def test_processes_of_another_install_leave_the_work_to_the_one_that_asks(
    lake: Lake, engine: Engine, old_install: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_many(lake)
    monkeypatch.setenv("PYTHONPATH", str(old_install))
    assert evaluate_changed(lake, StageLog(engine), processes=2).sessions == 22
    assert len(lake.scores_of()) == 22 * 4


_SHARED_PASS = """
import os, signal, subprocess, sys
from pathlib import Path
from loop.control.stage_progress import StageLog
from loop.control.store import connect
from loop.lake import Lake
from loop.service import evaluation_stage

evaluation_stage.BATCH_TURNS, evaluation_stage.SHARED_TURNS = 4, 1

def stop(done, total):
    if done >= 2:
        print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

lake = Lake.open(sys.argv[1])
log = StageLog(connect(sys.argv[2]))
evaluation_stage.evaluate_changed(lake, log, processes=2, on_progress=stop)
"""


def test_processes_end_with_the_one_that_asks_and_its_work_is_done_later(
    lake: Lake, engine: Engine, tmp_path: Path
) -> None:
    names = _write_many(lake)
    command = [sys.executable, "-c", _SHARED_PASS, str(tmp_path / "lake"), str(engine.url)]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pids = killed.stdout.split()
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any("judging_processes" in _command_line(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first = lake.scores_of()
    assert 0 < len(first) < len(names) * 4
    report = evaluate_changed(lake, StageLog(engine))
    assert report.unchanged == len(first) // 4
    kept = {score.session_id for score in first}
    assert lake.scores_of(kept) == first
    assert {score.session_id for score in lake.scores_of()} == set(names)
