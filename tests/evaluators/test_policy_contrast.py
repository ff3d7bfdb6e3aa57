from __future__ import annotations

import numpy as np
import pytest

from evaluators.policy_contrast import Routed, check_policies

GENERATOR = np.random.default_rng(3)


def routed_fleet(
    chances: dict[tuple[int, int], float], each: int = 200
) -> tuple[list[Routed | None], list[int]]:
    """Sessions of each (serial, version), and those in the cluster: by these chances, exactly."""
    routed: list[Routed | None] = []
    members = []
    for (serial, version), chance in chances.items():
        members += range(len(routed), len(routed) + round(chance * each))
        routed += [Routed(serial, version)] * each
    return routed, members


def test_a_version_that_makes_a_cluster_in_a_randomised_rollout_explains_it() -> None:
    routed, members = routed_fleet({(7, 1): 0.02, (7, 2): 0.2})
    (check,) = check_policies(routed, [members])
    assert check.verdict == "explained"
    assert (check.policy_version, check.is_randomised) == (2, True)
    assert check.ratio == pytest.approx(10.0)
    assert check.low is not None
    assert check.high is not None
    assert 1 < check.low < 10 < check.high
    assert check.excess_share == pytest.approx(40 * 0.9 / 44)
    assert "10 times as likely" in check.reason


def test_equal_chances_do_not() -> None:
    routed, members = routed_fleet({(7, 1): 0.3, (7, 2): 0.3})
    (check,) = check_policies(routed, [members])
    assert check.verdict == "not explained"


def test_a_trend_over_time_is_not_taken_for_the_policy() -> None:
    """Version 2 came when all got worse; within each publication the versions do alike."""
    routed, members = routed_fleet({(7, 1): 0.02, (8, 1): 0.3, (8, 2): 0.3, (9, 2): 0.3})
    (check,) = check_policies(routed, [members])
    assert check.is_randomised
    assert check.ratio == pytest.approx(1.0)
    assert check.verdict == "not explained"


def test_versions_that_never_served_together_cannot_tell() -> None:
    routed, members = routed_fleet({(7, 1): 0.02, (8, 2): 0.2})
    (check,) = check_policies(routed, [members])
    assert check.verdict == "can't tell"
    assert not check.is_randomised
    assert "time or people" in check.reason


def test_little_data_cannot_tell_and_no_policy_explains_nothing() -> None:
    routed, members = routed_fleet({(7, 1): 0.1, (7, 2): 0.2}, each=10)
    assert check_policies(routed, [members])[0].verdict == "can't tell"
    routed, members = routed_fleet({(7, 1): 0.04, (7, 2): 0.08}, each=25)
    assert check_policies(routed, [members])[0].verdict == "can't tell"  # too wide an interval
    (check,) = check_policies([None] * 50, [range(10)])
    assert check.verdict == "not explained"
    assert "no policy routed" in check.reason


def test_strata_are_pooled_as_mantel_and_haenszel_do() -> None:
    """By hand: (20·100/200 + 40·300/400) / (5·100/200 + 30·100/400) = 40/10."""
    routed: list[Routed | None] = []
    members: list[int] = []
    for serial, version, hits, sessions in (
        (1, 2, 20, 100),
        (1, 1, 5, 100),
        (2, 2, 40, 100),
        (2, 1, 30, 300),
    ):
        members += range(len(routed), len(routed) + hits)
        routed += [Routed(serial, version)] * sessions
    (check,) = check_policies(routed, [members])
    assert check.ratio == pytest.approx((20 * 0.5 + 40 * 0.75) / (5 * 0.5 + 30 * 0.25))


def test_many_clusters_of_chance_are_seldom_explained() -> None:
    """Holm's correction over clusters and versions: false alarms in at most about 5 % of runs."""
    alarms = 0
    for _ in range(60):
        routed: list[Routed | None] = [
            Routed(7, 1 + int(GENERATOR.integers(2))) for _ in range(600)
        ]
        place = GENERATOR.integers(0, 20, 600)
        members = [list(np.flatnonzero(place == number)) for number in range(12)]
        checks = check_policies(routed, members)
        alarms += any(check.verdict in ("explained", "in part") for check in checks)
    assert alarms <= 8  # 3 expected; more than 8 has a chance of under 1 %
