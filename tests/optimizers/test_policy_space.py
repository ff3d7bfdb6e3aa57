"""What a search may propose: only what the log can size, never above a model's window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
from randomised_logs import HAIKU, OPUS, randomised_log
from turn_strategies import PRICES

from loop.domain.policies import MEASURES
from optimizers.policy_space import PolicySpace
from optimizers.replay_assumptions import ReplayAssumptions

FRAME = randomised_log(3, 60).frame


def test_each_model_that_is_named_has_the_ceiling_of_its_window() -> None:
    assumptions = ReplayAssumptions()
    space = PolicySpace.of_log(FRAME, PRICES, (OPUS, HAIKU))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(40):
        policy = space.policy(space.suggest(study.ask()))
        assert dict(policy.guards.max_context_tokens) == {
            model: assumptions.ceiling(model) for model in policy.models()
        }
    assert assumptions.ceiling("claude-haiku-4-5-20251001") == 150_000
    assert assumptions.ceiling("a-model-of-tomorrow") is None


def test_prompt_lengths_are_searched_only_where_the_log_has_them() -> None:
    assert tuple(PolicySpace.of_log(FRAME, PRICES).threshold_bounds) == MEASURES
    unknown = np.zeros_like(FRAME.prompt_chars)
    blind = replace(FRAME, prompt_chars=unknown, logged_prompt_tokens=np.full_like(unknown, -1))
    assert "prompt_tokens" not in PolicySpace.of_log(blind, PRICES).threshold_bounds
