"""How well a judge agrees with people on the same items, and how surely that is known.

An item is a claim (or a whole session) that both looked at; items of one session are alike, so
uncertainty is drawn from whole sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loop.domain.estimates import Interval

DRAWS = 2000
MAX_UNDEFINED_SHARE = 0.05
"""More draws than this without a kappa, and there is no interval."""
_AT_ONCE = 4_000_000  # cells of one block of draws

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RatedItem:
    """One item with a person's and the judge's answer: true is good."""

    session_id: str
    label: bool
    judged: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cohen's kappa with its 95 % interval, and the counts that it comes from.

    ``bad`` is what one looks for: ``found_bad`` both called bad, ``missed_bad`` only the person
    did, ``false_bad`` only the judge did, ``both_good`` neither. ``kappa`` is ``None`` where one
    answer is all there is: then no agreement can be told from chance.
    """

    items: int
    sessions: int
    found_bad: int
    missed_bad: int
    false_bad: int
    both_good: int
    kappa: Interval | None

    @property
    def exact_share(self) -> float | None:
        """Share of items on which both agree."""
        return _ratio(self.found_bad + self.both_good, self.items)

    @property
    def bad_share(self) -> float | None:
        """The base rate: what share of items people called bad."""
        return _ratio(self.found_bad + self.missed_bad, self.items)

    @property
    def judged_bad_share(self) -> float | None:
        return _ratio(self.found_bad + self.false_bad, self.items)

    @property
    def sensitivity(self) -> float | None:
        """Of what people called bad, the share that the judge did."""
        return _ratio(self.found_bad, self.found_bad + self.missed_bad)

    @property
    def specificity(self) -> float | None:
        """Of what people called good, the share that the judge did."""
        return _ratio(self.both_good, self.both_good + self.false_bad)


def measure_agreement(
    items: Sequence[RatedItem], *, draws: int = DRAWS, seed: int = 0
) -> Agreement:
    """Cohen (1960) over all items; its interval is the percentile interval of a bootstrap that
    draws whole sessions."""
    counts = _counts_by_session(items)
    total = counts.sum(axis=0)
    found_bad, missed_bad, false_bad, both_good = (int(number) for number in total)
    estimate = float(kappas(total[None, :])[0])
    return Agreement(
        items=len(items),
        sessions=len(counts),
        found_bad=found_bad,
        missed_bad=missed_bad,
        false_bad=false_bad,
        both_good=both_good,
        kappa=None if np.isnan(estimate) else _interval(estimate, counts, draws, seed),
    )


def kappas(counts: Floats) -> Floats:
    """Cohen's kappa of each row of counts, shape ``(n, 4)``: found bad, missed bad, false bad, both
    good. NaN where chance alone would agree on everything."""
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (counts[:, 0] + counts[:, 3]) / total
        labelled_bad = (counts[:, 0] + counts[:, 1]) / total
        judged_bad = (counts[:, 0] + counts[:, 2]) / total
        expected = labelled_bad * judged_bad + (1 - labelled_bad) * (1 - judged_bad)
        kappa: Floats = np.where(expected < 1.0, (observed - expected) / (1.0 - expected), np.nan)
    return kappa


def _counts_by_session(items: Sequence[RatedItem]) -> Floats:
    places: dict[str, int] = {}
    rows = np.array([places.setdefault(i.session_id, len(places)) for i in items], np.int64)
    cells = np.array([2 * i.label + i.judged for i in items], np.int64)
    counts = np.zeros((len(places), 4))
    np.add.at(counts, (rows, cells), 1.0)
    return counts


def _interval(estimate: float, counts: Floats, draws: int, seed: int) -> Interval:
    sessions = len(counts)
    random = np.random.default_rng(seed)
    drawn: list[Floats] = []
    left = draws
    while left > 0:
        block = min(left, max(1, _AT_ONCE // sessions))
        weights = random.multinomial(sessions, np.full(sessions, 1.0 / sessions), size=block)
        drawn.append(kappas(weights @ counts))
        left -= block
    values = np.concatenate(drawn)
    defined = values[~np.isnan(values)]
    if sessions < 2 or len(defined) < (1.0 - MAX_UNDEFINED_SHARE) * draws:
        return Interval(estimate, -1.0, 1.0)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(estimate, float(low), float(high))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
