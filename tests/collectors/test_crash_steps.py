"""A drainer that dies at any step: afterwards everything is stored once and counted once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from collectors.drain_state import DrainState
from collectors.drainer import Drainer, DrainLimits
from collectors.journal import Journal
from collectors.quarantine import Quarantine
from collectors.segments import SEALED
from loop.control.intake_log import IntakeLog
from loop.control.store import open_control_store
from loop.domain.policies import Decision
from loop.lake import Lake
from loop.lake.decision_table import DecisionTable
from loop.lake.event_table import EventTable
from loop.lake.revised_rows import RevisedRows
from tests.collectors.pipeline import PRICES, ROOMY
from tests.collectors.recordings import all_bodies, log_body

STEPS = (
    (DrainState, "bind"),
    (EventTable, "write"),
    (RevisedRows, "write"),  # contents, then turns
    (DecisionTable, "write"),
    (Path, "unlink"),  # a drained segment
    (DrainState, "let_go"),
    (IntakeLog, "record"),
    (Quarantine, "put_record"),
)
SESSION = "a13_oauth_identity"


class Killed(BaseException):
    """What kill -9 is to the code: nothing after it runs. What was written by then is on the disk,
    for every step writes durably or not at all."""


@contextmanager
def killed_at(nth: int) -> Iterator[list[str]]:
    """Kills before the nth step (counted from 0), which is after the one before it; yields the
    steps as they begin."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        def fatal(owner: type, name: str) -> Callable[..., Any]:
            original = getattr(owner, name)

            def step(*args: Any, **kwargs: Any) -> Any:
                if owner is Path and args[0].suffix != SEALED:
                    return original(*args, **kwargs)
                number = len(seen)
                seen.append(f"{owner.__name__}.{name}")
                if number == nth:
                    raise Killed
                return original(*args, **kwargs)

            return step

        for owner, name in STEPS:
            patch.setattr(owner, name, fatal(owner, name))
        yield seen


def fill(directory: Path) -> None:
    """Two segments with all that a drainer meets: turns, texts, points, a decision, what was sent
    twice, what disagrees, what can't be decoded."""
    once = log_body("once", 2)
    decision = Decision("req_x", 1, "once", "", 1, 1, "sha256:0", "stable", 5, 1.0, "r", "a", "b")
    other = asdict(decision) | {"routed_model": "c"}
    with Journal(directory / "journal", ROOMY) as journal:
        for body in all_bodies():
            if body.session == SESSION:
                journal.append_sync(body.signal, body.content_type, body.content)
        journal.append_sync("logs", "json", once)
        journal.append_sync("decisions", "json", orjson.dumps([asdict(decision)]))
        journal.seal()
        journal.append_sync("logs", "json", once.replace(b'"intValue": 5', b'"intValue": 7'))
        journal.append_sync("logs", "json", once, credential="someone")
        journal.append_sync("decisions", "json", orjson.dumps([other]))
        journal.append_sync("logs", "protobuf", b"\xff\xff")


@contextmanager
def opened(directory: Path) -> Iterator[tuple[Drainer, Lake, IntakeLog]]:
    engine = open_control_store(f"sqlite:///{directory / 'control.db'}")
    lake, intake = Lake.open(str(directory / "lake")), IntakeLog(engine)
    limits = DrainLimits(batch_bytes=1)  # a commit for each segment
    with (
        Journal(directory / "journal", ROOMY) as journal,
        Drainer(journal, lake, PRICES, limits=limits, intake=intake) as drainer,
    ):
        yield drainer, lake, intake
    engine.dispose()


def contents_of(lake: Lake, intake: IntakeLog) -> dict[str, Any]:
    sessions = [row["session_id"] for row in lake.query("SELECT DISTINCT session_id FROM events")]
    return {
        "events": lake.events_of(sessions),
        "stored events": lake.query("SELECT count(*) AS n FROM events_rows"),
        "turns": lake.turns_of(sessions),
        "contents": lake.contents_of(sessions),
        "decisions": lake.decisions_of(),
        "counts": intake.rows(),
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("filled")
    fill(directory)
    open_control_store(f"sqlite:///{directory / 'control.db'}").dispose()
    return directory


@pytest.fixture(scope="module")
def undisturbed(
    filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], list[str]]:
    """What a drainer that is let alone leaves, and its steps."""
    directory = tmp_path_factory.mktemp("undisturbed") / "data"
    shutil.copytree(filled, directory)
    with opened(directory) as (drainer, lake, intake), killed_at(-1) as steps:
        report = drainer.drain_once()
        assert (report.conflicts, report.rejected) == (3, 1)
        return contents_of(lake, intake), steps


# So that a step that moves elsewhere does not leave the test below unnoticed.
def test_the_steps_are_those_that_a_drainer_takes(
    undisturbed: tuple[dict[str, Any], list[str]],
) -> None:
    steps = undisturbed[1]
    assert set(steps) >= {f"{owner.__name__}.{name}" for owner, name in STEPS}
    assert len(steps) <= 20


@pytest.mark.parametrize("nth", range(20))
def test_a_drainer_killed_at_any_step_stores_and_counts_once(
    filled: Path,
    undisturbed: tuple[dict[str, Any], list[str]],
    tmp_path: Path,
    nth: int,
) -> None:
    expected, steps = undisturbed
    if nth >= len(steps):
        return  # there are fewer steps than the parameters allow for
    directory = tmp_path / "data"
    shutil.copytree(filled, directory)
    with opened(directory) as (drainer, _, _), killed_at(nth), pytest.raises(Killed):
        drainer.drain_once()
    with opened(directory) as (drainer, lake, intake):
        drainer.drain_once()
        assert drainer.is_drained()
        assert contents_of(lake, intake) == expected


def test_the_counts_add_up(undisturbed: tuple[dict[str, Any], list[str]]) -> None:
    sums: dict[str, int] = {}
    for row in undisturbed[0]["counts"]:
        sums[row["outcome"]] = sums.get(row["outcome"], 0) + row["count"]
    assert sums["conflict"] == 3
    assert sums["duplicate"] == 2
    assert sums["bodies_quarantined"] == 1
    assert sums["received"] == sums["stored"] + sums["duplicate"] + sums["conflict"]
