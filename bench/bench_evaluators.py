"""How many sessions the three evaluators score per second of one core's time.

    python -m bench.bench_evaluators [SESSIONS]

The sessions are made up: five turns, four calls, one closing text, all texts distinct so that
nothing is remembered from one to the next. CPU time, so that other work on the machine doesn't
count. Traces are in memory: reading the lake is not measured.
"""

from __future__ import annotations

import dataclasses
import sys
import time

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


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    sessions = make_sessions(count)
    evaluators = default_evaluators()
    rates = []
    for _ in range(3):
        started = time.process_time()
        for trace in sessions:
            copy = dataclasses.replace(trace)
            for evaluator in evaluators:
                evaluator.evaluate(copy)
        rates.append(count / (time.process_time() - started))
    rates.sort()
    print(f"{rates[1]:,.0f} sessions/s (from {rates[0]:,.0f} to {rates[2]:,.0f}), 5 turns each")


if __name__ == "__main__":
    main()
