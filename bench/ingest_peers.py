"""The peers in the same run: MLflow and Phoenix with their defaults (SQLite), where installed.

Each is expected in an environment of its own, ``PEERS/mlflow`` and ``PEERS/phoenix``::

    python3 -m venv PEERS/mlflow && PEERS/mlflow/bin/pip install mlflow
    python3 -m venv PEERS/phoenix && PEERS/phoenix/bin/pip install arize-phoenix

They take spans alone, so they get the spans of the same sessions. A span counts once it is a row of
their database.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ingest_load import Body
from bench.ingest_sender import Sent, send

START_SECONDS = 180.0
SETTLE_SECONDS = 120.0
CONNECTIONS = 4
WARM_BODIES = 16


@dataclass(frozen=True, slots=True)
class Peer:
    """``command`` and ``environment`` may name ``{port}``, ``{grpc}`` and ``{folder}``."""

    name: str
    package: str
    command: tuple[str, ...]
    environment: dict[str, str]
    database: str
    headers: str = ""


PEERS = (
    Peer(
        "mlflow",
        "mlflow",
        (
            *("bin/mlflow", "server", "--host", "127.0.0.1", "--port", "{port}"),
            *("--backend-store-uri", "sqlite:///{folder}/mlflow.db"),
            *("--default-artifact-root", "{folder}/artifacts"),
        ),
        {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        "mlflow.db",
        "x-mlflow-experiment-id: 0\r\n",
    ),
    Peer(
        "phoenix",
        "arize-phoenix",
        ("bin/phoenix", "serve"),
        {
            "PHOENIX_WORKING_DIR": "{folder}",
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": "{port}",
            "PHOENIX_GRPC_PORT": "{grpc}",
            "PHOENIX_TELEMETRY_ENABLED": "false",
        },
        "phoenix.db",
    ),
)


def measure_peer(
    peer: Peer, environment: Path, bodies: Sequence[Body], seconds: float, folder: Path
) -> dict[str, Any]:
    """Spans stored per second, from the first one sent until the last one is a row."""
    with _running(peer, environment, folder) as port:

        def post(some: Sequence[Body], length: float) -> Sent:
            return asyncio.run(
                send(port, some, connections=CONNECTIONS, seconds=length, headers=peer.headers)
            )

        # The first requests find its workers and its database unprepared: they do not count.
        warm = post(bodies[:WARM_BODIES], START_SECONDS)
        before, _ = _settled(folder / peer.database, warm.records)
        sent = post(bodies[WARM_BODIES:], seconds)
        count, moment = _settled(folder / peer.database, before + sent.records)
    stored, seconds_until_stored = count - before, moment - sent.began
    latencies = sorted(sent.latencies)
    return {
        "version": _version(peer, environment),
        "acknowledged_spans": sent.records,
        "refused_bodies": sent.refused,
        "stored_spans": stored,
        "seconds_until_stored": round(seconds_until_stored, 2),
        "stored_spans_per_second": round(stored / seconds_until_stored, 1),
        "ack_p50_ms": _at(latencies, 0.5),
        "ack_p99_ms": _at(latencies, 0.99),
    }


def _at(latencies: list[float], share: float) -> float | None:
    """Milliseconds below which so large a share lies."""
    if not latencies:
        return None
    return round(1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))], 1)


@contextmanager
def _running(peer: Peer, environment: Path, folder: Path) -> Iterator[int]:
    folder.mkdir(parents=True)
    port, grpc = _free_port(), _free_port()
    names = {"port": str(port), "grpc": str(grpc), "folder": str(folder)}
    program, *arguments = (part.format(**names) for part in peer.command)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(environment / program), *arguments],
            env=os.environ
            | {key: value.format(**names) for key, value in peer.environment.items()},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it starts workers: they end together
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{peer.name} did not start: {(folder / 'log').read_text()}")
            time.sleep(0.5)
        time.sleep(3.0)  # its workers may still be starting
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _settled(database: Path, expected: int) -> tuple[int, float]:
    """How many spans are stored once all are, or no more come; and when the last one came."""
    stored, moment = -1, time.monotonic()
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline and time.monotonic() - moment < 15.0:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as rows:
            (count,) = rows.execute("SELECT count(*) FROM spans").fetchone()
        if count != stored:
            stored, moment = count, time.monotonic()
        if stored >= expected:
            break
        time.sleep(0.2)
    return stored, moment


def _version(peer: Peer, environment: Path) -> str:
    shown = subprocess.run(
        [environment / "bin/python", "-c",
         f"from importlib.metadata import version; print(version({peer.package!r}))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return shown.stdout.strip()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
