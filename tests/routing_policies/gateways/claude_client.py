"""The real Claude Code client through real gateways, before a scripted API: `make test-client`.

Not named test_*.py: the client (npm, some 380 MB) and LiteLLM are not laid by `make test`. Its key
is made up, its home is empty, and an outbound proxy that refuses stands between it and everything
but loopback. CLAUDE_CLIENT names the binary.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loop.domain.policies import RoutingPolicy
from tests.fakes.anthropic_api import FakeAnthropicApi
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import PolicyService, activate, policy_service
from tests.routing_policies.edge_world import HAIKU, OPUS, edge_before
from tests.routing_policies.gateways import litellm_proxy

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / ".node-client" / "node_modules" / "@anthropic-ai" / "claude-code-linux-x64"
CLIENT = Path(os.environ.get("CLAUDE_CLIENT", PACKAGE / "claude"))
VERSION = "2.1.330"
CLIENT_SECONDS = 240
ALL_STAY = RoutingPolicy("all stay", ())
ALL_TO_HAIKU = RoutingPolicy("all to haiku", (), default_model=HAIKU)
pytestmark = pytest.mark.timeout(1_200)


def read_then_answer(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Has the file read, then answers from it; requests without tools get a word."""
    if not any(tool.get("name") == "Read" for tool in body.get("tools") or ()):
        return [{"type": "text", "text": "ok"}]
    last = body["messages"][-1]["content"]
    results = [
        block for block in last if isinstance(block, dict) and block["type"] == "tool_result"
    ]
    if results:
        return [{"type": "text", "text": "A gold customer gets 10 %."}]
    path = {"file_path": str(Path(os.environ["CLIENT_TEST_FOLDER"]) / "pricing.py")}
    number = len(body["messages"])
    return [
        {"type": "text", "text": "I read the file."},
        {"type": "tool_use", "id": f"toolu_{number:024d}", "name": "Read", "input": path},
    ]


@dataclass
class Telemetry:
    """What the client's own telemetry says: the attributes of its ``api_request`` events."""

    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def app(self) -> Starlette:
        async def take(request: Request) -> Response:
            body = await request.json()
            for resource in body.get("resourceLogs", ()):
                for scope in resource["scopeLogs"]:
                    self.requests += [
                        attributes
                        for record in scope["logRecords"]
                        if (attributes := _plain(record))["event.name"] == "api_request"
                    ]
            return JSONResponse({})

        return Starlette(routes=[Route("/v1/{signal}", take, methods=["POST"])])


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values()), None) for one in record["attributes"]}


@dataclass
class Fleet:
    """Clients of one gateway at ``url``; ``key`` is what that gateway takes."""

    folder: Path
    url: str
    key: str
    telemetry: Telemetry
    telemetry_url: str

    def ask(self, prompt: str, *arguments: str) -> dict[str, Any]:
        """One run of the client; its result document."""
        home = self.folder / "home"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CLAUDE_CONFIG_DIR": str(home / ".claude"),
            "IS_SANDBOX": "1",
            "ANTHROPIC_API_KEY": self.key,
            "ANTHROPIC_BASE_URL": self.url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
            "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.telemetry_url,
            "OTEL_LOGS_EXPORT_INTERVAL": "200",
        }
        home.mkdir(exist_ok=True)
        command = [str(CLIENT), "-p", "--output-format", "json", "--model", OPUS]
        done = subprocess.run(
            [*command, "--allowedTools", "Read", *arguments],
            input=prompt, env=environment, cwd=self.folder / "work",
            capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout[-2_000:], done.stderr[-2_000:])
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found


@contextmanager
def fleet(folder: Path, url: str, key: str) -> Iterator[Fleet]:
    telemetry = Telemetry()
    with running_server(telemetry.app) as telemetry_url:
        yield Fleet(folder, url, key, telemetry, telemetry_url)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAnthropicApi:
    work = tmp_path / "work"
    work.mkdir()
    (work / "pricing.py").write_text('TIERS = {"gold": 0.10}\n')
    monkeypatch.setenv("CLIENT_TEST_FOLDER", str(work))
    return FakeAnthropicApi(script=read_then_answer)


