"""Logs of a rollout whose arms were drawn at random, with a truth that is known.

Sessions are short or long by their first prompt. Haiku does nearly as well as Opus on short ones
and much worse on long ones, and a bad first turn spoils the rest: the carry-over that makes
estimates by turn wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from loop.domain.policies import Arm, Condition, Decision, Publication, RoutingPolicy, Rule
from optimizers.turn_frame import TurnFrame

OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
START_US = 1_760_000_000_000_000
SPLIT_TOKENS = 400
TURNS = 2


def all_to(model: str) -> RoutingPolicy:
    return RoutingPolicy(f"all {model}", (), default_model=model)


def short_to_haiku(tokens: int = SPLIT_TOKENS) -> RoutingPolicy:
    rule = Rule("short", (Condition("input_tokens", "<", tokens),), HAIKU)
    return RoutingPolicy("short", (rule,), measure="prompt_tokens", default_model=OPUS)


@dataclass(frozen=True)
class RandomisedLog:
    frame: TurnFrame
    decisions: list[Decision]
    publications: dict[int, Publication]
    quality: dict[str, float]


def success_rate(prompt_tokens: np.ndarray, is_haiku: np.ndarray) -> np.ndarray:
    is_long = prompt_tokens >= SPLIT_TOKENS
    rate = 0.9 - 0.05 * np.log10(np.maximum(prompt_tokens, 1))
    return rate - np.where(is_haiku, np.where(is_long, 0.30, 0.02), 0.0)


def draw_prompts(random: np.random.Generator, count: int) -> np.ndarray:
    return np.exp(random.normal(np.log(SPLIT_TOKENS), 1.0, count)).astype(np.int64)


def true_value(tokens: int) -> float:
    """Mean quality when prompts under ``tokens`` go to Haiku, over two million sessions."""
    prompts = draw_prompts(np.random.default_rng(99), 2_000_000)
    return float(success_rate(prompts, prompts < tokens).mean())


def randomised_log(
    seed: int,
    sessions: int,
    arms: tuple[tuple[str, int, RoutingPolicy], ...] = (
        ("opus", 5_000, all_to(OPUS)),
        ("haiku", 5_000, all_to(HAIKU)),
    ),
    *,
    backwards: bool = False,
    by_turn: bool = False,
) -> RandomisedLog:
    """``backwards``: recorded last things first. ``by_turn``: every turn draws its arm anew."""
    random = np.random.default_rng(seed)
    prompts = draw_prompts(random, sessions)
    shares = np.array([arm[1] for arm in arms]) / 10_000
    drawn = random.choice(len(arms), sessions, p=shares)
    models = np.array([[_model(arm[2], int(tokens)) for arm in arms] for tokens in prompts])
    served = models[np.arange(sessions), drawn]
    rates = success_rate(prompts, served == HAIKU)
    quality = (random.random(sessions) < rates).astype(float)
    publication = Publication(
        3, "main", tuple(Arm(n, w, i + 1, p) for i, (n, w, p) in enumerate(arms)), "salt",
        START_US, START_US + 10**15,
    )  # fmt: skip
    decisions, columns = [], _columns(prompts, served)
    for row, turn_id in enumerate(columns["turn_id"]):
        session = row // TURNS
        own = random.choice(len(arms), p=shares) if by_turn else drawn[session]
        name, weight, policy = arms[own]
        decisions.append(
            Decision(
                turn_id, START_US, f"s{session}", "", 3, 1, policy.digest, name, 0,
                weight / 10_000, "", OPUS, str(served[session]),
                prompt_tokens=int(prompts[session]), total_input_tokens=30_000,
            )
        )  # fmt: skip
    if backwards:
        decisions.reverse()
        columns = {name: values[::-1] for name, values in columns.items()}
    return RandomisedLog(
        TurnFrame.from_columns(columns, decisions),
        decisions,
        {3: publication},
        {f"s{n}": float(value) for n, value in enumerate(quality)},
    )


def with_propensities_times(log: RandomisedLog, factor: float) -> RandomisedLog:
    return replace(log, frame=replace(log.frame, propensity=log.frame.propensity * factor))


def _model(policy: RoutingPolicy, tokens: int) -> str:
    if policy.rules and tokens < float(policy.rules[0].when[0].value):  # type: ignore[arg-type]
        return policy.rules[0].model
    return policy.default_model


def _columns(prompts: np.ndarray, served: np.ndarray) -> dict[str, list]:  # type: ignore[type-arg]
    n = len(prompts) * TURNS
    session = np.arange(n) // TURNS
    return {
        "turn_id": [f"t{row}" for row in range(n)],
        "session_id": [f"s{number}" for number in session],
        "started_at_us": (START_US + session * 7_000_003 + np.arange(n) % TURNS * 1_000).tolist(),
        "requested_model": [OPUS] * n,
        "served_model": served[session].tolist(),
        "repository": [f"repo-{number % 2}" for number in session],
        "org_path": [f"acme/team-{number % 3}" for number in session],
        "starts_prompt": (np.arange(n) % TURNS == 0).tolist(),
        "input_tokens": [3] * n,
        "output_tokens": [300] * n,
        "cache_read_tokens": [0, 30_000] * len(prompts),
        "cache_creation_5m_tokens": [30_000, 1_000] * len(prompts),
        "cache_creation_1h_tokens": [0] * n,
        "cost_microusd": [
            # 30,000 written, then read with 1,000 more written; 300 tokens out, at list prices
            (195_015, 28_765)[row % 2] if model == OPUS else (39_003, 5_753)[row % 2]
            for row, model in enumerate(served[session])
        ],
    }
