"""Off-policy estimates: right where the log can answer, refused in words where it can't."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from randomised_logs import (
    HAIKU,
    OPUS,
    RandomisedLog,
    all_to,
    randomised_log,
    short_to_haiku,
    true_value,
    with_propensities_times,
)
from turn_strategies import PRICES

from loop.domain.estimates import Interval, OutcomeEstimate
from loop.domain.policies import RoutingPolicy
from optimizers.off_policy import EstimationLimits, estimate_quality
from optimizers.policy_estimates import estimate_policy
from optimizers.session_evidence import SessionEvidence
from optimizers.slices import holm
from optimizers.turn_frame import NOT_LOGGED


def estimate(
    log: RandomisedLog,
    candidate: RoutingPolicy,
    incumbent: RoutingPolicy | None = None,
    limits: EstimationLimits | None = None,
) -> OutcomeEstimate:
    return estimate_quality(
        log.frame, candidate, log.publications, log.quality, incumbent or all_to(OPUS), limits
    )


def refused(answer: OutcomeEstimate, *words: str) -> bool:
    says_so = all(any(word in reason for reason in answer.refusals) for word in words)
    return answer.value is answer.difference is answer.snips is None and says_so


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    candidate, runs = short_to_haiku(), 120
    truth = true_value(400)
    change = truth - true_value(0)
    hits, change_hits, estimates = 0, 0, []
    for seed in range(runs):
        answer = estimate(randomised_log(seed, 400), candidate)  # some 200 of them treated
        assert answer.value is not None, answer.refusals
        assert answer.difference is not None
        hits += answer.value.low <= truth <= answer.value.high
        change_hits += answer.difference.low <= change <= answer.difference.high
        estimates.append(answer.value.estimate)
    assert 0.92 <= hits / runs <= 0.98
    assert 0.92 <= change_hits / runs <= 0.98
    assert abs(np.mean(estimates) - truth) < 4 * np.std(estimates) / np.sqrt(runs)


@given(
    seed=st.integers(0, 2**16),
    share=st.integers(2_000, 8_000),
    tokens=st.integers(50, 2_000),
)
@settings(max_examples=12)
def test_what_holds_for_every_log(seed: int, share: int, tokens: int) -> None:
    policy = short_to_haiku(tokens)
    arms = (("short", share, policy), ("opus", 10_000 - share, all_to(OPUS)))
    log = randomised_log(seed, 300, arms)
    mine = estimate(log, policy, policy)
    assume(mine.value is not None)
    # The target is the incumbent: no difference, and the logged mean of those that it would have
    # routed so, each counted by how likely it was to be.
    assert mine.difference == Interval(0.0, 0.0, 0.0)
    arm_of = {decision.session_id: decision.arm for decision in log.decisions}
    prompt_of = {decision.session_id: decision.prompt_tokens for decision in log.decisions}
    counted = {
        name: 1.0 if prompt_of[name] >= tokens else (arm_of[name] == "short") / (share / 10_000)
        for name in log.quality
    }
    mean = sum(counted[name] * value for name, value in log.quality.items()) / sum(counted.values())
    assert mine.snips == pytest.approx(mean, abs=1e-9)
    back = randomised_log(seed, 300, arms, backwards=True)
    assert estimate(back, policy) == estimate(log, policy)
    assert refused(estimate(with_propensities_times(log, 2.0), policy), "weight of the arm")


def test_a_policy_that_every_arm_agrees_with_gets_the_logged_mean() -> None:
    log = randomised_log(1, 200, (("a", 5_000, all_to(OPUS)), ("b", 5_000, all_to(OPUS))))
    answer = estimate(log, all_to(OPUS))
    assert answer.value is not None
    assert answer.difference is not None
    mean = np.mean(list(log.quality.values()))
    assert answer.value.estimate == pytest.approx(mean, abs=1e-12)
    assert answer.snips == pytest.approx(mean, abs=1e-12)
    assert answer.support == 1.0
    assert (answer.difference.low, answer.difference.high) == (0.0, 0.0)


def test_the_incumbent_against_itself_is_no_difference_and_its_own_arms_mean() -> None:
    log = randomised_log(2, 400)
    answer = estimate(log, all_to(OPUS))
    arm_of = {d.session_id: d.arm for d in log.decisions}
    mean = np.mean([value for name, value in log.quality.items() if arm_of[name] == "opus"])
    assert answer.snips == pytest.approx(mean, abs=1e-12)
    assert answer.difference is not None
    assert (answer.difference.estimate, answer.difference.low) == (0.0, 0.0)


def test_sessions_given_twice_leave_the_estimate_as_it_was() -> None:
    log = randomised_log(3, 300)
    frame, quality = log.frame, log.quality
    n, s = len(frame), frame.n_sessions
    doubled: dict[str, object] = {}
    for name in frame.__dataclass_fields__:
        value = getattr(frame, name)
        if isinstance(value, np.ndarray):
            doubled[name] = np.concatenate([value, value])
        elif hasattr(value, "codes"):
            doubled[name] = replace(value, codes=np.concatenate([value.codes, value.codes]))
    doubled["session_ids"] = (*frame.session_ids, *(f"{name}+" for name in frame.session_ids))
    doubled["session"] = np.concatenate([frame.session, frame.session + s])
    doubled["segment"] = np.concatenate([frame.segment, frame.segment + s])
    twice = replace(
        log,
        frame=replace(frame, **doubled),  # type: ignore[arg-type]
        quality=quality | {f"{name}+": value for name, value in quality.items()},
    )
    assert len(twice.frame) == 2 * n
    once, both = estimate(log, short_to_haiku()), estimate(twice, short_to_haiku())
    assert once.value is not None
    assert both.value is not None
    assert once.difference is not None
    assert both.difference is not None
    assert both.value.estimate == pytest.approx(once.value.estimate, abs=1e-9)
    assert both.difference.estimate == pytest.approx(once.difference.estimate, abs=1e-9)
    assert both.effective_sample_size == pytest.approx(2 * once.effective_sample_size)


def test_the_order_of_turns_and_decisions_changes_nothing() -> None:
    there, back = randomised_log(4, 200), randomised_log(4, 200, backwards=True)
    assert there.decisions[0] == back.decisions[-1] != back.decisions[0]
    assert estimate(there, short_to_haiku()) == estimate(back, short_to_haiku())


def test_propensities_that_are_twice_too_high_trip_the_weight_check() -> None:
    log = with_propensities_times(randomised_log(5, 300), 2.0)
    assert refused(estimate(log, short_to_haiku()), "weight of the arm")
    # The publication says so too: the mean of the weights alone must notice.
    weights_only = replace(
        log,
        publications={
            3: replace(
                log.publications[3],
                arms=tuple(replace(arm, weight=10_000) for arm in log.publications[3].arms),
            )
        },
    )
    assert refused(estimate(weights_only, short_to_haiku()), "weights average 0.5")


def test_a_log_without_propensities_is_refused() -> None:
    log = randomised_log(6, 300)
    chosen = replace(log, frame=replace(log.frame, propensity=np.full(len(log.frame), np.nan)))
    assert refused(estimate(chosen, short_to_haiku()), "no logged randomised propensity")
    strange = replace(log, frame=replace(log.frame, serial=np.full(len(log.frame), NOT_LOGGED)))
    assert refused(estimate(strange, short_to_haiku()), "no logged randomised propensity")


def test_a_log_in_which_rules_chose_the_model_is_refused() -> None:
    # One arm for all: short sessions always went to Haiku, long ones never did.
    log = randomised_log(7, 400, (("stable", 10_000, short_to_haiku()),))
    assert refused(estimate(log, all_to(HAIKU), short_to_haiku()), "outside support")
    same = estimate(log, short_to_haiku(), short_to_haiku())
    assert same.value is not None


def test_a_model_that_was_never_tried_is_outside_support() -> None:
    answer = estimate(randomised_log(8, 300), all_to("claude-sonnet-4-6"))
    assert refused(answer, "outside support: no logged arm would have routed 100.0%")


def test_too_few_exploratory_sessions_are_refused() -> None:
    arms = (("opus", 9_800, all_to(OPUS)), ("haiku", 200, all_to(HAIKU)))
    answer = estimate(randomised_log(9, 400, arms), all_to(HAIKU))
    assert refused(answer, "effective sample size")


def test_too_few_scores_are_refused() -> None:
    log = randomised_log(10, 300)
    scored = dict(list(log.quality.items())[:20])
    answer = estimate(replace(log, quality=scored), short_to_haiku())
    assert refused(answer, "too few scored sessions: 20")


def test_a_gateway_that_does_not_follow_its_arm_is_refused() -> None:
    log = randomised_log(11, 300)
    other = replace(log.frame.routed_model, values=("claude-sonnet-4-6",) * 9)
    frame = replace(log.frame, routed_model=other)
    assert refused(estimate(replace(log, frame=frame), short_to_haiku()), "routed 100.0%")


def test_a_session_whose_draw_changed_on_the_way_is_left_out() -> None:
    log = randomised_log(12, 300)
    serial = log.frame.serial.copy()
    serial[1] = 4  # the second turn of the first session
    moved = replace(log.publications[3], serial=4, salt="another")
    changed = replace(
        log, frame=replace(log.frame, serial=serial), publications=log.publications | {4: moved}
    )
    assert estimate(changed, short_to_haiku()).sessions == 299
    renewed = replace(log.publications[3], serial=4, not_after_us=1)
    same = replace(changed, publications=log.publications | {4: renewed})
    assert estimate(same, short_to_haiku()).sessions == 300


def test_a_log_that_draws_turn_by_turn_is_refused_for_what_carries_over() -> None:
    answer = estimate(randomised_log(13, 300, by_turn=True), all_to(HAIKU))
    assert refused(answer, "drew their arm anew on the way")


def test_an_arm_that_was_never_drawn_and_an_empty_log_have_no_number() -> None:
    arms = (("opus", 5_000, all_to(OPUS)), ("haiku", 5_000, all_to(HAIKU)))
    log = randomised_log(14, 300, arms)
    arm_of = {decision.session_id: decision.arm for decision in log.decisions}
    one_sided = {name: value for name, value in log.quality.items() if arm_of[name] == "opus"}
    assert refused(estimate(replace(log, quality=one_sided), all_to(HAIKU)), "weights", "effective")
    nothing = replace(log, frame=log.frame.of_sessions(np.zeros(300, bool)))
    assert refused(estimate(nothing, all_to(HAIKU)), "no logged randomised propensity")


def evidence_of(log: RandomisedLog, quality: dict[str, float]) -> SessionEvidence:
    return SessionEvidence(
        log.frame,
        log.publications,
        quality,
        all_to(OPUS),
        wait_seconds={name: 2.0 + value for name, value in quality.items()},
        labels={"language": {f"s{n}": ("Go", "Rust", "")[n % 3] for n in range(len(quality))}},
    )


def test_cost_and_waiting_time_are_estimated_beside_the_quality() -> None:
    log = randomised_log(15, 400)
    found = estimate_policy(
        all_to(HAIKU), log.frame, PRICES, incumbent=all_to(OPUS),
        evidence=evidence_of(log, log.quality),
    )  # fmt: skip
    assert found.session_cost_usd is not None
    assert found.session_wait_seconds is not None
    # Every session costs the same on one model.
    cost = found.session_cost_usd.value
    assert cost is not None
    assert cost.estimate == pytest.approx((39_003 + 5_753) / 1e6)
    assert cost.high - cost.low < 1e-6
    # The replay expects fewer tokens of Haiku's tokenizer than this log's sessions had.
    replayed_usd = found.candidate_cost_microusd / 400 / 1e6
    assert cost.estimate / 1.3 < replayed_usd < cost.estimate
    wait, quality = found.session_wait_seconds, found.quality
    assert wait.value is not None
    assert quality.value is not None
    assert quality.direct_method is not None
    assert wait.value.estimate == pytest.approx(2.0 + quality.value.estimate)
    assert quality.largest_weight == 2.0
    assert abs(quality.direct_method - quality.value.estimate) < 0.05


def test_the_slice_that_pays_for_the_others_is_found_and_no_other() -> None:
    log = randomised_log(16, 1_200)
    arm_of = {decision.session_id: decision.arm for decision in log.decisions}
    # Haiku is as good as Opus but in one repository of the two.
    hurt = {name for name in log.quality if int(name[1:]) % 2 and arm_of[name] == "haiku"}
    even = dict.fromkeys(log.quality, 1.0)
    quality = {name: float(int(name[1:]) % 10 != 5) for name in even} | dict.fromkeys(hurt, 0.4)
    found = estimate_policy(
        short_to_haiku(10**6), log.frame, PRICES, incumbent=all_to(OPUS),
        evidence=evidence_of(log, quality), org_paths=("acme/team-1", "elsewhere"),
    )  # fmt: skip
    parts = {(item.dimension, item.name): item for item in found.slices}
    assert {name for name, _ in parts} == {
        "business_unit", "repository", "size_band", "language", "org_path",
    }  # fmt: skip
    adjusted = {key: item.p_worse_holm for key, item in parts.items()}
    worst, best = adjusted[("repository", "repo-1")], adjusted[("repository", "repo-0")]
    assert worst is not None
    assert worst < 0.001
    assert best == 1.0
    assert parts["repository", "repo-0"].sessions == 600
    node = parts["org_path", "acme/team-1"]
    assert node.saving_share == pytest.approx(found.saving_share, abs=0.02)
    assert node.difference == parts["business_unit", "acme/team-1"].difference
    assert parts["org_path", "elsewhere"].difference is None
    assert ("language", "") not in parts


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(1.0 >= high >= low for high, low in zip(adjusted, p_values, strict=True))
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(order))
    if p_values:
        assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


def test_holm_agrees_with_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
