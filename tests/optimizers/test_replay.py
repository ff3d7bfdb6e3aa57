"""The replay's arithmetic, against the bill and against a second, plain simulator."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_replay import simulate
from turn_strategies import (
    HAIKU,
    LATE,
    MIDNIGHT_US,
    OPUS,
    PRICES,
    START_US,
    logged_turns,
    routing_policies,
)

from loop.domain.errors import BadInput
from loop.domain.money import PriceBook
from loop.domain.policies import Condition, RoutingPolicy, Rule
from loop.domain.turns import TokenUsage, Turn
from optimizers.calibration import calibrate, describe_calibration
from optimizers.replay import Replayer, replay
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.turn_frame import TurnFrame

SAME_TOKENS = ReplayAssumptions(tokenizer_ratio={})
AS_REQUESTED = RoutingPolicy("as requested", ())


def served_as_requested(turns: list[Turn]) -> list[Turn]:
    return [replace(turn, requested_model=turn.served_model) for turn in turns]


@settings(max_examples=50, deadline=None)
@given(logged_turns())
def test_the_served_routes_cost_exactly_what_was_billed(turns: list[Turn]) -> None:
    frame = TurnFrame.from_turns(served_as_requested(turns))
    result = replay(AS_REQUESTED, frame, PRICES)
    billed = [turn.cost_microusd for turn in turns if turn.cost_microusd is not None]
    assert result.candidate_cost_microusd == result.incumbent_cost_microusd == sum(billed)
    assert result.naive_cost_microusd == result.logged_cost_microusd == sum(billed)
    assert result.unpriced_turns == len(turns) - len(billed)
    assert not result.is_altered.any()


@settings(max_examples=120, deadline=None)
@given(logged_turns(), routing_policies(), st.sampled_from((3, 9, 20, None)))
def test_replay_agrees_with_the_plain_simulator(
    turns: list[Turn], policy: RoutingPolicy, lookback_blocks: int | None
) -> None:
    frame = TurnFrame.from_turns(turns)
    facts = ReplayAssumptions(lookback_blocks=lookback_blocks, verbosity={HAIKU: 1.2})
    fast = replay(policy, frame, PRICES, facts)
    slow = simulate(policy, turns, PRICES, facts)
    by_turn = {
        frame.turn_ids[row]: int(cost) if fast.is_priced[row] else None
        for row, cost in enumerate(fast.candidate_turn_cost_microusd)
    }
    assert by_turn == slow.by_turn
    assert fast.candidate_cost_microusd == slow.candidate
    assert fast.incumbent_cost_microusd == slow.incumbent
    assert fast.unpriced_turns == slow.unpriced


RATES = (
    "input_microusd",
    "output_microusd",
    "cache_creation_5m_microusd",
    "cache_creation_1h_microusd",
)


@settings(max_examples=30, deadline=None)
@given(logged_turns(), routing_policies(), st.sampled_from((*RATES, "cache_read_microusd")))
def test_replay_is_monotone_in_every_price(
    turns: list[Turn], policy: RoutingPolicy, raised: str
) -> None:
    frame = TurnFrame.from_turns(turns)
    dearer = PriceBook(
        "dearer",
        [replace(p, **{raised: getattr(p, raised) + 90_000}) for p in PRICES.prices()],
    )
    cheap, dear = replay(policy, frame, PRICES), replay(policy, frame, dearer)
    assert (dear.candidate_turn_cost_microusd >= cheap.candidate_turn_cost_microusd).all()


@settings(max_examples=30, deadline=None)
@given(logged_turns(), routing_policies(), st.randoms(use_true_random=False))
def test_neither_the_names_nor_the_order_of_sessions_change_what_they_cost(
    turns: list[Turn], policy: RoutingPolicy, random: Random
) -> None:
    renamed = {"s1": "z", "s2": "b", "s3": "a"}
    shuffled = [replace(turn, session_id=renamed[turn.session_id]) for turn in turns]
    random.shuffle(shuffled)
    there, here = (replay(policy, TurnFrame.from_turns(some), PRICES) for some in (turns, shuffled))
    assert here.candidate_cost_microusd == there.candidate_cost_microusd
    assert here.naive_cost_microusd == there.naive_cost_microusd
    assert here.unpriced_turns == there.unpriced_turns


def session(*usages: TokenUsage, minutes: float = 1.0, models: str = "") -> TurnFrame:
    """One agent's turns, so many minutes apart; ``models``: o(pus) or h(aiku) for each."""
    named = {"o": "claude-opus-4-7", "h": "claude-haiku-4-5"}
    turns = []
    for number, usage in enumerate(usages):
        model = named[models[number]] if models else "claude-opus-4-7"
        turns.append(
            Turn(
                f"t{number}", "", "s", MIDNIGHT_US + int(number * minutes * 6e7), 0, number,
                requested_model=model, served_model=model, usage=usage, starts_prompt=True,
                cost_microusd=PRICES.cost(model, "2024-10-10", usage).microusd,
            )
        )  # fmt: skip
    return TurnFrame.from_turns(turns)


