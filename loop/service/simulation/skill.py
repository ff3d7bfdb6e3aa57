"""How hard a task is and who solves it: the hidden truth of the simulation.

Difficulty is a function of the task's text alone, so the model API can know it and a router, which
sees only sizes, can't. Skill is a logistic curve in difficulty, as in item response theory.
"""

from __future__ import annotations

import math

from loop.service.simulation.draws import draw
from loop.service.simulation.parameters import FleetParameters


def difficulty(task_text: str, parameters: FleetParameters) -> float:
    """Latent difficulty in [0, 1]: part length, part a hash of the text."""
    shortest = parameters.small_prompt_chars[0]
    longest = parameters.change_prompt_chars[1]
    length = min(max(len(task_text), shortest), longest)
    revealed = math.log(length / shortest) / math.log(longest / shortest)
    hidden = draw("difficulty", task_text)
    return parameters.length_weight * revealed + (1 - parameters.length_weight) * hidden


def solve_probability(
    model: str, hardness: float, parameters: FleetParameters, *, attempt: int = 1
) -> float:
    """The probability that ``model`` solves a task of that difficulty at its n-th attempt."""
    skill = parameters.skills[model]
    curve = 1 / (1 + math.exp((hardness - skill.ability) / skill.spread))
    probability = skill.ceiling * curve + parameters.drift.get(model, 0.0)
    factor = 1.0 if attempt == 1 else parameters.retry_skill
    return factor * min(max(probability, 0.0), 1.0)


def solves(
    model: str, task_text: str, session_id: str, attempt: int, parameters: FleetParameters
) -> bool:
    """Whether this attempt of this session succeeds. One draw per attempt, whatever the model, so
    the better model solves whatever the worse one does."""
    hardness = difficulty(task_text, parameters)
    chance = solve_probability(model, hardness, parameters, attempt=attempt)
    return draw("attempt", session_id, attempt) < chance
