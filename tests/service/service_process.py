"""``turnwise serve`` as a subprocess on free ports, and what speaks to it over its ports."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from loop.service.demo.service_process import ServiceAddresses, read_ready_line

READY_SECONDS = 60
ENDED_SECONDS = 20
SOON_SECONDS = 60.0  # a machine at work on other things may take long; a failure takes for ever
FREE_PORTS = {
    "TURNWISE_HTTP": "127.0.0.1:0",
    "TURNWISE_OTLP_HTTP": "127.0.0.1:0",
    "TURNWISE_OTLP_GRPC": "127.0.0.1:0",
    "TURNWISE_EDGE": "127.0.0.1:0",
}
QUICK = {
    "TURNWISE_DRAIN_INTERVAL_MS": "200",
    "TURNWISE_EVALUATE_INTERVAL_SECONDS": "1",
    "TURNWISE_ROLLOUT_INTERVAL_SECONDS": "1",
}
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
NOW_US = time.time_ns() // 1000 - 86_400_000_000


def clean_environment(data_dir: Path, **changed: str) -> dict[str, str]:
    """This process's environment without settings of turnwise, plus those given."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TURNWISE_", "ANTHROPIC_"))
    }
    return {**kept, "TURNWISE_DATA_DIR": str(data_dir), **FREE_PORTS, **QUICK, **changed}


def wait_until(look: Callable[[], Any], seconds: float = SOON_SECONDS) -> Any:
    """What ``look`` finds, as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found


class ServeProcess:
    """A started ``turnwise serve``: its addresses, its stderr, its end."""

    def __init__(self, environment: Mapping[str, str], *flags: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loop.service", "serve", *flags],
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._arriving: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def wait_until_ready(self) -> ServiceAddresses:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            line = self._arriving.get(timeout=max(0.1, deadline - time.monotonic()))
            assert line is not None, f"it ended: {self.lines}"
            found = read_ready_line(line)
            if found is not None:
                return found

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_until_ended(self, seconds: float = ENDED_SECONDS) -> int:
        """The exit code."""
        code = self._process.wait(seconds)
        self._thread.join(ENDED_SECONDS)
        return code

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr(self) -> str:
        return "".join(self.lines)

    def stdout(self) -> str:
        """What it wrote there; only after its end."""
        assert self._process.stdout is not None
        return self._process.stdout.read()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._thread.join(ENDED_SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _follow(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line)
            self._arriving.put(line)
        self._arriving.put(None)


@contextmanager
def serve_process(data_dir: Path, *flags: str, **changed: str) -> Iterator[ServeProcess]:
    """Starts it; kills it at the end if it still runs."""
    process = ServeProcess(clean_environment(data_dir, **changed), *flags)
    try:
        yield process
    finally:
        process.close()


def api_request(
    session_id: str,
    number: int,
    input_tokens: int = 100,
    device_id: str = "device-1",
    at_us: int = NOW_US,
) -> bytes:
    """An OTLP logs body with one served request of a session, as the client reports it."""
    export = ExportLogsServiceRequest()
    log = export.resource_logs.add().scope_logs.add().log_records.add()
    log.time_unix_nano = (at_us + number) * 1000
    log.body.string_value = "claude_code.api_request"
    values = {
        "event.name": "api_request",
        "session.id": session_id,
        "user.id": device_id,
        "prompt.id": f"prompt-{session_id}",
        "request_id": f"req_{session_id}_{number}",
        "model": "claude-opus-4-7",
        "input_tokens": str(input_tokens),
        "output_tokens": "10",
        "cache_read_tokens": "0",
        "cache_creation_tokens": "0",
        "duration_ms": "1000",
        "event.sequence": str(number),
    }
    for key, value in values.items():
        attribute = log.attributes.add()
        attribute.key = key
        attribute.value.string_value = value
    return export.SerializeToString()


def turnwise(data_dir: Path, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "loop.service", *arguments],
        env=clean_environment(data_dir, **changed),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
