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
    """Where a running service listens: URLs, and ``host:port`` for gRPC; ``off`` for no edge."""

    api: str
    otlp_http: str
    otlp_grpc: str
    edge: str


def read_ready_line(line: str) -> ServiceAddresses | None:
    """The addresses of the line that says that the service accepts; ``None`` for another one."""
    match = _READY.match(line)
    return ServiceAddresses(**match.groupdict()) if match else None


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
    with subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True) as process:
        log = _Log(process, log_path)
        try:
            yield log.wait_until_ready()
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.join()


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


class _Log:
    """Follows the service's stderr into a file and notices the line that says it is ready."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self._process = process
        self._path = path
        self._found: ServiceAddresses | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def wait_until_ready(self) -> ServiceAddresses:
        """Raises :class:`Unavailable` when the service ends or takes too long."""
        self._ready.wait(READY_SECONDS)
        if self._found is None:
            raise Unavailable("The service did not get ready.", fix=f"See {self._path}.")
        return self._found

    def join(self) -> None:
        self._thread.join()

    def _follow(self) -> None:
        assert self._process.stderr is not None
        with self._path.open("a") as log:
            for line in self._process.stderr:
                log.write(line)
                log.flush()
                found = read_ready_line(line)
                if found is not None:
                    self._found = found
                    self._ready.set()
        self._ready.set()
