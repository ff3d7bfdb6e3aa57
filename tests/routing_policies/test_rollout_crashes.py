"""A controller that dies at any write, and rollouts under random events.

The crash is where a real one would be: at a write or a commit on the database connection, after
which that process does nothing more. A fresh controller then goes on.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Engine, event

from loop.domain.errors import Conflict, Refused
from loop.domain.lifecycle import State
from routing_policies.rollout import RolloutController
from routing_policies.rollout_records import RolloutStatus
from routing_policies.version_store import VersionStore
from tests.fakes.rollout_world import ANN, BOB, PLAN, RolloutWorld, scratch_engine, shifted
from tests.routing_policies.moving_process import ACTS, STOPPED


class Died(BaseException):
    """The process is gone: nothing in it may catch this and go on."""


@contextmanager
def dying_at(engine: Engine, write: int) -> Iterator[None]:
    """The connection is cut before the numbered write, or commit of writes, and stays cut.

    Dying before a read is the same as dying before the write that comes after it.
    """
    count, dirty = 0, False

    def step(is_write: bool) -> None:
        nonlocal count
        count += is_write and count <= write
        if count > write:
            raise Died

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal dirty
        is_write = statement.startswith(("INSERT", "UPDATE", "DELETE"))
        step(is_write)
        dirty |= is_write

    def commit(_connection: Any) -> None:
        nonlocal dirty
        step(dirty)
        dirty = False

    event.listen(engine, "before_cursor_execute", execute)
    event.listen(engine, "commit", commit)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", execute)
        event.remove(engine, "commit", commit)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = scratch_engine(tmp_path / "control.db")
    yield engine
    engine.dispose()


def check_registry(store: VersionStore) -> None:
    """What must hold at every moment, whoever died."""
    states = [version.state for version in store.list_versions()]
    assert states.count(State.ACTIVE) == 1
    assert sum(state.is_canary() for state in states) <= 1
    record = store.current_publication()
    assert record is not None
    for arm in record.publication.arms:
        state = store.get(arm.policy_version).state
        if arm.name == "canary":
            assert state.is_canary()
        else:
            assert state is State.ACTIVE
    store.verify_chain()


def to_first_stage(world: RolloutWorld) -> None:
    world.approved()


def to_next_stage(world: RolloutWorld) -> None:
    world.start()
    world.serve(130)
    world.wait(121)
    world.pull()


def to_promotion(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.canary = shifted(+6)
    while world.controller.status(rollout_id).stage < 2:
        world.serve(150)
        world.pull()
        world.tick(rollout_id)
    world.serve(400)
    world.pull()


def to_rollback(world: RolloutWorld) -> None:
    rollout_id = world.start().rollout_id
    world.controller.pause(rollout_id, ANN, "gather")
    world.canary = shifted(-15)
    world.serve(800)
    world.pull()


def start(world: RolloutWorld, controller: RolloutController) -> RolloutStatus:
    return controller.start(2, PLAN, BOB, "try it")


def look(world: RolloutWorld, controller: RolloutController) -> RolloutStatus:
    return controller.tick("rollout-2", world.outcomes)


def undo(world: RolloutWorld, controller: RolloutController) -> RolloutStatus:
    return controller.roll_back("rollout-2", ANN, "enough")


@pytest.mark.parametrize(
    ("before", "act", "states"),
    [
        (to_first_stage, start, {"canary"}),
        (to_next_stage, look, {"canary"}),
        (to_promotion, look, {"promoted"}),
        (to_rollback, look, {"rolled_back"}),
        (to_next_stage, undo, {"rolled_back"}),
    ],
    ids=["start", "advance", "promote", "roll back", "person"],
)
def test_death_at_any_write_leaves_one_active_and_converges(
    tmp_path: Path,
    before: Callable[[RolloutWorld], None],
    act: Callable[[RolloutWorld, RolloutController], RolloutStatus],
    states: set[str],
) -> None:
    engine = scratch_engine(tmp_path / "before.db")
    world = RolloutWorld(engine)
    before(world)
    engine.dispose()
    began_us = world.now_us
    died, write = True, 0
    while died:
        copy = shutil.copy(tmp_path / "before.db", tmp_path / f"{write}.db")
        engine = scratch_engine(Path(copy))
        world.now_us = began_us
        world.attach(engine)
        died = False
        with dying_at(engine, write):
            try:
                act(world, world.controller)
            except Died:
                died = True
        check_registry(world.store)
        world.wait(31)  # a dead controller's lease has run out
        fresh = RolloutController(world.store)
        if not fresh.list_rollouts():
            fresh.start(2, PLAN, BOB, "try it")
        fresh.tick("rollout-2", world.outcomes)
        check_registry(world.store)
        status = fresh.tick("rollout-2", world.outcomes)
        if act is undo and status.state == "canary":
            status = undo(world, fresh)  # the person saw an error and asks again
        assert status.state in states, write
        if act is look and states == {"canary"}:
            assert status.stage == 2
        world.pull()
        assert fresh.tick("rollout-2", world.outcomes).finished == (states != {"canary"})
        check_registry(world.store)
        engine.dispose()
        write += 1
    assert write > 8


def nothing(_world: RolloutWorld) -> None:
    return


def proposed(world: RolloutWorld) -> None:
    ACTS["propose"](world.store, world.controller, [])


def gated(world: RolloutWorld) -> None:
    proposed(world)
    ACTS["gate"](world.store, world.controller, [])


def in_review(world: RolloutWorld) -> None:
    gated(world)
    ACTS["submit"](world.store, world.controller, [])


def paused(world: RolloutWorld) -> None:
    world.controller.pause(world.start().rollout_id, ANN, "wait")


def promoted(world: RolloutWorld) -> None:
    to_promotion(world)
    world.controller.tick("rollout-2", world.outcomes)


@pytest.mark.parametrize(
    ("before", "verb", "state"),
    [
        (nothing, "propose", State.PROPOSED),
        (proposed, "gate", State.GATE_PASSED),
        (gated, "submit", State.IN_REVIEW),
        (in_review, "approve", State.APPROVED),
        (to_first_stage, "start", State.CANARY),
        (to_next_stage, "pause", State.PAUSED),
        (paused, "resume", State.CANARY),
        (to_next_stage, "look", State.CANARY),
        (to_promotion, "look", State.ACTIVE),
        (to_rollback, "look", State.ROLLED_BACK),
        (to_next_stage, "roll back", State.ROLLED_BACK),
        (promoted, "roll back", State.ROLLED_BACK),
    ],
)
def test_kill_9_before_a_commit_changes_nothing_and_the_next_try_does(
    engine: Engine,
    tmp_path: Path,
    before: Callable[[RolloutWorld], None],
    verb: str,
    state: State,
) -> None:
    world = RolloutWorld(engine)
    before(world)
    outcomes = tmp_path / "outcomes"
    outcomes.write_bytes(pickle.dumps(world.outcomes))
    known = world.store.transitions(), world.store.publications()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.routing_policies.moving_process"),
            *(f"sqlite:///{tmp_path}/control.db", str(world.now_us), verb, str(outcomes)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{STOPPED}\n"
        process.send_signal(signal.SIGKILL)
    check_registry(world.store)
    assert (world.store.transitions(), world.store.publications()) == known
    world.wait(31)  # the dead one's lease has run out
    world.pull()
    ACTS[verb](world.store, RolloutController(world.store), world.outcomes)
    assert world.store.get(2).state is state
    check_registry(world.store)


class RandomRollouts(RuleBasedStateMachine):
    """Starts, looks, people, gateways, renewals and deaths in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = scratch_engine(Path(self.folder.name) / "control.db")
        self.world = RolloutWorld(self.engine)
        self.names = iter(f"policy-{number}" for number in range(1000))
        self.rolled_back: set[int] = set()

    def teardown(self) -> None:
        self.engine.dispose()
        self.folder.cleanup()

    def newest(self) -> RolloutStatus | None:
        found = self.world.controller.list_rollouts()
        return found[0] if found else None

    @rule()
    def start(self) -> None:
        try:
            self.world.start(name=next(self.names))
        except Conflict:
            assert self.world.store.canary_version() is not None
        except Refused:  # three rollbacks in a week froze the channel
            assert len(self.rolled_back) >= PLAN.max_rollbacks_per_week

    @rule(
        sessions=st.integers(0, 250),
        shift=st.sampled_from([-25, 0, 8]),
        missing=st.booleans(),
        wait=st.sampled_from([0, 200, 4000]),
    )
    def serve(self, sessions: int, shift: float, missing: bool, wait: float) -> None:
        self.world.canary = shifted(shift)
        self.world.serve(0 if missing else sessions, seconds_apart=2.0)
        self.world.wait(wait)

    @rule()
    def pull(self) -> None:
        self.world.pull()

    @precondition(lambda self: self.newest() is not None)
    @rule(write=st.integers(0, 14) | st.none(), readable=st.booleans())
    def look(self, write: int | None, readable: bool) -> None:
        newest = self.newest()
        assert newest is not None
        outcomes = self.world.outcomes if readable else None
        if write is None:
            self.world.controller.tick(newest.rollout_id, outcomes)
            return
        with dying_at(self.engine, write):
            try:
                self.world.controller.tick(newest.rollout_id, outcomes)
            except Died:
                self.world.wait(31)
        self.world.controller = RolloutController(self.world.store)

    @precondition(lambda self: self.newest() is not None)
    @rule(verb=st.sampled_from(["pause", "resume", "roll_back"]))
    def steer(self, verb: str) -> None:
        newest = self.newest()
        assert newest is not None
        try:
            getattr(self.world.controller, verb)(newest.rollout_id, ANN, "because")
        except Conflict:
            self.world.wait(1)
        except Refused:
            assert newest.state == "promoted"

    @rule()
    def renew(self) -> None:
        self.world.wait(13 * 3600)
        self.world.store.renew("prod", ANN)

    @invariant()
    def the_registry_is_sound(self) -> None:
        check_registry(self.world.store)

    @invariant()
    def what_was_rolled_back_stays_so(self) -> None:
        found = {
            version.version
            for version in self.world.store.list_versions(states=(State.ROLLED_BACK,))
        }
        assert found >= self.rolled_back
        self.rolled_back = found
        serials = [one.publication.serial for one in self.world.store.publications()]
        assert serials == sorted(set(serials))


RandomRollouts.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRandomRollouts = RandomRollouts.TestCase
