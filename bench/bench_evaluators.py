"""How many turns a second the deterministic evaluators judge, from the lake and back into it.

``python -m bench.bench_evaluators [--sessions N] [--peer PYTHON]`` writes
``bench/results/evaluators.md`` and ``.json``.

Three lakes are made (``bench.evaluated_lake``), of a sixteenth of N, a quarter and N sessions, and
each is evaluated by a program of its own, alone and with two processes beside it: read, judged by
every evaluator, scores written. Peak memory says whether it grows with the number of sessions; a
second look at all of them says what a pass costs that finds nothing new. ``PYTHON`` is the
interpreter of an environment that has DeepEval, whose deterministic tool metric then judges turns
of the same sessions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.evaluated_lake import write_sessions
from evaluators import default_evaluators
from loop.control.stage_progress import StageLog
from loop.control.store import connect, metadata
from loop.lake import Lake
from loop.service.evaluation_stage import evaluate_changed

RESULTS = Path(__file__).parent / "results"
TURNS_EACH = 24
PEER_SESSIONS = 250


def evaluate(folder: Path, processes: int) -> dict[str, Any]:
    """One pass over everything, then another; for a process that does nothing else."""
    peaks: dict[str, float] = {}

    def look(_done: int, _total: int) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        peaks.update({pid: peak_mib(pid) for pid in children})

    lake = Lake.open(str(folder / "lake"))
    engine = connect(f"sqlite:///{folder / 'control.db'}")
    metadata.create_all(engine)
    before_mib = peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    report = evaluate_changed(lake, StageLog(engine), processes=processes, on_progress=look)
    beside = resource.getrusage(resource.RUSAGE_CHILDREN)
    beside_cpu = beside.ru_utime + beside.ru_stime
    first = (time.perf_counter() - wall, time.process_time() - cpu + beside_cpu)
    after_mib = peak_mib()
    cpu = time.process_time()
    again = evaluate_changed(lake, StageLog(engine), everything=True)
    if again.unchanged != report.sessions:
        raise AssertionError(f"{report.sessions - again.unchanged} sessions were judged twice")
    return {
        "sessions": report.sessions,
        "turns": report.sessions * TURNS_EACH,
        "processes": processes,
        "seconds": first[0],
        "cpu_seconds": first[1],
        "cpu_seconds_again": time.process_time() - cpu,
        "start_mib": before_mib,
        "peak_mib": after_mib,
        "beside_cpu_seconds": beside_cpu,
        "beside_peak_mib": sorted(peaks.values()),
    }


def peak_mib(pid: str = "self") -> float:
    """Of a process since it began: what getrusage tells begins with its parent's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(row.split()[1]) / 1024 for row in status.splitlines() if "VmHWM" in row), 0.0)


def in_memory(folder: Path) -> float:
    """Turns judged per second of CPU time where the traces are in memory already."""
    lake = Lake.open(str(folder / "lake"))
    traces = lake.load_traces(lake.sessions_changed_since(-1)[:PEER_SESSIONS])
    started = time.process_time()
    for trace in traces:
        for evaluator in default_evaluators():
            evaluator.evaluate(trace)
    return sum(len(t.turns) for t in traces) / (time.process_time() - started)


def peer_turns(folder: Path) -> Iterator[str]:
    """The turns of some sessions as the peer takes them, a line each."""
    lake = Lake.open(str(folder / "lake"))
    for trace in lake.load_traces(lake.sessions_changed_since(-1)[:PEER_SESSIONS]):
        for traced in trace.turns:
            calls = [
                {
                    "name": tool.call.name,
                    "input": json.loads(tool.input_text),
                    "output": tool.output_text,
                }
                for tool in traced.tools
            ]
            if calls:
                answer = " ".join(traced.texts) or "-"
                yield json.dumps({"prompt": "Fix it.", "answer": answer, "calls": calls})


