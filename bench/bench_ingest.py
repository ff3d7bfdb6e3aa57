"""Ingest end to end: acknowledged durable, and queryable, in records per second.

``python -m bench.bench_ingest [--seconds N]`` writes ``bench/results/ingest.md`` and ``.json``.

A collector in a process of its own receives OTLP/HTTP protobuf bodies that other threads of this
process send; it drains into a lake on the local disk. Every record is distinct: the bodies are the
shipped recordings' records with new session ids, request ids and times. Two figures: bodies
answered with 200 (so fsynced), and the time until the last of them is in ``turns``.
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
import time
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

ROOT = Path(__file__).parents[1]
RECORDINGS = ROOT / "examples" / "recordings"
RESULTS = ROOT / "bench" / "results"
RECORDS_PER_BODY = 100
PACED_BODIES_PER_SECOND = 20


def make_bodies(count: int) -> list[bytes]:
    """Distinct bodies of about 100 log records, each body one session of recorded shape."""
    names = ("a02_fix_bug_failed_edit", "a05_subagent", "a14_mcp_and_hooks")
    templates = [
        ExportLogsServiceRequest.FromString(path.read_bytes())
        for name in names
        for path in sorted((RECORDINGS / name / "otlp").glob("*_logs_*.pb"))
    ]
    records = [
        record
        for template in templates
        for group in template.resource_logs
        for scoped in group.scope_logs
        for record in scoped.log_records
    ]
    bodies = []
    for number in range(count):
        request = ExportLogsServiceRequest()
        group = request.resource_logs.add()
        group.resource.CopyFrom(templates[0].resource_logs[0].resource)
        scoped = group.scope_logs.add()
        scoped.scope.CopyFrom(templates[0].resource_logs[0].scope_logs[0].scope)
        session_id, suffix = str(uuid.uuid4()), f"-{number:x}"
        for index in range(RECORDS_PER_BODY):
            record = scoped.log_records.add()
            record.CopyFrom(records[index % len(records)])
            record.time_unix_nano += number * 1_000_000 + index // len(records) * 1_000
            for attribute in record.attributes:
                if attribute.key == "session.id":
                    attribute.value.string_value = session_id
                elif attribute.key in ("request_id", "tool_use_id", "prompt.id", "message.uuid"):
                    attribute.value.string_value += f"{suffix}-{index // len(records)}"
        bodies.append(request.SerializeToString())
    return bodies


async def send(url: str, bodies: list[bytes], connections: int, seconds: float) -> dict[str, Any]:
    """Sends bodies for at most ``seconds``; returns counts and latencies of answered ones."""
    queue = iter(bodies)
    latencies: list[float] = []
    began = time.perf_counter()

    async def worker(client: httpx.AsyncClient) -> None:
        for body in queue:
            if time.perf_counter() - began > seconds:
                return
            started = time.perf_counter()
            answer = await client.post(
                "/v1/logs", content=body, headers={"content-type": "application/x-protobuf"}
            )
            answer.raise_for_status()
            latencies.append(time.perf_counter() - started)

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.gather(*(worker(client) for _ in range(connections)))
    return {"bodies": len(latencies), "seconds": time.perf_counter() - began, "ms": latencies}


async def send_paced(url: str, bodies: list[bytes]) -> dict[str, Any]:
    """Sends ``PACED_BODIES_PER_SECOND``, whether or not earlier ones were answered."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def post(client: httpx.AsyncClient, number: int, body: bytes) -> None:
        due = began + number / PACED_BODIES_PER_SECOND
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        answer = await client.post(
            "/v1/logs", content=body, headers={"content-type": "application/x-protobuf"}
        )
        answer.raise_for_status()
        latencies.append(time.perf_counter() - due)

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.gather(*(post(client, number, body) for number, body in enumerate(bodies)))
    return {"bodies": len(latencies), "seconds": time.perf_counter() - began, "ms": latencies}


