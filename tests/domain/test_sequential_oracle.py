"""The tests of a rollout beside an independent package's recorded answers to the same units."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from loop.domain.sequential_tests import DifferenceTest, TestSettings

RECORDED = json.loads((Path(__file__).parent / "sequential_oracle.json").read_text())


def units(seed: int, count: int, drop: float) -> list[tuple[float, bool]]:
    """Outcome and arm, by a generator that is the same on every machine and version."""
    state, found = seed, []

    def draw() -> float:
        nonlocal state
        state = (1103515245 * state + 12345) % 2**31
        return (state >> 8) / 2**23

    for _ in range(count):
        is_canary = draw() < 0.5
        outcome = 0.35 + 0.5 * (draw() + draw()) / 2
        found.append((min(1.0, max(0.0, outcome - drop * is_canary)), is_canary))
    return found


@pytest.mark.parametrize("row", RECORDED["confidence_sequences"])
def test_bounds_are_those_of_an_independent_implementation(row: dict[str, Any]) -> None:
    test = DifferenceTest(TestSettings(alpha=row["alpha"] / 2))
    columns = zip(row["at"], row["mean"], row["low"], row["high"], strict=True)
    recorded = {at: numbers for at, *numbers in columns}
    for outcome, is_canary in units(row["seed"], max(recorded), row["drop"]):
        test.add(outcome, is_canary, 0.5)
        if test.units not in recorded:
            continue
        mean, low, high = recorded[test.units]
        bounds = test.bounds()
        assert bounds is not None
        # The package bounds the mean of the weighted influences, we their sum over the weights;
        # it divides the variance by n - 1, we by n.
        scale, n = test.weight_sum / test.units, test.units
        assert bounds.estimate * scale == pytest.approx(mean, rel=1e-9)
        radius = (bounds.high - bounds.estimate) * scale * math.sqrt(n / (n - 1))
        assert radius == pytest.approx(high - mean, rel=1e-6)
        assert radius == pytest.approx(mean - low, rel=1e-6)


@pytest.mark.parametrize("row", RECORDED["betting"])
def test_the_bets_reject_about_when_another_betting_test_does(row: dict[str, Any]) -> None:
    """Stakes differ, so the wealth does; what is concluded, and about when, must not."""
    # Its alpha is over two sides, half of its capital on each.
    test = DifferenceTest(TestSettings(alpha=row["alpha"] / 2, min_units=2, min_canary_units=0))
    rejected_at = 0
    for outcome, is_canary in units(row["seed"], 1500, row["drop"]):
        test.add(outcome, is_canary, 0.5)
        if not rejected_at and test.max_log_wealth >= -math.log(test.settings.alpha):
            rejected_at = test.units
    assert (rejected_at > 0) == (row["rejects_at"] is not None)
    if rejected_at:
        assert row["rejects_at"] / 2 <= rejected_at <= row["rejects_at"] * 2


def test_bounds_may_be_for_another_alpha_than_the_rejection() -> None:
    shared = DifferenceTest(TestSettings(alpha=0.005, bound_alpha=0.025))
    alone = DifferenceTest(TestSettings(alpha=0.025))
    strict = DifferenceTest(TestSettings(alpha=0.005))
    for outcome, is_canary in units(13, 1500, 0.05):
        for test in (shared, alone, strict):
            test.add(outcome, is_canary, 0.5)
    assert shared.bounds() == alone.bounds()
    assert shared.worse_at_unit == strict.worse_at_unit > alone.worse_at_unit > 0
    assert DifferenceTest.from_document(shared.to_document()) == shared
