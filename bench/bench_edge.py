"""What the edge proxy adds to a request: the same load with and without it.

``python -m bench.bench_edge [--requests N]`` writes ``bench/results/edge.md`` and ``.json``.

Upstream, proxy (`turnwise edge`, a policy applied) and clients are processes of their own on
loopback. The upstream answers at once, so all time that is added is the proxy's. Direct and
proxied runs take turns; CPU time is the serving process's own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loop import __version__
from tests.fakes.policy_service import activate, policy_service, size_policy

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """``share`` of the asked number of requests is sent; larger ones are fewer."""

    name: str
    characters: int
    stream: bool
    share: float


CASES = (
    Case("2,000 characters, rewritten to Haiku", 2_000, False, 1.0),
    Case("2,000 characters, rewritten, 40 events", 2_000, True, 0.5),
    Case("100,000 characters, unchanged", 100_000, False, 0.5),
    Case("100,000 characters, unchanged, 40 events", 100_000, True, 0.25),
    Case("400,000 characters, unchanged", 400_000, False, 0.25),
)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def start_edge(folder: Path, service_url: str, upstream: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "loop.service", "edge", "--api", service_url]
    command += ["--listen", "127.0.0.1:0", "--upstream", upstream, "--data", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.match(r"ready: edge (\S+)", line):
            return process, found[1]
    raise RuntimeError("the edge proxy did not start")


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, case: Case, clients: int, each: int) -> dict[str, float]:
    given = (port, case.characters, int(case.stream), clients, each)
    command = [sys.executable, "-m", "bench.edge_load", *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(case: Case, ports: dict[str, int], serving: int, requests: int) -> dict[str, Any]:
    """One client for the time that is added, 16 for the throughput; the median of the rounds."""
    number = max(int(requests * case.share), 32)
    rounds: dict[str, list[dict[str, float]]] = {}
    cpu_ms = []
    for _ in range(ROUNDS):
        for name, port in ports.items():
            rounds.setdefault(f"{name}_alone", []).append(load(port, case, 1, number))
            before = cpu_seconds(serving)
            rounds.setdefault(f"{name}_crowd", []).append(load(port, case, 16, number // 16))
            if name == "edge":
                cpu_ms.append((cpu_seconds(serving) - before) * 1000 / (number // 16 * 16))
    row = {
        name: {key: sorted(one[key] for one in found)[len(found) // 2] for key in found[0]}
        for name, found in rounds.items()
    }
    return {**row, "edge_cpu_ms": sorted(cpu_ms)[len(cpu_ms) // 2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000)
    requests = parser.parse_args().requests
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = stack.enter_context(policy_service(folder))
        activate(service.store, size_policy(10_000))
        upstream = stack.enter_context(
            ended(
                subprocess.Popen(
                    [sys.executable, "-m", "bench.edge_upstream"],
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
            )
        )
        assert upstream.stdout is not None
        direct = int(upstream.stdout.readline())
        process, url = start_edge(folder / "edge", service.url, f"http://127.0.0.1:{direct}")
        stack.enter_context(ended(process))
        status: dict[str, Any] = {"serial": 0}
        while not status["serial"]:
            time.sleep(0.05)
            status = httpx.get(f"{url}/turnwise/status").json()
        ports = {"direct": direct, "edge": int(url.rpartition(":")[2])}
        rows = {case.name: measure(case, ports, status["process"], requests) for case in CASES}
        counted = httpx.get(f"{url}/turnwise/status").json()
    write(rows, requests, counted)


def write(rows: dict[str, dict[str, Any]], requests: int, counted: dict[str, Any]) -> None:
    machine = {
        "turnwise": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    document = {"requests": requests, "rounds": ROUNDS, **machine, "cases": rows}
    (RESULTS / "edge.json").write_text(json.dumps(document, indent=2) + "\n")
    lines = [
        "# The edge proxy",
        "",
        "The same load sent to an upstream that answers at once, directly and through",
        "`turnwise edge` with a policy applied, all on loopback; medians of "
        f"{ROUNDS} rounds that take turns.",
        f"`--requests {requests}`, {counted['requests']:,} requests through the proxy in all, none",
        f"failed. Python {machine['python']} on {machine['machine']}, {machine['cpus']} CPUs which",
        "upstream, proxy and clients share, load average "
        f"{machine['load_average']} by other work as well: the direct figures show it.",
        "",
        "| requests | added, median ms | direct → edge p50 ms | direct → edge p99 ms "
        "| requests/s, 16 clients, direct → edge | CPU ms a request |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        direct, edge = row["direct_alone"], row["edge_alone"]
        rates = [row[f"{which}_crowd"]["requests_per_second"] for which in ("direct", "edge")]
        lines.append(
            f"| {name} | {edge['median_ms'] - direct['median_ms']:.2f} "
            f"| {direct['median_ms']:.2f} → {edge['median_ms']:.2f} "
            f"| {direct['p99_ms']:.2f} → {edge['p99_ms']:.2f} "
            f"| {rates[0]:,.0f} → {rates[1]:,.0f} | {row['edge_cpu_ms']:.2f} |"
        )
    lines += [
        "",
        "Columns two to four: one client, one request after another. A proxy uses one CPU.",
        "",
        "Repeat with `python -m bench.bench_edge`.",
    ]
    (RESULTS / "edge.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines[9:-4]))


if __name__ == "__main__":
    main()
