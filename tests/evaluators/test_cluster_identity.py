from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from evaluators.cluster_identity import digest_members, match_ids
from evaluators.cluster_names import ClusterBrief, brief_of, name_clusters
from loop.domain.clusters import ClusterFeature, ClusterKind, NamedShare, SessionCluster
from loop.domain.errors import Unavailable


def cluster_of(
    cluster_id: str, members: str, kind: ClusterKind = "group", **centre: float
) -> SessionCluster:
    """A cluster of sessions with one-letter names."""
    shares = tuple(NamedShare(name, value) for name, value in centre.items())
    return SessionCluster(
        cluster_id, "", tuple(members), 0.1, 0, 0.0, (), (), kind=kind, centre=shares
    )


def outcome(previous: list[SessionCluster], new: list[SessionCluster]) -> list[tuple[str, ...]]:
    return [(c.cluster_id, c.state, *c.parents) for c in match_ids(previous, new)]


def test_matching_compares_shared_sessions_only() -> None:
    previous = [cluster_of("old-a", "123"), cluster_of("old-b", "45g")]
    new = [cluster_of("x", "45mn"), cluster_of("y", "123")]
    assert outcome(previous, new) == [("old-b", "stable"), ("old-a", "stable")]


def test_a_cluster_that_falls_apart_leaves_two_that_name_it() -> None:
    previous = [cluster_of("old", "1234")]
    new = [cluster_of("x", "12"), cluster_of("y", "34")]
    assert outcome(previous, new) == [("x", "split", "old"), ("y", "split", "old")]


def test_a_part_that_leaves_a_cluster_names_it_and_the_rest_goes_on() -> None:
    previous = [cluster_of("old", "123456")]
    new = [cluster_of("x", "1234"), cluster_of("y", "56")]
    assert outcome(previous, new) == [("old", "stable"), ("y", "split", "old")]


def test_clusters_that_join_are_named_by_what_they_became() -> None:
    previous = [cluster_of("a", "12"), cluster_of("b", "34")]
    assert outcome(previous, [cluster_of("x", "1234")]) == [("x", "merged", "a", "b")]
    large = [cluster_of("a", "12345"), cluster_of("b", "67")]
    assert outcome(large, [cluster_of("x", "1234567")]) == [("a", "merged", "b")]


def test_outliers_are_no_ones_parent_and_go_on_as_outliers_only() -> None:
    previous = [cluster_of("o", "123", "outliers"), cluster_of("a", "456")]
    new = [cluster_of("x", "123"), cluster_of("y", "456", "outliers")]
    assert outcome(previous, new) == [("x", "new"), ("y", "new")]
    assert outcome(previous, [cluster_of("z", "12", "outliers")]) == [("o", "stable")]


def test_without_shared_sessions_the_centres_decide() -> None:
    previous = [cluster_of("a", "12", loops=0.9, fails=0.1), cluster_of("b", "34", lies=1.0)]
    new = [cluster_of("x", "56", lies=0.8), cluster_of("y", "78", loops=0.5, fails=0.5)]
    assert outcome(previous, new) == [("b", "stable"), ("y", "new")]
    assert outcome([], new) == [("x", "new"), ("y", "new")]


def test_the_id_of_one_that_is_gone_is_not_given_again() -> None:
    assert digest_members(["a", "b"], 1) != digest_members(["a", "b"], 2)
    assert digest_members(["a", "b"], 1) == digest_members(["b", "a"], 1)


@given(
    st.lists(st.integers(0, 3), min_size=4, max_size=12),
    st.lists(st.integers(0, 3), min_size=4, max_size=12),
)
def test_matched_ids_are_unique_and_every_cluster_stays(before: list[int], now: list[int]) -> None:
    def clusters(labels: list[int], prefix: str) -> list[SessionCluster]:
        groups = sorted(set(labels))
        return [
            cluster_of(f"{prefix}{g}", "".join(chr(97 + i) for i, x in enumerate(labels) if x == g))
            for g in groups
        ]

    previous, new = clusters(before, "c"), clusters(now, "c")
    matched = match_ids(previous, new)
    assert [c.session_ids for c in matched] == [c.session_ids for c in new]
    assert len({c.cluster_id for c in matched}) == len(matched)
    known = {c.cluster_id for c in previous}
    for cluster in matched:
        assert set(cluster.parents) <= known - {cluster.cluster_id}
        assert (cluster.state == "stable") <= (cluster.cluster_id in known)


class FakeNamer:
    """Answers from a list; an exception in it is raised."""

    def __init__(self, *answers: str | Exception, identity: str = "model-1/prompt-1") -> None:
        self.identity = identity
        self.answers = list(answers)
        self.seen: list[ClusterBrief] = []

    def name(self, brief: ClusterBrief) -> str:
        self.seen.append(brief)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def described(cluster_id: str, members: str) -> SessionCluster:
    features = (ClusterFeature("repeated calls", 0.8, 0.1), ClusterFeature("edit share", 0, 0.4))
    return replace(cluster_of(cluster_id, members), label="loops", features=features)


def test_a_name_is_marked_with_its_giver_and_kept_with_the_id() -> None:
    clusters = [described("a", "abcdef"), described("b", "ghijkl")]
    namer = FakeNamer("Searches that\n find nothing", Unavailable("The model does not answer."))
    found = name_clusters(clusters, namer)
    assert (found.named, found.failed) == (1, 1)
    named, unnamed = found.clusters
    assert (named.name, named.named_by) == ("Searches that find nothing", namer.identity)
    assert (unnamed.name, unnamed.named_by) == ("", "")
    assert namer.seen[0].raised == (("repeated calls", 0.8, 0.1),)
    later = match_ids(found.clusters, [described("x", "abcdefg")])
    assert (later[0].cluster_id, later[0].name) == ("a", "Searches that find nothing")
    again = FakeNamer()
    assert name_clusters(later, again).clusters == later
    assert again.seen == []
    other = FakeNamer("Fruitless searches", identity="model-2/prompt-1")
    assert name_clusters(later, other).clusters[0].name == "Fruitless searches"


def test_a_namer_sees_no_id_and_no_small_cluster_and_may_not_ramble() -> None:
    small = described("a", "abcd")
    assert name_clusters([small], FakeNamer()).clusters == [small]
    apart = replace(described("a", "abcdefg"), kind="outliers")
    assert name_clusters([apart], FakeNamer()).clusters == [apart]
    large = described("secret-id", "abcdefg")
    for answer in ("", "x" * 61, "red \x1b[31m"):
        assert name_clusters([large], FakeNamer(answer)).failed == 1
    assert "secret-id" not in repr(brief_of(large))
