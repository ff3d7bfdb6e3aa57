"""Logs made from known outcomes: they reveal one model only, and their truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.public_logs import (
    all_to,
    frame_of,
    measure_coverage,
    repositories_to,
    reveal,
    sent_to_strong,
    short_to,
)
from bench.public_routers import RoutingSet
from bench.public_routing import candidates_of, prompt_tokens, threshold_steps
from bench.public_routing_search import ask_rule_chosen_log, search_set
from optimizers.routing_search import SearchSettings


def make_set(count: int = 600, seed: int = 0) -> RoutingSet:
    """The weak model is as good on short prompts and useless on long ones."""
    random = np.random.default_rng(seed)
    chars = random.integers(30, 3_000, count)
    domains = random.choice(np.array(["algebra", "law", "poems"], object), count)
    strong = (random.random(count) < 0.8) * 1.0
    weak = np.where(chars < 1_500, strong, 0.0)
    return RoutingSet("made up", "big", "small", chars, domains, strong, weak)


def test_a_log_reveals_the_drawn_model_only() -> None:
    prompts = make_set(50)
    is_strong = np.arange(50) % 2 == 0
    log = reveal(prompts, np.arange(50), is_strong, 0.5)
    expected = np.where(is_strong, prompts.strong_quality, prompts.weak_quality)
    assert [log.quality[f"s{row:06d}"] for row in range(50)] == expected.tolist()
    assert (log.frame.propensity == 0.5).all()
    assert np.isnan(reveal(prompts, np.arange(50), is_strong, None).frame.propensity).all()


def test_policies_route_as_they_say() -> None:
    prompts = make_set(200)
    tokens = prompt_tokens(prompts)
    assert (sent_to_strong(prompts, short_to("small", 300, "big")) == (tokens >= 300)).all()
    named = sent_to_strong(prompts, repositories_to("small", ["law"], "big"))
    assert (named == (prompts.domains != "law")).all()
    assert not sent_to_strong(prompts, all_to("small"), frame_of(prompts)).any()


def test_steps_order_prompts_as_thresholds_can() -> None:
    prompts = make_set(200)
    steps, tokens = threshold_steps(prompts), prompt_tokens(prompts)
    order = np.argsort(tokens, kind="stable")
    assert (np.diff(steps[order]) >= 0).all()
    below_hundred = tokens < 100
    assert len(np.unique(steps[below_hundred])) == len(np.unique(tokens[below_hundred]))


def test_intervals_cover_a_truth_that_is_known() -> None:
    prompts = make_set()
    candidates = candidates_of(prompts)
    found = measure_coverage(
        prompts, candidates, sessions=300, strong_share=0.5, resamplings=40, seed=3
    )
    assert found.estimates == 40 * len(candidates)
    assert found.refused == 0
    assert found.value_covered > 0.85
    assert found.difference_covered > 0.85
    assert abs(found.bias) < 0.02
    assert 0.05 < found.mean_width < 0.3


def test_too_few_sessions_are_refused_and_counted() -> None:
    prompts = make_set()
    found = measure_coverage(
        prompts, candidates_of(prompts), sessions=40, strong_share=0.5, resamplings=3
    )
    assert found.estimates == 0
    assert found.refused == 3 * len(candidates_of(prompts))


def test_a_log_made_by_a_rule_is_refused() -> None:
    answer = ask_rule_chosen_log(make_set())
    assert "no logged randomised propensity" in answer.refusals[0]
    assert answer.logged_mean_of_weak > answer.truth_of_weak + 0.2


def test_the_search_finds_the_saving_that_is_there() -> None:
    prompts = make_set(1_500)
    found = search_set(prompts, seed=1, settings=SearchSettings(trials=40, seconds=30, seed=1))
    assert found.saving == pytest.approx(0.25, abs=0.15)
    assert found.strong_share is not None
    assert found.strong_share < 0.9
    assert found.true_difference is not None
    assert found.true_difference > -0.05
