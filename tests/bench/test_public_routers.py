"""Curves of routers against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.public_routers import (
    RoutingSet,
    by_domain,
    by_domain_and_length,
    by_steps,
    compare_routers,
    folded_curve,
    folds_of,
    gain_curve,
    out_of_fold_scores,
    two_digits,
)


def make_set(count: int = 400, seed: int = 0) -> RoutingSet:
    """Long prompts and the domain "hard" gain by the strong model; nothing else does."""
    random = np.random.default_rng(seed)
    chars = random.integers(20, 2_000, count)
    domains = np.where(random.random(count) < 0.4, "hard", "easy").astype(object)
    gains = (domains == "hard") & (chars > 500) & (random.random(count) < 0.8)
    weak = (random.random(count) < 0.5) & ~gains
    return RoutingSet("made up", "big", "small", chars, domains, (weak | gains) * 1.0, weak * 1.0)


def test_a_router_that_knows_nothing_recovers_in_proportion() -> None:
    curve = gain_curve(np.zeros(8), np.array([1.0, 0, 0, 1, 0, 0, 0, 0]))
    assert curve.apgr == pytest.approx(0.5)
    assert curve.cpt(0.5) == pytest.approx(0.5)
    assert curve.cpt(0.8) == pytest.approx(0.8)


def test_the_best_order_is_worth_what_it_is_by_hand() -> None:
    gain = np.array([1.0, 0.0, 0.0, -0.5])
    curve = gain_curve(gain, gain)
    # Recovered: 0 to 2 over the first quarter, 2 over the next two, back to 1 over the last.
    assert curve.apgr == pytest.approx(0.25 * 1 + 0.5 * 2 + 0.25 * 1.5, abs=1e-3)
    assert curve.cpt(0.5) == pytest.approx(0.0625, abs=1e-9)


def test_weights_are_repetitions() -> None:
    random = np.random.default_rng(1)
    scores, gain = random.random(30), random.integers(-1, 2, 30) + 0.1
    counts = random.integers(0, 4, 30)
    rows = np.repeat(np.arange(30), counts)
    weighted = gain_curve(scores, gain, counts.astype(float))
    assert weighted.gained == pytest.approx(gain_curve(scores[rows], gain[rows]).gained)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from((-1, 0, 1))), min_size=2, max_size=30))
def test_no_router_beats_the_oracle_and_all_end_alike(pairs: list[tuple[int, int]]) -> None:
    scores = np.array([pair[0] for pair in pairs], float)
    gain = np.array([pair[1] for pair in pairs], float)
    curve, oracle = gain_curve(scores, gain), gain_curve(gain, gain)
    assert (curve.gained <= oracle.gained + 1e-9).all()
    assert curve.gained[-1] == pytest.approx(gain.mean())


def test_a_curve_that_never_recovers_a_share_needs_every_call() -> None:
    gain = np.array([0.0, 0.0, 1.0])
    assert gain_curve(-gain, gain).cpt(1.0) == pytest.approx(1.0)


def test_what_can_be_learnt_is_learnt_out_of_fold() -> None:
    prompts = make_set()
    folds = folds_of(len(prompts))
    routers = {
        "random": np.zeros(len(prompts)),
        "length": out_of_fold_scores(by_steps(-prompts.prompt_chars * 1.0, prompts.gain), folds),
        "domain": out_of_fold_scores(by_domain(prompts), folds),
        "both": out_of_fold_scores(by_domain_and_length(prompts), folds),
        "oracle": prompts.gain,
    }
    results = {
        item.router: item for item in compare_routers(routers, prompts.gain, folds, "random", 50)
    }
    assert results["random"].above_bar is None
    for better in ("length", "domain", "both"):
        above = results[better].above_bar
        assert above is not None
        assert above[1] > 0
        assert results[better].apgr < results["oracle"].apgr
    assert results["both"].apgr > results["domain"].apgr


def test_a_label_of_noise_gains_nothing_out_of_fold() -> None:
    random = np.random.default_rng(5)
    prompts = make_set(2_000)
    noise = RoutingSet(
        "noise", "big", "small", prompts.prompt_chars,
        random.integers(0, 100, len(prompts)).astype(str).astype(object),
        prompts.strong_quality, prompts.weak_quality,
    )  # fmt: skip
    folds = folds_of(len(noise))
    scores = out_of_fold_scores(by_domain(noise), folds)
    assert folded_curve(scores, noise.gain, folds).apgr == pytest.approx(0.5, abs=0.1)


def test_thresholds_are_written_to_two_digits() -> None:
    assert two_digits([7, 99, 101, 104, 106, 1_234]) == [7, 99, 100, 110, 1_200]
