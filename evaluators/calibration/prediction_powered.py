"""Means of what people would say, from many judgements and few labels.

Prediction-powered inference with power tuning (PPI++; Angelopoulos, Duchi and Zrnic, "PPI++:
Efficient Prediction-Powered Inference", 2023, arXiv:2311.01453): the judge's mean over all items,
corrected by what the judge was off on the labelled ones. It is right whatever the judge says; a
better judge makes it narrower. Turns of one session are alike, so the variance is the jackknife's
over sessions (what the mean changes by without each), and the interval is Student's with as many
degrees of freedom as the labelled sessions are worth, less the two that are estimated: sessions of
unequal size are worth fewer (Kish's effective number; see Carter, Schnepel and Steigerwald, 2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from loop.domain.errors import BadInput
from loop.domain.estimates import Interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class JudgedItem:
    """One judged item. ``label`` is a person's value, ``None`` where nobody looked.

    ``probability`` is the chance with which the item came to be judged, and ``label_probability``
    that with which a judged one came to be labelled; both as logged.
    """

    session_id: str
    judged: float
    label: float | None = None
    probability: float = 1.0
    label_probability: float = 1.0


@dataclass(frozen=True, slots=True)
class CorrectedMean:
    """``mean`` is the corrected one; ``labels_only`` and ``judge_only`` are beside it to compare.

    ``power`` (lambda) is how much of the judge is used: 0 is the labels alone, 1 classic PPI.
    """

    mean: Interval
    power: float
    labels_only: Interval
    judge_only: float
    labelled_items: int
    labelled_sessions: int
    judged_items: int
    judged_sessions: int


def correct_mean(
    items: Sequence[JudgedItem], *, power: float | None = None, confidence: float = CONFIDENCE
) -> CorrectedMean:
    """The mean label over all judged items, labelled or not.

    ``power`` is tuned to the least variance where it is not given. Raises :class:`BadInput` where
    fewer than three labelled sessions or no further judgement is there: then there is no interval.
    """
    labelled = [item for item in items if item.label is not None]
    others = [item for item in items if item.label is None]
    sessions = {item.session_id for item in labelled}
    if len(sessions) < 3 or not others:
        raise BadInput(
            f"{len(sessions)} labelled sessions and {len(others)} judged items without a label: "
            "no corrected mean can be given.",
            fix="Label at least three judged sessions, and leave some unlabelled.",
        )
    places: dict[str, int] = {}
    for item in (*labelled, *others):
        places.setdefault(item.session_id, len(places))
    sums = _Sums(labelled, others, places)
    return sums.estimate(power, confidence)


class _Sums:
    """The means of labels and judgements, and each session's influence on them."""

    def __init__(
        self,
        labelled: Sequence[JudgedItem],
        others: Sequence[JudgedItem],
        places: Mapping[str, int],
    ) -> None:
        self.places = places
        self.labelled, self.others = labelled, others
        rows = _rows(labelled, places)
        weights = np.array([1 / (i.probability * i.label_probability) for i in labelled])
        labels = np.array([i.label for i in labelled], np.float64)
        judged = np.array([i.judged for i in labelled])
        other_weights = np.array([1 / i.probability for i in others])
        other_judged = np.array([i.judged for i in others])
        n = len(places)
        self.label_mean, self.label_influence = _mean(labels, weights, rows, n)
        self.judged_mean, judged_influence = _mean(judged, weights, rows, n)
        self.other_mean, other_influence = _mean(
            other_judged, other_weights, _rows(others, places), n
        )
        self.correction = other_influence - judged_influence
        self.labelled_sessions = len(np.unique(rows))
        sizes = np.bincount(rows, weights)
        self.effective_sessions = float(sizes.sum() ** 2 / (sizes @ sizes))
        self.other_sessions = len(np.unique(_rows(others, places)))
        self.judged_spread = float(judged_influence @ judged_influence) * self.labelled_sessions
        self.other_spread = float(other_influence @ other_influence) * self.other_sessions
        self.all_judged = np.average(
            np.concatenate([judged, other_judged]),
            weights=np.concatenate([weights, other_weights]),
        )

    def estimate(self, power: float | None, confidence: float) -> CorrectedMean:
        if power is None:
            power = self._tuned()
        mean = self.label_mean + power * (self.other_mean - self.judged_mean)
        half = self._half_width(self.label_influence + power * self.correction, confidence, 2)
        alone = self._half_width(self.label_influence, confidence, 1)
        label_mean = self.label_mean
        return CorrectedMean(
            mean=Interval(mean, mean - half, mean + half),
            power=power,
            labels_only=Interval(label_mean, label_mean - alone, label_mean + alone),
            judge_only=float(self.all_judged),
            labelled_items=len(self.labelled),
            labelled_sessions=self.labelled_sessions,
            judged_items=len(self.labelled) + len(self.others),
            judged_sessions=len(self.places),
        )

    def _tuned(self) -> float:
        """The least variance, with the judge's spread over labelled and other sessions taken
        together: a few sessions that happen to be alike must not look like certainty."""
        labelled, others = self.labelled_sessions, self.other_sessions
        spread = labelled * self.judged_spread + others * self.other_spread
        spread /= labelled + others
        if spread <= 0.0:
            return 0.0
        together = -float(self.label_influence @ self.correction)
        return min(1.0, max(0.0, together / (spread / labelled + spread / others)))

    def _half_width(self, influence: Floats, confidence: float, estimated: int) -> float:
        variance = float(influence @ influence)
        freedom = max(1.0, self.effective_sessions - estimated)
        quantile = float(stdtrit(freedom, (1 + confidence) / 2))
        return quantile * math.sqrt(variance)


def rectify(items: Sequence[JudgedItem], power: float) -> dict[str, float]:
    """One value per session whose mean is the corrected mean: for estimators that want sessions.

    Each has its judged value times a factor, and a labelled one what its label differs by besides,
    over the chance of being labelled. Single values may lie outside [0, 1]; their expectation is
    the label's. ``items`` are one per session; ``power`` is that of :func:`correct_mean`, which
    compares the labelled ones with the others, where here they are held against all.
    """
    others = sum(item.label is None for item in items)
    factor = power * len(items) / max(1, others)
    values = {}
    for item in items:
        value = factor * item.judged
        if item.label is not None:
            value += (item.label - factor * item.judged) / item.label_probability
        values[item.session_id] = value
    return values


def _rows(items: Sequence[JudgedItem], places: Mapping[str, int]) -> Integers:
    return np.array([places[item.session_id] for item in items], np.int64)


def _mean(values: Floats, weights: Floats, rows: Integers, sessions: int) -> tuple[float, Floats]:
    """The weighted mean, and how much it is due to each session, in the scale of its standard
    error: a session of weight h moves it by its part / (1 - h) when it is left out (the jackknife;
    sessions of many items would count too little otherwise)."""
    total = weights.sum()
    mean = float(weights @ values / total)
    influence: Floats = np.zeros(sessions)
    np.add.at(influence, rows, weights * (values - mean) / total)
    share: Floats = np.zeros(sessions)
    np.add.at(share, rows, weights / total)
    count = int((share > 0).sum())
    if count < 2:
        return mean, influence
    return mean, influence / (1.0 - share) * math.sqrt((count - 1) / count)
