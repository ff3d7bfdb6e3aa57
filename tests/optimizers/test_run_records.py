"""Runs come back from the control store as they went in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from randomised_logs import HAIKU, OPUS, all_to, randomised_log
from sqlalchemy import Engine
from turn_strategies import PRICES

from loop.control.store import connect, metadata
from loop.domain.errors import Conflict, NotFound
from loop.domain.runs import OptimizationRun
from optimizers.routing_search import SearchSettings, search
from optimizers.run_records import SILENT_US, RunRecords


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    metadata.create_all(engine)
    return engine


@pytest.fixture(scope="module")
def run() -> OptimizationRun:
    log = randomised_log(40, 400)
    return search(
        log.frame,
        PRICES,
        incumbent=all_to(OPUS),
        models=(OPUS, HAIKU),
        publications=log.publications,
        session_quality=log.quality,
        settings=SearchSettings(trials=50, quality_margin=0.1, min_cell_sessions=40),
        run_id="run-a",
        table_versions={"turns": 7},
    )


def test_a_run_with_its_trials_and_estimates_survives(engine: Engine, run: OptimizationRun) -> None:
    assert run.selection is not None
    assert run.settings["min_cell_sessions"] == 40
    assert sum(run.importance.values()) == pytest.approx(1.0)
    assert run.spent_usd > 0
    RunRecords(engine).save(run)
    assert RunRecords(engine).load("run-a") == run
    assert RunRecords(engine).list() == (replace(run, trials=()),)


def test_a_running_search_is_saved_again_as_it_goes(engine: Engine, run: OptimizationRun) -> None:
    records = RunRecords(engine)
    records.save(replace(run, state="running", finished_at_us=None, trials=run.trials[:3]))
    assert len(records.load("run-a").trials) == 3
    records.save(run)
    records.save(run)
    assert records.load("run-a") == run


def test_a_finished_run_is_never_changed(engine: Engine, run: OptimizationRun) -> None:
    records = RunRecords(engine)
    records.save(run)
    with pytest.raises(Conflict, match="can't be changed"):
        records.save(replace(run, outcome="something else"))
    assert records.load("run-a") == run


def test_runs_are_listed_newest_first(engine: Engine, run: OptimizationRun) -> None:
    records = RunRecords(engine)
    for name, at_us in (("old", 1), ("new", 3), ("middle", 2)):
        records.save(replace(run, run_id=name, started_at_us=at_us))
    assert [item.run_id for item in records.list()] == ["new", "middle", "old"]
    assert [item.run_id for item in records.list(limit=1)] == ["new"]


def test_an_unknown_run_is_not_found(engine: Engine) -> None:
    with pytest.raises(NotFound, match="no-such-run"):
        RunRecords(engine).load("no-such-run")


def test_a_run_that_fell_silent_is_taken_over_once(engine: Engine, run: OptimizationRun) -> None:
    records = RunRecords(engine)
    begun = replace(run, state="running", finished_at_us=None, trials=run.trials[:2])
    records.begin(begun, {"trials": 30}, at_us=1_000)
    records.save(replace(begun, trials=run.trials[:3]))  # as it goes
    late = 1_000 + SILENT_US + 1
    records.mark_alive("run-a", 2_000)
    assert not records.is_any_silent(late)
    assert records.take_over(late) is None
    assert records.is_any_silent(late + 1_000)
    assert records.take_over(late + 1_000) == ("run-a", {"trials": 30})
    assert records.take_over(late + 1_000) is None
    records.save(run)
    assert not records.is_any_silent(late * 2)
