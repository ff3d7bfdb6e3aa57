"""A small version of the simulated rollouts: whole ones, decided by the code that ships."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.rollout_simulation import PLAN, Ended, Scenario, run_rollout

QUICK = replace(PLAN, margin=0.05, horizon_seconds=86_400.0)


def ended(scenario: Scenario, rollouts: int) -> list[Ended]:
    return [run_rollout(scenario, (7, number), QUICK) for number in range(rollouts)]


@pytest.mark.parametrize(
    "scenario",
    [Scenario("equal"), Scenario("drift", drift=0.06), Scenario("developers", developers=20)],
    ids=lambda scenario: scenario.name,
)
def test_equal_policies_are_promoted_not_rolled_back(scenario: Scenario) -> None:
    found = [one.how for one in ended(scenario, 8)]
    # A share of at most 5 % is rolled back: two of eight would be one in twenty such tests.
    assert found.count("worse") <= 1
    assert found.count("promoted") >= 6


def test_a_five_point_drop_is_caught_within_2500_matched_sessions() -> None:
    for one in ended(Scenario("worse", quality=-0.05), 10):
        assert one.how == "worse"
        assert one.sessions <= 2500
        assert one.exposed <= 2000


@pytest.mark.parametrize(
    ("scenario", "how"),
    [
        (Scenario("poor ones unscored", unscored=0.5), "inconclusive"),
        (Scenario("silence", silent_after_hours=4.0), "could not measure"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_nothing_ships_on_missing_data(scenario: Scenario, how: str) -> None:
    assert {one.how for one in ended(scenario, 3)} == {how}
