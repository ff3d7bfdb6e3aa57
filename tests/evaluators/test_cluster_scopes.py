from __future__ import annotations

import numpy as np

from evaluators.cluster_scopes import find_over_represented


def placed(counts: dict[str, tuple[int, int]]) -> tuple[list[str], dict[str, str]]:
    """Sessions of each repository: so many in the cluster, so many outside."""
    members, value_of = [], {}
    for repository, (inside, outside) in counts.items():
        for number in range(inside + outside):
            name = f"{repository}-{number}"
            value_of[name] = repository
            if number < inside:
                members.append(name)
    return members, value_of


def test_a_repository_that_has_it_surely_more_often_is_found() -> None:
    found = find_over_represented(*placed({"shop": (30, 20), "site": (10, 190), "": (9, 3)}))
    assert found is not None
    assert found.values == ("shop",)
    assert (found.members, found.of, found.others) == (30, 49, 20)


def test_equal_shares_few_sessions_and_unknown_places_are_not() -> None:
    assert find_over_represented(*placed({"shop": (20, 80), "site": (20, 80)})) is None
    assert find_over_represented(*placed({"shop": (4, 0), "site": (20, 200)})) is None
    assert find_over_represented(*placed({"unattributed": (40, 0), "site": (10, 90)})) is None
    assert find_over_represented([], {}) is None


def test_chance_alone_is_seldom_taken_for_a_place() -> None:
    generator = np.random.default_rng(5)
    alarms = 0
    for _ in range(100):
        value_of = {str(n): "ab"[generator.integers(2)] for n in range(300)}
        members = [name for name in value_of if generator.random() < 0.2]
        alarms += find_over_represented(members, value_of) is not None
    assert alarms <= 14  # two one-sided looks at 2.5 %: 5 expected, more than 14 under 0.02 %
