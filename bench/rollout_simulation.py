"""Whole rollouts by simulation, decided by the code that ships.

``python -m bench.rollout_simulation [--rollouts N]`` writes ``bench/results/rollout_simulation.md``
and ``.json``. Sessions arrive by day and night, are assigned, are scored some minutes later (a few
of them hours later), and every tick goes through ``judge_rollout`` and ``next_step``: five stages,
a matched control, all statistical guardrails, hard limits, measurements, the horizon. Beside them
two tests that a dashboard would have: Welch's, canary against control and canary against everybody
else, looked at at every tick until the rollout has ended.

Simulated and seeded; nothing of it is measured on real sessions.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.special import stdtr

from routing_policies.rollout_evidence import RolloutEvidence
from routing_policies.rollout_judge import StageFacts, judge_rollout, next_step
from routing_policies.rollout_metrics import QUALITY
from routing_policies.rollout_records import (
    CostReference,
    Gateways,
    OtherMargins,
    RolloutPlan,
    SessionOutcome,
    Step,
)
from routing_policies.rollout_units import Unit, Units

RESULTS = Path(__file__).parents[1] / "bench" / "results"
TICK_SECONDS = 3600
SESSIONS_PER_HOUR = 400.0
LEVEL, DEVIATION = 0.6, 0.22
GATEWAYS = Gateways(serial=1, live=("edge",), behind=(), rejected=(), stale=())
PLAN = RolloutPlan(
    horizon_seconds=2 * 86_400.0,
    others=OtherMargins(cost_reference=CostReference(500_000.0, 2_000_000.0)),
)
_HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Scenario:
    """What differs from two equal arms. ``quality``, ``failed_turns`` and ``tool_use`` are added to
    the canary's, ``cost`` and ``duration`` multiply it. ``drift``: amplitude of a daily wave of
    quality that both arms have. ``developers``: how many, each with an effect of standard deviation
    .1. ``unscored``: share of the canary's sessions below the mean quality whose score never comes;
    ``silent_after_hours``: from then on nothing is scored; ``lost``: share of canary sessions that
    never reach us."""

    name: str
    quality: float = 0.0
    tool_use: float = 0.0
    failed_turns: float = 0.0
    cost: float = 1.0
    duration: float = 1.0
    drift: float = 0.0
    developers: int = 0
    unscored: float = 0.0
    silent_after_hours: float = math.inf
    lost: float = 0.0
    repeats: float = 1.0  # of the rollouts asked for: what never ends early takes long


SCENARIOS = (
    Scenario("equal"),
    Scenario("equal, daily drift of 6 points", drift=0.06),
    Scenario("equal, 60 developers (sd 10 points)", developers=60),
    Scenario("1 point better", +0.01),
    Scenario("2 points worse", -0.02),
    Scenario("5 points worse", -0.05),
    Scenario("5 points worse, daily drift", -0.05, drift=0.06),
    Scenario("10 points worse", -0.10),
    Scenario("tools used 5 points worse", tool_use=-0.05),
    Scenario("5 points more turns fail", failed_turns=0.05),
    Scenario("costs half as much again", cost=1.5),
    Scenario("turns take twice as long", duration=2.0),
    Scenario("equal, but half of its poor sessions are never scored", unscored=0.5, repeats=0.2),
    Scenario("equal, scores stop after 10 hours", silent_after_hours=10.0, repeats=0.2),
    Scenario("equal, a fifth of its sessions never arrives", lost=0.2, repeats=0.2),
)


@dataclass(frozen=True)
class Ended:
    """One rollout. ``sessions`` are the scored, matured ones of canary and control at its end,
    ``exposed`` all that the canary served until then."""

    step: Step
    hours: float
    sessions: int
    exposed: int
    welch_control: bool
    welch_others: bool

    @property
    def how(self) -> str:
        """``promote``, or by what it was rolled back."""
        if self.step.kind == "promote":
            return "promoted"
        reason = self.step.reason
        if reason.startswith("could not measure"):
            return "could not measure"
        if reason.startswith("inconclusive at the horizon"):
            return "inconclusive"
        return "worse"


class Simulated:
    """One seeded rollout: its sessions so far, and what is known of them at a moment."""

    def __init__(self, scenario: Scenario, random: np.random.Generator) -> None:
        self.scenario = scenario
        self.random = random
        self.units: list[Unit] = []
        self.waiting: list[tuple[int, int, Unit]] = []  # known at, place, with its score
        self.others = np.empty(0)  # qualities of the stable arm
        self.developers = random.normal(0.0, 0.1, max(1, scenario.developers))

    def serve(self, stage: int, weight: int, start_us: int, end_us: int) -> None:
        """Sessions of one tick, under the weights of a stage."""
        hours = start_us / _HOUR_US
        rate = SESSIONS_PER_HOUR * (1 + 0.6 * math.sin(2 * math.pi * hours / 24))
        count = int(self.random.poisson(rate * (end_us - start_us) / _HOUR_US))
        share = weight / 10_000
        arm = self.random.random(count)
        level = LEVEL + self.scenario.drift * math.sin(2 * math.pi * hours / 24)
        known = self.random.normal(level, DEVIATION, count)
        if self.scenario.developers:
            known += self.developers[self.random.integers(0, self.scenario.developers, count)]
        others = (arm >= share) & (arm < 1 - share)
        self.others = np.concatenate([self.others, np.clip(known[others], 0.0, 1.0)])
        at_us = np.sort(self.random.integers(start_us, end_us, count))
        for index in np.flatnonzero(~others):
            self._assign(bool(arm[index] < share), float(known[index]), int(at_us[index]), stage)

    def _assign(self, is_canary: bool, quality: float, at_us: int, stage: int) -> None:
        scenario, random = self.scenario, self.random
        if is_canary and random.random() < scenario.lost:
            return
        number = len(self.units)
        turns = int(random.integers(8, 40))
        failing = 0.02 + (scenario.failed_turns if is_canary else 0.0)
        quality += scenario.quality if is_canary else 0.0
        factor = scenario.cost if is_canary else 1.0
        outcome = SessionOutcome(
            session_id=f"s{number:06}",
            arm="canary" if is_canary else "control",
            serial=1,
            rollout_id="rollout-2",
            assigned_at_us=at_us,
            cost_microusd=round(random.lognormal(12.9, 0.7) * factor),
            turns=turns,
            errors=int(random.binomial(turns, failing)),
            duration_ms=float(random.lognormal(8.5, 0.4))
            * (scenario.duration if is_canary else 1.0),
            tool_use=_clip(random.normal(0.9 + (scenario.tool_use if is_canary else 0.0), 0.08)),
            gateway_answers=turns,
            gateway="edge",
        )
        unit = Unit(outcome, is_canary, 0.5, stage)
        self.units.append(unit)
        never = is_canary and quality < LEVEL and random.random() < scenario.unscored
        silent = at_us > scenario.silent_after_hours * _HOUR_US
        if never or silent:
            return
        slow = random.random() < 0.03
        lag_seconds = random.exponential(3600.0 if slow else 240.0)
        scored = Unit(replace(outcome, quality=_clip(quality)), is_canary, 0.5, stage)
        self.waiting.append((at_us + round(lag_seconds * 1e6), number, scored))

    def known_at(self, now_us: int) -> Units:
        """What has been scored by now."""
        later = []
        for known_at_us, place, unit in self.waiting:
            if known_at_us <= now_us:
                self.units[place] = unit
            else:
                later.append((known_at_us, place, unit))
        self.waiting = later
        return Units(tuple(self.units), (), 0)

    def welch(self, mature_before_us: int) -> tuple[bool, bool]:
        """Whether Welch's one-sided test at .05 calls the canary worse: than control, than all."""
        canary, control = [], []
        for unit in self.units:
            quality = unit.outcome.quality
            if quality is not None and unit.outcome.assigned_at_us <= mature_before_us:
                (canary if unit.is_canary else control).append(quality)
        everybody = np.concatenate([self.others, np.array(control)])
        return _welch(np.array(canary), np.array(control)), _welch(np.array(canary), everybody)


