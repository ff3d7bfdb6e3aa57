"""Routers between a strong and a weak model on prompts whose two outcomes are known.

APGR and CPT are RouteLLM's (Ong et al., 2024): at each share of calls to the strong model, the
*performance gap recovered* is (quality - weak's) / (strong's - weak's); APGR is its mean over the
shares from 0 to 1, CPT(x) the least share of strong calls that recovers x.

A router is a number per prompt: the higher, the sooner it goes to the strong model. Prompts with
equal numbers are shared out evenly, so that a router without any knowledge has APGR 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
GRID = np.linspace(0.0, 1.0, 201)
FOLDS = 5


@dataclass(frozen=True)
class RoutingSet:
    """``n`` prompts with the quality of both models on each; arrays have shape ``(n,)``."""

    name: str
    strong: str
    weak: str
    prompt_chars: Integers
    domains: NDArray[np.object_]
    strong_quality: Floats
    weak_quality: Floats

    def __len__(self) -> int:
        return len(self.prompt_chars)

    @property
    def gain(self) -> Floats:
        """What the strong model is better by, prompt by prompt."""
        return self.strong_quality - self.weak_quality


@dataclass(frozen=True)
class Curve:
    """``gained[i]``: mean quality above the weak model's at a share ``GRID[i]`` of strong calls."""

    gained: Floats

    @property
    def recovered(self) -> Floats:
        return self.gained / self.gained[-1]

    @property
    def apgr(self) -> float:
        return float(np.trapezoid(self.recovered, GRID))

    def cpt(self, share: float) -> float:
        """The least share of strong calls that recovers ``share`` of the gap."""
        recovered = self.recovered
        first = int(np.argmax(recovered >= share))
        if recovered[first] < share:
            return 1.0
        if first == 0:
            return 0.0
        low, high = recovered[first - 1], recovered[first]
        return float(GRID[first - 1] + (share - low) / (high - low) * (GRID[1] - GRID[0]))


Fit = Callable[[Integers], Floats]
"""From the rows that may be learnt from to a number for every row."""


def gain_curve(scores: Floats, gain: Floats, weights: Floats | None = None) -> Curve:
    """The curve of one router on prompts with these gains; ``weights`` repeat prompts."""
    counted = np.ones(len(scores)) if weights is None else weights
    _, group = np.unique(-scores, return_inverse=True)
    shares = np.cumsum(np.bincount(group, weights=counted)) / counted.sum()
    gains = np.cumsum(np.bincount(group, weights=counted * gain)) / counted.sum()
    return Curve(np.interp(GRID, np.append(0.0, shares), np.append(0.0, gains)))


def folds_of(count: int, seed: int = 0) -> Integers:
    """A fold for each prompt, by chance."""
    return np.random.default_rng(seed).permutation(count) % FOLDS


def out_of_fold_scores(fit: Fit, folds: Integers) -> Floats:
    """Each prompt's number, learnt from the prompts of the other folds."""
    scores = np.zeros(len(folds))
    for fold in range(FOLDS):
        held_out = folds == fold
        scores[held_out] = fit(np.flatnonzero(~held_out))[held_out]
    return scores


def folded_curve(
    scores: Floats, gain: Floats, folds: Integers, weights: Floats | None = None
) -> Curve:
    """The mean of the folds' curves: numbers of different fits are not compared."""
    counted = np.ones(len(scores)) if weights is None else weights
    total = np.zeros(len(GRID))
    for fold in range(FOLDS):
        rows = folds == fold
        share = counted[rows].sum() / counted.sum()
        total += share * gain_curve(scores[rows], gain[rows], counted[rows]).gained
    return Curve(total)


@dataclass(frozen=True)
class RouterResult:
    router: str
    apgr: float
    apgr_low: float
    apgr_high: float
    cpt50: float
    cpt80: float
    above_bar: tuple[float, float, float] | None  # APGR less the bar's: estimate, low, high


def compare_routers(
    routers: dict[str, Floats], gain: Floats, folds: Integers, bar: str, draws: int, seed: int = 0
) -> list[RouterResult]:
    """Each router with a 95 % percentile bootstrap over prompts, beside the router ``bar``."""
    random = np.random.default_rng(seed)
    n = len(gain)
    drawn: dict[str, list[float]] = {name: [] for name in routers}
    for _ in range(draws):
        weights = np.bincount(random.integers(0, n, n), minlength=n).astype(float)
        for name, scores in routers.items():
            drawn[name].append(folded_curve(scores, gain, folds, weights).apgr)
    curves = {name: folded_curve(scores, gain, folds) for name, scores in routers.items()}
    results = []
    for name, curve in curves.items():
        low, high = np.quantile(drawn[name], (0.025, 0.975))
        above = None
        if name != bar:
            apart = np.subtract(drawn[name], drawn[bar])
            least, most = np.quantile(apart, (0.025, 0.975))
            above = (curve.apgr - curves[bar].apgr, float(least), float(most))
        results.append(
            RouterResult(
                name, curve.apgr, float(low), float(high), curve.cpt(0.5), curve.cpt(0.8), above
            )
        )
    return results


def by_domain(prompts: RoutingSet) -> Fit:
    """The mean gain of the prompt's domain."""
    _, codes = np.unique(prompts.domains.astype(str), return_inverse=True)

    def fit(rows: Integers) -> Floats:
        return _shrunken_means(codes, prompts.gain, rows, strength=1.0)

    return fit


def by_domain_and_length(prompts: RoutingSet) -> Fit:
    """The domain's mean gain, and on what it leaves over a line in the logarithm of the length."""
    _, codes = np.unique(prompts.domains.astype(str), return_inverse=True)
    length = np.log(np.maximum(prompts.prompt_chars, 1))

    def fit(rows: Integers) -> Floats:
        domain_gain = _shrunken_means(codes, prompts.gain, rows, strength=10.0)
        domain_length = _shrunken_means(codes, length, rows, strength=1.0)
        x = (length - domain_length)[rows]
        y = (prompts.gain - domain_gain)[rows]
        slope = float(x @ y) / float(x @ x) if float(x @ x) else 0.0
        return domain_gain + slope * (length - domain_length)

    return fit


def by_steps(steps: Floats, gain: Floats) -> Fit:
    """Steps up or down, whichever way did better on the rows that may be learnt from."""

    def fit(rows: Integers) -> Floats:
        upward = gain_curve(steps[rows], gain[rows]).gained.sum()
        downward = gain_curve(-steps[rows], gain[rows]).gained.sum()
        return steps if upward >= downward else -steps

    return fit


def _shrunken_means(codes: Integers, values: Floats, rows: Integers, *, strength: float) -> Floats:
    """The mean of each group over ``rows``, as if ``strength`` more rows had the overall mean."""
    groups = int(codes.max()) + 1
    overall = float(values[rows].mean())
    sums = np.bincount(codes[rows], weights=values[rows], minlength=groups)
    counts = np.bincount(codes[rows], minlength=groups)
    means: Floats = (sums + strength * overall) / (counts + strength)
    return means[codes]


def two_digits(thresholds: Sequence[int]) -> list[int]:
    """Thresholds as the search writes them, to two significant digits, without repeats."""
    rounded = set()
    for tokens in thresholds:
        step = int(10 ** max(0, len(str(tokens)) - 2))
        rounded.add(max(1, round(tokens / step) * step))
    return sorted(rounded)
