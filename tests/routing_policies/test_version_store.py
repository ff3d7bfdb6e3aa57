"""The version store over SQLite and PostgreSQL, under random moves, and between processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Engine

from loop.control.store import connect, metadata
from loop.domain.errors import Conflict, Refused, Unavailable
from loop.domain.lifecycle import LEGAL_MOVES, Actor, ActorKind, State
from routing_policies.transitions import Move
from routing_policies.version_store import VersionStore
from tests.contracts.version_store import VersionStoreContract
from tests.fakes.policy_service import ANNA, size_policy
from tests.servers.postgres_server import postgres_server


class TestSqlite(VersionStoreContract):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        engine = connect(f"sqlite:///{tmp_path}/control.db")
        metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.mark.postgres
class TestPostgres(VersionStoreContract):
    @pytest.fixture
    def engine(self, postgres_url: str) -> Iterator[Engine]:
        engine = connect(postgres_url)
        metadata.drop_all(engine)
        metadata.create_all(engine)
        yield engine
        engine.dispose()


class RandomMoves(RuleBasedStateMachine):
    """Tries every move, by every kind of actor, in any order, with publications in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = connect(f"sqlite:///{self.folder.name}/control.db")
        metadata.create_all(self.engine)
        self.store = VersionStore(self.engine)
        self.serials: list[int] = []

    @initialize(install=st.booleans())
    def begin(self, install: bool) -> None:
        if install:
            self.serials.append(self.store.install_baseline().serial)

    @rule(size=st.integers(1, 5))
    def propose(self, size: int) -> None:
        try:
            self.store.propose(size_policy(size), ANNA)
        except Conflict:
            return

    @rule(
        version=st.integers(1, 5),
        to=st.sampled_from(State),
        kind=st.sampled_from(ActorKind),
        name=st.sampled_from(["anna", "ben"]),
        cycle=st.integers(0, 2),
    )
    def move(self, version: int, to: State, kind: ActorKind, name: str, cycle: int) -> None:
        known = {found.version: found for found in self.store.list_versions()}
        if version not in known:
            return
        before = known[version].state
        try:
            self.store.move(version, to, Actor(kind, name), "tried", review_cycle=cycle)
        except (Conflict, Refused):
            assert self.store.get(version).state is before
            return
        assert kind in LEGAL_MOVES[(before, to)]
        assert not (to is State.APPROVED and Actor(kind, name).is_same_as(ANNA))

    @rule(version=st.integers(1, 5), to=st.sampled_from([None, State.CANARY, State.ACTIVE]))
    def publish(self, version: int, to: State | None) -> None:
        if version > len(self.store.list_versions()):
            return
        moves = [] if to is None else [Move(version, to, "published")]
        actor = Actor(ActorKind.ROLLOUT, "r")
        before = self.store.get(version).state
        try:
            published = self.store.publish(
                "prod",
                [("stable", 10_000, version)],
                salt="s",
                actor=actor,
                reason="x",
                moves=moves,
            )
        except (Conflict, Refused):
            assert self.store.get(version).state is before
            return
        self.serials.append(published.serial)

    @invariant()
    def never_two_active_and_never_two_canaries(self) -> None:
        states = [version.state for version in self.store.list_versions()]
        assert states.count(State.ACTIVE) <= 1
        assert sum(state.is_canary() for state in states) <= 1

    @invariant()
    def serials_rise_and_the_chain_holds(self) -> None:
        assert self.serials == list(range(1, len(self.serials) + 1))
        assert self.store.verify_chain() == len(self.store.transitions()) + len(self.serials)

    def teardown(self) -> None:
        self.engine.dispose()
        self.folder.cleanup()


RandomMoves.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRandomMoves = RandomMoves.TestCase

_PROCESS = """
import sys
from loop.control.store import connect
from loop.domain.errors import Conflict
from loop.domain.lifecycle import Actor, State
from routing_policies.transitions import Move
from routing_policies.version_store import VersionStore

store, version = VersionStore(connect(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    serial = store.publish(
        "prod", [("canary", 500, version), ("stable", 9_500, 1)], salt="s",
        actor=Actor.parse("rollout:r"), reason="mine",
        moves=[Move(version, State.CANARY, "mine")], expected_serial=1,
    ).serial
    print("won", serial)
except Conflict:
    print("lost")
"""


def test_of_two_processes_that_saw_the_same_one_wins(tmp_path: Path) -> None:
    from tests.fakes.policy_service import approve

    url = f"sqlite:///{tmp_path}/control.db"
    engine = connect(url)
    metadata.create_all(engine)
    store = VersionStore(engine)
    store.install_baseline()
    versions = [approve(store, size_policy(size)) for size in (1, 2, 3)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, url, str(version)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in versions
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=30)[0].strip() for process in processes]
    assert sorted(answers) == ["lost", "lost", "won 2"]
    assert store.current_serial() == 2
    engine.dispose()


def test_a_locked_database_is_unavailable_and_nothing_is_lost(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    metadata.create_all(engine)
    store = VersionStore(engine)
    store.install_baseline()
    other = connect(f"sqlite:///{tmp_path}/control.db")
    with engine.connect() as quick:
        quick.exec_driver_sql("PRAGMA busy_timeout=50")
    with other.begin(), pytest.raises(Unavailable):
        store.propose(size_policy(1), ANNA)
    assert [version.version for version in store.list_versions()] == [1]
    engine.dispose()
    other.dispose()
