"""The tests of a rollout: their formulas against independent batch code, and their error rates."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import betaln, lambertw

from loop.domain.errors import BadInput
from loop.domain.sequential_tests import (
    DifferenceTest,
    SampleRatioTest,
    TestSettings,
    mixture_tuning,
)

Units = list[tuple[float, bool, float]]
UNITS = st.lists(
    st.tuples(st.floats(0.0, 1.0), st.booleans(), st.sampled_from([0.5, 0.5, 0.05, 0.25, 0.8])),
    max_size=60,
)


def run(units: Units, settings: TestSettings) -> DifferenceTest:
    test = DifferenceTest(settings)
    for outcome, is_canary, probability in units:
        test.add(outcome, is_canary, probability)
    return test


def simulated(
    seed: int, sessions: int, difference: float, *, ramp: bool = False, drift: float = 0.0
) -> Units:
    """Session qualities with a standard deviation of .22, clipped into [0, 1]."""
    random = np.random.default_rng(seed)
    steps = np.arange(sessions)
    probability = np.full(sessions, 0.5)
    if ramp:
        probability = np.select(
            [steps < sessions // 3, steps < 2 * sessions // 3], [0.05, 0.25], 0.5
        )
    canary = random.random(sessions) < probability
    level = 0.6 + drift * np.sin(2 * math.pi * steps / 700)
    outcome = np.clip(level + difference * canary + random.normal(0, 0.22, sessions), 0, 1)
    return list(zip(outcome.tolist(), canary.tolist(), probability.tolist(), strict=True))


def rejected_at(units: Units) -> int:
    """The unit at which a test that looks after each unit rejects; 0 if it never does."""
    test = DifferenceTest()
    for outcome, is_canary, probability in units:
        test.add(outcome, is_canary, probability)
        if test.is_worse:
            return test.units
    return 0


def batch_confidence_sequence(
    units: Units, alpha: float, tuned_units: int
) -> tuple[float, float, float]:
    """Waudby-Smith et al., written over whole arrays: estimate, low and high at the last unit.

    The radius is their boundary in terms of rho, with the tuning by Lambert's W, not ours by
    iteration; the centres are prefix computations, not an online update.
    """
    outcome: NDArray[np.float64] = np.array([unit[0] for unit in units])
    arm = np.array([float(unit[1]) for unit in units])
    p = np.array([unit[2] for unit in units])
    centres = [0.5]
    for index in range(len(units) - 1):
        weight = max(0.02, 1 / (index + 2))
        centres.append((1 - weight) * centres[-1] + weight * outcome[index])
    influence = (outcome - np.array(centres)) * (arm / p - (1 - arm) / (1 - p))
    weighted = p * (1 - p) * influence
    count, two_sided = len(units), 2 * alpha
    rho_squared = (-lambertw(-(two_sided**2) / math.e, -1).real - 1) / tuned_units
    spread = weighted.std()
    radius = spread * math.sqrt(
        2
        * (count * rho_squared + 1)
        / (count**2 * rho_squared)
        * math.log(math.sqrt(count * rho_squared + 1) / two_sided)
    )
    share = (p * (1 - p)).mean()
    middle = weighted.mean() / share
    return middle, middle - radius / share, middle + radius / share


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("alpha", [0.025, 0.05])
def test_bounds_equal_the_published_formula_over_whole_arrays(seed: int, alpha: float) -> None:
    units = simulated(seed, 900, -0.02, ramp=seed % 2 == 1, drift=0.06)
    test = run(units, TestSettings(alpha=alpha, tuned_units=700))
    bounds = test.bounds()
    assert bounds is not None
    expected = batch_confidence_sequence(units, alpha, 700)
    assert (bounds.estimate, bounds.low, bounds.high) == pytest.approx(expected, rel=1e-9)


def test_the_betting_wealth_is_a_product_of_fair_bets_over_whole_arrays() -> None:
    units = simulated(3, 400, -0.05)
    test = run(units, TestSettings(tolerance=0.01))
    log_wealth, seen = 0.0, np.array([])
    centre = 0.5
    for index, (outcome, is_canary, p) in enumerate(units):
        x = (outcome - centre) * ((1 - p) if is_canary else -p)
        count = index + 20
        drift = (seen.sum() + 0.25 * 0.01 * index) / count
        spread = (((seen - seen.mean()) ** 2).sum() if index else 0.0) + 0.2
        stake = max(0.0, -drift / (spread / count + drift**2))
        stake = min(stake, 0.5 / (0.5 + 0.25 * 0.01))
        log_wealth += math.log(1 - stake * (x + 0.25 * 0.01))
        seen = np.append(seen, x)
        centre += (outcome - centre) * max(0.02, 1 / (index + 2))
    assert test.log_wealth == pytest.approx(log_wealth, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.005, 0.025, 0.05])
def test_tuning_is_the_lower_branch_of_lambert_w(alpha: float) -> None:
    expected = 1000 / (-lambertw(-((2 * alpha) ** 2) / math.e, -1).real - 1)
    assert mixture_tuning(alpha, 1000) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(UNITS, st.integers(0, 60))
def test_a_stored_test_goes_on_where_it_was(units: Units, cut: int) -> None:
    whole = run(units, TestSettings(min_units=10, min_canary_units=2))
    part = run(units[:cut], TestSettings(min_units=10, min_canary_units=2))
    part = DifferenceTest.from_document(json.loads(json.dumps(part.to_document())))
    for unit in units[cut:]:
        part.add(*unit)
    assert part == whole


@settings(deadline=None)
@given(UNITS)
def test_exchanging_the_arms_mirrors_the_difference(units: Units) -> None:
    test = run(units, TestSettings(min_units=2, min_canary_units=0))
    mirrored = run(
        [(outcome, not is_canary, 1 - p) for outcome, is_canary, p in units],
        TestSettings(min_units=2, min_canary_units=0),
    )
    one, other = test.bounds(), mirrored.bounds()
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.estimate == pytest.approx(-other.estimate, abs=1e-9)
        assert one.low == pytest.approx(-other.high, abs=1e-9)


@settings(deadline=None)
@given(UNITS)
def test_running_bounds_only_tighten_and_wealth_stays_positive(units: Units) -> None:
    test = DifferenceTest(TestSettings(min_units=5, min_canary_units=0))
    low, high = -math.inf, math.inf
    for unit in units:
        test.add(*unit)
        assert test.running_low >= low
        assert test.running_high <= high
        assert math.isfinite(test.log_wealth)
        low, high = test.running_low, test.running_high


def test_nothing_is_decided_before_enough_units() -> None:
    awful = [(0.0, True, 0.5), (1.0, False, 0.5)] * 99
    assert not run(awful, TestSettings()).is_worse
    assert run(awful, TestSettings()).bounds() is None
    assert run([*awful, *awful[:2]], TestSettings()).is_worse


def test_constant_outcomes_decide_nothing() -> None:
    test = run([(0.5, bool(index % 2), 0.5) for index in range(400)], TestSettings())
    assert test.bounds() is None
    assert not test.is_worse


@pytest.mark.parametrize("unit", [(1.1, True, 0.5), (math.nan, True, 0.5), (0.5, True, 1.0)])
def test_units_outside_their_range_are_refused(unit: tuple[float, bool, float]) -> None:
    with pytest.raises(BadInput):
        DifferenceTest().add(*unit)


@pytest.mark.parametrize(
    ("ramp", "drift"), [(False, 0.0), (True, 0.06)], ids=["steady", "ramp and drift"]
)
def test_equal_arms_are_rarely_rejected_looking_at_every_unit(ramp: bool, drift: float) -> None:
    rejected = sum(
        rejected_at(simulated(seed, 2000, 0.0, ramp=ramp, drift=drift)) > 0 for seed in range(300)
    )
    # 5 % and two standard errors of 300 runs
    assert rejected / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


def test_a_five_point_drop_is_caught_within_2500_matched_sessions() -> None:
    caught = [rejected_at(simulated(seed, 2500, -0.05)) for seed in range(200)]
    assert sum(unit > 0 for unit in caught) >= 0.95 * 200
    assert np.median(caught) <= 1200


def test_a_better_canary_is_shown_to_be_better() -> None:
    shown = 0
    for seed in range(50):
        bounds = run(simulated(seed, 2500, 0.08), TestSettings()).bounds()
        shown += bounds is not None and bounds.low > 0
    assert shown >= 48


def test_the_confidence_sequence_covers_at_every_unit() -> None:
    missed = 0
    for seed in range(200):
        test = DifferenceTest()
        truth = -0.03
        for outcome, is_canary, p in simulated(seed, 1500, truth):
            test.add(outcome, is_canary, p)
        missed += not test.running_low <= truth <= test.running_high
    # 5 % over both sides; clipping at 1 moves the true difference by under .001
    assert missed / 200 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


def ratio_test(canary: NDArray[np.bool_], probability: NDArray[np.float64]) -> SampleRatioTest:
    test = SampleRatioTest()
    for is_canary, p in zip(canary.tolist(), probability.tolist(), strict=True):
        test.add(is_canary, p)
    return test


def test_a_fair_split_is_rarely_called_a_mismatch() -> None:
    random = np.random.default_rng(11)
    probability = np.where(np.arange(1500) < 500, 0.05, 0.5)
    called = 0
    for _ in range(100):
        test = SampleRatioTest(alpha=0.05)
        for is_canary, p in zip(
            (random.random(1500) < probability).tolist(), probability.tolist(), strict=True
        ):
            test.add(is_canary, p)
        called += test.is_mismatched
    assert called <= 5 + 2 * math.sqrt(5)


@pytest.mark.parametrize("share", [0.40, 0.60])
def test_a_lopsided_split_is_called_a_mismatch(share: float) -> None:
    random = np.random.default_rng(5)
    test = ratio_test(random.random(1500) < share, np.full(1500, 0.5))
    assert test.is_mismatched
    assert test.p_value < 0.001


def test_the_ratio_test_is_close_to_the_dirichlet_mixture_of_the_paper() -> None:
    """Lindon and Malek's Bayes factor with a Beta prior around the published split."""
    random = np.random.default_rng(8)
    canary = random.random(1200) < 0.56
    test = ratio_test(canary, np.full(1200, 0.5))
    hits, misses, mass = int(canary.sum()), int((~canary).sum()), 100.0
    log_factor = (
        betaln(mass / 2 + hits, mass / 2 + misses)
        - betaln(mass / 2, mass / 2)
        - 1200 * math.log(0.5)
    )
    assert test.log_wealth == pytest.approx(log_factor, abs=1.5)
    assert test.canary_units == hits
    assert test.expected_canary_units == pytest.approx(600)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.5, 0.1])), max_size=40))
def test_a_stored_ratio_test_goes_on_where_it_was(units: list[tuple[bool, float]]) -> None:
    test, stored = SampleRatioTest(), SampleRatioTest()
    for unit in units:
        test.add(*unit)
        stored = SampleRatioTest.from_document(json.loads(json.dumps(stored.to_document())))
        stored.add(*unit)
    assert stored == test


@pytest.mark.parametrize("document", [{}, {"settings": {}, "state": {}}, {"alpha": 1, "x": 2}])
def test_foreign_documents_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        DifferenceTest.from_document(document)
    if document.get("x"):
        with pytest.raises(BadInput):
            SampleRatioTest.from_document(document)


@pytest.mark.parametrize(
    "values", [{"alpha": 0.5}, {"alpha": 0.0}, {"tolerance": -0.1}, {"min_units": 1}]
)
def test_settings_that_make_no_test_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        TestSettings(**values)  # type: ignore[arg-type]
