"""How long a gateway takes to decide: ``decide()`` alone, with policies of 20 rules.

``python -m bench.bench_decide [--calls N]`` writes ``bench/results/decide.md`` and ``.json``.

No rule matches, so that each of them is tried. Wall time of each call by itself, the clock's own
time included: other work on the machine counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

from loop.domain.policies import Condition, Route, RouteRequest, RoutingPolicy, Rule, decide

RESULTS = Path(__file__).parent / "results"
OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
RULES = 20
REQUEST = RouteRequest(OPUS, session_id="s", total_input_tokens=50_000, org_path="acme/shop/web")


def twenty_rules(*when: Condition) -> RoutingPolicy:
    """``when``, and a node of the organisation that the request isn't in."""
    rules = tuple(
        Rule(f"rule-{number}", (*when, Condition("org_path", "==", f"acme/pay/{number}")), HAIKU)
        for number in range(RULES)
    )
    return RoutingPolicy(name="twenty", rules=rules, default_model=OPUS)


def cases() -> dict[str, tuple[RoutingPolicy, Route | None]]:
    small = Condition("input_tokens", "<", 10_000)
    known = Condition("requested_model", "in", (OPUS, "claude-sonnet-4-6"))
    large = Condition("input_tokens", ">", 10_000)
    return {
        "20 rules of two conditions": (twenty_rules(small), None),
        "20 rules of one condition": (twenty_rules(), None),
        "20 rules of three conditions, two of them shared and true": (
            twenty_rules(large, known),
            None,
        ),
        "a kept route": (RoutingPolicy(name="kept", rules=()), Route(HAIKU, "rule-1")),
    }


def measure(policy: RoutingPolicy, previous: Route | None, calls: int) -> tuple[float, float]:
    """Median and 99th percentile in microseconds."""
    clock = time.perf_counter_ns
    taken = []
    for _ in range(calls):
        started = clock()
        decide(policy, REQUEST, previous)
        taken.append(clock() - started)
    taken.sort()
    return taken[calls // 2] / 1000, taken[calls * 99 // 100] / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=50_000)
    calls = parser.parse_args().calls
    rows = {name: measure(policy, previous, calls) for name, (policy, previous) in cases().items()}
    document = {
        "calls": calls,
        "microseconds": {name: {"median": row[0], "p99": row[1]} for name, row in rows.items()},
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    (RESULTS / "decide.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = [
        "# decide()",
        "",
        f"`decide()` alone, {calls:,} calls each, wall time in microseconds. Python",
        f"{platform.python_version()} on {platform.machine()}, load average "
        f"{document['load_average']}.",
        "",
        "| policy | median | 99th percentile |",
        "|---|---|---|",
        *(f"| {name} | {median:.2f} | {p99:.2f} |" for name, (median, p99) in rows.items()),
        "",
        "Repeat with `python -m bench.bench_decide`.",
    ]
    (RESULTS / "decide.md").write_text("\n".join(lines) + "\n")
    for name, (median, p99) in rows.items():
        print(f"{name}: {median:.2f} µs (99 % within {p99:.2f} µs)")


if __name__ == "__main__":
    main()