def measure(seconds: float, connections: int, directory: Path) -> dict[str, Any]:
    """A saturating run and a paced one: the figures of the result file."""
    bodies = make_bodies(max(20, round(seconds * 250)))
    figures = _run(bodies, directory / "full", lambda url: send(url, bodies, connections, seconds))
    calm = bodies[: round(seconds * PACED_BODIES_PER_SECOND)]
    paced = _run(calm, directory / "paced", lambda url: send_paced(url, calm))
    return figures | {
        "paced_records_per_second": PACED_BODIES_PER_SECOND * RECORDS_PER_BODY,
        "paced_ack_p50_ms": paced["ack_p50_ms"],
        "paced_ack_p99_ms": paced["ack_p99_ms"],
    }


def _run(
    bodies: list[bytes],
    directory: Path,
    sending: Callable[[str], Coroutine[Any, Any, dict[str, Any]]],
) -> dict[str, Any]:
    """One collector from its start to everything queryable."""
    collector = subprocess.Popen(
        [sys.executable, "-m", "bench.ingest_process", str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert collector.stdin is not None
    assert collector.stdout is not None
    with collector.stdin, collector.stdout:
        url = collector.stdout.readline().decode().strip()
        began = time.perf_counter()
        sent = asyncio.run(sending(url))
        collector.stdin.write(b"drain\n")
        collector.stdin.flush()
        drained = json.loads(collector.stdout.readline())
        queryable_seconds = time.perf_counter() - began
        collector.stdin.close()
        collector.wait(30)
    records = sent["bodies"] * RECORDS_PER_BODY
    if drained["stored"] != records:
        raise SystemExit(f"acknowledged {records} records, but {drained['stored']} are stored")
    cuts = quantiles(sent["ms"], n=100)
    return {
        "records": records,
        "bytes": sum(map(len, bodies[: sent["bodies"]])),
        "acknowledged_records_per_second": round(records / sent["seconds"]),
        "queryable_records_per_second": round(records / queryable_seconds),
        "ack_p50_ms": round(1000 * cuts[49], 1),
        "ack_p99_ms": round(1000 * cuts[98], 1),
        "seconds_until_queryable": round(queryable_seconds, 2),
        "turns": drained["turns"],
        "collector_cpu_seconds": drained["cpu_seconds"],
        "queryable_records_per_cpu_second": round(records / drained["cpu_seconds"]),
    }


def write_results(figures: dict[str, Any], settings: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    document = {"settings": settings, "figures": figures}
    (RESULTS / "ingest.json").write_text(json.dumps(document, indent=2) + "\n")
    rows = [f"| {name.replace('_', ' ')} | {value:,} |" for name, value in figures.items()]
    lines = [
        "# Ingest, end to end",
        "",
        "OTLP/HTTP protobuf into one collector process that receives and drains; sender on the",
        f"same machine. {settings['connections']} connections, {RECORDS_PER_BODY} log records per",
        "body, every record distinct. *Acknowledged* is answered with 200, so fsynced;",
        "*queryable* is in `events` and assembled, priced and stored in `turns`. Every connection",
        "sends its next body as soon as the last is answered, so the time to the answer is mostly",
        "waiting in line; *paced* is a second run at a fixed rate, draining meanwhile.",
        "",
        f"Machine: {settings['cpus']} CPUs ({settings['machine']}), Python {settings['python']};",
        f"load average {settings['load_average_before']} from other work when the run began.",
        "",
        "| figure | value |",
        "|---|---|",
        *rows,
        "",
        "Repeat with `python -m bench.bench_ingest`.",
    ]
    (RESULTS / "ingest.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--connections", type=int, default=16)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(arguments.seconds, arguments.connections, Path(directory))
    settings = {
        "seconds": arguments.seconds,
        "connections": arguments.connections,
        "records_per_body": RECORDS_PER_BODY,
        "cpus": os.cpu_count(),
        "load_average_before": round(load_before, 1),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    write_results(figures, settings)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
