"""Clusters in words: class-based TF-IDF terms, what stands out, and what differs from the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from evaluators.cluster_points import Integers, Matrix
from evaluators.session_features import CONTEXT_FEATURES, FEATURE_NAMES
from loop.domain.clusters import ClusterFeature

MOST_TERMS = 8
_LABEL_TERMS = 3
_LEAST_GAP = 0.1  # standard deviations over all sessions
_LEAST_CONTRAST = 0.15  # difference of two clusters' means that is worth a word


def find_terms(words: sparse.csr_array, terms: Sequence[str], labels: Integers) -> list[list[str]]:
    """The words that set each cluster apart, best first, by class-based TF-IDF: tf · log(1 + A / f)
    (Grootendorst 2022). ``labels`` are from -1 (in no cluster) up."""
    count = int(labels.max(initial=-1)) + 1
    if not terms:
        return [[] for _ in range(count)]
    by_class = np.vstack(
        [np.asarray(words[np.flatnonzero(labels == n)].sum(axis=0)).ravel() for n in range(count)]
    )
    sums = by_class.sum(axis=1, keepdims=True)
    frequency = np.divide(by_class, sums, out=np.zeros_like(by_class), where=sums > 0)
    weight = np.log1p(sums.mean() / np.maximum(by_class.sum(axis=0), 1.0))
    ranked = frequency * weight
    ranked[by_class < 2] = 0.0  # a word of one session could identify it
    found = []
    for row in ranked:
        order = sorted(range(len(terms)), key=lambda column: (-row[column], terms[column]))
        found.append([terms[column] for column in order[:MOST_TERMS] if row[column] > 0])
    return found


def find_features(means: Matrix, background: Matrix, spread: Matrix) -> list[ClusterFeature]:
    """Up to five features that differ most from all sessions, in standard deviations."""
    gaps = np.divide(means - background, spread, out=np.zeros_like(means), where=spread > 1e-9)
    order = sorted(range(len(FEATURE_NAMES)), key=lambda column: (-abs(gaps[column]), column))
    return [
        ClusterFeature(FEATURE_NAMES[column], float(means[column]), float(background[column]))
        for column in order[:5]
        if abs(gaps[column]) > _LEAST_GAP
    ]


def write_label(features: Sequence[ClusterFeature], terms: Sequence[str], prefix: str = "") -> str:
    """The cluster in words: up to two features that are raised, then its terms."""
    raised = [f.name for f in features if f.cluster_mean > f.overall_mean]
    raised = [name for name in raised if name not in CONTEXT_FEATURES][:2] or raised[:1]
    parts = [part for part in (", ".join(raised), ", ".join(terms[:_LABEL_TERMS])) if part]
    label = ": ".join(parts) if parts else "low scores"
    return f"{prefix}: {label}" if prefix else label


def write_contrast(
    means: Matrix, terms: Sequence[str], other: Matrix, other_terms: Sequence[str], label: str
) -> str:
    """How a cluster differs from its nearest neighbour, whose ``label`` is named."""
    gaps = means - other
    order = sorted(range(len(gaps)), key=lambda column: (-abs(gaps[column]), column))
    said = [
        f"{'more' if gaps[column] > 0 else 'less'} {FEATURE_NAMES[column]}"
        for column in order[:3]
        if abs(gaps[column]) > _LEAST_CONTRAST
    ]
    own = [term for term in terms if term not in other_terms][:_LABEL_TERMS]
    if own:
        said.append(f"speaks of {', '.join(own)}")
    return f"unlike “{label}”: {'; '.join(said)}" if said else f"hardly unlike “{label}”"
