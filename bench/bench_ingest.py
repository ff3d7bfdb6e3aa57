"""Ingest end to end: acknowledged durable, and queryable, in records per second; peers beside.

``python -m bench.bench_ingest [--seconds N] [--soak N] [--peers DIR]`` writes
``bench/results/ingest.md`` and ``.json``.

What is measured is the product: ``turnwise collect`` and ``turnwise drain`` as they are run, on a
data folder on the local disk, with redaction, deduplication and pricing. The load is in
``bench.ingest_load``. A record is *acknowledged* when its body is answered with 200, so it is
fsynced; it is *queryable* when its event is in ``events`` and the turns that follow from it are
assembled, priced and in ``turns`` (``bench.ingest_watch``). Sender and watcher run on the same
machine and take their share of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench.ingest_grpc import send_grpc
from bench.ingest_load import Body, as_json, make_bodies
from bench.ingest_peers import PEERS, measure_peer
from bench.ingest_report import last_figures, write_results
from bench.ingest_sender import Sent, send
from loop.lake import Lake

ROOT = Path(__file__).parents[1]
SIGNALS = ("logs", "traces", "metrics")
TARGET_LOAD = 20_000
HALF_LOAD = 10_000
CALM_LOAD = 2_000
SOAK_LOAD = 5_000
CONNECTIONS = 16
DRAIN_SECONDS = 300.0
Sending = Callable[["Collector"], Coroutine[Any, Any, Sent]]


@dataclass(slots=True)
class Collector:
    """The processes under measurement, and what the watcher has seen of them."""

    http_port: int
    grpc_address: str
    lake: Path
    pids: dict[str, int]
    seen: list[dict[str, Any]] = field(default_factory=list)

    def usage(self, name: str, key: str) -> list[tuple[float, float]]:
        """(moment, value) of one process."""
        pid = str(self.pids[name])
        return [
            (line["at"], line["usage"][pid][key])
            for line in self.seen
            if line.get("usage", {}).get(pid)
        ]


@contextmanager
def running_collector(directory: Path) -> Iterator[Collector]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TURNWISE_")
    } | {
        "TURNWISE_DATA_DIR": str(directory),
        "TURNWISE_OTLP_HTTP": "127.0.0.1:0",
        "TURNWISE_OTLP_GRPC": "127.0.0.1:0",
    }
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=environment, cwd=ROOT, text=True, **options
        )
        processes.append(process)
        return process

    try:
        drain = start("loop.service", "drain", stderr=subprocess.PIPE)
        collect = start("loop.service", "collect", stderr=subprocess.PIPE)
        _ready(drain)
        ready = _ready(collect).split()
        http, grpc = ready[ready.index("OTLP/HTTP") + 1], ready[ready.index("OTLP/gRPC") + 1]
        pids = {"collect": collect.pid, "drain": drain.pid}
        lake = directory / "lake"
        watch = start("bench.ingest_watch", str(lake), *map(str, pids.values()),
                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        collector = Collector(int(http.rpartition(":")[2]), grpc, lake, pids)
        thread = threading.Thread(target=_follow, args=(watch, collector), daemon=True)
        thread.start()
        yield collector
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def _ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    if not line.startswith("ready: "):
        raise RuntimeError(line + process.stderr.read())
    threading.Thread(target=_pass_on, args=(process,), daemon=True).start()
    return line


def _pass_on(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)


def _follow(watch: subprocess.Popen[str], collector: Collector) -> None:
    assert watch.stdout is not None
    for line in watch.stdout:
        collector.seen.append(json.loads(line))


def run(directory: Path, sending: Sending) -> dict[str, Any]:
    """One collector from its start to everything queryable."""
    with running_collector(directory) as collector, asyncio.Runner(
        loop_factory=uvloop.new_event_loop
    ) as runner:  # fmt: skip
        while not all(collector.usage(name, "cpu") for name in collector.pids):
            time.sleep(0.05)
        before = _processor_seconds(collector)
        sent = runner.run(sending(collector))
        deadline = time.monotonic() + DRAIN_SECONDS
        while not collector.seen or collector.seen[-1]["queryable"] < sent.records:
            if time.monotonic() > deadline:
                raise SystemExit(f"{sent.records} records, {collector.seen[-1]} queryable")
            time.sleep(0.05)
        finished = next(line["at"] for line in collector.seen if line["queryable"] >= sent.records)
        time.sleep(0.6)  # one more look at the processes
        totals = Lake.open(str(collector.lake)).query(
            "SELECT (SELECT count(*) FROM events) AS events, count(*) AS turns, "
            "count(cost_microusd) AS priced, count(DISTINCT session_id) AS sessions FROM turns"
        )[0]
        cpu = {
            name: round(seconds - before[name], 2)
            for name, seconds in _processor_seconds(collector).items()
        }
        memory = {name: collector.usage(name, "rss") for name in collector.pids}
    if totals["events"] != sent.records:
        raise SystemExit(f"acknowledged {sent.records} records, but {totals} are stored")
    return _figures(sent, collector, finished, totals, cpu, memory)


def _processor_seconds(collector: Collector) -> dict[str, float]:
    """So far, by process; ``decode`` is the drainer's child, which ``drain`` includes."""
    seconds = {name: _last(collector.usage(name, "cpu")) for name in collector.pids}
    return seconds | {"decode": _last(collector.usage("drain", "children_cpu"))}


