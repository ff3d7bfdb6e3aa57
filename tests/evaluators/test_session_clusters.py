from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import adjusted_rand_score

from evaluators.session_clusters import (
    FEWEST_SESSIONS,
    LOW_QUALITY,
    Clustering,
    ProfiledSession,
    cluster_sessions,
)
from evaluators.session_features import (
    FEATURE_NAMES,
    MOST_WORDS,
    PROFILE_VERSION,
    profile_session,
    read_features,
    read_words,
)
from evaluators.testing import traces
from loop.domain.clusters import SessionProfile
from loop.domain.turns import SessionTrace
from tests.evaluators.known_modes import NOISE, KnownModes
from tests.evaluators.scored_sessions import MODES, make_fleet, make_session
from tests.evaluators.traces import session, tool

FLEET = make_fleet(25, good=60)
CLUSTERING = cluster_sessions(FLEET, seed=3)
CLUSTERS = CLUSTERING.clusters


def mode_of(session_id: str) -> str:
    return session_id.split("-", 1)[0]


def test_known_modes_of_real_scores_are_found_again() -> None:
    truth, found = [], []
    for cluster in CLUSTERS:
        for session_id in cluster.session_ids:
            truth.append(mode_of(session_id))
            found.append(cluster.cluster_id)
    assert Counter(truth) == dict.fromkeys(MODES, 25)
    assert adjusted_rand_score(truth, found) >= 0.95


def test_nine_modes_in_noise_are_found_and_the_noise_set_apart() -> None:
    """The bars are those of k-means with the true k on such data: 0.98, and 0.96 for stability."""
    sessions, truth = KnownModes().make(1_500, good=100, seed=5)
    found = cluster_sessions(sessions, seed=1)
    place = {i: n for n, cluster in enumerate(found.clusters) for i in cluster.session_ids}
    names = sorted(truth)
    modes = np.array([truth[name] for name in names])
    labels = np.array([place[name] for name in names])
    in_mode = modes != NOISE
    assert adjusted_rand_score(modes[in_mode], labels[in_mode]) >= 0.98
    assert found.agreement is not None
    assert found.agreement >= 0.96
    assert found.clusters[-1].kind == "outliers"
    apart = labels == len(found.clusters) - 1
    assert (~in_mode)[apart].mean() >= 0.9
    assert apart[~in_mode].mean() >= 0.9
    groups = [cluster for cluster in found.clusters if cluster.kind == "group"]
    assert len(groups) == 9
    for cluster in groups:
        assert cluster.stability is not None
        assert cluster.stability >= 0.9
        # A mode's words are its own, and no other cluster's are among its terms.
        (group,) = {term[1] for term in cluster.terms[:5]}
        assert group in "abcdefghi"
    assert found.clusters[-1].stability is None
    assert found.clusters[-1].label.startswith("like nothing else")


def test_noise_that_gathers_in_a_cluster_of_its_own_is_set_apart() -> None:
    modes = KnownModes(own_words=3, common_words=25, wobble=0.3)
    sessions, truth = modes.make(1_200, seed=2)
    found = cluster_sessions(sessions, seed=1)
    *groups, outliers = found.clusters
    assert outliers.kind == "outliers"
    apart = [truth[name] for name in outliers.session_ids]
    noise = sum(mode == NOISE for mode in truth.values())
    assert apart.count(NOISE) > 0.5 * noise
    assert apart.count(NOISE) > 0.9 * len(apart)
    place = {name: number for number, c in enumerate(groups) for name in c.session_ids}
    known = [name for name, mode in truth.items() if mode != NOISE and name in place]
    assert adjusted_rand_score([truth[n] for n in known], [place[n] for n in known]) > 0.95


