"""Agreement and corrected means, held to scikit-learn, ppi-python and simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t
from sklearn.metrics import cohen_kappa_score

from bench.judge_world import JudgeWorld
from evaluators.calibration.agreement import RatedItem, measure_agreement
from evaluators.calibration.prediction_powered import JudgedItem, correct_mean, rectify
from loop.domain.errors import BadInput

ORACLE = json.loads((Path(__file__).parent / "recorded_ppi" / "oracle.json").read_text())
ratings = st.lists(
    st.builds(
        RatedItem, session_id=st.sampled_from("abcdefgh"), label=st.booleans(), judged=st.booleans()
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(items=ratings)
def test_kappa_is_that_of_scikit_learn(items: list[RatedItem]) -> None:
    found = measure_agreement(items, draws=20)
    labels, judged = [i.label for i in items], [i.judged for i in items]
    if len({*labels, *judged}) == 1:
        assert found.kappa is None
        return
    assert found.kappa is not None
    assert found.kappa.estimate == pytest.approx(cohen_kappa_score(labels, judged), abs=1e-12)
    assert found.items == found.found_bad + found.missed_bad + found.false_bad + found.both_good
    assert found.bad_share == pytest.approx(labels.count(False) / len(labels))


def test_an_interval_of_kappa_counts_sessions_not_items() -> None:
    random = np.random.default_rng(4)
    items = []
    for session in range(60):
        agrees = random.random() < 0.8
        label = random.random() < 0.5
        items.append(RatedItem(f"s{session}", bool(label), bool(label == agrees)))
    once, copied = measure_agreement(items), measure_agreement(items * 20)
    assert copied.kappa == once.kappa
    assert copied.items == 20 * once.items
    assert once.kappa is not None
    assert 0.2 < once.kappa.high - once.kappa.low < 0.6


def test_the_interval_of_kappa_covers_it() -> None:
    """200 samples of 80 sessions: binomial noise of a 95 % interval is 2.5 points, twice."""
    random = np.random.default_rng(11)
    hits = 0
    labels = random.random((200, 80)) < 0.5
    judged = np.where(random.random((200, 80)) < 0.8, labels, ~labels)
    truth = 2 * 0.8 - 1  # agreement 0.8 with even odds: (0.8 - 0.5) / 0.5
    for row, other in zip(labels, judged, strict=True):
        items = [
            RatedItem(str(place), bool(one), bool(two))
            for place, (one, two) in enumerate(zip(row, other, strict=True))
        ]
        kappa = measure_agreement(items, draws=200).kappa
        assert kappa is not None
        hits += kappa.low <= truth <= kappa.high
    assert 0.90 <= hits / 200 <= 0.99


@pytest.mark.parametrize("case", range(len(ORACLE["cases"])))
@pytest.mark.parametrize("power", ["0", "0.5", "1", "tuned"])
def test_a_corrected_mean_is_that_of_ppi_python(case: int, power: str) -> None:
    """It takes items for independent, normal quantiles, and divides by n; n - 1 is 1.3 % off."""
    given = ORACLE["cases"][case]
    items = [
        JudgedItem(f"l{place}", judged, label)
        for place, (judged, label) in enumerate(zip(given["judged"], given["labels"], strict=True))
    ] + [JudgedItem(f"u{place}", judged) for place, judged in enumerate(given["others"])]
    estimate, low, high = given["answers"][power]
    found = correct_mean(items, power=None if power == "tuned" else float(power))
    # It estimates the spread of the judge over all items, we over labelled and others apart.
    slack = 0.005 if power == "tuned" else 1e-9
    assert found.mean.estimate == pytest.approx(estimate, abs=slack)
    n = found.labelled_sessions
    scale = norm.ppf(0.975) / t.ppf(0.975, n - 2) * ((n - 1) / n) ** 0.5
    half = (found.mean.high - found.mean.low) / 2 * scale
    assert half == pytest.approx((high - low) / 2, rel=1e-9 if power == "0" else 0.015)


def draw_items(random: np.random.Generator, sessions: int) -> list[JudgedItem]:
    items = []
    for session in range(sessions):
        for _ in range(1 + int(random.integers(4))):
            label = float(random.random() < 0.7) if session < sessions // 3 else None
            items.append(JudgedItem(f"s{session}", float(random.random()), label))
    return items


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), power=st.floats(0, 1))
def test_copies_and_order_say_nothing_new(seed: int, power: float) -> None:
    items = draw_items(np.random.default_rng(seed), 30)
    found = correct_mean(items, power=power)
    again = correct_mean([*reversed(items), *items], power=power)
    assert again.mean.estimate == pytest.approx(found.mean.estimate)
    assert again.mean.low == pytest.approx(found.mean.low)
    tuned = correct_mean(items)
    assert 0.0 <= tuned.power <= 1.0


def test_a_few_sessions_that_are_alike_are_no_certainty() -> None:
    """A perfect judge; all but three sessions are labelled, and those three happen to be good."""
    items = [JudgedItem(f"s{n}", float(n % 3 > 0), float(n % 3 > 0)) for n in range(33)]
    items += [JudgedItem(f"u{n}", 1.0) for n in range(3)]
    found = correct_mean(items)
    assert found.power < 0.15
    assert found.mean.low < 2 / 3 < found.mean.high


def test_a_mean_without_labels_is_refused() -> None:
    with pytest.raises(BadInput, match="2 labelled sessions"):
        correct_mean([JudgedItem("a", 1.0, 1.0), JudgedItem("b", 1.0, 0.0), JudgedItem("c", 1.0)])


def test_rectified_sessions_have_the_corrected_mean() -> None:
    random = np.random.default_rng(5)
    items = [
        JudgedItem(
            f"s{n}",
            float(random.random()),
            float(random.random() < 0.6) if n < 50 else None,
            label_probability=50 / 200,
        )
        for n in range(200)
    ]
    for power in (0.0, 0.4, 1.0):
        values = rectify(items, power)
        mean = correct_mean(items, power=power).mean.estimate
        assert sum(values.values()) / 200 == pytest.approx(mean)


def coverages(world: JudgeWorld, runs: int) -> dict[str, float]:
    found = [world.covers(seed) for seed in range(runs)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def test_the_corrected_interval_covers_the_truth_in_a_clustered_world() -> None:
    """200 runs, of which chance moves the share by ±0.03; ``bench/bench_judge.py`` draws more."""
    world = JudgeWorld(labelled_sessions=60, judged_sessions=200, judge_bias=0.6)
    found = coverages(world, 200)
    assert 0.92 <= found["corrected"] <= 0.98
    assert found["judge_only"] < 0.2
    assert found["labels_as_items"] < found["corrected"]