def measure_peer(python: str, folder: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("peer_metric.py")
    done = subprocess.run(
        [python, str(script)],
        input="\n".join(peer_turns(folder)) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    asked = "import importlib.metadata as m; print(m.version('deepeval'))"
    version = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True)
    rate = found["turns"] / found["cpu_seconds"]
    return {**found, "version": version.stdout.strip(), "turns_per_cpu_second": rate}


def measure(sessions: int, peer: str | None) -> dict[str, Any]:
    runs = []
    with tempfile.TemporaryDirectory() as name:
        for count in (sessions // 16, sessions // 4, sessions):
            made = Path(name) / f"{count} made"
            made.mkdir()
            write_sessions(Lake.open(str(made / "lake")), count, TURNS_EACH)
            for processes in (1, 2):
                folder = Path(name) / f"{count} by {processes}"
                shutil.copytree(made, folder)
                command = [sys.executable, "-m", "bench.bench_evaluators"]
                command += ["--evaluate", str(folder), "--processes", str(processes)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
        memory_rate = in_memory(folder)
        found = measure_peer(peer, folder) if peer else None
    whole = runs[-2]
    return {
        "runs": runs,
        "turns_per_second": whole["turns"] / whole["seconds"],
        "turns_per_cpu_second": whole["turns"] / whole["cpu_seconds"],
        "turns_per_cpu_second_in_memory": memory_rate,
        "peer": found,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def report(answer: dict[str, Any]) -> str:
    lines = [
        "# Evaluators",
        "",
        "The deterministic evaluators over made-up sessions with turns of real sizes (24 turns; a",
        "tool result of 2,900 characters on average), from the lake and back into it: read, judged",
        f"by {len(default_evaluators())} evaluators, scores written. Python {answer['python']} on "
        f"{answer['machine']}, {answer['cores']} cores, load average {answer['load_average']} "
        "from other work beside.",
        "",
        "| sessions | turns | processes beside | CPU s (in the pass's own process) | wall s "
        "| turns/s | turns per CPU second | peak memory, MiB (of those beside) "
        "| CPU s of a pass that finds nothing new |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in answer["runs"]:
        own = run["cpu_seconds"] - run["beside_cpu_seconds"]
        beside = ", ".join(f"{peak:.0f}" for peak in run["beside_peak_mib"])
        lines.append(
            f"| {run['sessions']:,} | {run['turns']:,} | "
            f"{run['processes'] if run['processes'] > 1 else 'none'} | "
            f"{run['cpu_seconds']:.1f} ({own:.1f}) | {run['seconds']:.1f} | "
            f"{run['turns'] / run['seconds']:,.0f} | {run['turns'] / run['cpu_seconds']:,.0f} | "
            f"{run['peak_mib']:.0f}{f' ({beside})' if beside else ''} | "
            f"{run['cpu_seconds_again']:.2f} |"
        )
    lines += [
        "",
        f"A process takes {answer['runs'][0]['start_mib']:.0f} MiB before it begins.",
        "",
        f"With the traces in memory: {answer['turns_per_cpu_second_in_memory']:,.0f} turns per CPU "
        "second.",
    ]
    peer = answer["peer"]
    if peer:
        ratio = answer["turns_per_cpu_second"] / peer["turns_per_cpu_second"]
        in_memory_ratio = answer["turns_per_cpu_second_in_memory"] / peer["turns_per_cpu_second"]
        lines += [
            "",
            f"DeepEval {peer['version']}, `ToolCorrectnessMetric` (deterministic: names, inputs",
            f"and outputs of calls against expected ones) over {peer['turns']:,} turns of the same",
            f"sessions, in memory: {peer['turns_per_cpu_second']:,.0f} turns per CPU second. "
            f"turnwise does {ratio:.1f} times as many",
            f"from the lake with all evaluators, and {in_memory_ratio:.1f} times in memory.",
            "The two don't do the same: DeepEval's compares calls with a given answer, turnwise's",
            "read commands, outputs and claims.",
        ]
    return "\n".join([*lines, "", "Repeat with `python -m bench.bench_evaluators`."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=16_000)
    parser.add_argument("--peer", help="interpreter of an environment with DeepEval")
    parser.add_argument("--evaluate", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.evaluate:
        print(json.dumps(evaluate(options.evaluate, options.processes)))
        return
    answer = measure(options.sessions, options.peer)
    (RESULTS / "evaluators.json").write_text(json.dumps(answer, indent=2) + "\n")
    text = report(answer)
    (RESULTS / "evaluators.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
