"""Searches find what is there, stay with nothing when nothing is, and say on what they stand."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from randomised_logs import (
    HAIKU,
    OPUS,
    RandomisedLog,
    all_to,
    randomised_log,
    short_to_haiku,
)
from turn_strategies import PRICES

from loop.domain.errors import BadInput
from loop.domain.policies import RoutingPolicy
from loop.domain.runs import OptimizationRun
from optimizers.classic import classic_policy
from optimizers.policy_estimates import estimate_policy
from optimizers.routing_search import SearchSettings, search
from optimizers.session_evidence import SessionEvidence
from optimizers.session_splits import split_sessions
from optimizers.turn_frame import TurnFrame

QUICK = SearchSettings(trials=60, quality_margin=0.05)


def run_on(
    log: RandomisedLog, settings: SearchSettings = QUICK, incumbent: RoutingPolicy | None = None
) -> OptimizationRun:
    return search(
        log.frame,
        PRICES,
        incumbent=incumbent or all_to(OPUS),
        models=(OPUS, HAIKU),
        publications=log.publications,
        session_quality=log.quality,
        settings=settings,
        run_id="run-1",
    )


@pytest.fixture(scope="module")
def found() -> OptimizationRun:
    return run_on(randomised_log(20, 3_000))


def test_the_search_sends_the_short_sessions_to_haiku_and_no_others(
    found: OptimizationRun,
) -> None:
    assert found.found is not None, found.outcome
    assert found.selection is not None
    assert found.test is not None
    # All to Haiku would save 80 %, and lose 0.16 of quality; half of the sessions are short.
    assert 0.2 < found.test.saving_share < 0.55
    assert found.test.quality.difference is not None
    assert found.test.quality.difference.estimate > -0.08
    assert found.test.policy_digest == found.selection.policy_digest == found.found.digest
    assert found.test.sessions == 750
    assert found.selection.sessions == 2_250
    assert "under the constraints on quality and support" in found.outcome


def test_trial_0_is_the_classic_policy(found: OptimizationRun) -> None:
    assert found.trials[0].policy == classic_policy()
    assert found.trials[0].saving_share == 0.0  # every turn has more than 10,000 input tokens


def test_infeasible_trials_are_those_that_may_lose_quality(found: OptimizationRun) -> None:
    to_haiku = [t for t in found.trials if t.saving_share > 0.75]
    assert to_haiku
    assert not any(trial.feasible or trial.on_front for trial in to_haiku)
    front = [trial for trial in found.trials if trial.on_front]
    assert all(
        not (
            other.feasible
            and other.saving_share > trial.saving_share
            and (other.quality_difference_low or 0) >= (trial.quality_difference_low or 0)
        )
        for trial in front
        for other in found.trials
    )


def test_the_same_seed_gives_the_same_run() -> None:
    log, quick = randomised_log(21, 300), replace(QUICK, trials=40, min_cell_sessions=20)
    once, again = run_on(log, quick), run_on(log, quick)
    assert once.trials == again.trials
    assert (once.found, once.selection, once.test) == (again.found, again.selection, again.test)
    other = run_on(log, replace(quick, seed=1))
    assert [t.parameters for t in other.trials] != [t.parameters for t in once.trials]


def test_a_log_without_randomisation_is_searched_on_cost_alone_and_says_so() -> None:
    log = randomised_log(22, 200)
    bare = replace(log, frame=replace(log.frame, propensity=np.full(len(log.frame), np.nan)))
    run = run_on(bare)
    assert run.found is not None
    assert run.test is not None
    assert run.test.quality.value is run.test.quality.difference is None
    assert run.test.quality.refusals
    assert "on cost alone" in run.outcome
    assert "no logged randomised propensity" in run.outcome
    assert all(trial.quality_difference_low is None for trial in run.trials)


def test_nothing_better_is_a_result() -> None:
    # Everything is on Haiku already: nothing that is priced is cheaper.
    log = randomised_log(23, 200, (("haiku", 10_000, all_to(HAIKU)),))
    run = run_on(log, incumbent=all_to(HAIKU))
    assert run.found is None
    assert run.state == "finished"
    assert run.outcome.startswith("No better policy found: 60 policies were tried")


def test_savings_are_against_the_incumbent_policy_not_against_what_was_explored() -> None:
    log = randomised_log(24, 400)
    estimate = estimate_policy(all_to(OPUS), log.frame, PRICES, incumbent=all_to(OPUS))
    assert estimate.saving_share == 0.0
    assert estimate.incumbent_cost_microusd > estimate.logged_cost_microusd


@pytest.mark.parametrize("sessions", [0, 5])
def test_a_log_that_is_too_small_to_test_on_finds_nothing(sessions: int) -> None:
    frame = randomised_log(25, 5).frame.of_sessions(np.arange(5) < sessions)
    run = search(frame, PRICES, incumbent=all_to(OPUS), settings=QUICK)
    assert run.found is None
    assert f"the log holds {sessions} sessions" in run.outcome


def test_a_log_without_prices_finds_nothing() -> None:
    frame = randomised_log(26, 30).frame
    free = replace(
        frame, cost_microusd=frame.cost_microusd * 0, is_priced=np.zeros(len(frame), bool)
    )
    run = search(free, PRICES, incumbent=all_to(OPUS), settings=QUICK)
    assert run.outcome == "No better policy found: no turn of the log has a price."


def test_a_model_without_a_price_is_refused_by_name() -> None:
    frame = randomised_log(27, 30).frame
    with pytest.raises(BadInput, match="claude-opus-99 has no price"):
        search(frame, PRICES, incumbent=all_to(OPUS), models=("claude-opus-99",))


def test_a_search_stops_when_it_is_asked_to() -> None:
    calls = count(1)
    seen: list[int] = []
    log = randomised_log(28, 100)
    run = search(
        log.frame,
        PRICES,
        incumbent=all_to(OPUS),
        settings=QUICK,
        progress=lambda trial: seen.append(trial.number),
        stop_requested=lambda: next(calls) == 7,
    )
    assert len(run.trials) == 7
    assert seen == list(range(7))
    assert "the search ended on request" in run.outcome


@pytest.mark.parametrize(
    ("budget", "reason", "most"),
    [
        ({"seconds": 0.0}, "ended after 0 seconds", 1),
        ({"max_usd": 1e-12}, "ended after spending $", 1),
        ({"patience": 4}, "ended after 4 trials without a gain", 59),
    ],
)
def test_a_budget_ends_a_search(budget: dict[str, float], reason: str, most: int) -> None:
    run = run_on(randomised_log(29, 100), replace(QUICK, **budget))  # type: ignore[arg-type]
    assert 1 <= len(run.trials) <= most
    assert reason in run.outcome
    assert run.spent_usd > 0


def test_nsga2_searches_as_well_and_an_unknown_sampler_is_refused(found: OptimizationRun) -> None:
    run = run_on(randomised_log(20, 3_000), replace(QUICK, trials=40, sampler="nsga2"))
    assert run.found is not None
    assert run.test is not None
    assert found.test is not None
    assert run.test.saving_share > 0.8 * found.test.saving_share
    with pytest.raises(BadInput, match="no sampler"):
        SearchSettings(sampler="gp")  # type: ignore[arg-type]


def test_a_change_that_too_few_sessions_were_drawn_for_is_not_proposed() -> None:
    log = randomised_log(20, 1_200)
    quick = replace(QUICK, trials=30, quality_margin=0.9)
    run = run_on(log, replace(quick, min_cell_sessions=300))
    assert run.found is not None
    # Each model was drawn for half of the 900 sessions that choose: 300 need some two thirds.
    allowed = [t for t in run.trials if t.feasible and t.saving_share > 0.01]
    assert allowed
    assert all(trial.saving_share > 0.4 for trial in allowed)
    strict = run_on(log, replace(quick, min_cell_sessions=600))
    assert strict.found is None
    assert all(t.saving_share < 1e-3 for t in strict.trials if t.feasible)


def test_the_test_sessions_are_later_than_all_others_and_every_session_has_one_place() -> None:
    frame = randomised_log(31, 400).frame
    split = split_sessions(frame)
    places = split.train.astype(int) + split.validation + split.test
    assert (places == 1).all()
    started = frame.started_at_us[frame.session_starts()]
    assert started[split.test].min() > started[split.selection].max()
    smaller: TurnFrame = frame.of_sessions(split.selection)
    again = split_sessions(smaller, test_share=0.0)
    assert again.validation.tolist() == split.validation[split.selection].tolist()


def test_a_search_reads_the_trap_of_the_naive_rule() -> None:
    estimate = estimate_policy(short_to_haiku(10**6), randomised_log(32, 50).frame, PRICES)
    assert estimate.naive_cost_microusd > 0
    assert estimate.reach[0].rule_id == "short"


def test_a_log_without_prices_has_no_saving_and_no_policy() -> None:
    log = randomised_log(4, 80)
    none = np.zeros(len(log.frame), bool)
    bare = replace(log.frame, is_priced=none, cost_microusd=np.zeros(len(log.frame), np.int64))
    estimate = estimate_policy(all_to(HAIKU), bare, PRICES)
    assert estimate.saving_share is None
    assert estimate.calibration_residual is None
    assert estimate.unpriced_turns == len(bare)
    run = search(bare, PRICES, incumbent=all_to(OPUS), settings=SearchSettings(trials=3))
    assert run.found is None
    assert "no turn of the log has a price" in run.outcome


def test_a_log_whose_sessions_all_drew_one_arm_answers_for_no_other() -> None:
    log = randomised_log(4, 200, (("opus", 10_000, all_to(OPUS)),))
    evidence = SessionEvidence(log.frame, log.publications, log.quality, all_to(OPUS))
    estimate = estimate_policy(all_to(HAIKU), log.frame, PRICES, evidence=evidence)
    assert estimate.quality.value is None
    assert "outside support" in estimate.quality.refusals[0]
    assert estimate.output_lengths[0].basis == "assumed"
