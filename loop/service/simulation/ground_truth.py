"""The true solve rate of a policy, from the parameters alone.

The demonstration compares what turnwise estimated from telemetry with this; nothing else may call
it, because outside a simulation no such truth exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from loop.domain.policies import Route, RouteRequest, RoutingPolicy, decide, unit_key
from loop.service.simulation.parameters import FleetParameters
from loop.service.simulation.plans import SessionPlan, plan_session
from loop.service.simulation.request_bodies import effort_of, first_body_chars
from loop.service.simulation.skill import difficulty, solve_probability
from loop.service.simulation.tasks import Task


@dataclass(frozen=True, slots=True)
class ExpectedQuality:
    """``solve_rate`` is the share of sessions whose task is solved; ``standard_error`` is of the
    Monte Carlo average over tasks; ``model_shares`` sum to 1 over the model that edits first."""

    solve_rate: float
    standard_error: float
    model_shares: dict[str, float]
    samples: int


def expected_quality(
    policy: RoutingPolicy | None,
    parameters: FleetParameters,
    *,
    samples: int = 20_000,
    seed: int = 0,
) -> ExpectedQuality:
    """Averages the exact probability of a solution over ``samples`` random tasks.

    ``policy=None`` is the requested model for everything. The tasks are those of the first
    ``samples`` sessions of a fleet with that seed. Requests are sized as the gateway's
    estimator would size them, from the characters of the body.
    """
    total = squares = 0.0
    models: dict[str, int] = {}
    for number in range(samples):
        plan = plan_session(parameters, seed, number, 0, 0)
        first, second = _models_of(policy, plan, parameters)
        probability = _solve_probability(plan.task, first, second, parameters)
        total += probability
        squares += probability * probability
        models[first] = models.get(first, 0) + 1
    mean = total / samples
    variance = max(squares / samples - mean * mean, 0.0)
    shares = {model: count / samples for model, count in sorted(models.items())}
    return ExpectedQuality(mean, math.sqrt(variance / samples), shares, samples)


def _solve_probability(task: Task, first: str, second: str, parameters: FleetParameters) -> float:
    hardness = difficulty(task.text, parameters)
    at_once = solve_probability(first, hardness, parameters)
    if task.kind == "lookup":
        return at_once
    later = solve_probability(second, hardness, parameters, attempt=2)
    return at_once + (1 - at_once) * parameters.retry_share * later


def _models_of(
    policy: RoutingPolicy | None, plan: SessionPlan, parameters: FleetParameters
) -> tuple[str, str]:
    """The models that make the first and the second attempt of a session under a policy."""
    if policy is None:
        return parameters.requested_model, parameters.requested_model
    file_chars = sum(parameters.file_chars) // 2
    kept: dict[tuple[str, str], Route] = {}
    models = []
    # the first request, then the ones that write: after the file was read, after the tests failed
    for index, grown_chars in enumerate((0, file_chars, file_chars + 1_000)):
        request = _request(policy, plan, parameters, index, grown_chars)
        key = unit_key(policy, request)
        kept[key] = decide(policy, request, kept.get(key))
        models.append(kept[key].model)
    return models[1], models[2]


def _request(
    policy: RoutingPolicy,
    plan: SessionPlan,
    parameters: FleetParameters,
    index: int,
    grown_chars: int,
) -> RouteRequest:
    per_token = policy.estimator.chars_per_token
    total = first_body_chars(len(plan.task.text), parameters) + grown_chars
    new = total if index == 0 else grown_chars
    return RouteRequest(
        requested_model=parameters.requested_model,
        session_id=plan.session_id,
        org_path=plan.org_path(parameters),
        repository=plan.repository_url,
        effort=effort_of(parameters.requested_model),
        turn_index=index,
        total_input_tokens=int(total / per_token),
        uncached_input_tokens=0,
        new_tokens=int(new / per_token),
        prompt_tokens=math.ceil(len(plan.task.text) / per_token),
        starts_user_turn=index == 0,
        in_tool_loop=index > 0,
    )
