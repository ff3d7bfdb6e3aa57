"""Runs the benchmarks, each in a process of its own: ``python -m bench [NAME …] [--data DIR]``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """``public``: it measures on public data sets, whose folder ``--data`` names."""

    name: str
    measures: str
    public: bool = False

    @property
    def module(self) -> str:
        return f"bench.{self.name}" if self.public else f"bench.bench_{self.name}"


BENCHMARKS = (
    Benchmark("ingest", "OTLP records per second: acknowledged, and in the tables"),
    Benchmark("redaction", "secrets found and texts spoilt, and what it costs"),
    Benchmark(
        "chargeback", "spend by developer, organization, model and day over 20 million turns"
    ),
    Benchmark("replay", "logged turns replayed per second under a policy"),
    Benchmark("estimates", "how often off-policy intervals cover a truth that is known"),
    Benchmark("decide", "microseconds that a gateway takes to decide"),
    Benchmark("edge", "what the edge proxy adds to a request"),
    Benchmark("evaluators", "sessions scored per second"),
    Benchmark("clusters", "modes found, ids kept, and 50,000 sessions clustered"),
    Benchmark("judge", "coverage of a judge's corrected means, simulated"),
    Benchmark("money", "turns priced anew and stated per second"),
    Benchmark("rollouts", "error rates and delays of the rollout judge, simulated"),
    Benchmark("public_evaluators", "evaluators on public runs that others judged", public=True),
    Benchmark("public_transcripts", "import of public session files, totals by peer", public=True),
    Benchmark("public_routing", "routers, estimates and search on public data", public=True),
    Benchmark("public_sessions", "reach, replay and search on public sessions", public=True),
)


def main(arguments: list[str] | None = None) -> int:
    """Returns the number of benchmarks that failed."""
    listed = "\n".join(
        f"  {item.name:18} {item.measures}{' (needs --data)' if item.public else ''}"
        for item in BENCHMARKS
    )
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"Run benchmarks and write bench/results.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [item.name for item in BENCHMARKS]
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones (default: all)")
    parser.add_argument("--data", type=Path, help="the folder that holds the public sets")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are {', '.join(names)}")
    failed = 0
    for item in BENCHMARKS:
        if options.names and item.name not in options.names:
            continue
        if item.public and options.data is None:
            print(f"{item.name}: left out, it needs --data", flush=True)
            continue
        given = _arguments(item, options.data)
        print(f"{item.name}: {item.measures} …", flush=True)
        began = time.monotonic()
        ended = subprocess.run([sys.executable, "-m", item.module, *given], cwd=ROOT, check=False)
        failed += ended.returncode != 0
        print(f"{item.name}: status {ended.returncode}, {time.monotonic() - began:.0f} s\n")
    return failed


def _arguments(item: Benchmark, data: Path | None) -> list[str]:
    if item.public:
        return ["--data", str(data)]
    if item.name == "replay" and data is not None:
        return ["--sessions", str(data / "claude_code_sessions" / "requests.parquet")]
    return []


if __name__ == "__main__":
    sys.exit(main())
