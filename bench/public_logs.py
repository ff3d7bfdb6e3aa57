"""Logs with a known truth, made from prompts whose outcome on both models is known.

One prompt is one session of one turn. An arm (all to the strong model, all to the weak one) is
drawn for each session with a probability that is logged; the log reveals the outcome of the drawn
model only. Sessions are drawn from the set with replacement, so the set is the population, and
the truth of a policy is its mean over the whole set.

The features are those that a gateway sees and turnwise logs: the length of the prompt, and the
domain of the prompt standing where the repository stands in real use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from bench.public_routers import Fit, Floats, Integers, RoutingSet
from loop.domain.money import Price, PriceBook
from loop.domain.policies import (
    BUCKETS,
    Arm,
    Condition,
    Decision,
    Estimator,
    Publication,
    RoutingPolicy,
    Rule,
)
from optimizers.off_policy import OutcomeLog
from optimizers.repository_gains import repository_gains
from optimizers.routing import routes
from optimizers.turn_frame import TurnFrame

Booleans = NDArray[np.bool_]
START_US = 1_767_600_000_000_000
SECOND_US = 1_000_000
# RouterBench's own costs: $5.03 against $0.25 per 1,000 prompts of gpt-4 and mixtral.
STRONG_MICROUSD, WEAK_MICROUSD = 10_000_000, 500_000


@dataclass(frozen=True)
class Log:
    frame: TurnFrame
    publications: dict[int, Publication]
    quality: dict[str, float]


def all_to(model: str) -> RoutingPolicy:
    return RoutingPolicy(f"all to {model}", (), default_model=model)


def short_to(model: str, tokens: int, other: str) -> RoutingPolicy:
    """Prompts under ``tokens`` to ``model``, the rest to ``other``: what the search tries."""
    rule = Rule("short", (Condition("input_tokens", "<", tokens),), model)
    return RoutingPolicy("short", (rule,), measure="prompt_tokens", default_model=other)


def repositories_to(model: str, repositories: Sequence[str], other: str) -> RoutingPolicy:
    """Named repositories to ``model``: what the policy language holds and the search doesn't."""
    rule = Rule("named", (Condition("repository", "in", tuple(repositories)),), model)
    return RoutingPolicy("named", (rule,), default_model=other)


def price_book(prompts: RoutingSet) -> PriceBook:
    """A strong model twenty times as dear as the weak one, whatever the set."""
    pairs = ((prompts.strong, STRONG_MICROUSD), (prompts.weak, WEAK_MICROUSD))
    return PriceBook(
        "public-routing", [Price(name, "2020-01-01", rate, rate, rate, rate, rate)
                           for name, rate in pairs]
    )  # fmt: skip


def reveal(
    prompts: RoutingSet, rows: Integers, is_strong: Booleans, strong_share: float | None
) -> Log:
    """The log of some prompts of a set (``rows``, which may repeat), each answered by one model.

    Without ``strong_share`` nothing says how the models were chosen: a log as rules and people
    make it.
    """
    n = len(rows)
    tokens = np.floor(prompts.prompt_chars[rows] / Estimator().chars_per_token).astype(np.int64)
    names = [f"s{number:06d}" for number in range(n)]
    served = np.where(is_strong, prompts.strong, prompts.weak)
    outcome = np.where(is_strong, prompts.strong_quality[rows], prompts.weak_quality[rows])
    rate = np.where(is_strong, STRONG_MICROUSD, WEAK_MICROUSD)
    columns = {
        "turn_id": names,
        "session_id": names,
        "started_at_us": START_US + np.arange(n) * SECOND_US,
        "requested_model": [prompts.strong] * n,
        "served_model": served.tolist(),
        "request_class": ["main"] * n,
        "repository": prompts.domains[rows].tolist(),
        "starts_prompt": [True] * n,
        "prompt_chars": prompts.prompt_chars[rows],
        "input_tokens": tokens,
        "output_tokens": np.zeros(n, np.int64),
        "cache_read_tokens": np.zeros(n, np.int64),
        "cache_creation_5m_tokens": np.zeros(n, np.int64),
        "cache_creation_1h_tokens": np.zeros(n, np.int64),
        "cost_microusd": (tokens * rate + 500_000) // 1_000_000,
    }
    decisions: list[Decision] = []
    publications: dict[int, Publication] = {}
    if strong_share is not None:
        arms = _arms(prompts, strong_share)
        publications[1] = Publication(1, "main", arms, "salt", START_US, START_US + 10**15)
        for name, strong, size in zip(names, is_strong.tolist(), tokens.tolist(), strict=True):
            arm = arms[0 if strong else 1]
            decisions.append(
                Decision(
                    name, START_US, name, "", 1, arm.policy_version, "", arm.name, 0,
                    arm.weight / BUCKETS, "default", prompts.strong, arm.policy.default_model,
                    total_input_tokens=size, uncached_input_tokens=size, new_tokens=size,
                    prompt_tokens=size,
                )
            )  # fmt: skip
    frame = TurnFrame.from_columns(columns, decisions)
    return Log(frame, publications, dict(zip(names, outcome.tolist(), strict=True)))


