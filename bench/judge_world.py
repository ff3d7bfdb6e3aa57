"""A simulated world of sessions that people and a biased judge look at, with a known truth.

Synthetic: every parameter is an assumption. A session has some eight items, alike by a random
effect; the judge is better where the text is long and worse where the session is hard, so its
errors are biased and clustered like the sessions themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from evaluators.calibration.prediction_powered import JudgedItem, correct_mean

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
TRUTH_SESSIONS = 1_000_000
_MEAN_ITEMS = 7.6


@dataclass(frozen=True, slots=True)
class JudgeWorld:
    """``labelled_sessions`` of ``judged_sessions`` were labelled, at random."""

    labelled_sessions: int
    judged_sessions: int
    session_spread: float = 0.8  # of the random effect, in units of the noise of an item
    judge_noise: float = 0.6
    judge_bias: float = 0.35  # towards good

    def draw(self, seed: int, sessions: int) -> tuple[Integers, Floats, Floats]:
        """Of each item: its session, what people say, what the judge says; shape ``(items,)``."""
        random = np.random.default_rng(seed)
        sizes = random.geometric(1 / _MEAN_ITEMS, sessions)
        rows = np.repeat(np.arange(sessions), sizes)
        hardness = random.standard_normal(sessions)
        length = random.standard_normal(len(rows))
        latent = (
            0.55
            + 0.35 * np.tanh((sizes[rows] - _MEAN_ITEMS) / 10)
            - self.session_spread * hardness[rows]
            + random.standard_normal(len(rows))
        )
        labels = (latent > 0).astype(np.float64)
        seen = latent + self.judge_bias + 0.3 * length + 0.35 * hardness[rows]
        seen += self.judge_noise * random.standard_normal(len(rows))
        judged = np.select([seen > 0.7, seen > -0.2], [1.0, 0.5], 0.0)
        return rows, labels, judged

    def covers(self, seed: int) -> dict[str, bool]:
        """Whether each interval of one run covers the truth."""
        return {name: low <= self.truth() <= high for name, (low, high) in self.bounds(seed)}

    def bounds(self, seed: int) -> list[tuple[str, tuple[float, float]]]:
        """The 95 % intervals of one run, by name."""
        rows, labels, judged = self.draw(seed, self.judged_sessions)
        known = rows < self.labelled_sessions
        names = rows.astype(str)
        items = [
            JudgedItem(name, value, label if is_known else None)
            for name, value, label, is_known in zip(
                names.tolist(), judged.tolist(), labels.tolist(), known.tolist(), strict=True
            )
        ]
        found = correct_mean(items)
        alone = found.labels_only
        return [
            ("corrected", (found.mean.low, found.mean.high)),
            ("labels_only", (alone.low, alone.high)),
            ("labels_as_items", _as_items(labels[known])),
            ("corrected_as_items", _corrected_as_items(labels, judged, known, found.power)),
            ("judge_only", _as_items(judged)),
        ]

    def truth(self) -> float:
        """The mean label, by a million sessions (its standard error is under 0.0003)."""
        return _truth(self.session_spread)


@lru_cache(maxsize=8)
def _truth(session_spread: float) -> float:
    world = JudgeWorld(0, 0, session_spread)
    parts = [world.draw(10**9 + part, TRUTH_SESSIONS // 10)[1] for part in range(10)]
    return float(sum(part.sum() for part in parts) / sum(len(part) for part in parts))


def _as_items(values: Floats) -> tuple[float, float]:
    half = float(stdtrit(len(values) - 1, 0.975)) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _corrected_as_items(
    labels: Floats, judged: Floats, known: NDArray[np.bool_], power: float
) -> tuple[float, float]:
    """The interval that takes items for independent, as libraries do."""
    rest = judged[~known]
    off = labels[known] - power * judged[known]
    mean = off.mean() + power * rest.mean()
    error = np.sqrt(off.var() / len(off) + power**2 * rest.var() / len(rest))
    half = float(ndtri(0.975)) * error
    return float(mean - half), float(mean + half)