WARM = (
    TokenUsage(10, 100, 0, 30_000, 0),
    TokenUsage(10, 100, 30_000, 2_000, 0),
    TokenUsage(10, 100, 32_000, 2_000, 0),
    TokenUsage(10, 100, 34_000, 2_000, 0),
)


def middle_to_haiku(first: int, last: int) -> RoutingPolicy:
    conditions = (Condition("turn_index", ">=", first), Condition("turn_index", "<=", last))
    return RoutingPolicy(
        "middle", (Rule("middle", conditions, "claude-haiku-4-5"),), unit="request"
    )


def test_a_switch_starts_cold_and_a_return_writes_what_came_between() -> None:
    frame = session(*WARM)
    result = replay(middle_to_haiku(1, 1), frame, PRICES, SAME_TOKENS)
    costs = result.candidate_turn_cost_microusd.tolist()
    # Haiku has nothing cached: 32,000 written at $1.25, 10 at $1, 100 out at $5 per million.
    assert costs[1] == 40_000 + 10 + 500
    # Opus reads the 30,000 of turn 0 at $0.50 and writes 4,000 at $6.25.
    assert costs[2] == 15_000 + 25_000 + 50 + 2_500
    assert costs[0] == frame.cost_microusd[0]
    assert costs[3] == frame.cost_microusd[3]
    assert result.is_altered.tolist() == [False, True, True, False]
    assert result.is_rerouted.tolist() == [False, True, False, False]
    assert result.naive_cost_microusd < result.candidate_cost_microusd


def test_a_return_after_the_time_to_live_starts_cold_again() -> None:
    frame = session(*WARM, minutes=3)
    result = replay(middle_to_haiku(1, 1), frame, PRICES, SAME_TOKENS)
    # Six minutes after turn 0 nothing of it is left: 34,000 written at $6.25.
    assert result.candidate_turn_cost_microusd[2] == 212_500 + 50 + 2_500


def test_one_hour_entries_outlive_the_same_gap_and_cost_twice_the_input_price() -> None:
    hour = [TokenUsage(u.input_tokens, 100, u.cache_read_tokens, 0, 2_000) for u in WARM]
    hour[0] = TokenUsage(10, 100, 0, 0, 30_000)
    result = replay(middle_to_haiku(1, 1), session(*hour, minutes=3), PRICES, SAME_TOKENS)
    assert result.candidate_turn_cost_microusd[1] == 64_000 + 10 + 500
    assert result.candidate_turn_cost_microusd[2] == 15_000 + 40_000 + 50 + 2_500


def test_the_tokenizer_ratio_shrinks_what_the_cheaper_model_counts() -> None:
    result = replay(middle_to_haiku(1, 1), session(*WARM), PRICES)
    written, uncached = round(32_000 / 1.3), round(10 / 1.3)
    answered = round(100 / 1.3)
    assert result.candidate_turn_cost_microusd[1] == pytest.approx(
        written * 1.25 + uncached + answered * 5, abs=1
    )


