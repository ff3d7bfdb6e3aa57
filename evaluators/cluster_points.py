"""Sessions as points: named features beside the words' meaning (TF-IDF, truncated SVD).

Features lie in [0, 1] and the words' vector has length ``TEXT_WEIGHT``, so that neither drowns the
other: what failed counts most, what it was about tells apart what failed alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfTransformer

from evaluators.session_features import FEATURE_NAMES
from loop.domain.clusters import SessionProfile

MOST_WORDS = 2_000
TEXT_DIMENSIONS = 50
TEXT_WEIGHT = 0.5

Matrix = NDArray[np.float64]
Integers = NDArray[np.intp]

_COLUMN = {name: column for column, name in enumerate(FEATURE_NAMES)}


def feature_matrix(profiles: Sequence[SessionProfile]) -> Matrix:
    """One row per profile, columns as in ``FEATURE_NAMES``; other names are passed over."""
    matrix = np.zeros((len(profiles), len(FEATURE_NAMES)))
    for row, profile in enumerate(profiles):
        for feature in profile.features:
            column = _COLUMN.get(feature.name)
            if column is not None:
                matrix[row, column] = feature.value
    return matrix


def word_matrix(profiles: Sequence[SessionProfile]) -> tuple[sparse.csr_array, list[str]]:
    """Which profile uses which word, 1 or 0, and the words: of those that two profiles or more
    use the ``MOST_WORDS`` most frequent, without stop words."""
    used = Counter(word for profile in profiles for word in set(profile.words))
    kept = [word for word, n in used.items() if n >= 2 and word not in ENGLISH_STOP_WORDS]
    kept = sorted(sorted(kept, key=lambda word: (-used[word], word))[:MOST_WORDS])
    place = {word: column for column, word in enumerate(kept)}
    starts, columns = [0], []
    for profile in profiles:
        columns += sorted({place[word] for word in profile.words if word in place})
        starts.append(len(columns))
    shape = (len(profiles), len(kept))
    parts = (np.ones(len(columns)), np.array(columns, np.int32), np.array(starts, np.int32))
    return sparse.csr_array(parts, shape=shape), kept


def embed_words(words: sparse.csr_array, seed: int) -> Matrix:
    """Unit vectors of the words' meaning, at most ``TEXT_DIMENSIONS`` wide; 0 without words."""
    uses = np.asarray(words.sum(axis=0)).ravel()
    words = words[:, np.flatnonzero(uses < words.shape[0])]  # what all say tells none apart
    if words.shape[1] < 2 or words.shape[0] < 2:
        return np.zeros((words.shape[0], 0))
    weighted = TfidfTransformer().fit_transform(words)
    width = min(TEXT_DIMENSIONS, min(weighted.shape) - 1)
    reduced = TruncatedSVD(width, random_state=seed).fit_transform(weighted)
    norms = np.linalg.norm(reduced, axis=1, keepdims=True)
    units: Matrix = np.divide(reduced, norms, out=np.zeros_like(reduced), where=norms > 0)
    return units


def place_points(features: Matrix, words: sparse.csr_array, seed: int) -> Matrix:
    """The points of shape ``(sessions, features + dimensions of the words)``."""
    return np.hstack([features, embed_words(words, seed) * TEXT_WEIGHT])
