"""Doubly robust means over sessions, with cross-fitting and a bootstrap by session."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from loop.domain.estimates import Interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_PENALTY = 0.05  # of the weight that a fit sees, so that copies of the data leave it as it is
_CONFIDENCE = 0.975


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """A mean with its standard error; ``treated`` sessions carry it. They set the degrees of
    freedom of the t interval and the correction of the variance, as clustered regression does it
    with few clusters."""

    estimate: float
    standard_error: float  # infinite where it can't be told
    treated: int

    @property
    def interval(self) -> Interval:
        if not np.isfinite(self.standard_error):
            return Interval(self.estimate, -np.inf, np.inf)
        half = float(stdtrit(self.treated - 1, _CONFIDENCE)) * self.standard_error
        return Interval(self.estimate, self.estimate - half, self.estimate + half)

    @property
    def p_below_zero(self) -> float:
        """The one-sided p value of "the mean is 0 or more": small when it is surely below."""
        if not np.isfinite(self.standard_error):
            return 1.0
        if self.standard_error == 0.0:
            return 0.0 if self.estimate < 0 else 1.0
        return float(stdtr(self.treated - 1, self.estimate / self.standard_error))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The mean under one set of weights, its difference to that under another, and what the
    outcome model alone says of the first (the direct method: a diagnostic)."""

    value: MeanEstimate
    difference: MeanEstimate
    direct_method: float


class SessionMeans:
    """Means of one outcome under weights, for many sets of weights on the same ``s`` sessions.

    The outcome model is a ridge regression on what was known at the session's start, fitted on
    the other folds under the same weights: with tens or hundreds of treated sessions a boosted
    model would mostly fit noise, and the weights make the mean right whatever the model says.
    Its predictions stay within ``bounds``.
    """

    def __init__(
        self,
        outcome: Floats,
        features: Floats,
        folds: Integers,
        draws: int,
        seed: int,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self._outcome = outcome
        self._bounds = bounds
        n = len(outcome)
        self._design = np.column_stack([np.ones(n), features]) if n else np.ones((0, 1))
        self._folds = folds
        random = np.random.default_rng(seed)
        self._answers: dict[tuple[bytes, bytes], Comparison] = {}
        self._counts = np.empty((draws, n), np.float32)
        for draw in range(draws):
            self._counts[draw] = np.bincount(random.integers(0, n, n), minlength=n)

    def compare(self, theirs: Floats, ours: Floats) -> Comparison:
        """The mean under ``theirs``, and its difference to the mean under ``ours`` taken on the
        same sessions. Many policies route a log alike, so answers are kept by their weights."""
        key = (sha256(theirs.tobytes()).digest(), sha256(ours.tobytes()).digest())
        if key not in self._answers:
            self._answers[key] = self._compare(theirs, ours)
        return self._answers[key]

    def _compare(self, theirs: Floats, ours: Floats) -> Comparison:
        parts = np.column_stack([*self._parts(theirs), *self._parts(ours)])
        value, other = self._mean(parts.sum(axis=0)[None, :])
        drawn = self._counts @ parts.astype(np.float32)
        values, others = self._mean(drawn.astype(np.float64))
        treated = int((theirs > 0).sum())
        fewest = min(treated, int((ours > 0).sum()))
        return Comparison(
            MeanEstimate(float(value[0]), _standard_error(values, treated), treated),
            MeanEstimate(
                float(value[0] - other[0]), _standard_error(values - others, fewest), fewest
            ),
            float(parts[:, 0].mean()),
        )

    def _parts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        predicted = self._predict(weights)
        return predicted, weights * (self._outcome - predicted), weights

    def _mean(self, sums: Floats) -> tuple[Floats, Floats]:
        n = len(self._outcome)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (
                sums[:, 0] / n + sums[:, 1] / sums[:, 2],
                sums[:, 3] / n + sums[:, 4] / sums[:, 5],
            )

    def _predict(self, weights: Floats) -> Floats:
        """Cross-fitted predictions; 0 where the other folds hold no treated session."""
        predicted = np.zeros(len(weights))
        for fold in np.unique(self._folds):
            held_out = self._folds == fold
            used = ~held_out & (weights > 0)
            mass = weights[used]
            if mass.sum() == 0:
                continue
            design = self._design[used]
            gram = (design * mass[:, None]).T @ design
            penalty = np.full(len(gram), _PENALTY * mass.sum())
            penalty[0] = 0.0
            right = design.T @ (mass * self._outcome[used])
            fitted = np.linalg.solve(gram + np.diag(penalty), right)
            predicted[held_out] = np.clip(self._design[held_out] @ fitted, *self._bounds)
        return predicted


def _standard_error(draws: Floats, treated: int) -> float:
    """Of the bootstrap, with the correction for few treated sessions."""
    finite = draws[np.isfinite(draws)]
    if treated < 2 or len(finite) < 2:
        return float("inf")
    return float(finite.std(ddof=1) * np.sqrt(treated / (treated - 1)))
