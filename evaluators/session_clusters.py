"""Clusters of low-scoring sessions: what goes wrong alike, labelled, with exemplars.

Named features and the words of prompts and findings (TF-IDF, TruncatedSVD) go into k-means; k is
the most stable one over random halves of the sessions (mean adjusted Rand index; Ben-Hur,
Elisseeff and Guyon 2002), silhouette breaking ties. Labels are machine-made: the features that
stand out and the class-based TF-IDF terms (Grootendorst 2022). Deterministic under a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer, TfidfTransformer
from sklearn.metrics import adjusted_rand_score, silhouette_score

from evaluators.session_features import (
    CONTEXT_FEATURES,
    FEATURE_NAMES,
    ScoredSession,
    feature_rows,
    read_words,
)
from loop.domain.clusters import ClusterFeature, SessionCluster

LOW_QUALITY = 0.7  # sessions below this are clustered
FEWEST_SESSIONS = 8  # with fewer low-scoring sessions there is one group, and its label says so
MOST_CLUSTERS = 8
FEWEST_PER_CLUSTER = 3
LEAST_STABILITY = 0.5  # below this mean adjusted Rand index no split is offered
STABILITY_ROUNDS = 6
MOST_FITTED = 5_000  # sessions that the centres are fitted on; the others join the nearest
MOST_MEASURED = 1_500  # sessions that k is chosen on
MOST_WORDS = 2_000
TEXT_DIMENSIONS = 50
TEXT_WEIGHT = 0.5  # of the words' unit vectors beside the features, which lie in [0, 1]
SAME_CLUSTER = 0.5  # Jaccard over shared sessions above which a cluster keeps its id
EXEMPLARS = 3

Matrix = NDArray[np.float64]
Labels = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Group:
    """Row numbers of one cluster, nearest to the centre first."""

    rows: list[int]


def cluster_sessions(
    sessions: Sequence[ScoredSession],
    *,
    previous: Sequence[SessionCluster] = (),
    seed: int = 0,
    below: float = LOW_QUALITY,
    clustered_at_us: int = 0,
) -> list[SessionCluster]:
    """The low-scoring of ``sessions`` in clusters, the costliest loss of quality first.

    Sessions without a quality, or with ``below`` or more, only serve as the background. Fewer
    than ``FEWEST_SESSIONS`` low ones make one cluster whose label says that they are few; none
    make none. ``cost_share`` is of the cost of all ``sessions``. A cluster that matches one of
    ``previous`` keeps its id (:func:`match_ids`).
    """
    ordered = sorted(sessions, key=lambda session: session.session_id)
    qualities = {session.session_id: session.quality for session in ordered}
    low = [
        index
        for index, session in enumerate(ordered)
        if (quality := qualities[session.session_id]) is not None and quality < below
    ]
    if not low:
        return []
    features = np.asarray(feature_rows(ordered), dtype=np.float64)
    words = [read_words(ordered[index]) for index in low]
    counts, terms = _count_words(words)
    points = np.hstack([features[low], _embed(counts, seed) * TEXT_WEIGHT])
    few = len(low) < FEWEST_SESSIONS
    labels = np.zeros(len(low), dtype=np.intp) if few else _choose_labels(points, seed)
    groups = _groups(points, labels)
    names = _label_terms(counts, terms, labels, len(groups))
    total_cost = sum(session.cost_microusd for session in ordered)
    background = features.mean(axis=0)
    spread = features.std(axis=0)
    clusters = []
    for group, distinct in zip(groups, names, strict=True):
        members = [low[row] for row in group.rows]
        features_of = _distinguishing(features[members].mean(axis=0), background, spread)
        ids = [ordered[index].session_id for index in members]
        cost = sum(ordered[index].cost_microusd for index in members)
        clusters.append(
            SessionCluster(
                cluster_id=_digest_ids(ids),
                label=_label(features_of, distinct, few=few, size=len(ids)),
                session_ids=tuple(sorted(ids)),
                mean_score=float(np.mean([qualities[session_id] for session_id in ids])),
                cost_microusd=cost,
                cost_share=cost / total_cost if total_cost else 0.0,
                features=tuple(features_of),
                exemplars=tuple(ids[:EXEMPLARS]),
                clustered_at_us=clustered_at_us,
            )
        )
    clusters.sort(key=lambda c: (-(1.0 - c.mean_score) * c.cost_microusd, c.cluster_id))
    return match_ids(previous, clusters)


def match_ids(
    previous: Sequence[SessionCluster], new: Sequence[SessionCluster]
) -> list[SessionCluster]:
    """``new`` with the ids of ``previous`` where a cluster goes on.

    One-to-one assignment of the largest total Jaccard index over the sessions that both runs
    hold (Kuhn 1955), accepted above ``SAME_CLUSTER``. Other clusters keep their own id.
    """
    held = {i for cluster in previous for i in cluster.session_ids} & {
        i for cluster in new for i in cluster.session_ids
    }
    if not held:
        return list(new)
    overlap = np.zeros((len(previous), len(new)))
    for row, old in enumerate(previous):
        before = held & set(old.session_ids)
        for column, cluster in enumerate(new):
            now = held & set(cluster.session_ids)
            union = len(before | now)
            overlap[row, column] = len(before & now) / union if union else 0.0
    rows, columns = linear_sum_assignment(-overlap)
    carried = {
        int(column): previous[int(row)].cluster_id
        for row, column in zip(rows, columns, strict=True)
        if overlap[row, column] > SAME_CLUSTER
    }
    taken = set(carried.values())
    matched = []
    for column, cluster in enumerate(new):
        cluster_id = carried.get(column, cluster.cluster_id)
        if column not in carried and cluster_id in taken:
            cluster_id = _digest_ids([cluster_id, *cluster.session_ids])
        matched.append(replace(cluster, cluster_id=cluster_id))
    return matched


def _digest_ids(session_ids: Sequence[str]) -> str:
    joined = "\n".join(sorted(session_ids)).encode("utf-8", "replace")
    return f"cluster-{hashlib.blake2b(joined, digest_size=6).hexdigest()}"


def _count_words(words: Sequence[Sequence[str]]) -> tuple[sparse.csr_array, list[str]]:
    """Word counts per session, of words that at least two sessions use, and the words."""
    used: dict[str, int] = {}
    for own in words:
        for word in set(own):
            used[word] = used.get(word, 0) + 1
    kept = sorted(word for word, n in used.items() if n >= 2 and word not in ENGLISH_STOP_WORDS)
    kept = sorted(sorted(kept, key=lambda word: (-used[word], word))[:MOST_WORDS])
    if not kept:
        return sparse.csr_array((len(words), 0)), []
    counter = CountVectorizer(analyzer=lambda own: own, vocabulary=kept)
    return sparse.csr_array(counter.transform(words), dtype=np.float64), kept


def _embed(counts: sparse.csr_array, seed: int) -> Matrix:
    """Unit vectors of the words' meaning, at most ``TEXT_DIMENSIONS`` wide."""
    if counts.shape[1] < 2 or counts.shape[0] < 2:
        return np.zeros((counts.shape[0], 0))
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    width = min(TEXT_DIMENSIONS, min(weighted.shape) - 1)
    reduced = TruncatedSVD(width, random_state=seed).fit_transform(weighted)
    norms = np.linalg.norm(reduced, axis=1, keepdims=True)
    units: Matrix = np.divide(reduced, norms, out=np.zeros_like(reduced), where=norms > 0)
    return units


