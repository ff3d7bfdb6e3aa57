"""Studies live in the control database, go on after a kill, and are Optuna's own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from searching_process import SETTINGS, run_search

from loop.control.store import open_control_store
from loop.domain.errors import Conflict
from loop.domain.policies import RoutingPolicy
from optimizers.run_records import RunRecords
from tests.servers.postgres_server import postgres_server

HERE = Path(__file__).parent


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def control_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'control.db'}"
        return
    with postgres_server() as url:
        yield url


def load(url: str) -> Iterator[optuna.Study]:
    storage = optuna.storages.RDBStorage(url)
    yield optuna.load_study(study_name="run-a", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def test_a_study_is_kept_beside_the_records_and_any_optuna_tool_opens_it(control_url: str) -> None:
    engine = open_control_store(control_url)
    run = run_search(control_url, replace(SETTINGS, trials=26, workers=2))
    RunRecords(engine).save(run)
    assert RunRecords(engine).load("run-a") == run
    engine.dispose()
    # Guesses are the same whoever evaluates them: two workers or this process.
    alone = run_search("", replace(SETTINGS, trials=21))
    assert run.trials[:21] == tuple(
        replace(trial, on_front=mine.on_front)
        for trial, mine in zip(alone.trials, run.trials, strict=False)
    )
    for study in load(control_url):
        finished = study.get_trials(states=(TrialState.COMPLETE,))
        assert len(finished) == 25  # the classic policy is not of the space
        assert study.metric_names == ["saved_usd", "quality_difference_low"]
        assert study.user_attrs["about"]["incumbent_digest"] == run.incumbent.digest
        for trial, mine in zip(finished, run.trials[1:], strict=True):
            assert trial.user_attrs["policy_digest"] == mine.policy.digest
            assert set(trial.constraints) == {"quality", "support"}
            assert all(v <= 0 for v in trial.constraints.values()) == mine.feasible
        front = {trial.user_attrs["policy_digest"] for trial in study.best_trials}
        assert {t.policy.digest for t in run.trials[1:] if t.on_front} <= front


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'control.db'}"
    trials = 30
    command = [sys.executable, str(HERE / "searching_process.py"), url, str(trials)]
    # Its arguments are fixed, and it is ended below.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 26:  # past the guesses: the sampler's own draws have begun
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    seen: list[int] = []
    settings = replace(SETTINGS, trials=trials)
    resumed = run_search(url, settings, lambda trial: seen.append(trial.number))
    straight = run_search("", settings)
    assert resumed.trials == straight.trials
    assert (resumed.found, resumed.test) == (straight.found, straight.test)
    assert resumed.importance == straight.importance
    assert seen == list(range(trials))
    with pytest.raises(Conflict, match="quality_margin"):
        run_search(url, replace(settings, quality_margin=0.2))
    # More of the same is no conflict.
    assert len(run_search(url, replace(settings, trials=trials + 1)).trials) == trials + 1


def test_a_lost_worker_is_replaced(tmp_path: Path) -> None:
    lost: list[int] = []

    def lose(trial: object) -> None:
        children = [child for child in multiprocessing.active_children() if child.pid]
        if not lost and children:
            lost.append(children[0].pid or 0)
            os.kill(lost[0], signal.SIGKILL)

    settings = replace(SETTINGS, trials=9, workers=2)
    run = run_search("", settings, lose)
    assert lost
    assert [trial.number for trial in run.trials] == list(range(9))
    assert all(isinstance(trial.policy, RoutingPolicy) for trial in run.trials)