def test_clusters_say_what_sets_them_apart() -> None:
    by_mode = {mode_of(cluster.session_ids[0]): cluster for cluster in CLUSTERS}
    assert "claims contradicted" in by_mode["unfaithful"].label
    assert "repeated calls" in by_mode["looping"].label
    assert "edits thrown away" in by_mode["corrected"].label
    assert "rejected calls" in by_mode["rejected"].label
    labels = {cluster.label for cluster in CLUSTERS}
    for cluster in CLUSTERS:
        assert set(cluster.exemplars) <= set(cluster.session_ids)
        assert len(cluster.exemplars) == 3
        assert cluster.mean_score < LOW_QUALITY
        assert any(f"unlike “{label}”" in cluster.contrast for label in labels - {cluster.label})
        for feature in cluster.features:
            assert feature.name in FEATURE_NAMES
            assert 0.0 <= feature.cluster_mean <= 1.0
            assert 0.0 <= feature.overall_mean <= 1.0


def test_costs_add_up_and_clusters_rank_by_what_was_lost() -> None:
    of = {item.session_id: item for item in FLEET}
    total = sum(item.cost_microusd for item in FLEET)
    for cluster in CLUSTERS:
        members = [of[name] for name in cluster.session_ids]
        assert cluster.cost_microusd == sum(item.cost_microusd for item in members)
        assert cluster.cost_share == pytest.approx(cluster.cost_microusd / total)
        lost = sum((1 - (item.quality or 0.0)) * item.cost_microusd for item in members)
        assert cluster.lost_cost_microusd == round(lost)
    losses = [cluster.lost_cost_microusd for cluster in CLUSTERS]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) > 1


def test_a_small_dear_cluster_ranks_above_a_large_cheap_one() -> None:
    dear = [
        replace(item, cost_microusd=10**9) if mode_of(item.session_id) == "corrected" else item
        for item in FLEET
        if mode_of(item.session_id) != "corrected" or item.session_id < "corrected-00006"
    ]
    first = cluster_sessions(dear, seed=3).clusters[0]
    assert {mode_of(name) for name in first.session_ids} == {"corrected"}
    assert len(first.session_ids) == 6


def test_the_order_of_the_sessions_makes_no_difference() -> None:
    shuffled = random.Random(1).sample(FLEET, len(FLEET))
    assert cluster_sessions(shuffled, seed=3) == CLUSTERING


def test_unscored_sessions_are_counted_and_change_nothing() -> None:
    unscored = [replace(item, quality=None) for item in make_fleet(1, good=2, seed=9)]
    renamed = [
        replace(item, profile=replace(item.profile, session_id=f"u{n}"))
        for n, item in enumerate(unscored)
    ]
    found = cluster_sessions([*FLEET, *renamed], seed=3)
    assert found.unscored == len(renamed)
    assert replace(found, unscored=0) == CLUSTERING


def test_ids_stay_when_sessions_come_and_go() -> None:
    generator = random.Random(7)
    newer = [s for s in FLEET if not s.session_id.endswith(("-00000", "-00007"))]
    newer += [make_session(mode, n, generator) for mode in MODES for n in range(100, 108)]
    again = cluster_sessions(newer, previous=CLUSTERS, seed=4, clustered_at_us=9)
    before = {mode_of(c.session_ids[0]): c.cluster_id for c in CLUSTERS}
    after = {mode_of(c.session_ids[0]): c.cluster_id for c in again.clusters}
    assert after == before
    assert {c.state for c in again.clusters} == {"stable"}
    assert again.gone == ()
    left = [s for s in newer if mode_of(s.session_id) != "looping"]
    last = cluster_sessions(left, previous=again.clusters, seed=4)
    assert [c.cluster_id for c in last.gone] == [before["looping"]]


def test_lifts_tell_the_repository_and_the_loss_with_intervals() -> None:
    placed = [
        replace(item, repository="shop" if mode_of(item.session_id) == "looping" else "site")
        for item in FLEET
    ]
    clusters = cluster_sessions(placed, seed=3).clusters
    looping = next(c for c in clusters if mode_of(c.session_ids[0]) == "looping")
    lifts = {(lift.kind, lift.name): lift for lift in looping.lifts}
    shop = lifts["repository", "shop"]
    assert shop.cluster_share == 1.0
    assert shop.overall_share == pytest.approx(25 / 160)
    assert shop.lift == pytest.approx(160 / 25)
    assert shop.low < shop.lift < shop.high
    assert ("repository", "site") not in lifts
    assert looping.lifts[0].kind == "loss"
    assert looping.lifts[0].low > 1.0