def _fit(points: Matrix, k: int, seed: int) -> KMeans:
    distinct = len(np.unique(points, axis=0))
    return KMeans(min(k, distinct), n_init=4, random_state=seed).fit(points)


def _choose_labels(points: Matrix, seed: int) -> Labels:
    """Cluster numbers of the rows for the most stable k; one cluster if no k is stable."""
    generator = np.random.default_rng(seed)
    sample = _sample(points, MOST_MEASURED, generator)
    most = min(MOST_CLUSTERS, len(sample) // FEWEST_PER_CLUSTER, len(np.unique(sample, axis=0)))
    best: tuple[float, float, int] | None = None
    for k in range(2, most + 1):
        labels = _fit(sample, k, seed).labels_
        if min(np.bincount(labels)) < FEWEST_PER_CLUSTER:
            continue
        stability = _stability(sample, k, seed)
        if stability < LEAST_STABILITY:
            continue
        candidate = (round(stability / 0.05) * 0.05, float(silhouette_score(sample, labels)), k)
        if best is None or candidate > best:
            best = candidate
    if best is None:
        return np.zeros(len(points), dtype=np.intp)
    fitted = _fit(_sample(points, MOST_FITTED, np.random.default_rng(seed)), best[2], seed)
    return _by_first_row(np.asarray(fitted.predict(points), dtype=np.intp))


def _sample(points: Matrix, most: int, generator: np.random.Generator) -> Matrix:
    if len(points) <= most:
        return points
    return points[np.sort(generator.choice(len(points), most, replace=False))]


def _stability(points: Matrix, k: int, seed: int) -> float:
    """Mean adjusted Rand index between the clusterings that random 80 % samples imply."""
    generator = np.random.default_rng(seed + k)
    size = max(k + 1, int(0.8 * len(points)))
    labelings = []
    for _ in range(STABILITY_ROUNDS):
        chosen = np.sort(generator.choice(len(points), size, replace=False))
        labelings.append(_fit(points[chosen], k, seed).predict(points))
    return float(np.mean([adjusted_rand_score(a, b) for a, b in pairwise(labelings)]))


def _by_first_row(labels: Labels) -> Labels:
    """Numbers clusters by their first row, so that k-means' own numbering doesn't matter."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[inverse], dtype=np.intp)


def _groups(points: Matrix, labels: Labels) -> list[_Group]:
    groups = []
    for number in range(int(labels.max()) + 1):
        rows = np.flatnonzero(labels == number)
        distances = np.linalg.norm(points[rows] - points[rows].mean(axis=0), axis=1)
        order = np.lexsort((rows, np.round(distances, 9)))
        groups.append(_Group([int(row) for row in rows[order]]))
    return groups


def _label_terms(
    counts: sparse.csr_array, terms: list[str], labels: Labels, k: int
) -> list[list[str]]:
    """The words that set each cluster apart, by class-based TF-IDF: tf · log(1 + A / f)."""
    if not terms:
        return [[] for _ in range(k)]
    own = [counts[np.flatnonzero(labels == number)] for number in range(k)]
    by_class = np.vstack([np.asarray(rows.sum(axis=0)).ravel() for rows in own])
    in_sessions = np.vstack([np.asarray((rows > 0).sum(axis=0)).ravel() for rows in own])
    sums = by_class.sum(axis=1, keepdims=True)
    frequency = np.divide(by_class, sums, out=np.zeros_like(by_class), where=sums > 0)
    weight = np.log1p(sums.mean() / np.maximum(by_class.sum(axis=0), 1.0))
    ranked = frequency * weight
    ranked[in_sessions < 2] = 0.0  # a word of one session could identify it
    found = []
    for row in ranked:
        order = sorted(range(len(terms)), key=lambda column: (-row[column], terms[column]))
        found.append([terms[column] for column in order[:3] if row[column] > 0])
    return found


def _distinguishing(means: Matrix, background: Matrix, spread: Matrix) -> list[ClusterFeature]:
    """Up to five features that differ most from all sessions, in standard deviations."""
    gaps = np.divide(means - background, spread, out=np.zeros_like(means), where=spread > 1e-9)
    order = sorted(range(len(FEATURE_NAMES)), key=lambda column: (-abs(gaps[column]), column))
    return [
        ClusterFeature(FEATURE_NAMES[column], float(means[column]), float(background[column]))
        for column in order[:5]
        if abs(gaps[column]) > 0.1
    ]


def _label(
    features: Sequence[ClusterFeature], terms: Sequence[str], *, few: bool, size: int
) -> str:
    raised = [f.name for f in features if f.cluster_mean > f.overall_mean]
    raised = [name for name in raised if name not in CONTEXT_FEATURES][:2] or raised[:1]
    parts = [part for part in (", ".join(raised), ", ".join(terms)) if part]
    label = ": ".join(parts) if parts else "low scores"
    return f"too few to split ({size}): {label}" if few else label
