"""The replay's arithmetic, against the bill and against a second, plain simulator."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from slow_replay import simulate
from turn_strategies import MIDNIGHT_US, PRICES, START_US, logged_turns, routing_policies

from loop.domain.money import PriceBook
from loop.domain.policies import Condition, RoutingPolicy, Rule
from loop.domain.turns import TokenUsage, Turn
from optimizers.replay import Replayer, replay
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.turn_frame import TurnFrame

SAME_TOKENS = ReplayAssumptions(tokenizer_ratio={})
AS_REQUESTED = RoutingPolicy("as requested", ())


def served_as_requested(turns: list[Turn]) -> list[Turn]:
    return [replace(turn, requested_model=turn.served_model) for turn in turns]


@given(logged_turns())
def test_the_served_routes_cost_exactly_what_was_billed(turns: list[Turn]) -> None:
    frame = TurnFrame.from_turns(served_as_requested(turns))
    result = replay(AS_REQUESTED, frame, PRICES)
    billed = [turn.cost_microusd for turn in turns if turn.cost_microusd is not None]
    assert result.candidate_cost_microusd == result.incumbent_cost_microusd == sum(billed)
    assert result.naive_cost_microusd == result.logged_cost_microusd == sum(billed)
    assert result.unpriced_turns == len(turns) - len(billed)
    assert not result.is_altered.any()


@settings(max_examples=300, deadline=None)
@given(logged_turns(), routing_policies())
def test_replay_agrees_with_the_plain_simulator(turns: list[Turn], policy: RoutingPolicy) -> None:
    frame = TurnFrame.from_turns(turns)
    fast = replay(policy, frame, PRICES)
    slow = simulate(policy, turns, PRICES)
    by_turn = {
        frame.turn_ids[row]: int(cost) if fast.is_priced[row] else None
        for row, cost in enumerate(fast.candidate_turn_cost_microusd)
    }
    assert by_turn == slow.by_turn
    assert fast.candidate_cost_microusd == slow.candidate
    assert fast.incumbent_cost_microusd == slow.incumbent
    assert fast.unpriced_turns == slow.unpriced


@given(logged_turns(), routing_policies())
def test_replay_is_monotone_in_price(turns: list[Turn], policy: RoutingPolicy) -> None:
    frame = TurnFrame.from_turns(turns)
    dearer = PriceBook(
        "dearer",
        [
            replace(
                p,
                input_microusd=p.input_microusd + 1_000_000,
                cache_creation_5m_microusd=p.cache_creation_5m_microusd + 1,
            )
            for p in PRICES.prices()
        ],
    )
    cheap, dear = replay(policy, frame, PRICES), replay(policy, frame, dearer)
    assert (dear.candidate_turn_cost_microusd >= cheap.candidate_turn_cost_microusd).all()


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
    assert result.candidate_turn_cost_microusd[1] == pytest.approx(
        written * 1.25 + uncached + 500, abs=1
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


def test_a_route_without_a_price_is_left_out_of_both_sides_and_counted() -> None:
    result = replay(RoutingPolicy("p", (), default_model="no-such-model"), session(*WARM), PRICES)
    assert result.unpriced_turns == 4
    assert result.candidate_cost_microusd == result.incumbent_cost_microusd == 0
    assert result.logged_cost_microusd > 0
    assert result.saving_share == 0.0


def test_calibration_is_exact_on_a_log_that_caches_as_the_model_says() -> None:
    calibration = Replayer(session(*WARM), PRICES).calibration
    assert calibration.residual == 0.0
    assert calibration.modelled_cache_read_tokens == calibration.logged_cache_read_tokens


def test_calibration_shows_what_the_cache_model_gets_wrong() -> None:
    shared = (TokenUsage(10, 100, 20_000, 10_000, 0), *WARM[1:])  # warm from another session
    calibration = Replayer(session(*shared), PRICES).calibration
    assert calibration.modelled_cache_read_tokens == calibration.logged_cache_read_tokens - 20_000
    assert calibration.residual > 0
