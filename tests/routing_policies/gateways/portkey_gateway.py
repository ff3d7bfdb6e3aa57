"""The webhook in the real Portkey gateway, before a fake Anthropic API. Run by `make test-portkey`.

Not named test_*.py: the gateway comes from npm, which `make test` does not ask. PORTKEY_NODE names
the folder that it lies in.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.anthropic_api import FakeAnthropicApi
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import activate, size_policy
from tests.routing_policies.edge_world import (
    HAIKU,
    OPUS,
    Edge,
    edge_before,
    served_model,
    wait_until,
)

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
NODE = Path(os.environ.get("PORTKEY_NODE", ROOT / ".node-portkey"))
CONFIG = ROOT / "examples" / "portkey" / "config.json"
pytestmark = pytest.mark.timeout(300)


@dataclass
class Portkey:
    """A running gateway before ``api``, with its webhook at ``webhook``."""

    url: str
    api_url: str
    webhook: str
    http: httpx.Client

    def config(self, **parameters: Any) -> str:
        """The example's configuration with this world's addresses."""
        document = json.loads(CONFIG.read_text())
        document["custom_host"] = f"{self.api_url}/v1"
        (check,) = document["before_request_hooks"][0]["checks"]
        check["parameters"] = {**check["parameters"], "webhookURL": self.webhook, **parameters}
        return json.dumps(document)

    def ask(
        self, characters: int, *, session: str = "s-1", http: httpx.Client | None = None,
        webhook: dict[str, Any] | None = None, **changes: Any,
    ) -> httpx.Response:  # fmt: skip
        body = {
            "model": OPUS,
            "max_tokens": 32_000,
            "thinking": {"type": "adaptive"},
            "tools": [{"name": "Read", "description": "r", "input_schema": {"type": "object"}}],
            "messages": [{"role": "user", "content": ("Explain this. " * 8000)[:characters]}],
            "metadata": {"user_id": json.dumps({"device_id": "d", "session_id": session})},
            **changes,
        }
        headers = {
            "x-portkey-config": self.config(**(webhook or {})),
            "x-portkey-metadata": json.dumps({"tw_org": "acme/pay"}),
            "authorization": "Bearer sk-of-a-test",
            "x-api-key": "sk-of-a-test",
            "anthropic-version": "2023-06-01",
        }
        return (http or self.http).post(f"{self.url}/v1/messages", json=body, headers=headers)


@contextmanager
def portkey(folder: Path, api_url: str, webhook: str) -> Iterator[Portkey]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    script = NODE / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    assert script.exists(), "run `make test-portkey`"
    command = ["node", "--require", str(HERE / "listen_on_loopback.cjs"), str(script)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "NODE_ENV": "production",
        "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost",
    }
    log = (folder / "portkey.log").open("ab")
    with (
        log,
        subprocess.Popen(
            [*command, f"--port={port}", "--headless"],
            env=environment, cwd=folder, stdout=log, stderr=log,
        ) as process,
        httpx.Client(timeout=60) as http,
    ):  # fmt: skip
        found = Portkey(f"http://127.0.0.1:{port}", api_url, webhook, http)
        try:
            wait_until(lambda: answers(found, process))
            yield found
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def answers(found: Portkey, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "Portkey ended at its start"
    try:
        return found.http.get(found.url).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass
class World:
    edge: Edge
    api: FakeAnthropicApi
    portkey: Portkey


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("portkey")
    api = FakeAnthropicApi()
    with ExitStack() as stack:
        api_url = stack.enter_context(running_server(api))
        edge = stack.enter_context(edge_before(folder, api_url))
        activate(edge.service.store, size_policy(10_000))
        edge.sync()
        webhook = f"{edge.url}/turnwise/portkey"
        yield World(edge, api, stack.enter_context(portkey(folder, api_url, webhook)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("characters", "model"), [(300, HAIKU), (100_000, OPUS)])
def test_size_decides_and_the_parameters_fit(
    world: World, characters: int, model: str, stream: bool
) -> None:
    session = f"{characters}-{stream}"
    answer = world.portkey.ask(characters, session=session, stream=stream)
    assert answer.status_code == 200, answer.text
    assert served_model(answer) == model
    sent = world.api.seen[-1].json
    assert sent["thinking"]["type"] == ("enabled" if model == HAIKU else "adaptive")
    (row,) = [row for row in world.edge.decisions() if row["session_id"] == session]
    assert (row["routed_model"], row["requested_model"], row["org_path"]) == (
        model,
        OPUS,
        "acme/pay",
    )


def test_a_policy_changes_under_load_without_a_failed_request(world: World) -> None:
    stopped, seen = threading.Event(), []
    store = world.edge.service.store

    def load(worker: int) -> None:
        with httpx.Client(timeout=60) as http:
            while not stopped.is_set():
                answer = world.portkey.ask(5_000, stream=bool(worker % 2), http=http)
                seen.append((answer.status_code, served_model(answer)))

    with ThreadPoolExecutor(4) as pool:
        loading = [pool.submit(load, worker) for worker in range(4)]
        for threshold, model in ((100, OPUS), (10_001, HAIKU), (101, OPUS), (10_002, HAIKU)):
            activate(store, size_policy(threshold))
            world.edge.sync()
            begun = len(seen)
            wait_until(lambda begun=begun, model=model: (200, model) in seen[begun + 4 :])
        stopped.set()
        for task in loading:
            task.result()
    assert {status for status, _ in seen} == {200}


@pytest.mark.parametrize("webhook", ["http://127.0.0.1:9/turnwise/portkey", "too slow"])
def test_a_request_passes_as_it_came_while_turnwise_is_away(world: World, webhook: str) -> None:
    """Away, or slower than the configured timeout: a socket that accepts and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        if webhook == "too slow":
            webhook = f"http://127.0.0.1:{silent.getsockname()[1]}/turnwise/portkey"
        answer = world.portkey.ask(300, webhook={"webhookURL": webhook})
    assert answer.status_code == 200, answer.text
    assert served_model(answer) == OPUS
    assert world.api.seen[-1].json["thinking"] == {"type": "adaptive"}


def test_an_error_of_the_upstream_keeps_its_status(world: World) -> None:
    world.api.statuses = [429]
    assert world.portkey.ask(300).status_code == 429