def test_a_prefix_below_the_minimum_is_billed_as_input() -> None:
    short = (TokenUsage(10, 100, 0, 3_000, 0), TokenUsage(10, 100, 3_000, 500, 0))
    result = replay(middle_to_haiku(0, 9), session(*short), PRICES, SAME_TOKENS)
    assert result.candidate_turn_cost_microusd.tolist() == [3_010 + 500, 3_510 + 500]


def test_a_compaction_in_the_log_shortens_every_models_prefix() -> None:
    compacted = (*WARM[:2], TokenUsage(10, 100, 20_000, 1_000, 0), WARM[3])
    result = replay(middle_to_haiku(0, 9), session(*compacted), PRICES, SAME_TOKENS)
    # 32,000 were cached, but the log shows that only the first 20,000 still stand.
    assert result.candidate_turn_cost_microusd[2] == 2_000 + 1_250 + 10 + 500


def test_a_moved_turn_keeps_its_terms_and_pays_what_the_price_book_asks_for_them() -> None:
    frame = TurnFrame.from_turns(
        [
            Turn(f"t{number}", "", f"s{number}", MIDNIGHT_US, 0, 0, requested_model=OPUS,
                 served_model=OPUS, usage=WARM[0], cost_microusd=1, **terms)
            for number, terms in enumerate((
                {"service_tier": "batch"}, {"speed": "fast"}, {"inference_geo": "us"},
                {"web_search_requests": 3}, {"speed": "standard", "inference_geo": "global"},
            ))
        ]
    )  # fmt: skip
    result = replay(RoutingPolicy("p", (), default_model=HAIKU), frame, PRICES, SAME_TOKENS)
    cold = 37_500 + 510
    # Haiku has no fast mode, so a gateway asks it for standard speed; and no geography with a
    # price: such a turn has none there.
    assert result.candidate_turn_cost_microusd.tolist() == [
        cold // 2, cold, 0, cold + 30_000, cold,
    ]  # fmt: skip
    assert result.is_priced.tolist() == [True, True, False, True, True]


def test_a_turn_that_does_not_fit_the_models_window_has_no_price_there() -> None:
    long = (TokenUsage(10, 100, 0, 199_990, 0), *WARM)
    result = replay(
        RoutingPolicy("p", (), default_model=HAIKU), session(*long), PRICES, SAME_TOKENS
    )
    assert result.too_long_turns == result.unpriced_turns == 1
    assert result.is_priced.tolist() == [False, True, True, True, True]


def test_what_lies_before_a_one_hour_breakpoint_outlives_the_rest_of_the_prompt() -> None:
    mixed = (
        TokenUsage(10, 100, 0, 10_000, 20_000),
        TokenUsage(10, 100, 20_000, 12_000, 0),  # after ten minutes
        TokenUsage(10, 100, 20_000, 14_000, 0),
    )
    costs = replay(
        middle_to_haiku(1, 1), session(*mixed, minutes=10), PRICES, SAME_TOKENS
    ).candidate_turn_cost_microusd.tolist()
    # Haiku writes 20,000 for an hour at $2 and 12,000 for five minutes at $1.25.
    assert costs[1] == 40_000 + 15_000 + 510
    # Opus finds the 20,000 of twenty minutes ago, and writes the rest for five minutes.
    assert costs[2] == 10_000 + 14_000 * 6.25 + 50 + 2_500


def test_subagents_have_caches_of_their_own() -> None:
    main = session(*WARM[:2])
    turns = [
        Turn(f"{agent}{number}", "", "s", START_US + number, 0, number, agent_id=agent,
             requested_model="claude-opus-4-7", served_model="claude-opus-4-7",
             usage=WARM[number], cost_microusd=int(main.cost_microusd[number]))
        for agent in ("", "sub") for number in (0, 1)
    ]  # fmt: skip
    everything = RoutingPolicy("haiku", (), default_model="claude-haiku-4-5")
    result = replay(everything, TurnFrame.from_turns(turns), PRICES, SAME_TOKENS)
    cold, warm = 37_500 + 510, 3_000 + 2_500 + 510
    assert result.candidate_turn_cost_microusd.tolist() == [cold, warm, cold, warm]


