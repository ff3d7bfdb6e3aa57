"""``turnwise edge`` as a process of its own: reloads and ends without failing a request."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from loop.domain.policies import Condition, RoutingPolicy, Rule
from loop.service.command_line import turnwise
from routing_policies.kept_routes import KeptRoutes
from tests.fakes.anthropic_api import FakeAnthropicApi
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import PolicyService, activate, policy_service

OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
FIRST_DECIDES = RoutingPolicy(
    name="first decides",
    rules=(Rule("short", (Condition("input_tokens", "<", 1_000),), HAIKU),),
    unit="session",
    default_model=OPUS,
)


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class EdgeProcess:
    """The running process; ``ready`` lists the addresses that it said it was ready on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def ready(self) -> list[str]:
        text = "".join(self.lines)
        return re.findall(r"^ready: edge (\S+)$", text, re.MULTILINE)


@contextmanager
def edge_process(folder: Path, service: PolicyService, upstream: str) -> Iterator[EdgeProcess]:
    keys = folder / "keys.json"
    keys.write_text(json.dumps(service.trusted.to_document()))
    command = [sys.executable, "-m", "loop.service", "edge", "--api", service.url]
    command += ["--keys", str(keys), "--listen", "127.0.0.1:0", "--upstream", upstream]
    command += ["--data", str(folder / "data")]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TURNWISE_", "ANTHROPIC_"))
    }
    environment = {**kept, "TURNWISE_EDGE_DRAIN_SECONDS": "30"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        found = EdgeProcess(process)
        try:
            yield found
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def body(chars: int, *, stream: bool = False) -> dict[str, object]:
    message = {"role": "user", "content": "y" * chars}
    tools = [{"name": "Read", "input_schema": {"type": "object"}}]
    return {
        "model": OPUS, "max_tokens": 9, "messages": [message], "tools": tools, "stream": stream,
    }  # fmt: skip


def ask(url: str, session: str, chars: int) -> httpx.Response:
    """On a connection of its own, as a client that has just started."""
    headers = {"x-claude-code-session-id": session}
    return httpx.post(f"{url}/v1/messages", json=body(chars), headers=headers, timeout=60)


@pytest.mark.timeout(300)  # four processes start in it
def test_a_reload_under_load_fails_no_request_and_keeps_sessions_on_their_models(
    tmp_path: Path,
) -> None:
    api = FakeAnthropicApi()
    with (
        running_server(api) as upstream,
        policy_service(tmp_path) as service,
        ThreadPoolExecutor() as pool,
    ):
        activate(service.store, FIRST_DECIDES)
        with edge_process(tmp_path, service, upstream) as edge:
            wait_until(lambda: bool(edge.ready))
            (url,) = edge.ready
            wait_until(lambda: ask(url, "kept", 10).json()["model"] == HAIKU)
            before = httpx.get(f"{url}/turnwise/status").json()["process"]

            api.chunk_seconds, api.text = 0.05, "word " * 80  # a stream of some 2.5 s
            stopped = threading.Event()

            def load(worker: int) -> list[int]:
                statuses = []
                while not stopped.is_set():
                    statuses.append(ask(url, f"w{worker}", 10).status_code)
                return statuses

            def stream() -> str:
                sent = body(10, stream=True)
                return httpx.post(f"{url}/v1/messages", json=sent, timeout=60).text

            loading = [pool.submit(load, worker) for worker in range(2)]
            streaming = pool.submit(stream)
            wait_until(lambda: any(request.json.get("stream") for request in list(api.seen)))
            edge.process.send_signal(signal.SIGHUP)

            def process_now() -> int:
                return httpx.get(f"{url}/turnwise/status", timeout=60).json()["process"]

            wait_until(lambda: process_now() != before)
            # By its size now it would go to Opus: the new process knows where its session is kept.
            assert ask(url, "kept", 20_000).json()["model"] == HAIKU
            stopped.set()
            assert {status for task in loading for status in task.result()} == {200}
            assert streaming.result().rstrip().endswith('{"type": "message_stop"}')

            os.kill(process_now(), signal.SIGKILL)  # the child: its parent starts another
            wait_until(lambda: reaches(url))

            seen = len(api.seen)
            streaming = pool.submit(stream)
            wait_until(lambda: len(api.seen) > seen)
            edge.process.send_signal(signal.SIGTERM)
            assert streaming.result().rstrip().endswith('{"type": "message_stop"}')
            assert edge.process.wait(60) == 0
            assert not reaches(url)
    assert "Traceback" not in "".join(edge.lines)


def reaches(url: str) -> bool:
    try:
        return httpx.get(f"{url}/turnwise/healthz", timeout=60).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--api", "nonsense"], 2),
        (["--api", "https://turnwise.example"], 2),  # its keys must come by another way
        (["--api", "http://127.0.0.1:9"], 4),
        (["--api", "http://127.0.0.1:9", "--keys", "/nowhere"], 2),
    ],
)
def test_what_makes_no_proxy_is_said(arguments: list[str], code: int, tmp_path: Path) -> None:
    given = ["edge", "--listen", "127.0.0.1:0", "--data", str(tmp_path), *arguments]
    ended = CliRunner().invoke(turnwise, given)
    assert ended.exit_code == code, ended.output
    assert ended.stderr.startswith("turnwise: ")


def test_routes_that_can_not_be_read_are_said(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    KeptRoutes().load(path)  # none there
    path.write_text('{"units": [1]}')
    with pytest.raises(Exception, match="holds no kept routes"):
        KeptRoutes().load(path)