def run_rollout(scenario: Scenario, seed: Sequence[int], plan: RolloutPlan = PLAN) -> Ended:
    """From the first stage to the end, a tick at a time."""
    world = Simulated(scenario, np.random.default_rng(list(seed)))
    evidence = RolloutEvidence(plan)
    now_us = stage_started_us = stage = 0
    naive_control = naive_others = False
    while True:
        start_us, now_us = now_us, now_us + TICK_SECONDS * 1_000_000
        world.serve(stage, plan.canary_weights[stage], start_us, now_us)
        units = world.known_at(now_us)
        report = judge_rollout(plan, units, stage=stage, now_us=now_us, evidence=evidence)
        control, others = world.welch(now_us - round(plan.maturation_seconds * 1e6))
        naive_control |= control
        naive_others |= others
        facts = StageFacts(stage, 0, stage_started_us, GATEWAYS)
        step = next_step(plan, report, facts)
        if step.kind == "advance":
            stage, stage_started_us = stage + 1, now_us
        elif step.kind in ("promote", "roll_back"):
            return Ended(
                step,
                now_us / _HOUR_US,
                report.units,
                sum(unit.is_canary for unit in units.of_arms),
                naive_control,
                naive_others,
            )


def simulate(scenario: Scenario, index: int, rollouts: int) -> dict[str, Any]:
    """A row of the table."""
    began, rollouts = time.process_time(), max(1, round(rollouts * scenario.repeats))
    ended = [run_rollout(scenario, (2026, index, number)) for number in range(rollouts)]
    how = Counter(one.how for one in ended)
    worse = [one for one in ended if one.how == "worse"]
    by = Counter(_guardrail_of(one.step.reason) for one in worse)
    low, high = wilson(how["worse"], rollouts)
    return {
        "scenario": {**asdict(scenario), "silent_after_hours": _finite(scenario)},
        "rollouts": rollouts,
        "cpu_seconds": time.process_time() - began,
        "ended": dict(how),
        "worse_low": low,
        "worse_high": high,
        "worse_by": dict(by),
        "within_2500_share": sum(one.sessions <= 2500 for one in worse) / rollouts,
        "median_sessions": median(one.sessions for one in worse) if worse else None,
        "median_exposed": median(one.exposed for one in worse) if worse else None,
        "median_hours": median(one.hours for one in worse) if worse else None,
        "median_hours_to_promotion": _median_of([o.hours for o in ended if o.how == "promoted"]),
        "welch_control_share": sum(one.welch_control for one in ended) / rollouts,
        "welch_others_share": sum(one.welch_others for one in ended) / rollouts,
    }


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share."""
    z, share = 1.96, hits / count
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def to_markdown(results: dict[str, Any]) -> str:
    plan = PLAN
    rows = [
        "# Whole rollouts by simulation",
        "",
        "Written by `python -m bench.rollout_simulation`; docs/benchmarks/rollouts.md says what it "
        f"means. **Simulated**, {results['rollouts']:,} seeded rollouts a row (a fifth of that in "
        "the last three rows): "
        f"{SESSIONS_PER_HOUR:g} sessions an hour by day and night, quality with a standard "
        f"deviation of {DEVIATION * 100:g} points, a look every {TICK_SECONDS // 60} minutes, "
        "stages of 1, 5, 10, 25 and 50 % with as many sessions of control, "
        f"alpha {plan.alpha:g} over all statistical guardrails, margin "
        f"{plan.margin * 100:g} points, horizon {plan.horizon_seconds / 86_400:g} days. Of each "
        "row: how the rollouts ended; of those that were rolled back as worse, the scored sessions "
        "of canary and control by then, those that the canary had served, and the hours.",
        "",
        "| scenario | worse (95 % interval) | promoted | inconclusive | could not measure | "
        "worse within 2,500 | sessions | canary served | hours | Welch, control | Welch, all |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["scenarios"]:
        ended, count = row["ended"], row["rollouts"]
        shares = {name: ended.get(name, 0) / count for name in _ENDS}
        rows.append(
            f"| {row['scenario']['name']} | {shares['worse']:.1%} "
            f"({row['worse_low']:.1%}–{row['worse_high']:.1%}) | {shares['promoted']:.1%} "
            f"| {shares['inconclusive']:.1%} | {shares['could not measure']:.1%} "
            f"| {row['within_2500_share']:.1%} | {_count(row['median_sessions'])} "
            f"| {_count(row['median_exposed'])} | {_count(row['median_hours'])} "
            f"| {row['welch_control_share']:.1%} | {row['welch_others_share']:.1%} |"
        )
    rows += ["", "## By which guardrail", "", "| scenario | rolled back as worse by |", "|---|---|"]
    for row in results["scenarios"]:
        by = sorted(row["worse_by"].items(), key=lambda pair: -pair[1])
        words = ", ".join(f"{name} {number:,}" for name, number in by) or "–"
        rows.append(f"| {row['scenario']['name']} | {words} |")
    rows += [
        "",
        f"{sum(row['rollouts'] for row in results['scenarios']):,} rollouts in "
        f"{results['cpu_seconds']:,.0f} s of CPU time, on a busy machine "
        f"({results['machine']}, Python {results['python']}).",
        "",
    ]
    return "\n".join(rows)


_ENDS = ("worse", "promoted", "inconclusive", "could not measure")


def _welch(canary: np.ndarray, others: np.ndarray) -> bool:
    if len(canary) < 30 or len(others) < 30:
        return False
    a, b = canary.var(ddof=1) / len(canary), others.var(ddof=1) / len(others)
    if a + b <= 0:
        return False
    freedom = (a + b) ** 2 / (a**2 / (len(canary) - 1) + b**2 / (len(others) - 1))
    return bool(stdtr(freedom, (canary.mean() - others.mean()) / math.sqrt(a + b)) < 0.05)


def _guardrail_of(reason: str) -> str:
    name, _, rest = reason.partition(" worse: ")
    return name if rest else QUALITY if reason.startswith("worse: ") else "a hard limit"


def _clip(value: float) -> float:
    return min(1.0, max(0.0, float(value)))


def _finite(scenario: Scenario) -> float | None:
    hours = scenario.silent_after_hours
    return hours if math.isfinite(hours) else None


def _median_of(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=500, help="per scenario")
    parser.add_argument("--processes", type=int, default=2, help="scenarios at a time")
    given = parser.parse_args()
    rollouts, scenarios, cpu_seconds = given.rollouts, [], 0.0
    with ProcessPoolExecutor(given.processes) as pool:
        for row in pool.map(simulate, SCENARIOS, range(len(SCENARIOS)), repeat(rollouts)):
            cpu_seconds += row.pop("cpu_seconds")
            scenarios.append(row)
            print(f"{row['scenario']['name']}: {row['ended']}", flush=True)
    results = {
        "rollouts": rollouts,
        "scenarios": scenarios,
        "cpu_seconds": cpu_seconds,
        "machine": f"{platform.machine()} {platform.system()}",
        "python": platform.python_version(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rollout_simulation.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "rollout_simulation.md").write_text(to_markdown(results))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
