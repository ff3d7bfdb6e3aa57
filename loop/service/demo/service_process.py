"""The service as the demo runs it: ``turnwise serve`` in a process of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loop.domain.errors import Unavailable
from loop.service.settings import Settings, parse_address

READY_SECONDS = 60
STOP_SECONDS = 30
_READY = re.compile(
    r"ready: pages and API (?P<api>\S+)  OTLP/HTTP (?P<otlp_http>\S+)  "
    r"OTLP/gRPC (?P<otlp_grpc>\S+)  edge (?P<edge>\S+)"
)


@dataclass(frozen=True, slots=True)
class ServiceAddresses:
    """Where a running service listens: URLs, and ``host:port`` for gRPC."""

    api: str
    otlp_http: str
    otlp_grpc: str
    edge: str


@contextmanager
def running_service(
    data_dir: Path, environment: Mapping[str, str], log_path: Path
) -> Iterator[ServiceAddresses]:
    """Starts ``turnwise serve`` and ends it with SIGTERM; its log goes to ``log_path``.

    Raises :class:`Unavailable` when it does not get ready.
    """
    given = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TURNWISE_", "ANTHROPIC_"))
    }
    given |= {"TURNWISE_DATA_DIR": str(data_dir), **environment}
    command = [sys.executable, "-m", "loop.service", "serve"]
    process = subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True)
    try:
        yield _wait_until_ready(process, log_path)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_addresses() -> dict[str, str]:
    """The default addresses, each replaced by a free port where another program has it."""
    chosen = {}
    for name, env in (
        ("http", "TURNWISE_HTTP"),
        ("otlp_http", "TURNWISE_OTLP_HTTP"),
        ("otlp_grpc", "TURNWISE_OTLP_GRPC"),
        ("edge", "TURNWISE_EDGE"),
    ):
        address = getattr(Settings(), name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(parse_address(address, name))
            except OSError:
                address = "127.0.0.1:0"
        chosen[env] = address
    return chosen


def _wait_until_ready(process: subprocess.Popen[str], log_path: Path) -> ServiceAddresses:
    found: list[ServiceAddresses] = []
    ready = threading.Event()

    def follow() -> None:
        assert process.stderr is not None
        with log_path.open("a") as log:
            for line in process.stderr:
                log.write(line)
                log.flush()
                match = _READY.match(line)
                if match:
                    found.append(ServiceAddresses(**match.groupdict()))
                    ready.set()
        ready.set()

    threading.Thread(target=follow, daemon=True).start()
    ready.wait(READY_SECONDS)
    if not found:
        raise Unavailable("The service did not get ready.", fix=f"See {log_path}.")
    return found[0]
