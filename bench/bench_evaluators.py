"""How many sessions the three evaluators score per second of one core's time.

``python -m bench.bench_evaluators [--sessions N]`` writes ``bench/results/evaluators.md`` and
``.json``.

The sessions are made up: five turns, four calls, one closing text, all texts distinct so that
nothing is remembered from one to the next. CPU time, so that other work on the machine doesn't
count. Traces are in memory: reading the lake is not measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from pathlib import Path

from evaluators import default_evaluators
from loop.domain.turns import SessionTrace
from tests.evaluators.traces import session, tool


def make_sessions(count: int) -> list[SessionTrace]:
    made = []
    for number in range(count):
        summary = "1 failed, 5 passed" if number % 3 == 0 else "5 passed"
        path = f"/srv/shop/pricing{number}.py"
        built = session(
            tool(f"r{number}", "Read", path, True, "def total(items):\n    return 1\n" * 20),
            tool(f"a{number}", "Bash", "python3 -m unittest discover -s tests", False),
            tool(f"e{number}", "Edit", path, True, "diff"),
            tool(
                f"b{number}",
                "Bash",
                f"cd /srv/{number} && pytest -q tests 2>&1 | tail -5",
                True,
                f"=== {summary} in 0.3s ===",
            ),
            claim=f"Fixed: `total()` in `{path}` now subtracts. All tests pass, run {number}.",
        )
        made.append(dataclasses.replace(built, session_id=f"s{number}"))
    return made


RESULTS = Path(__file__).parent / "results"


def measure(count: int, rounds: int = 3) -> list[float]:
    """Sessions per second of CPU time of each round, the slowest first."""
    sessions = make_sessions(count)
    evaluators = default_evaluators()
    rates = []
    for _ in range(rounds):
        started = time.process_time()
        for trace in sessions:
            copy = dataclasses.replace(trace)
            for evaluator in evaluators:
                evaluator.evaluate(copy)
        rates.append(count / (time.process_time() - started))
    return sorted(rates)


def write_results(rates: list[float], sessions: int) -> None:
    slowest, median, fastest = (round(rate) for rate in rates)
    document = {
        "sessions": sessions,
        "sessions_per_cpu_second": {"slowest": slowest, "median": median, "fastest": fastest},
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    (RESULTS / "evaluators.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = [
        "# Evaluators",
        "",
        f"Three deterministic evaluators over {sessions:,} made-up sessions of five turns, four",
        "tool calls and one closing text each; traces in memory, one core's CPU time.",
        "",
        f"**{median:,} sessions per second** ({slowest:,} to {fastest:,} in three rounds). Python",
        f"{platform.python_version()} on {platform.machine()}, load average "
        f"{document['load_average']} from other work.",
        "",
        "Repeat with `python -m bench.bench_evaluators`.",
    ]
    (RESULTS / "evaluators.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=4_000)
    sessions = parser.parse_args().sessions
    rates = measure(sessions)
    write_results(rates, sessions)
    print(f"{rates[1]:,.0f} sessions/s (from {rates[0]:,.0f} to {rates[2]:,.0f}), 5 turns each")


if __name__ == "__main__":
    main()
