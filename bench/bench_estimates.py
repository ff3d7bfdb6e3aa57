"""Do off-policy estimates hold, and are they refused where they can't?

    python -m bench.bench_estimates [--replications N]

Simulated sessions with a known truth: prompts of every length, some four turns a session, a cheap
model that is as good on short prompts and worse on long ones, and a carry-over that estimates by
turn are blind to (a turn that went wrong spoils the rest of its session). Each log is drawn anew;
each interval is held to the truth of the candidate, simulated from the same parameters.
Writes ``bench/results/estimates.{json,md}``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.public_data import machine, say, write_results
from loop.domain.estimates import OutcomeEstimate
from loop.domain.policies import Arm, Condition, Publication, RoutingPolicy, Rule
from optimizers.session_evidence import SessionEvidence
from optimizers.turn_columns import TextColumn
from optimizers.turn_frame import TurnFrame

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

DEAR, CHEAP, NEVER_TRIED = "claude-opus-4-7", "claude-haiku-4-5", "claude-sonnet-4-6"
START_US = 1_760_000_000_000_000
MOST_TURNS = 9
MEDIAN_TOKENS = 400
OUTCOMES = ("quality", "cost_usd", "wait_seconds")
TRUTH_SESSIONS = 400_000


def all_to(model: str) -> RoutingPolicy:
    return RoutingPolicy(f"all to {model}", (), default_model=model)


def short_to_cheap(tokens: int = MEDIAN_TOKENS) -> RoutingPolicy:
    rule = Rule("short", (Condition("input_tokens", "<", tokens),), CHEAP)
    return RoutingPolicy("short", (rule,), measure="prompt_tokens", default_model=DEAR)


@dataclass(frozen=True)
class Sessions:
    """``n`` sessions as they went; arrays by turn have shape ``(n, MOST_TURNS)``."""

    prompt_tokens: Integers
    turns: Integers
    is_cheap: Booleans  # by turn
    quality: Floats
    cost_usd: Floats
    wait_seconds: Floats


def simulate(random: np.random.Generator, is_cheap: Booleans, prompts: Integers) -> Sessions:
    """Turns one after the other: a turn that goes wrong spoils those after it."""
    n = len(prompts)
    turns = 1 + np.minimum(random.poisson(3.0, n), MOST_TURNS - 1)
    is_long = prompts >= MEDIAN_TOKENS
    spoilt = np.zeros(n, bool)
    good, cost, wait = np.zeros(n), np.zeros(n), np.zeros(n)
    for turn in range(MOST_TURNS):
        there = turn < turns
        cheap = is_cheap[:, turn]
        rate = 0.93 - 0.03 * np.log10(prompts) - np.where(cheap, np.where(is_long, 0.2, 0.01), 0.0)
        success = random.random(n) < np.where(spoilt, rate - 0.45, rate)
        good += success & there
        spoilt |= ~success & there
        price = np.where(cheap, 0.02, 0.1)
        cost += there * price * random.lognormal(0.0, 0.5, n) * (1.0 + 0.3 * spoilt)
        wait += there * np.where(cheap, 3.0, 7.0) * random.lognormal(0.0, 0.4, n)
    return Sessions(prompts, turns, is_cheap, good / turns, cost, wait)


def draw_prompts(random: np.random.Generator, count: int) -> Integers:
    return np.exp(random.normal(np.log(MEDIAN_TOKENS), 1.0, count)).astype(np.int64) + 1


def routed_cheap(policy: RoutingPolicy, prompts: Integers) -> Booleans:
    """Which sessions a policy of this benchmark gives the cheap model."""
    if policy.rules:
        limit = policy.rules[0].when[0].value
        return np.asarray(prompts < limit, bool)
    return np.full(len(prompts), policy.default_model == CHEAP)


def truth_of(policy: RoutingPolicy, seed: int = 99) -> dict[str, float]:
    random = np.random.default_rng(seed)
    prompts = draw_prompts(random, TRUTH_SESSIONS)
    by_turn = np.repeat(routed_cheap(policy, prompts)[:, None], MOST_TURNS, axis=1)
    sessions = simulate(random, by_turn, prompts)
    return {name: float(getattr(sessions, name).mean()) for name in OUTCOMES}


@dataclass(frozen=True)
class Design:
    """How a log came about. ``arms``: policy and weight of 10,000; ``log``: what to make of it."""

    name: str
    sessions: int
    arms: tuple[tuple[RoutingPolicy, int], ...]
    candidate: RoutingPolicy
    change: Callable[[Log], Log] = lambda log: log
    by_turn: bool = False


@dataclass(frozen=True)
class Log:
    frame: TurnFrame
    publications: dict[int, Publication]
    outcomes: dict[str, dict[str, float]]


def make_log(design: Design, seed: int) -> Log:
    random = np.random.default_rng([seed, design.sessions])
    n = design.sessions
    prompts = draw_prompts(random, n)
    weights = np.array([weight for _, weight in design.arms]) / 10_000
    arm = random.choice(len(design.arms), (n, MOST_TURNS), p=weights)
    if not design.by_turn:
        arm = np.repeat(arm[:, :1], MOST_TURNS, axis=1)
    cheap_by_arm = np.stack([routed_cheap(policy, prompts) for policy, _ in design.arms])
    is_cheap = cheap_by_arm[arm, np.arange(n)[:, None]]
    sessions = simulate(random, is_cheap, prompts)
    there = np.arange(MOST_TURNS)[None, :] < sessions.turns[:, None]
    session, turn = np.nonzero(there)
    names = [f"s{number:06d}" for number in range(n)]
    served = np.where(is_cheap[there], CHEAP, DEAR)
    rows = len(session)
    cost_by_turn = np.rint(sessions.cost_usd / sessions.turns * 1e6).astype(np.int64)
    frame = TurnFrame.from_columns(
        {
            "turn_id": [f"t{number:08d}" for number in range(rows)],
            "session_id": [names[number] for number in session],
            "started_at_us": START_US + session * 7_000_003 + turn * 1_000,
            "requested_model": [DEAR] * rows,
            "served_model": served.tolist(),
            "starts_prompt": turn == 0,
            "input_tokens": np.full(rows, 3),
            "output_tokens": np.full(rows, 300),
            "cache_read_tokens": np.full(rows, 30_000),
            "cache_creation_5m_tokens": np.full(rows, 1_000),
            "cache_creation_1h_tokens": np.zeros(rows, np.int64),
            "cost_microusd": cost_by_turn[session],
        }
    )
    # As decisions would say it, without making a record of each.
    arms = tuple(f"arm-{number}" for number in range(len(design.arms)))
    frame = replace(
        frame,
        serial=np.ones(rows, np.int64),
        arm=TextColumn(arm[there], arms),
        propensity=weights[arm[there]],
        logged_prompt_tokens=prompts[session],
        routed_model=TextColumn(is_cheap[there].astype(np.int64), (DEAR, CHEAP)),
    )
    publication = Publication(
        1, "main",
        tuple(Arm(name, weight, number, policy) for number, (name, (policy, weight)) in
              enumerate(zip(arms, design.arms, strict=True))),
        "salt", START_US, START_US + 10**15,
    )  # fmt: skip
    outcomes = {
        name: dict(zip(names, getattr(sessions, name).tolist(), strict=True)) for name in OUTCOMES
    }
    return design.change(Log(frame, {1: publication}, outcomes))


def ask(log: Log, candidate: RoutingPolicy) -> dict[str, OutcomeEstimate]:
    evidence = SessionEvidence(
        log.frame, log.publications, log.outcomes["quality"], all_to(DEAR),
        wait_seconds=log.outcomes["wait_seconds"],
    )  # fmt: skip
    logs = {
        "quality": evidence.quality,
        "cost_usd": evidence.cost_usd,
        "wait_seconds": evidence.wait_seconds,
    }
    return {name: log.estimate(candidate) for name, log in logs.items()}


def half() -> tuple[tuple[RoutingPolicy, int], ...]:
    return ((all_to(DEAR), 5_000), (all_to(CHEAP), 5_000))


def tenth() -> tuple[tuple[RoutingPolicy, int], ...]:
    return ((all_to(DEAR), 9_000), (all_to(CHEAP), 1_000))


ANSWERED = (
    Design("half of 400 sessions to the cheap arm", 400, half(), short_to_cheap()),
    Design("the same, everything to the cheap model", 400, half(), all_to(CHEAP)),
    Design("a tenth of 2,000 sessions", 2_000, tenth(), short_to_cheap()),
    Design("the same, everything to the cheap model", 2_000, tenth(), all_to(CHEAP)),
    Design(
        "a tenth of 2,000 sessions to the candidate itself",
        2_000,
        ((all_to(DEAR), 9_000), (short_to_cheap(), 1_000)),
        short_to_cheap(),
    ),
    Design(
        "three arms, 1,000 sessions",
        1_000,
        ((all_to(DEAR), 6_000), (short_to_cheap(), 2_000), (all_to(CHEAP), 2_000)),
        short_to_cheap(),
    ),
    Design("a tenth of 1,000 sessions: 100 in the cheap arm", 1_000, tenth(), all_to(CHEAP)),
    Design("a tenth of 500 sessions: 50 in the cheap arm", 500, tenth(), all_to(CHEAP)),
)


def without_propensity(log: Log) -> Log:
    return replace(log, frame=replace(log.frame, propensity=np.full(len(log.frame), np.nan)))


def with_double_propensity(log: Log) -> Log:
    return replace(log, frame=replace(log.frame, propensity=log.frame.propensity * 2.0))


REFUSED = (
    Design("people chose, short work to the cheap model: no propensity", 2_000,
           ((short_to_cheap(), 10_000),), all_to(CHEAP), without_propensity),
    Design("a rule chose, logged as one arm of probability 1", 2_000,
           ((short_to_cheap(), 10_000),), all_to(CHEAP)),
    Design("arms drawn turn by turn, with carry-over", 2_000, half(), all_to(CHEAP), by_turn=True),
    Design("every propensity doubled", 2_000, tenth(), all_to(CHEAP), with_double_propensity),
    Design("a model that no arm has tried", 2_000, half(), all_to(NEVER_TRIED)),
    Design("2 % of 500 sessions explored: too few", 500,
           ((all_to(DEAR), 9_800), (all_to(CHEAP), 200)), all_to(CHEAP)),
    Design("20 sessions", 20, half(), all_to(CHEAP)),
)  # fmt: skip


def measure_coverage(design: Design, replications: int) -> dict[str, Any]:
    truth, base = truth_of(design.candidate), truth_of(all_to(DEAR))
    hits: dict[str, list[bool]] = {name: [] for name in OUTCOMES}
    change_hits: dict[str, list[bool]] = {name: [] for name in OUTCOMES}
    errors: dict[str, list[float]] = {name: [] for name in OUTCOMES}
    snips, direct, widths, treated, refused = [], [], [], [], 0
    for seed in range(replications):
        answers = ask(make_log(design, seed), design.candidate)
        for name, answer in answers.items():
            if answer.value is None or answer.difference is None:
                refused += 1
                continue
            change = truth[name] - base[name]
            hits[name].append(answer.value.low <= truth[name] <= answer.value.high)
            change_hits[name].append(answer.difference.low <= change <= answer.difference.high)
            errors[name].append(answer.value.estimate - truth[name])
        quality = answers["quality"]
        if quality.value and quality.snips is not None and quality.direct_method is not None:
            snips.append(quality.snips - truth["quality"])
            direct.append(quality.direct_method - truth["quality"])
            widths.append(quality.value.high - quality.value.low)
            treated.append(quality.effective_sample_size)
    return {
        "design": design.name,
        "sessions": design.sessions,
        "candidate": design.candidate.name,
        "replications": replications,
        "refused": refused,
        "effective_sessions": float(np.mean(treated)),
        "covered": {name: float(np.mean(hits[name])) for name in OUTCOMES},
        "difference_covered": {name: float(np.mean(change_hits[name])) for name in OUTCOMES},
        "bias": float(np.mean(errors["quality"])),
        "rmse": _rms(errors["quality"]),
        "snips_rmse": _rms(snips),
        "direct_rmse": _rms(direct),
        "width": float(np.mean(widths)),
    }


def measure_refusal(design: Design, replications: int) -> dict[str, Any]:
    refused, reason, naive = 0, "", []
    truth = truth_of(design.candidate)["quality"]
    for seed in range(replications):
        log = make_log(design, seed)
        answer = ask(log, design.candidate)["quality"]
        refused += answer.value is None
        reason = answer.refusals[0] if answer.refusals else reason
        naive.append(_naive_mean(log, design.candidate) - truth)
    return asdict(Refusal(design.name, replications, refused, reason, float(np.nanmean(naive))))


@dataclass(frozen=True)
class Refusal:
    design: str
    replications: int
    refused: int
    reason: str
    naive_error: float  # of the plain mean over sessions that were served as the candidate would


def _naive_mean(log: Log, candidate: RoutingPolicy) -> float:
    frame = log.frame
    first = frame.session_starts()
    cheap = routed_cheap(candidate, frame.logged_prompt_tokens[first])
    same = (frame.routed_model.codes[first] == 1) == cheap
    values = [log.outcomes["quality"][frame.session_ids[at]] for at in np.flatnonzero(same)]
    return float(np.mean(values)) if values else float("nan")


def _rms(errors: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")


def report(answer: dict[str, Any]) -> str:
    lines = [
        "# Off-policy estimates against a known truth",
        "",
        f"Written by `python -m bench estimates`. Python {answer['machine']['python']}, "
        f"{answer['machine']['processors']} processors; {answer['replications']} simulated logs a "
        f"row, {answer['cpu_seconds']:,.0f} s of processor time in all. Sessions are simulated, "
        "with carry-over between turns; coverage is known to about "
        f"{100 * (0.05 * 0.95 / answer['replications']) ** 0.5:.1f} points.",
        "",
        "## Where the log can answer: how often the 95 % interval covers the truth",
        "",
        "| log | effective sessions | quality: value | difference | cost: value | difference | "
        "waiting: value | difference | bias | RMSE | SNIPS | direct method | width |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in answer["answered"]:
        shares = " | ".join(
            f"{row[kind][name]:.1%}"
            for name in OUTCOMES
            for kind in ("covered", "difference_covered")
        )
        lines.append(
            f"| {row['design']} ({row['candidate']}) | {row['effective_sessions']:.0f} | {shares} "
            f"| {row['bias']:+.4f} | {row['rmse']:.4f} | {row['snips_rmse']:.4f} | "
            f"{row['direct_rmse']:.4f} | {row['width']:.3f} |"
        )
    lines += [
        "",
        "Bias, errors and width are of the quality. The direct method has no interval: none of its "
        "own would hold.",
        "",
        "## Where it can't: refused",
        "",
        "| log | refused | reason | what a plain mean would have been wrong by |",
        "|---|---|---|---|",
    ]
    for row in answer["refused"]:
        lines.append(
            f"| {row['design']} | {row['refused']} of {row['replications']} | {row['reason']} | "
            f"{row['naive_error']:+.3f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=400)
    options = parser.parse_args(arguments)
    began = time.process_time()
    answered, refused = [], []
    for design in ANSWERED:
        say(design.name)
        answered.append(measure_coverage(design, options.replications))
    for design in REFUSED:
        say(design.name)
        refused.append(measure_refusal(design, max(10, options.replications // 10)))
    answer = {
        "machine": machine(),
        "replications": options.replications,
        "cpu_seconds": time.process_time() - began,
        "answered": answered,
        "refused": refused,
    }
    text = report(answer)
    write_results("estimates", answer, text)
    print(text)


if __name__ == "__main__":
    main()
