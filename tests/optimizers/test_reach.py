"""Each rule's reach, and the words for rules that are dead or lose money."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from test_replay import WARM, session
from turn_strategies import HAIKU, PRICES, logged_turns, routing_policies

from loop.domain.policies import MEASURES, Condition, Guards, RoutingPolicy, Rule
from loop.domain.turns import Turn
from optimizers.classic import classic_policy
from optimizers.reach import describe_reach, rule_reach
from optimizers.turn_frame import TurnFrame


@settings(max_examples=30, deadline=None)
@given(logged_turns(), routing_policies())
def test_under_each_measure_the_reaches_make_up_the_whole_log(
    turns: list[Turn], policy: RoutingPolicy
) -> None:
    reach = rule_reach(policy, TurnFrame.from_turns(turns))
    for measure in MEASURES:
        of_measure = [item for item in reach if item.measure == measure]
        assert len(of_measure) == len(policy.rules) + 1
        assert sum(item.turns for item in of_measure) == len(turns)


def test_the_classic_rule_is_dead_on_total_tokens_and_the_words_say_what_else_it_would_match() -> (
    None
):
    words = describe_reach(classic_policy(), rule_reach(classic_policy(), session(*WARM), PRICES))
    assert words[0] == (
        "short matches 0.0 % of turns, 0.0 % of sessions, 0.0 % of tokens and 0.0 % of dollars, "
        "input size read as total_input_tokens; it routes 0.0 % of turns and 0.0 % of dollars: "
        "a dead rule."
    )
    assert words[1] == (
        "short would match 100.0 % as uncached_input_tokens, 75.0 % as new_tokens, "
        "100.0 % as prompt_tokens."
    )


def test_a_rule_that_costs_more_than_staying_is_named_with_its_price() -> None:
    # One turn in the middle goes to a cold Haiku, and Opus must write what came between.
    rule = Rule("middle", (Condition("turn_index", "==", 1),), HAIKU)
    policy = RoutingPolicy("p", (rule,), unit="request", guards=Guards({}, False))
    frame = session(*WARM)
    reach = rule_reach(policy, frame, PRICES)
    own = next(item for item in reach if item.rule_id == "middle")
    assert own.marginal_cost_microusd is not None
    assert own.marginal_cost_microusd > 0
    assert own.routed_turn_share == 0.25
    assert own.session_share == 1.0
    assert own.token_share == pytest.approx(32_110 / 132_440)
    assert "a losing rule" in describe_reach(policy, reach)[0]
    saving = replace(policy, rules=(Rule("all", (), HAIKU),))
    assert "losing" not in " ".join(describe_reach(saving, rule_reach(saving, frame, PRICES)))


def test_an_empty_log_has_no_reach() -> None:
    reach = rule_reach(classic_policy(), TurnFrame.from_turns([]), PRICES)
    assert {item.turn_share for item in reach} == {0.0}


def test_the_shipped_document_is_the_classic_rule() -> None:
    policy = classic_policy("new_tokens")
    assert policy.measure == "new_tokens"
    assert classic_policy().measure == "total_input_tokens"
    assert policy.rules[0].when == (Condition("input_tokens", "<", 10_000),)
    assert policy.models() == ("claude-haiku-4-5", "claude-opus-4-7")
    assert policy.guards.max_context_tokens == {"claude-haiku-4-5": 150_000}
