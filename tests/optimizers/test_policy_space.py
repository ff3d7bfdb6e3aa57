"""What a search may propose: only what the log can size, never above a model's window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest
from randomised_logs import HAIKU, OPUS, randomised_log
from turn_strategies import PRICES

from loop.domain.policies import MEASURES, Arm, Condition, Publication, RoutingPolicy, Rule
from loop.domain.policy_documents import parse_policy
from optimizers.policy_space import PolicySpace
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.turn_columns import TextColumn

FRAME = randomised_log(3, 60).frame


def policies_of(space: PolicySpace, count: int = 60) -> list[RoutingPolicy]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.policy(space.suggest(study.ask())) for _ in range(count)]


def test_each_policy_is_a_valid_document_within_the_windows_of_its_models() -> None:
    assumptions = ReplayAssumptions()
    policies = policies_of(PolicySpace.of_log(FRAME, PRICES, (OPUS, HAIKU)))
    for policy in policies:
        assert parse_policy(policy.to_document()) == policy
        limits = policy.guards.max_context_tokens
        assert set(limits) == set(policy.models())
        for model, most in limits.items():
            assert most <= (assumptions.ceiling(model) or 0)
    assert {policy.measure for policy in policies} == set(MEASURES)
    assert len({policy.unit for policy in policies}) == 4
    assert {len(policy.rules) for policy in policies} >= {1, 2, 3}
    assert {policy.guards.tool_loop_lock for policy in policies} == {True, False}
    assert {policy.guards.min_run_requests for policy in policies} == {0, 3, 10}
    assert assumptions.ceiling("claude-haiku-4-5-20251001") == 150_000
    assert assumptions.ceiling("a-model-of-tomorrow") is None


def test_prompt_lengths_are_searched_only_where_the_log_has_them() -> None:
    assert tuple(PolicySpace.of_log(FRAME, PRICES).sizes) == MEASURES
    unknown = np.zeros_like(FRAME.prompt_chars)
    blind = replace(FRAME, prompt_chars=unknown, logged_prompt_tokens=np.full_like(unknown, -1))
    assert "prompt_tokens" not in PolicySpace.of_log(blind, PRICES).sizes


def test_agent_types_are_scopes_where_the_log_has_them() -> None:
    assert PolicySpace.of_log(FRAME, PRICES).scopes == ("all", "main", "subagent")
    codes = np.arange(len(FRAME)) % 4 // 3  # a quarter is Explore's
    explored = replace(FRAME, agent_name=TextColumn(codes, ("", "Explore")))
    space = PolicySpace.of_log(explored, PRICES)
    assert space.scopes[-1] == "agent Explore"
    scoped = [p for p in policies_of(space) if "the agent Explore" in p.description]
    assert scoped
    for policy in scoped:
        assert all(Condition("agent_name", "==", "Explore") in rule.when for rule in policy.rules)
        assert policy.default_model == ""


@pytest.mark.parametrize("effort", ["", "low"])
def test_an_effort_is_proposed_only_where_an_arm_has_tried_it(effort: str) -> None:
    arm = RoutingPolicy("arm", (Rule("all", (), HAIKU, effort),))
    publication = Publication(1, "main", (Arm("a", 10_000, 1, arm),), "salt", 0, 1)
    space = PolicySpace.of_log(FRAME, PRICES, publications=[publication])
    efforts = {rule.effort for policy in policies_of(space) for rule in policy.rules}
    assert efforts == {"", effort}