def test_the_client_is_the_one_that_was_tried() -> None:
    done = subprocess.run(
        [str(CLIENT), "--version"],
        capture_output=True,
        text=True,
        timeout=CLIENT_SECONDS,
        check=True,
    )
    assert done.stdout.startswith(VERSION)


def follow_a_change(
    fleet: Fleet, api: FakeAnthropicApi, service: PolicyService, publish: Any
) -> None:
    """A session on Opus; the policy changes; a new session, and the old one resumed, on Haiku."""
    first = fleet.ask("What does a gold customer get?")
    assert (first["is_error"], first["num_turns"]) == (False, 2)
    assert served(api) == {OPUS}
    publish(ALL_TO_HAIKU)
    second = fleet.ask("And what does a silver customer get?")
    assert (second["is_error"], second["num_turns"]) == (False, 2)
    assert served(api) == {HAIKU}
    third = fleet.ask("Are you sure?", "--resume", first["session_id"])
    assert (third["is_error"], third["session_id"]) == (False, first["session_id"])
    assert served(api) == {HAIKU}
    assert api.refusals == [], "the API refused a request that was rewritten"

    told = {one["request_id"]: one for one in fleet.telemetry.requests}
    litellm_proxy.until(lambda: told.keys() <= {row["decision_id"] for row in service.decisions})
    decided = {row["decision_id"]: row for row in service.decisions}
    models = {OPUS: 0, HAIKU: 0}
    for name, event in told.items():
        row = decided[name]
        assert (row["session_id"], row["upstream_status"]) == (event["session.id"], 200)
        assert (row["requested_model"], event["model"]) == (OPUS, row["routed_model"])
        models[row["routed_model"]] += 1
    assert models[OPUS] >= 2
    assert models[HAIKU] >= 3
    of_second = [row for row in decided.values() if row["session_id"] == second["session_id"]]
    assert all("thinking:enabled:31999" in row["fixes"] for row in of_second)


def served(api: FakeAnthropicApi) -> set[str]:
    """The models that were asked since the last call."""
    models = {request.json["model"] for request in api.seen if request.path == "/v1/messages"}
    api.seen.clear()
    return models


def test_a_session_through_the_edge_proxy(tmp_path: Path, api: FakeAnthropicApi) -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(running_server(api))
        edge = stack.enter_context(edge_before(tmp_path, upstream))
        edge.reporter.start()

        def publish(policy: RoutingPolicy) -> None:
            activate(edge.service.store, policy)
            edge.sync()

        publish(ALL_STAY)
        clients = stack.enter_context(fleet(tmp_path, edge.url, "sk-ant-of-a-test"))
        follow_a_change(clients, api, edge.service, publish)


def test_a_session_through_litellm(tmp_path: Path, api: FakeAnthropicApi) -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(running_server(api))
        service = stack.enter_context(policy_service(tmp_path))
        (tmp_path / "trusted.json").write_text(json.dumps(service.trusted.to_document()))
        activate(service.store, ALL_STAY)
        proxy = stack.enter_context(litellm_proxy.litellm_proxy(tmp_path, service.url, upstream))

        def publish(policy: RoutingPolicy) -> None:
            version = str(activate(service.store, policy).arms[0].policy_version)
            litellm_proxy.until(lambda: applied(proxy) == version)
            api.seen.clear()

        litellm_proxy.until(lambda: applied(proxy) == "1")
        api.seen.clear()
        key = litellm_proxy.MASTER_KEY
        clients = stack.enter_context(fleet(tmp_path, proxy.url, key))
        follow_a_change(clients, api, service, publish)


def applied(proxy: litellm_proxy.Proxy) -> str:
    return proxy.ask(300).headers.get("x-turnwise-policy", "")