def lift_of_half(generator: np.random.Generator) -> tuple[float, float]:
    """A cluster of 60 with the trait at 0.5, among 300 with it at 0.25; its lift's interval."""
    sessions = []
    for number in range(300):
        is_low = number < 60
        repository = "a" if generator.random() < (0.5 if is_low else 0.1875) else "b"
        profile = SessionProfile(f"s{number}", PROFILE_VERSION, 0, ())
        sessions.append(ProfiledSession(profile, 0.1 if is_low else 0.9, 5, repository=repository))
    (cluster,) = cluster_sessions(sessions, seed=2).clusters
    lift = next(lift for lift in cluster.lifts if lift.name == "a")
    return lift.low, lift.high


def test_intervals_cover_the_true_lift_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(11)
    intervals = [lift_of_half(generator) for _ in range(60)]
    covered = sum(low <= 2.0 <= high for low, high in intervals)
    assert covered >= 51  # 57 expected; fewer than 51 has a chance of 0.5 %


def test_few_low_sessions_make_one_cluster_that_says_so() -> None:
    (cluster,) = cluster_sessions(make_fleet(1, good=5)).clusters
    assert len(cluster.session_ids) == len(MODES) < FEWEST_SESSIONS
    assert cluster.label.startswith(f"too few to split ({len(MODES)})")


def test_no_low_session_makes_no_cluster() -> None:
    assert cluster_sessions([]) == Clustering([], 0, 0, 0)
    assert cluster_sessions(make_fleet(0, good=20)).clusters == []
    gone = cluster_sessions(make_fleet(0, good=20), previous=CLUSTERS).gone
    assert gone == tuple(CLUSTERS)


def test_equal_sessions_make_one_cluster() -> None:
    base = make_session("looping", 0, random.Random(0))
    same = [replace(base, profile=replace(base.profile, session_id=f"s{n}")) for n in range(20)]
    (cluster,) = cluster_sessions(same).clusters
    assert len(cluster.session_ids) == 20


def test_profiles_hold_no_secret_and_labels_no_escape() -> None:
    key = "sk-ant-api03-AbCdEfGhIjKlMnOpQrStUvWxYz"
    asked = f"\x1b[31m Use {key} and deadbeefcafebabedeadbeefcafebabe in /srv/secret/place.py"
    built = session(tool("t1", "Bash", "pytest", False), claim="All tests pass.", asked=asked)
    words = set(profile_session(built, ()).words)
    assert {"use", "and"} <= words
    assert not {word for word in words if word in key.lower() or word in ("secret", "place")} - {
        "use"
    }
    for cluster in CLUSTERS:
        assert cluster.label.isprintable()


def test_a_profile_names_languages_and_keeps_each_word_once() -> None:
    built = session(
        tool("t1", "Edit", "/srv/shop/a.py"),
        tool("t2", "Edit", "/srv/shop/web/b.tsx"),
        tool("t3", "Edit", "/srv/shop/NOTES"),
        claim="Done.",
        asked="fix fix fix "
        + " ".join(f"{a}{b}word" for a in "abcdefghijkl" for b in "mnopqrstuvw"),
    )
    profile = profile_session(built, ())
    assert profile.languages == ("Python", "TypeScript")
    assert profile.words[0] == "fix"
    assert len(profile.words) == len(set(profile.words)) == MOST_WORDS


@settings(max_examples=60, deadline=None)
@given(trace=traces())
def test_features_are_shares(trace: SessionTrace) -> None:
    from evaluators import default_evaluators

    scores = tuple(evaluator.evaluate(trace) for evaluator in default_evaluators())
    features = read_features(trace, scores)
    assert tuple(features) == FEATURE_NAMES
    assert all(0.0 <= value <= 1.0 for value in features.values())
    assert set(profile_session(trace, scores).words) <= set(read_words(trace, scores))
