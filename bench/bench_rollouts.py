"""Rollouts by simulation: how often an equal canary is rolled back, how soon a worse one is.

``python -m bench.bench_rollouts [--rollouts N]`` writes ``bench/results/rollouts.md`` and
``.json``. The tests that ship (``loop.domain.sequential_tests``) look after **every** session;
beside them a Welch test looks every 50 sessions, as a dashboard that is watched would.

Simulated, seeded: session quality has a standard deviation of 22 points around 60, clipped into
[0, 1]; 5,000 scored sessions of canary and control a rollout; alpha .05 over both tests together.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from loop.domain.sequential_tests import DifferenceTest, SampleRatioTest, TestSettings

RESULTS = Path(__file__).parents[1] / "bench" / "results"
SESSIONS = 5000
LEVEL, DEVIATION = 0.6, 0.22
MARGINS = (0.02, 0.05)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """``difference``: true, in quality. ``drift``: amplitude of a daily wave common to both arms.
    ``ramp``: the canary's share of both goes 5, 25, 50 % instead of a matched half throughout.
    ``developers``: how many, each with an effect of standard deviation ``developer_deviation``;
    ``by_developer``: the whole developer is assigned, not the session."""

    name: str
    difference: float = 0.0
    drift: float = 0.0
    ramp: bool = False
    developers: int = 0
    developer_deviation: float = 0.0
    by_developer: bool = False


SCENARIOS = (
    Scenario("equal"),
    Scenario("equal, daily drift of 6 points", drift=0.06),
    Scenario("equal, daily drift, unmatched ramp 5-25-50 %", drift=0.06, ramp=True),
    Scenario("equal, 60 developers (sd 10 points)", developers=60, developer_deviation=0.1),
    Scenario(
        "equal, 60 developers, assigned by developer",
        developers=60,
        developer_deviation=0.1,
        by_developer=True,
    ),
    Scenario("1 point better", +0.01),
    Scenario("2 points worse", -0.02),
    Scenario("5 points worse", -0.05),
    Scenario("5 points worse, drift and unmatched ramp", -0.05, drift=0.06, ramp=True),
    Scenario("10 points worse", -0.10),
)


def draw(
    scenario: Scenario, random: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Quality, arm and the logged probability of canary of each session, in order."""
    steps = np.arange(SESSIONS)
    probability = np.full(SESSIONS, 0.5)
    if scenario.ramp:
        probability = np.where(steps < 1500, 0.05, np.where(steps < 3000, 0.25, 0.5))
    level = LEVEL + scenario.drift * np.sin(2 * math.pi * steps / 700)
    canary = random.random(SESSIONS) < probability
    if scenario.developers:
        who = random.integers(0, scenario.developers, SESSIONS)
        level = level + random.normal(0, scenario.developer_deviation, scenario.developers)[who]
        if scenario.by_developer:
            canary = (random.random(scenario.developers) < 0.5)[who]
    quality = level + scenario.difference * canary + random.normal(0, DEVIATION, SESSIONS)
    return np.clip(quality, 0.0, 1.0), canary, probability


def watch(
    quality: Floats, canary: NDArray[np.bool_], probability: Floats
) -> tuple[DifferenceTest, dict[float, int]]:
    """The shipped tests, to rejection or the end; and the session at which each margin is met."""
    test = DifferenceTest(TestSettings(alpha=0.025))
    sound = dict.fromkeys(MARGINS, 0)
    for unit in zip(quality.tolist(), canary.tolist(), probability.tolist(), strict=True):
        test.add(*unit)
        if test.is_worse:
            break
        for margin in MARGINS:
            if not sound[margin] and test.running_low > -margin:
                sound[margin] = test.units
    return test, sound


