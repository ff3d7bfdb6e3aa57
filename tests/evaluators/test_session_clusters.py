from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from evaluators.session_clusters import (
    FEWEST_SESSIONS,
    LOW_QUALITY,
    cluster_sessions,
    match_ids,
)
from evaluators.session_features import FEATURE_NAMES, ScoredSession, read_features, read_words
from evaluators.testing import traces
from loop.domain.clusters import SessionCluster
from loop.domain.turns import SessionTrace
from tests.evaluators.scored_sessions import MODES, make_fleet, make_session
from tests.evaluators.traces import session, tool

FLEET = make_fleet(25, good=60)
CLUSTERS = cluster_sessions(FLEET, seed=3)


def mode_of(session_id: str) -> str:
    return session_id.split("-", 1)[0]


def test_known_modes_are_found_again() -> None:
    truth, found = [], []
    for cluster in CLUSTERS:
        for session_id in cluster.session_ids:
            truth.append(mode_of(session_id))
            found.append(cluster.cluster_id)
    assert Counter(truth) == dict.fromkeys(MODES, 25)
    assert adjusted_rand_score(truth, found) >= 0.95


def test_clusters_say_what_sets_them_apart() -> None:
    by_mode = {mode_of(cluster.session_ids[0]): cluster for cluster in CLUSTERS}
    assert "claims contradicted" in by_mode["unfaithful"].label
    assert "repeated calls" in by_mode["looping"].label
    assert "edits thrown away" in by_mode["corrected"].label
    assert "rejected calls" in by_mode["rejected"].label
    for cluster in CLUSTERS:
        assert set(cluster.exemplars) <= set(cluster.session_ids)
        assert len(cluster.exemplars) == 3
        assert cluster.mean_score < LOW_QUALITY
        for feature in cluster.features:
            assert feature.name in FEATURE_NAMES
            assert 0.0 <= feature.cluster_mean <= 1.0
            assert 0.0 <= feature.overall_mean <= 1.0


def test_costs_add_up_to_what_the_sessions_cost() -> None:
    costs = {item.session_id: item.cost_microusd for item in FLEET}
    for cluster in CLUSTERS:
        assert cluster.cost_microusd == sum(costs[i] for i in cluster.session_ids)
        assert cluster.cost_share == pytest.approx(cluster.cost_microusd / sum(costs.values()))


def test_the_order_of_the_sessions_makes_no_difference() -> None:
    shuffled = random.Random(1).sample(FLEET, len(FLEET))
    assert cluster_sessions(shuffled, seed=3) == CLUSTERS


def test_ids_stay_when_sessions_come_and_go() -> None:
    generator = random.Random(7)
    newer = [s for s in FLEET if not s.session_id.endswith(("-00000", "-00007"))]
    newer += [make_session(mode, n, generator) for mode in MODES for n in range(100, 108)]
    again = cluster_sessions(newer, previous=CLUSTERS, seed=4)
    before = {mode_of(c.session_ids[0]): c.cluster_id for c in CLUSTERS}
    after = {mode_of(c.session_ids[0]): c.cluster_id for c in again}
    assert after == before


def test_few_low_sessions_make_one_cluster_that_says_so() -> None:
    few = make_fleet(1, good=5)
    (cluster,) = cluster_sessions(few)
    assert len(cluster.session_ids) == len(MODES) < FEWEST_SESSIONS
    assert cluster.label.startswith(f"too few to split ({len(MODES)})")


def test_no_low_session_makes_no_cluster() -> None:
    assert cluster_sessions([]) == []
    assert cluster_sessions(make_fleet(0, good=20)) == []
    unscored = ScoredSession(SessionTrace("s", ()), ())
    assert cluster_sessions([unscored]) == []


def test_equal_sessions_make_one_cluster() -> None:
    generator = random.Random(0)
    base = make_session("looping", 0, generator)
    same = [
        ScoredSession(SessionTrace(f"s{n}", base.trace.turns), base.scores, 5) for n in range(20)
    ]
    (cluster,) = cluster_sessions(same)
    assert len(cluster.session_ids) == 20


def test_labels_hold_no_secret_and_no_escape() -> None:
    key = "sk-ant-api03-AbCdEfGhIjKlMnOpQrStUvWxYz"
    asked = f"\x1b[31m Use {key} and deadbeefcafebabedeadbeefcafebabe in /srv/secret/place.py"
    built = session(tool("t1", "Bash", "pytest", False), claim="All tests pass.", asked=asked)
    words = read_words(ScoredSession(built, ()))
    assert {"use", "and"} <= set(words)
    assert not {word for word in words if word in key.lower() or word in ("secret", "place")} - {
        "use"
    }
    for cluster in CLUSTERS:
        assert cluster.label.isprintable()


@settings(max_examples=60, deadline=None)
@given(trace=traces(), cost=st.integers(0, 10**12))
def test_features_are_shares(trace: SessionTrace, cost: int) -> None:
    from evaluators import default_evaluators

    scores = tuple(evaluator.evaluate(trace) for evaluator in default_evaluators())
    features = read_features(ScoredSession(trace, scores, cost))
    assert tuple(features) == FEATURE_NAMES
    assert all(0.0 <= value <= 1.0 for value in features.values())


def cluster_of(cluster_id: str, *session_ids: str) -> SessionCluster:
    return SessionCluster(cluster_id, "", session_ids, 0.1, 0, 0.0, (), ())


def test_matching_compares_shared_sessions_only() -> None:
    previous = [cluster_of("old-a", "1", "2", "3"), cluster_of("old-b", "4", "5", "gone")]
    new = [cluster_of("x", "4", "5", "new-1", "new-2"), cluster_of("y", "1", "2", "3")]
    assert [c.cluster_id for c in match_ids(previous, new)] == ["old-b", "old-a"]


def test_a_cluster_that_scatters_gets_a_new_id() -> None:
    previous = [cluster_of("old", "1", "2", "3", "4")]
    new = [cluster_of("x", "1", "2"), cluster_of("y", "3", "4")]
    assert [c.cluster_id for c in match_ids(previous, new)] == ["x", "y"]
    assert match_ids([], new) == new


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=12),
    st.lists(st.integers(0, 3), min_size=4, max_size=12),
)
def test_matched_ids_are_unique_and_every_cluster_stays(before: list[int], now: list[int]) -> None:
    def clusters(labels: list[int], prefix: str) -> list[SessionCluster]:
        groups = sorted(set(labels))
        return [
            cluster_of(f"{prefix}{g}", *[str(i) for i, g2 in enumerate(labels) if g2 == g])
            for g in groups
        ]

    previous, new = clusters(before, "c"), clusters(now, "c")
    matched = match_ids(previous, new)
    assert [c.session_ids for c in matched] == [c.session_ids for c in new]
    assert len({c.cluster_id for c in matched}) == len(matched)