def _figures(
    sent: Sent,
    collector: Collector,
    finished: float,
    totals: dict[str, int],
    cpu: dict[str, float],
    memory: dict[str, list[tuple[float, float]]],
) -> dict[str, Any]:
    freshness = _freshness(sent, collector.seen)
    return {
        "records": sent.records,
        "bodies": sent.bodies,
        "bytes": sent.bytes,
        **totals,
        "seconds_sending": round(sent.seconds, 2),
        "acknowledged_records_per_second": round(sent.records / sent.seconds),
        "queryable_records_per_second": round(sent.records / (finished - sent.began)),
        "ack_p50_ms": _share(sent.latencies, 0.5, 1000),
        "ack_p99_ms": _share(sent.latencies, 0.99, 1000),
        "ack_max_ms": _share(sent.latencies, 1.0, 1000),
        "fresh_p50_seconds": _share(freshness, 0.5),
        "fresh_p99_seconds": _share(freshness, 0.99),
        "fresh_max_seconds": _share(freshness, 1.0),
        "cpu_seconds": cpu,
        "drain_records_per_cpu_second": round(sent.records / max(cpu["drain"], 0.01)),
        "collect_records_per_cpu_second": round(sent.records / max(cpu["collect"], 0.01)),
        "rss_mb": {
            name: [round(value / 1e6) for _, value in _thin(values)]
            for name, values in memory.items()
        },
    }


def _freshness(sent: Sent, seen: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds from each answer to the moment at which its records were seen to be queryable."""
    counts = [line["queryable"] for line in seen]
    moments = [line["at"] for line in seen]
    return [moments[bisect_left(counts, records)] - at for at, records in sent.acknowledged]


def _share(values: Sequence[float], share: float, factor: float = 1.0) -> float:
    ordered = sorted(values)
    return round(factor * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def _last(values: list[tuple[float, float]]) -> float:
    return values[-1][1] if values else 0.0


def _thin(values: list[tuple[float, float]], most: int = 13) -> list[tuple[float, float]]:
    step = max(1, len(values) // (most - 1))
    return values[::step]


def measure(
    seconds: float, soak: float, peers: Path | None, only: Sequence[str], directory: Path
) -> dict[str, Any]:
    """The runs named in ``only``, or all: the figures of the result file, by run."""
    start_ns = time.time_ns() - 6 * 3_600_000_000_000

    def load(records: float, signals: tuple[str, ...] = SIGNALS, cohorts: int = 80) -> list[Body]:
        return list(
            make_bodies(round(records), cohorts=cohorts, start_ns=start_ns, signals=signals)
        )

    def at_rate(bodies: list[Body], rate: float, length: float, **options: Any) -> Sending:
        return lambda collector: send(
            collector.http_port, bodies, connections=options.pop("connections", 64),
            seconds=length, records_per_second=rate, **options,
        )  # fmt: skip

    def at_full(bodies: list[Body]) -> Sending:
        return lambda collector: send(
            collector.http_port, bodies, connections=CONNECTIONS, seconds=seconds
        )

    found: dict[str, Any] = {}

    def note(name: str, figures: Callable[[], dict[str, Any]]) -> None:
        if not only or name in only:
            found[name] = figures()
            print(name, json.dumps(found[name]), flush=True)

    def run_at(name: str, sending: Callable[[], Sending]) -> None:
        note(name, lambda: run(directory / name, sending()))

    def calm() -> list[Body]:
        return load(CALM_LOAD * seconds)

    run_at("full", lambda: at_full(load(seconds * 60_000)))
    run_at("full_spans", lambda: at_full(load(seconds * 40_000, ("traces",))))
    for peer in PEERS:
        environment = peers / peer.name if peers else None
        if environment is not None and (environment / peer.command[0]).exists():
            note(peer.name, partial(measure_peer, peer, environment,
                                    load(60_000, ("traces",), 8), 10.0,
                                    directory / peer.name))  # fmt: skip
    run_at("target", lambda: at_rate(load(TARGET_LOAD * seconds), TARGET_LOAD, seconds))
    run_at("half", lambda: at_rate(load(HALF_LOAD * seconds), HALF_LOAD, seconds))
    run_at("calm", lambda: at_rate(calm(), CALM_LOAD, seconds))
    in_json = [Body(body.signal, as_json(body), body.records) for body in calm()]
    run_at("calm_json", lambda: at_rate(
        in_json, CALM_LOAD, seconds, media_type="application/json"))  # fmt: skip
    in_protobuf = calm()
    run_at("calm_grpc", lambda: lambda collector: send_grpc(
        collector.grpc_address, in_protobuf, CALM_LOAD, seconds))  # fmt: skip
    if soak:
        run_at("soak", lambda: at_rate(load(SOAK_LOAD * soak), SOAK_LOAD, soak))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of sending, in each run")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds of the run for memory")
    parser.add_argument("--peers", type=Path, help="the folder that holds the peers' environments")
    parser.add_argument("--remark", default="", help="said in the result, such as what ran beside")
    parser.add_argument("--only", nargs="*", default=(), help="these runs, beside the last figures")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(
            arguments.seconds, arguments.soak, arguments.peers, arguments.only, Path(directory)
        )
    if arguments.only:
        figures = last_figures() | figures
    settings = {
        "seconds": arguments.seconds,
        "soak_seconds": arguments.soak,
        "connections": CONNECTIONS,
        "cpus": os.cpu_count(),
        "load_average_before": round(load_before, 1),
        "remark": arguments.remark,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    write_results(figures, settings)


if __name__ == "__main__":
    main()
