"""AUROC against scikit-learn and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bench.public_classifier import auroc, measure_auroc


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_it_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([pair[0] for pair in pairs], float)
    good = np.array([pair[1] for pair in pairs])
    assume(0 < good.sum() < len(good))
    assert auroc(scores, good) == pytest.approx(roc_auc_score(good, scores))


def test_intervals_of_a_good_and_of_a_useless_predictor() -> None:
    random = np.random.default_rng(0)
    good = random.random(400) < 0.4
    names = [str(number) for number in range(400)]
    useful = measure_auroc(good + random.normal(0, 0.7, 400), good, names, draws=200)
    useless = measure_auroc(random.random(400), good, names, draws=200)
    assert useful.low is not None
    assert useful.low > 0.7
    assert useless.low is not None
    assert useless.high is not None
    assert useless.low < 0.5 < useless.high


def test_runs_of_one_task_are_resampled_together() -> None:
    random = np.random.default_rng(1)
    task_is_good = random.random(40) < 0.5
    good = np.repeat(task_is_good, 10)
    scores = np.repeat(random.random(40) + 0.3 * task_is_good, 10)
    alone = measure_auroc(scores, good, [str(n) for n in range(400)], draws=200)
    by_task = measure_auroc(scores, good, [str(n // 10) for n in range(400)], draws=200)
    assert by_task.estimate == alone.estimate
    assert by_task.high is not None
    assert by_task.low is not None
    assert alone.high is not None
    assert alone.low is not None
    assert by_task.high - by_task.low > 2 * (alone.high - alone.low)


def test_too_few_of_a_class_give_no_number() -> None:
    found = measure_auroc([0.1] * 20, [True] * 15 + [False] * 5, ["a"] * 20)
    assert found.estimate is None
    assert (found.rows, found.good) == (20, 15)