def test_a_dated_name_is_the_same_model() -> None:
    turn = Turn("t", "t", "s", START_US, 0, 0, requested_model="claude-haiku-4-5",
                served_model="claude-haiku-4-5-20251001", usage=WARM[0],
                cost_microusd=1)  # fmt: skip
    result = replay(AS_REQUESTED, TurnFrame.from_turns([turn]), PRICES)
    assert result.rerouted_turns == 0
    assert result.candidate_cost_microusd == 1


def test_a_policy_that_names_a_model_without_a_price_is_an_error_and_no_number() -> None:
    with pytest.raises(BadInput, match="routes to 'no-such-model', which has no price"):
        replay(RoutingPolicy("p", (), default_model="no-such-model"), session(*WARM), PRICES)


def test_days_before_a_price_are_left_out_of_both_sides_and_counted() -> None:
    later = RoutingPolicy("p", (), default_model=LATE)
    early = replace(session(*WARM), started_at_us=np.full(4, START_US))
    result = replay(later, early, PRICES)
    assert result.unpriced_turns == 4
    assert result.candidate_cost_microusd == result.incumbent_cost_microusd == 0
    assert result.logged_cost_microusd > 0
    assert result.saving_share is None


def test_an_empty_log_has_no_saving() -> None:
    assert replay(AS_REQUESTED, TurnFrame.from_turns([]), PRICES).saving_share is None


def test_calibration_is_exact_on_a_log_that_caches_as_the_model_says() -> None:
    *groups, everything = calibrate(Replayer(session(*WARM), PRICES))
    assert [(group.model, group.request_class) for group in groups] == [(OPUS, "main")]
    assert everything.residual == 0.0
    assert everything.reads_close_share == everything.cost_close_share == 1.0
    assert everything.modelled_cache_read_tokens == everything.logged_cache_read_tokens
    assert everything.modelled_cache_write_tokens == everything.logged_cache_write_tokens


def test_calibration_shows_what_the_cache_model_gets_wrong_by_model() -> None:
    shared = (TokenUsage(10, 100, 20_000, 10_000, 0), *WARM[1:])  # warm from another session
    frame = session(*shared, models="hooo")
    haiku, opus, everything = sorted(
        calibrate(Replayer(frame, PRICES)), key=lambda row: row.requests
    )
    assert haiku.modelled_cache_read_tokens == haiku.logged_cache_read_tokens - 20_000
    assert haiku.residual is not None
    assert haiku.residual > 0.5
    assert haiku.reads_close_share == 0.0
    assert opus.model == OPUS
    assert everything.requests == 4
    assert describe_calibration([haiku])[0].startswith(f"{HAIKU}, main: the cache model is +")


def test_a_model_that_was_left_for_many_turns_finds_its_system_prompt_alone() -> None:
    prompts = [TokenUsage(10, 100, 20_000, 10_000, 0)]  # other sessions had cached 20,000
    prompts += [TokenUsage(10, 100, 30_000 + 1_000 * i, 1_000, 0) for i in range(9)]
    frame = session(*prompts, minutes=0.1)
    there = replay(middle_to_haiku(1, 5), frame, PRICES, SAME_TOKENS)
    assert there.candidate_turn_cost_microusd[6] == 15_000 + 6_000 * 6.25 + 50 + 2_500
    # Seven turns, of three blocks each, are more than the 20 blocks that the API looks back.
    away = replay(middle_to_haiku(1, 6), frame, PRICES, SAME_TOKENS)
    assert away.candidate_turn_cost_microusd[7] == 10_000 + 17_000 * 6.25 + 50 + 2_500
    unlimited = replace(SAME_TOKENS, lookback_blocks=None)
    found = replay(middle_to_haiku(1, 6), frame, PRICES, unlimited)
    assert found.candidate_turn_cost_microusd[7] == 15_000 + 7_000 * 6.25 + 50 + 2_500
