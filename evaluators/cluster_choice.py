"""Points in clusters: k-means under the most stable k, and what is like nothing else set apart.

k is the one under which random 80 % samples agree best about the points they share (mean adjusted
Rand index; Ben-Hur, Elisseeff and Guyon 2002), times the silhouette: by agreement alone, a k of 2
that lumps everything together often wins. If no k is stable there is one cluster. A cluster whose
points lie nearer to another one than to each other (a mean silhouette below 0) is what was left
over, and none. A point far from its centre, by the median absolute deviation of all distances, is
an outlier, and a cluster of mostly outliers is none. Deterministic under a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_samples, silhouette_score
from threadpoolctl import threadpool_limits

from evaluators.cluster_points import Integers, Matrix

MOST_CLUSTERS = 16
FEWEST_PER_CLUSTER = 3
LEAST_STABILITY = 0.5  # below this mean adjusted Rand index no split is offered
SAMPLES = 5  # whose 10 pairs are compared
SAMPLE_SHARE = 0.8
MOST_MEASURED = 1_500  # points that k is chosen on
MOST_FITTED = 20_000  # points that the centres are fitted on; the others join the nearest
FAR = 3.0  # deviations from the median distance
LEAST_DEVIATION = 0.05  # so that equal points don't make everything else far
OUTLIER = -1


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """``labels`` of shape ``(n,)`` from 0 in order of first appearance, ``OUTLIER`` for outliers.

    ``distances`` are to the own centre, also of outliers. ``agreement`` is the mean adjusted Rand
    index between samples under the chosen k, ``None`` where there is one cluster. ``stability`` is
    each cluster's mean Jaccard index with its best match in the samples (Hennig 2007).
    """

    labels: Integers
    distances: Matrix
    agreement: float | None
    stability: tuple[float | None, ...]


def choose_clusters(points: Matrix, seed: int) -> Choice:
    """Clusters of points of shape ``(n, d)``, n at least 1."""
    # Many small fits: on several threads these wait for each other, and sum in another order.
    with threadpool_limits(limits=1):
        return _choose_clusters(points, seed)


def _choose_clusters(points: Matrix, seed: int) -> Choice:
    generator = np.random.default_rng(seed)
    measured = _sample(points, MOST_MEASURED, generator)
    best: tuple[float, int, float, list[Integers]] | None = None
    for k in range(2, _most_clusters(measured) + 1):
        labels = _fit(measured, k, seed, restarts=4).labels_
        if min(np.bincount(labels)) < FEWEST_PER_CLUSTER:
            continue
        samples = _cluster_samples(measured, k, seed)
        agreement = _agreement(samples)
        if agreement < LEAST_STABILITY:
            continue
        merit = agreement * float(silhouette_score(measured, labels))
        if best is None or merit > best[0]:
            best = merit, k, agreement, samples
    k = best[1] if best else 1
    model = _fit(_sample(points, MOST_FITTED, generator), k, seed, restarts=10)
    labels = np.asarray(model.predict(points), dtype=np.intp)
    distances = np.linalg.norm(points - model.cluster_centers_[labels], axis=1)
    # The samples are of the measured points: there, too, the final clusters can be told.
    of_measured = np.asarray(model.predict(measured), dtype=np.intp)
    labels = _set_outliers_apart(labels, distances, _left_over(measured, of_measured))
    labels, originals = _by_first_appearance(labels)
    if best is None:
        return Choice(labels, distances, None, (None,) * len(originals))
    stability = tuple(_jaccard(of_measured == original, best[3]) for original in originals)
    return Choice(labels, distances, best[2], stability)


def one_cluster(points: Matrix) -> Choice:
    """All points together, where they are too few to split."""
    distances = np.linalg.norm(points - points.mean(axis=0), axis=1)
    return Choice(np.zeros(len(points), dtype=np.intp), distances, None, (None,))


def _most_clusters(points: Matrix) -> int:
    distinct = len(np.unique(points, axis=0))
    return min(MOST_CLUSTERS, len(points) // FEWEST_PER_CLUSTER, distinct)


def _fit(points: Matrix, k: int, seed: int, *, restarts: int) -> KMeans:
    distinct = len(np.unique(points, axis=0)) if k > 1 else 1
    return KMeans(min(k, distinct), n_init=restarts, random_state=seed).fit(points)


def _sample(points: Matrix, most: int, generator: np.random.Generator) -> Matrix:
    if len(points) <= most:
        return points
    return points[np.sort(generator.choice(len(points), most, replace=False))]


def _cluster_samples(points: Matrix, k: int, seed: int) -> list[Integers]:
    """Cluster numbers under each sample, ``OUTLIER`` for points that are not in it."""
    generator = np.random.default_rng((seed, k))
    size = max(k + 1, int(SAMPLE_SHARE * len(points)))
    found = []
    for _ in range(SAMPLES):
        chosen = np.sort(generator.choice(len(points), size, replace=False))
        labels = np.full(len(points), OUTLIER, dtype=np.intp)
        labels[chosen] = _fit(points[chosen], k, seed, restarts=3).labels_
        found.append(labels)
    return found


def _agreement(samples: list[Integers]) -> float:
    indices = []
    for one, other in combinations(samples, 2):
        both = (one != OUTLIER) & (other != OUTLIER)
        indices.append(adjusted_rand_score(one[both], other[both]))
    return float(np.mean(indices))


def _jaccard(members: Integers, samples: list[Integers]) -> float | None:
    """The mean over samples of the best match; ``None`` for a cluster with no measured member."""
    best = []
    for labels in samples:
        inside = labels != OUTLIER
        own = members & inside
        if own.any():
            shared = np.bincount(labels[own], minlength=labels.max() + 1)
            sizes = np.bincount(labels[inside], minlength=labels.max() + 1)
            best.append(float(np.max(shared / (sizes + own.sum() - shared))))
    return float(np.mean(best)) if best else None


def _left_over(points: Matrix, labels: Integers) -> Integers:
    """The clusters whose points are, on average, nearer to another cluster than to each other."""
    if len(np.unique(labels)) < 2:
        return np.empty(0, np.intp)
    silhouettes = silhouette_samples(points, labels)
    numbers = np.unique(labels)
    means = np.array([silhouettes[labels == number].mean() for number in numbers])
    return np.asarray(numbers[means < 0], dtype=np.intp)


def _set_outliers_apart(labels: Integers, distances: Matrix, left_over: Integers) -> Integers:
    median = float(np.median(distances))
    deviation = 1.4826 * float(np.median(np.abs(distances - median)))
    far = distances > median + FAR * max(deviation, LEAST_DEVIATION)
    far |= np.isin(labels, left_over)
    apart = labels.copy()
    apart[far] = OUTLIER
    for number in np.unique(labels):
        members = labels == number
        if far[members].mean() > 0.5 or (~far[members]).sum() < FEWEST_PER_CLUSTER:
            apart[members] = OUTLIER
    if (apart == OUTLIER).all():
        return labels  # nothing is like anything: one cannot speak of outliers
    return apart


def _by_first_appearance(labels: Integers) -> tuple[Integers, list[int]]:
    """Numbers clusters by their first row, so that k-means' own numbering doesn't matter; second,
    each new number's old one."""
    numbers, first = np.unique(labels[labels != OUTLIER], return_index=True)
    originals = [int(numbers[place]) for place in np.argsort(first)]
    renumbered = np.full_like(labels, OUTLIER)
    for number, original in enumerate(originals):
        renumbered[labels == original] = number
    return renumbered, originals
