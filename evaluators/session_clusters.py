"""Clusters of low-scoring sessions: what goes wrong alike, what it costs, and what it hangs on.

The low-scoring sessions of a window become points (:mod:`evaluators.cluster_points`), points
clusters and outliers (:mod:`evaluators.cluster_choice`), clusters get words, lifts with intervals
against all scored sessions, a check against policy versions, and the ids of the run before
(:mod:`evaluators.cluster_identity`). Deterministic under a seed; nothing outside is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluators.cluster_choice import OUTLIER, choose_clusters, one_cluster
from evaluators.cluster_identity import digest_members, match_ids
from evaluators.cluster_lifts import Trait, measure_lifts
from evaluators.cluster_points import Integers, Matrix, feature_matrix, place_points, word_matrix
from evaluators.cluster_words import find_features, find_terms, write_contrast, write_label
from evaluators.policy_contrast import Routed, check_policies
from evaluators.session_features import FEATURE_NAMES
from loop.domain.clusters import ClusterLift, NamedShare, SessionCluster, SessionProfile

LOW_QUALITY = 0.7  # sessions below this are clustered
FEWEST_SESSIONS = 8  # with fewer low-scoring sessions there is one group, and its label says so
EXEMPLARS = 3
_MOST_VALUES = 40  # of a trait such as the repository: the most frequent are looked at
UNATTRIBUTED = ("", "unattributed")


@dataclass(frozen=True, slots=True)
class ProfiledSession:
    """A session's profile with what is known of it today.

    ``quality`` is ``None`` for a session that could not be scored. ``cost_microusd`` is 0 where
    unpriced. ``routed`` is ``None`` where no policy did.
    """

    profile: SessionProfile
    quality: float | None
    cost_microusd: int = 0
    repository: str = ""
    model: str = ""
    routed: Routed | None = None

    @property
    def session_id(self) -> str:
        return self.profile.session_id


@dataclass(frozen=True, slots=True)
class Clustering:
    """The clusters of one run, those that lose the most first, outliers last.

    ``agreement`` is the mean adjusted Rand index between random samples under the number of
    clusters chosen, ``None`` where there is one. ``gone`` are clusters of the run before that no
    cluster goes on.
    """

    clusters: list[SessionCluster]
    low: int
    scored: int
    unscored: int
    agreement: float | None = None
    gone: tuple[SessionCluster, ...] = ()


def cluster_sessions(
    sessions: Sequence[ProfiledSession],
    *,
    previous: Sequence[SessionCluster] = (),
    seed: int = 0,
    below: float = LOW_QUALITY,
    clustered_at_us: int = 0,
) -> Clustering:
    """The low-scoring of ``sessions`` in clusters.

    Those with ``below`` or more serve as the background; those without a quality are counted and
    not looked at. Fewer than ``FEWEST_SESSIONS`` low ones make one cluster whose label says that
    they are few; none make none. ``cost_share`` is of the cost of all scored sessions.
    """
    scored = sorted((s for s in sessions if s.quality is not None), key=lambda s: s.session_id)
    quality = np.array([s.quality for s in scored], dtype=np.float64)
    low = np.flatnonzero(quality < below)
    counts = (len(low), len(scored), len(sessions) - len(scored))
    if not len(low):
        return Clustering([], *counts, gone=tuple(previous))
    window = _Window(scored, quality, low, seed)
    clusters = match_ids(previous, window.describe(clustered_at_us))
    clusters.sort(key=_rank)
    kept = {cluster.cluster_id for cluster in clusters}
    gone = tuple(cluster for cluster in previous if cluster.cluster_id not in kept)
    return Clustering(clusters, *counts, agreement=window.choice.agreement, gone=gone)


def _rank(cluster: SessionCluster) -> tuple[bool, int, int, str]:
    """What was lost first: lost quality times spend, not size."""
    lost, size = cluster.lost_cost_microusd, len(cluster.session_ids)
    return cluster.kind == "outliers", -lost, -size, cluster.cluster_id


class _Window:
    """The scored sessions of one run by their columns, the low ones as points in clusters."""

    def __init__(
        self, scored: Sequence[ProfiledSession], quality: Matrix, low: Integers, seed: int
    ) -> None:
        self.scored, self.quality, self.low, self.seed = scored, quality, low, seed
        self.cost = np.array([s.cost_microusd for s in scored], dtype=np.float64)
        self.features = feature_matrix([s.profile for s in scored])
        self.words, self.terms = word_matrix([scored[row].profile for row in low])
        points = place_points(self.features[low], self.words, seed)
        self.is_few = len(low) < FEWEST_SESSIONS
        self.choice = one_cluster(points) if self.is_few else choose_clusters(points, seed)
        # Outliers are described as the groups are, under the number after the last.
        found = self.choice.labels
        self.groups = int(found.max()) + 1
        self.numbers = np.where(found == OUTLIER, self.groups, found)

    def describe(self, clustered_at_us: int) -> list[SessionCluster]:
        """The clusters with ids of their own, in order of their numbers."""
        rows = [
            self.low[self._by_distance(number)] for number in range(int(self.numbers.max()) + 1)
        ]
        terms = find_terms(self.words, self.terms, self.numbers)
        means = np.vstack([self.features[members].mean(axis=0) for members in rows])
        background, spread = self.features.mean(axis=0), self.features.std(axis=0)
        labels = [
            write_label(find_features(mean, background, spread), its_terms, self._prefix(number))
            for number, (mean, its_terms) in enumerate(zip(means, terms, strict=True))
        ]
        lifts = self._lifts(rows)
        checks = check_policies([s.routed for s in self.scored], rows)
        total_cost = float(self.cost.sum())
        clusters = []
        for number, members in enumerate(rows):
            ids = [self.scored[row].session_id for row in members]
            cost = sum(self.scored[row].cost_microusd for row in members)
            is_group = number < self.groups
            clusters.append(
                SessionCluster(
                    cluster_id=digest_members(ids, clustered_at_us),
                    label=labels[number],
                    session_ids=tuple(sorted(ids)),
                    mean_score=float(self.quality[members].mean()),
                    cost_microusd=cost,
                    cost_share=cost / total_cost if total_cost else 0.0,
                    features=tuple(find_features(means[number], background, spread)),
                    exemplars=tuple(ids[:EXEMPLARS]),
                    clustered_at_us=clustered_at_us,
                    kind="group" if is_group else "outliers",
                    lost_cost_microusd=round(
                        float(((1.0 - self.quality[members]) * self.cost[members]).sum())
                    ),
                    stability=self.choice.stability[number] if is_group else None,
                    terms=tuple(terms[number]),
                    contrast=self._contrast(number, means, terms, labels),
                    lifts=tuple(lifts[number]),
                    policy_check=checks[number],
                    centre=tuple(
                        NamedShare(name, round(float(value), 6))
                        for name, value in zip(FEATURE_NAMES, means[number], strict=True)
                        if value > 0
                    ),
                )
            )
        return clusters

    def _by_distance(self, number: int) -> Integers:
        """Places among the low ones of a cluster's sessions, nearest to the centre first."""
        members = np.flatnonzero(self.numbers == number)
        distances = np.round(self.choice.distances[members], 9)
        return np.asarray(members[np.lexsort((members, distances))], dtype=np.intp)

    def _prefix(self, number: int) -> str:
        if self.is_few:
            return f"too few to split ({len(self.low)})"
        return "like nothing else" if number == self.groups else ""

    def _contrast(
        self, number: int, means: Matrix, terms: list[list[str]], labels: list[str]
    ) -> str:
        """Against the nearest group, for groups that have one."""
        others = [other for other in range(self.groups) if other != number]
        if not others or number == self.groups:
            return ""
        gaps = [float(np.linalg.norm(means[number] - means[other])) for other in others]
        other = others[int(np.argmin(gaps))]
        return write_contrast(
            means[number], terms[number], means[other], terms[other], labels[other]
        )

    def _lifts(self, rows: Sequence[Integers]) -> list[list[ClusterLift]]:
        numbers = np.full(len(self.scored), OUTLIER, dtype=np.intp)
        for number, members in enumerate(rows):
            numbers[members] = number
        traits = [Trait("feature", name) for name in FEATURE_NAMES]
        columns = [self.features]
        for kind, values in (
            ("repository", [(s.repository,) for s in self.scored]),
            ("model", [(s.model,) for s in self.scored]),
            ("language", [s.profile.languages for s in self.scored]),
        ):
            names, shares = _indicators(values)
            traits += [Trait(kind, name) for name in names]
            columns.append(shares)
        lost = (1.0 - self.quality) * self.cost
        return measure_lifts(traits, np.hstack(columns), numbers, lost, self.cost, seed=self.seed)


def _indicators(values: Sequence[tuple[str, ...]]) -> tuple[list[str], Matrix]:
    """The most frequent values, and which session has which: 1 or 0."""
    counts = Counter(value for own in values for value in set(own) if value not in UNATTRIBUTED)
    names = sorted(sorted(counts, key=lambda name: (-counts[name], name))[:_MOST_VALUES])
    place = {name: column for column, name in enumerate(names)}
    matrix = np.zeros((len(values), len(names)))
    for row, own in enumerate(values):
        for value in own:
            if value in place:
                matrix[row, place[value]] = 1.0
    return names, matrix
