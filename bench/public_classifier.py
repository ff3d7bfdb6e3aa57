"""How well a number tells good sessions from bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
MIN_PER_CLASS = 10  # below it an AUROC says nothing


@dataclass(frozen=True)
class Auroc:
    """The area under the ROC curve with a 95 % percentile bootstrap over groups; ``None`` where a
    class has fewer than ten rows."""

    rows: int
    good: int
    estimate: float | None
    low: float | None = None
    high: float | None = None


def auroc(scores: Floats, is_good: Booleans) -> float:
    """The chance that a good row scores above a bad one, ties counting half (Mann-Whitney)."""
    good = int(is_good.sum())
    bad = len(is_good) - good
    ranks = rankdata(scores)
    return float((ranks[is_good].sum() - good * (good + 1) / 2) / (good * bad))


def measure_auroc(
    scores: Sequence[float],
    is_good: Sequence[bool],
    groups: Sequence[str],
    *,
    draws: int = 1_000,
    seed: int = 0,
) -> Auroc:
    """``groups`` (tasks) are resampled whole: runs of one task are alike."""
    values, good = np.asarray(scores, float), np.asarray(is_good, bool)
    if min(int(good.sum()), int((~good).sum())) < MIN_PER_CLASS:
        return Auroc(len(good), int(good.sum()), None)
    _, codes = np.unique(np.asarray(groups, str), return_inverse=True)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        chosen = random.integers(0, len(members), len(members))
        rows = np.concatenate([members[index] for index in chosen])
        if 0 < good[rows].sum() < len(rows):
            drawn.append(auroc(values[rows], good[rows]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Auroc(len(good), int(good.sum()), auroc(values, good), float(low), float(high))