def _arms(prompts: RoutingSet, strong_share: float) -> tuple[Arm, Arm]:
    weight = round(strong_share * BUCKETS)
    return (
        Arm("strong", weight, 1, all_to(prompts.strong)),
        Arm("weak", BUCKETS - weight, 2, all_to(prompts.weak)),
    )


def frame_of(prompts: RoutingSet) -> TurnFrame:
    """Every prompt of the set once, as a gateway sees it."""
    return reveal(prompts, np.arange(len(prompts)), np.ones(len(prompts), bool), None).frame


def sent_to_strong(
    prompts: RoutingSet, policy: RoutingPolicy, frame: TurnFrame | None = None
) -> Booleans:
    """To which prompts of the set the policy gives the strong model, as a gateway decides it."""
    routed = routes(policy, frame or frame_of(prompts))
    is_strong = np.array([name == prompts.strong for name in routed.models])
    chosen: Booleans = is_strong[routed.model]
    return chosen


def true_quality(prompts: RoutingSet, is_strong: Booleans) -> float:
    return float(np.where(is_strong, prompts.strong_quality, prompts.weak_quality).mean())


def by_logged_repository(prompts: RoutingSet, seed: int = 0) -> Fit:
    """What the search ranks repositories by, learnt from a log that reveals one model a prompt."""
    random = np.random.default_rng([seed, crc32(prompts.name.encode())])
    is_strong = random.random(len(prompts)) < 0.5

    def fit(rows: Integers) -> Floats:
        log = reveal(prompts, rows, is_strong[rows], 0.5)
        quality = OutcomeLog(log.frame, log.publications, log.quality, all_to(prompts.strong))
        gains = repository_gains(quality, all_to(prompts.weak))
        middle = float(np.mean(list(gains.values()))) if gains else 0.0
        return np.array([gains.get(str(name), middle) for name in prompts.domains])

    return fit


@dataclass(frozen=True)
class Coverage:
    """How 95 % intervals fared over many logs; counts over all candidates of a set together."""

    set_name: str
    sessions: int
    strong_share: float
    resamplings: int
    estimates: int
    refused: int
    value_covered: float
    difference_covered: float
    least_value_covered: float  # of the candidate that fared worst
    bias: float
    mean_width: float
    difference_width: float


def measure_coverage(
    prompts: RoutingSet,
    candidates: Sequence[RoutingPolicy],
    *,
    sessions: int,
    strong_share: float,
    resamplings: int,
    seed: int = 0,
) -> Coverage:
    """Estimates each candidate from many logs, and holds the intervals to the truth."""
    # Draws of one set must not be those of another.
    own = crc32(prompts.name.encode())
    random = np.random.default_rng([seed, own, sessions, round(strong_share * BUCKETS)])
    incumbent = all_to(prompts.strong)
    truths = [true_quality(prompts, sent_to_strong(prompts, policy)) for policy in candidates]
    base = float(prompts.strong_quality.mean())
    value_hits: list[list[bool]] = [[] for _ in candidates]
    errors, difference_hits, widths, difference_widths, refused = [], [], [], [], 0
    for _ in range(resamplings):
        rows = random.integers(0, len(prompts), sessions)
        is_strong = random.random(sessions) < strong_share
        log = reveal(prompts, rows, is_strong, strong_share)
        quality_log = OutcomeLog(log.frame, log.publications, log.quality, incumbent)
        for place, (policy, truth) in enumerate(zip(candidates, truths, strict=True)):
            answer = quality_log.estimate(policy)
            if answer.value is None or answer.difference is None:
                refused += 1
                continue
            value, difference = answer.value, answer.difference
            value_hits[place].append(value.low <= truth <= value.high)
            difference_hits.append(difference.low <= truth - base <= difference.high)
            errors.append(value.estimate - truth)
            widths.append(value.high - value.low)
            difference_widths.append(difference.high - difference.low)
    flat = [hit for hits in value_hits for hit in hits]
    nothing = float("nan")
    return Coverage(
        prompts.name, sessions, strong_share, resamplings, len(flat), refused,
        float(np.mean(flat)) if flat else nothing,
        float(np.mean(difference_hits)) if flat else nothing,
        min((float(np.mean(hits)) for hits in value_hits if hits), default=nothing),
        float(np.mean(errors)) if flat else nothing,
        float(np.mean(widths)) if flat else nothing,
        float(np.mean(difference_widths)) if flat else nothing,
    )  # fmt: skip