def welch_rejects(quality: Floats, canary: NDArray[np.bool_]) -> bool:
    """Repeated one-sided Welch tests at .05 on the pooled difference, every 50 sessions."""
    looks = np.arange(200, SESSIONS + 1, 50) - 1
    columns = []
    for arm in (canary, ~canary):
        count = np.cumsum(arm)[looks].astype(float)
        total = np.cumsum(quality * arm)[looks]
        squares = np.cumsum(quality**2 * arm)[looks]
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / count
            columns.append((count, mean, (squares - count * mean**2) / (count - 1)))
    (n1, m1, v1), (n0, m0, v0) = columns
    usable = (n1 >= 2) & (n0 >= 2)
    a, b = v1[usable] / n1[usable], v0[usable] / n0[usable]
    freedom = (a + b) ** 2 / (a**2 / (n1[usable] - 1) + b**2 / (n0[usable] - 1))
    return bool((stdtr(freedom, (m1 - m0)[usable] / np.sqrt(a + b)) < 0.05).any())


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share."""
    z, share = 1.96, hits / count
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def simulate(scenario: Scenario, index: int, rollouts: int) -> dict[str, Any]:
    sessions, exposed, by, welch = [], [], [], 0
    sound: dict[float, list[int]] = {margin: [] for margin in MARGINS}
    for number in range(rollouts):
        units = draw(scenario, np.random.default_rng([2026, index, number]))
        test, met = watch(*units)
        welch += welch_rejects(units[0], units[1])
        if test.is_worse:
            sessions.append(test.worse_at_unit)
            exposed.append(test.canary_units)
            by.append(test.worse_by)
        for margin in MARGINS:
            if met[margin]:
                sound[margin].append(met[margin])
    low, high = wilson(len(sessions), rollouts)
    return {
        "scenario": asdict(scenario),
        "rollouts": rollouts,
        "rolled_back_share": len(sessions) / rollouts,
        "rolled_back_low": low,
        "rolled_back_high": high,
        "by_confidence_sequence": by.count("confidence sequence"),
        "by_betting_test": by.count("betting test"),
        "within_2500_share": sum(at <= 2500 for at in sessions) / rollouts,
        "median_sessions": median(sessions) if sessions else None,
        "p95_sessions": float(np.quantile(sessions, 0.95)) if sessions else None,
        "median_canary_sessions": median(exposed) if exposed else None,
        "welch_every_50_share": welch / rollouts,
        "not_inferior": {
            str(margin): {
                "share": len(found) / rollouts,
                "median_sessions": median(found) if found else None,
            }
            for margin, found in sound.items()
        },
    }


def simulate_ratios(rollouts: int) -> list[dict[str, Any]]:
    """The sample ratio test at .001, after every session of 5,000."""
    rows = []
    for index, share in enumerate((0.5, 0.48, 0.45, 0.40)):
        found = []
        for number in range(rollouts):
            random = np.random.default_rng([2027, index, number])
            test = SampleRatioTest(alpha=0.001)
            for is_canary in (random.random(SESSIONS) < share).tolist():
                test.add(is_canary, 0.5)
                if test.is_mismatched:
                    found.append(test.canary_units + test.control_units)
                    break
        rows.append(
            {
                "true_share": share,
                "rollouts": rollouts,
                "called_share": len(found) / rollouts,
                "median_sessions": median(found) if found else None,
            }
        )
    return rows


def to_markdown(results: dict[str, Any]) -> str:
    rows = [
        "# Rollouts by simulation",
        "",
        "Written by `python -m bench.bench_rollouts`. **Simulated**: session quality with a "
        "standard deviation of 22 points, 5,000 scored sessions of canary and control each, "
        f"{results['rollouts']:,} seeded rollouts a row. The shipped tests look after every "
        "session with alpha .05 over both; the naive column is a Welch test looked at every 50 "
        "sessions.",
        "",
        "| scenario | rolled back (95 % interval) | by CS / betting | within 2,500 | median "
        "sessions (canary's) | 95th percentile | naive Welch rolls back |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["scenarios"]:
        rows.append(
            f"| {row['scenario']['name']} | {row['rolled_back_share']:.1%} "
            f"({row['rolled_back_low']:.1%}–{row['rolled_back_high']:.1%}) "
            f"| {row['by_confidence_sequence']} / {row['by_betting_test']} "
            f"| {row['within_2500_share']:.1%} "
            f"| {_count(row['median_sessions'])} ({_count(row['median_canary_sessions'])}) "
            f"| {_count(row['p95_sessions'])} "
            f"| {row['welch_every_50_share']:.1%} |"
        )
    rows += [
        "",
        "The row of whole developers assigned shows what turnwise avoids: the session is no longer "
        "the unit there, and no test on sessions is valid. turnwise assigns sessions.",
        "",
        "## Sessions until a promotion",
        "",
        "The share of rollouts in which the lower bound rises above −margin within 5,000 scored "
        "sessions, and the median of when.",
        "",
        "| scenario | margin 2 points | margin 5 points |",
        "|---|---|---|",
    ]
    for row in results["scenarios"]:
        cells = [
            f"{one['share']:.1%} ({_count(one['median_sessions'])})"
            for one in row["not_inferior"].values()
        ]
        rows.append(f"| {row['scenario']['name']} | {' | '.join(cells)} |")
    rows += [
        "",
        "## Sample ratio",
        "",
        "| true share of canary (published: 50 %) | called a mismatch | median sessions |",
        "|---|---|---|",
    ]
    rows += [
        f"| {row['true_share']:.0%} | {row['called_share']:.1%} "
        f"| {_count(row['median_sessions'])} |"
        for row in results["sample_ratio"]
    ]
    rows += [
        "",
        f"{results['microseconds_per_session']:.1f} µs a session and test "
        f"({results['machine']}, Python {results['python']}).",
        "",
    ]
    return "\n".join(rows)


def time_one_session() -> float:
    """Microseconds of one update with both tests, best of five runs."""
    quality, canary, probability = draw(SCENARIOS[0], np.random.default_rng(1))
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        watch(quality, canary, probability)
        best = min(best, time.perf_counter() - began)
    return best / SESSIONS * 1e6


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=1000, help="per scenario")
    rollouts = parser.parse_args().rollouts
    began = time.perf_counter()
    scenarios = []
    for index, scenario in enumerate(SCENARIOS):
        scenarios.append(simulate(scenario, index, rollouts))
        print(f"{scenario.name}: {scenarios[-1]['rolled_back_share']:.1%}", flush=True)
    results = {
        "rollouts": rollouts,
        "sessions": SESSIONS,
        "scenarios": scenarios,
        "sample_ratio": simulate_ratios(max(50, rollouts // 5)),
        "microseconds_per_session": time_one_session(),
        "seconds": time.perf_counter() - began,
        "machine": f"{platform.machine()} {platform.system()}",
        "python": platform.python_version(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rollouts.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "rollouts.md").write_text(to_markdown(results))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
