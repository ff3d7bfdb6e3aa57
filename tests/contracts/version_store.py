"""What a version store promises, on whichever database it stands."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text, update
from sqlalchemy.exc import IntegrityError

from loop.domain.errors import BadInput, Conflict, Corrupt, NotFound, Refused
from loop.domain.lifecycle import Actor, State
from loop.domain.policies import RoutingPolicy
from routing_policies.transitions import Move, policy_versions
from routing_policies.version_store import VersionStore
from tests.fakes.policy_service import ANNA, BEN, GATE, ROLLOUT, activate, approve, size_policy


class VersionStoreContract:
    """Subclasses give ``engine``: an empty database with the tables."""

    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError

    @pytest.fixture
    def store(self, engine: Engine) -> VersionStore:
        ticks = iter(range(1_000_000, 10**12, 1_000_000))
        return VersionStore(engine, now_us=lambda: next(ticks))

    def test_versions_count_up_and_keep_what_was_proposed(self, store: VersionStore) -> None:
        first = store.propose(size_policy(1), ANNA, "run-1")
        second = store.propose(size_policy(2), ANNA, parent_version=first)
        assert (first, second) == (1, 2)
        found = store.get(second)
        assert found.policy == size_policy(2)
        assert found.digest == size_policy(2).digest
        assert (found.state, found.parent_version) == (State.PROPOSED, 1)
        assert [version.version for version in store.list_versions()] == [1, 2]
        assert store.by_digest(size_policy(1).digest) == [store.get(first)]
        assert store.get(first).run_id == "run-1"

    def test_unknown_things_are_not_found(self, store: VersionStore) -> None:
        with pytest.raises(NotFound):
            store.get(7)
        with pytest.raises(NotFound):
            store.publication(7)
        with pytest.raises(NotFound):
            store.propose(size_policy(1), ANNA, parent_version=7)
        assert store.current_publication() is None
        assert store.current_serial() == 0

    def test_an_open_policy_is_not_proposed_twice(self, store: VersionStore) -> None:
        version = store.propose(size_policy(1), ANNA)
        with pytest.raises(Conflict):
            store.propose(size_policy(1), BEN)
        store.move(version, State.REJECTED, BEN, "no")
        assert store.propose(size_policy(1), BEN) == 2

    def test_the_proposer_can_not_approve(self, store: VersionStore) -> None:
        version = store.propose(size_policy(1), ANNA)
        store.move(version, State.GATE_PASSED, GATE, "ok")
        store.move(version, State.IN_REVIEW, GATE, "review")
        with pytest.raises(Refused):
            store.move(
                version, State.APPROVED, Actor.parse("person: ANNA "), "mine", review_cycle=1
            )
        assert store.get(version).state is State.IN_REVIEW

    def test_a_stale_approval_does_not_land(self, store: VersionStore) -> None:
        version = store.propose(size_policy(1), ANNA)
        for _ in range(2):
            store.move(version, State.GATE_PASSED, GATE, "ok")
            store.move(version, State.IN_REVIEW, GATE, "review")
            if store.get(version).review_cycle == 1:
                store.move(version, State.PROPOSED, BEN, "look at last week's sessions too")
        for cycle in (None, 1, 3):
            with pytest.raises(Conflict):
                store.move(version, State.APPROVED, BEN, "fine", review_cycle=cycle)
        store.move(version, State.APPROVED, BEN, "fine", review_cycle=2)
        assert store.get(version).state is State.APPROVED

    def test_one_active_version_per_channel(self, store: VersionStore) -> None:
        first, second = (approve(store, size_policy(size)) for size in (1, 2))
        store.move(first, State.ACTIVE, BEN, "go")
        with pytest.raises(Conflict):
            store.move(second, State.ACTIVE, BEN, "go too")
        elsewhere = store.propose(size_policy(2), ANNA, channel="beta")
        assert store.get(elsewhere).channel == "beta"

    def test_one_canary_per_channel_even_paused(self, store: VersionStore) -> None:
        first, second = (approve(store, size_policy(size)) for size in (1, 2))
        store.move(first, State.CANARY, ROLLOUT, "go")
        store.move(first, State.PAUSED, ROLLOUT, "no telemetry")
        with pytest.raises(Conflict):
            store.move(second, State.CANARY, ROLLOUT, "go too")
        store.move(first, State.CANARY, ROLLOUT, "telemetry is back")
        assert store.canary_version() == store.get(first)

    @pytest.mark.parametrize(("taken", "also"), [("active", "active"), ("canary", "paused")])
    def test_the_database_itself_refuses_a_second_one(
        self, store: VersionStore, engine: Engine, taken: str, also: str
    ) -> None:
        first, second = (store.propose(size_policy(size), ANNA) for size in (1, 2))
        change = update(policy_versions)
        with engine.begin() as connection:
            connection.execute(change.where(policy_versions.c.version == first).values(state=taken))
        with engine.connect() as connection, pytest.raises(IntegrityError):
            connection.execute(change.where(policy_versions.c.version == second).values(state=also))

    def test_publish_makes_its_moves_in_the_same_transaction(self, store: VersionStore) -> None:
        store.install_baseline()
        version = approve(store, size_policy(1))
        published = store.publish(
            "prod",
            [("canary", 500, version), ("stable", 9_000, 1), ("control", 500, 1)],
            salt="r1",
            rollout_id="r1",
            actor=ROLLOUT,
            reason="stage 1",
            moves=[Move(version, State.CANARY, "stage 1", {"stage": 1})],
            expected_serial=1,
        )
        assert published.serial == 2
        assert store.get(version).state is State.CANARY
        assert store.current_publication() == store.publication(2)
        assert store.publication(2).publication == published
        promoted = store.publish(
            "prod",
            [("stable", 10_000, version)],
            salt="r1",
            actor=ROLLOUT,
            reason="promoted",
            moves=[
                Move(version, State.ACTIVE, "promoted"),
                Move(1, State.SUPERSEDED, "replaced"),
            ],
        )
        assert promoted.serial == 3
        assert store.active_version() == store.get(version)
        assert [record.publication.serial for record in store.publications()] == [1, 2, 3]
        assert store.publication(2).publication.arms[0].weight == 500

    def test_a_publication_that_fails_moves_nothing(self, store: VersionStore) -> None:
        store.install_baseline()
        version = approve(store, size_policy(1))
        before = (store.transitions(), store.publications())
        with pytest.raises(BadInput):
            store.publish(
                "prod",
                [("canary", 500, version)],
                salt="r1",
                actor=ROLLOUT,
                reason="stage 1",
                moves=[Move(version, State.CANARY, "stage 1")],
            )
        assert (store.transitions(), store.publications()) == before
        assert store.get(version).state is State.APPROVED

    @pytest.mark.parametrize(
        "arms",
        [
            [],
            [("a", 10_001, 1)],
            [("a", -1, 1), ("b", 10_001, 1)],
            [("a", 5_000, 1), ("a", 5_000, 1)],
            [("", 10_000, 1)],
            [("a\r\nset-cookie: x", 10_000, 1)],
        ],
    )
    def test_arms_that_can_not_be_served_are_refused(
        self, store: VersionStore, arms: list[tuple[str, int, int]]
    ) -> None:
        store.install_baseline()
        with pytest.raises(BadInput):
            store.publish("prod", arms, salt="s", actor=BEN, reason="try")

    def test_what_is_not_approved_is_not_published(self, store: VersionStore) -> None:
        proposed = store.propose(size_policy(1), ANNA)
        with pytest.raises(Refused):
            store.publish("prod", [("stable", 10_000, proposed)], salt="s", actor=BEN, reason="x")
        rolled_back = approve(store, size_policy(2))
        store.move(rolled_back, State.CANARY, ROLLOUT, "go")
        store.move(rolled_back, State.ROLLED_BACK, ROLLOUT, "worse")
        with pytest.raises(Refused):
            store.publish("prod", [("x", 10_000, rolled_back)], salt="s", actor=BEN, reason="x")

    def test_the_baseline_is_installed_once(self, store: VersionStore) -> None:
        first = store.install_baseline()
        assert store.install_baseline() == first
        assert first.arms[0].policy.models() == ()
        assert store.active_version() == store.get(1)
        installer = Actor.parse("installation:x")
        other = store.propose(size_policy(5), ANNA)
        with pytest.raises(Refused):
            store.move(other, State.ACTIVE, installer, "sneak in")
        quiet = store.propose(RoutingPolicy(name="quiet", rules=()), ANNA, channel="prod")
        with pytest.raises((Refused, Conflict)):
            store.move(quiet, State.ACTIVE, installer, "a second time")

    def test_a_publication_is_renewed_before_it_expires(self, engine: Engine) -> None:
        now = [0]
        store = VersionStore(engine, now_us=lambda: now[0])
        first = store.install_baseline(not_after_seconds=100)
        assert store.renew("prod", ROLLOUT, not_after_seconds=100) is None
        now[0] = 50_000_000
        renewed = store.renew("prod", ROLLOUT, not_after_seconds=100)
        assert renewed is not None
        assert (renewed.serial, renewed.not_after_us) == (2, 150_000_000)
        assert (renewed.arms, renewed.salt) == (first.arms, first.salt)
        assert store.renew("beta", ROLLOUT) is None

    def test_the_chain_verifies_and_finds_every_alteration(
        self, store: VersionStore, engine: Engine
    ) -> None:
        activate(store, size_policy(1))
        activate(store, size_policy(2))
        assert store.verify_chain() == len(store.transitions()) + 2
        for change in (
            "UPDATE policy_transitions SET actor = 'person:eve' WHERE sequence = 3",
            "UPDATE policy_transitions SET at_us = at_us + 1 WHERE sequence = 1",
            "UPDATE policy_transitions SET evidence = '{}', reason = 'x' WHERE sequence = 2",
            "UPDATE policy_transitions SET to_state = 'approved' WHERE sequence = 2",
            "DELETE FROM policy_transitions WHERE sequence = 4",
            "DELETE FROM policy_transitions WHERE sequence = 11",
            "UPDATE policy_versions SET state = 'approved' WHERE version = 2",
            "UPDATE policy_versions SET document = replace(document, 'haiku', 'opus')",
            "UPDATE publications SET payload = replace(payload, '10000', '10001')",
            "UPDATE publications SET reason = 'another' WHERE serial = 1",
            "DELETE FROM publications WHERE serial = 1",
        ):
            connection = engine.connect()
            with connection, connection.begin() as undone:
                connection.execute(text(change))
                with pytest.raises(Corrupt):
                    VersionStore.check(connection)
                undone.rollback()
        assert store.verify_chain() > 0

    def test_every_move_is_recorded_with_who_and_why(self, store: VersionStore) -> None:
        version = approve(store, size_policy(1))
        moves = store.transitions(version)
        assert [move.to_state for move in moves] == [
            State.PROPOSED,
            State.GATE_PASSED,
            State.IN_REVIEW,
            State.APPROVED,
        ]
        assert moves[0].from_state is None
        assert moves[0].evidence["policy_digest"] == size_policy(1).digest
        assert (moves[3].actor, moves[3].reason, moves[3].review_cycle) == (BEN, "looked at", 1)
        with pytest.raises(BadInput):
            store.move(version, State.CANARY, ROLLOUT, "  ")

    def test_of_two_publishers_that_saw_the_same_one_wins(self, store: VersionStore) -> None:
        store.install_baseline()
        versions = [approve(store, size_policy(size)) for size in range(1, 7)]
        ready = threading.Barrier(len(versions))

        def attempt(version: int) -> int | None:
            ready.wait()
            try:
                return store.publish(
                    "prod",
                    [("canary", 500, version), ("stable", 9_500, 1)],
                    salt="s",
                    actor=ROLLOUT,
                    reason="mine",
                    moves=[Move(version, State.CANARY, "mine")],
                    expected_serial=1,
                ).serial
            except Conflict:
                return None

        with ThreadPoolExecutor(len(versions)) as pool:
            won = [serial for serial in pool.map(attempt, versions) if serial is not None]
        assert won == [2]
        assert store.canary_version() is not None
        assert store.verify_chain() > 0

    def test_serials_rise_strictly_under_concurrency(self, store: VersionStore) -> None:
        store.install_baseline()

        def publish(_: int) -> int:
            arms = [("stable", 10_000, 1)]
            return store.publish("prod", arms, salt="s", actor=BEN, reason="again").serial

        with ThreadPoolExecutor(6) as pool:
            serials = list(pool.map(publish, range(24)))
        assert sorted(serials) == list(range(2, 26))
        assert store.verify_chain() > 0

    def test_acknowledgements_say_who_is_where(self, store: VersionStore) -> None:
        store.record_ack("edge-1", 3, "applied", at_us=10, gateway="edge")
        store.record_ack("edge-2", 3, "applied", at_us=10)
        store.record_ack("edge-2", 4, "rejected", "bad signature", at_us=20)
        store.record_ack("edge-1", 4, "applied", at_us=30)
        store.record_ack("edge-1", 3, "applied", at_us=25)  # late
        store.record_ack("beta-1", 9, "applied", at_us=30, channel="beta")
        store.record_seen("edge-3")
        first, second, third = store.acknowledgements()
        assert (first.instance, first.applied_serial, first.last_serial) == ("edge-1", 4, 4)
        assert first.has_applied(4)
        assert (second.applied_serial, second.last_serial) == (3, 4)
        assert (second.last_status, second.last_error) == ("rejected", "bad signature")
        assert (third.instance, third.applied_serial) == ("edge-3", 0)
        with pytest.raises(BadInput):
            store.record_ack("edge-1", 4, "maybe")  # type: ignore[arg-type]

    def test_listeners_hear_of_every_publication(self, store: VersionStore) -> None:
        heard: list[int] = []
        store.subscribe(lambda publication: heard.append(publication.serial))
        store.install_baseline()
        activate(store, size_policy(1))
        assert heard == [1, 2]
