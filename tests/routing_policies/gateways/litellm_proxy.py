"""The plugin in the real LiteLLM proxy, before a fake Anthropic API. Run by `make test-litellm`.

Not named test_*.py: LiteLLM lives in an environment of its own, of some 600 MB, which `make test`
does not lay. LITELLM_VENV names it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loop.domain.budget_pauses import BudgetPause
from loop.domain.lifecycle import Actor, ActorKind
from routing_policies.gateways.litellm_requests import RAW_MODEL_NAME
from tests.fakes.anthropic_api import FakeAnthropicApi
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import PolicyService, activate, policy_service, size_policy
from tests.routing_policies.edge_world import wait_until

ROOT = Path(__file__).parents[3]
VENV = Path(os.environ.get("LITELLM_VENV", ROOT / ".venv-litellm"))
CONFIG = ROOT / "examples" / "litellm" / "config.yaml"
OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
MASTER_KEY = "sk-litellm-of-a-test"
pytestmark = pytest.mark.timeout(900)


@dataclass
class Proxy:
    """A running proxy; ``ask`` sends one Messages request and returns response and seconds."""

    url: str
    client: httpx.Client

    def ask(self, characters: int, *, session: str = "s-1", **changes: Any) -> httpx.Response:
        body = {
            "model": OPUS,
            "max_tokens": 32_000,
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "xhigh"},
            "tools": [{"name": "Read", "description": "r", "input_schema": {"type": "object"}}],
            "messages": [{"role": "user", "content": ("Explain this. " * 8000)[:characters]}],
            **changes,
        }
        headers = {
            "authorization": f"Bearer {MASTER_KEY}",
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "effort-2025-11-24",
            "x-claude-code-session-id": session,
        }
        return self.client.post(f"{self.url}/v1/messages", json=body, headers=headers)


# Stands for LiteLLM's database of keys: most may use Opus only, one a group that has Haiku.
CUSTOM_AUTH = f"""
from litellm.proxy._types import UserAPIKeyAuth

async def authorise(request, api_key):
    lists = {{"any": [], "group": ["{OPUS}", "small models"]}}
    models = lists.get(request.headers["x-claude-code-session-id"], ["{OPUS}"])
    return UserAPIKeyAuth(api_key=api_key, models=models)
"""


# Writes down what LiteLLM's own spend log gets of a request.
RECORDER = """
import json
from litellm.integrations.custom_logger import CustomLogger

class Recorder(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        logged = kwargs["standard_logging_object"]
        row = {"spend": logged["metadata"]["spend_logs_metadata"], "tags": logged["request_tags"]}
        with open("spend.jsonl", "a") as file:
            file.write(json.dumps(row) + "\\n")

recorder = Recorder()
"""


@contextmanager
def span_collector() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields its URL and the attributes of the spans that come with a decision's."""
    spans: list[dict[str, Any]] = []

    async def take(request: Request) -> Response:
        message = ExportTraceServiceRequest.FromString(await request.body())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found = {one.key: one.value.string_value for one in span.attributes}
                    if "turnwise.decision.id" in found:
                        spans.append(found)
        return Response(status_code=200)

    app = Starlette(routes=[Route("/v1/traces", take, methods=["POST"])])
    with running_server(app) as url:
        yield f"{url}/v1/traces", spans


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def litellm_proxy(
    folder: Path,
    service_url: str,
    api_url: str,
    *,
    config: Path = CONFIG,
    workers: int = 1,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Proxy]:
    """The proxy with the example's configuration, in a process group of its own."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "ANTHROPIC_API_BASE": api_url,
        "ANTHROPIC_API_KEY": "sk-ant-of-a-test",
        "TURNWISE_URL": service_url,
        "TURNWISE_KEYS": str(folder / "trusted.json"),
        "TURNWISE_STATE": str(folder / "policy.json"),
        **variables,
    }
    command = [str(VENV / "bin" / "litellm"), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", str(workers)]
    output = (folder / "litellm.log").open("ab")
    with (
        output,
        subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output
        ) as process,
        httpx.Client(timeout=120) as client,
    ):
        proxy = Proxy(f"http://127.0.0.1:{port}", client)
        try:
            wait_until(lambda: alive(proxy, process), 400)  # 14 s on a machine that is idle
            yield proxy
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def alive(proxy: Proxy, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "LiteLLM ended at its start"
    try:
        return proxy.client.get(f"{proxy.url}/health/liveliness").status_code == 200
    except httpx.HTTPError:
        return False


def served(response: httpx.Response) -> str:
    """The model that the client is told of, in JSON or in the first event."""
    assert response.status_code == 200, response.text
    if "event-stream" not in response.headers["content-type"]:
        return str(response.json()["model"])
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return str(json.loads(events[0])["message"]["model"])


def publish(service: PolicyService, threshold: int) -> int:
    """Activates another policy of this threshold; returns its version."""
    name = f"after {len(service.store.list_versions())}"
    publication = activate(service.store, size_policy(threshold, name=name))
    return publication.arms[0].policy_version


@dataclass
class World:
    service: PolicyService
    api: FakeAnthropicApi
    proxy: Proxy


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("litellm")
    api = FakeAnthropicApi()
    with policy_service(folder) as service, running_server(api) as api_url:
        activate(service.store, size_policy(10_000))
        (folder / "trusted.json").write_text(json.dumps(service.trusted.to_document()))
        with litellm_proxy(folder, service.url, api_url) as proxy:
            wait_until(lambda: proxy.ask(300).headers.get("x-turnwise-policy") == "1")
            yield World(service, api, proxy)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("characters", "model"), [(300, HAIKU), (100_000, OPUS)])
def test_size_decides_and_the_decision_is_found_everywhere(
    world: World, characters: int, model: str, stream: bool
) -> None:
    version = str(publish(world.service, 10_000))
    wait_until(lambda: world.proxy.ask(300).headers["x-turnwise-policy"] == version)
    response = world.proxy.ask(characters, stream=stream)
    assert served(response) == model  # LiteLLM would name the requested one
    assert response.headers["x-turnwise-arm"] == "stable"
    request = world.api.seen[-1].json
    assert request["model"] == model
    if model == HAIKU:
        assert request["thinking"]["type"] == "enabled"
        assert "effort" not in request.get("output_config", {})
    else:
        assert request["thinking"] == {"type": "adaptive"}
        assert request["output_config"] == {"effort": "xhigh"}
    name = response.headers["request-id"]
    assert name.startswith("tw_")
    wait_until(lambda: any(row["decision_id"] == name for row in world.service.decisions))
    (row,) = [row for row in world.service.decisions if row["decision_id"] == name]
    assert (row["routed_model"], row["requested_model"]) == (model, OPUS)
    assert (row["gateway"], row["upstream_status"], row["session_id"]) == ("litellm", 200, "s-1")


def test_a_used_up_budget_is_answered_402_and_served_again(world: World) -> None:
    reason = Actor(ActorKind.INSTALLATION, "budgets")
    pause = BudgetPause("b_1", "The budget of acme is used up.", session_ids=("s-poor",))
    world.service.store.publish_pauses("prod", [pause], reason, "a test")
    wait_until(lambda: world.proxy.ask(300, session="s-poor").status_code == 402)
    refused = world.proxy.ask(300, session="s-poor")
    assert "The budget of acme is used up." in refused.text
    assert world.proxy.ask(300, session="s-rich").status_code == 200
    wait_until(
        lambda: any(
            (row["rule_id"], row["upstream_status"]) == ("guard:budget_paused", 402)
            for row in world.service.decisions
        )
    )
    world.service.store.publish_pauses("prod", [], reason, "a test")
    wait_until(lambda: world.proxy.ask(300, session="s-poor").status_code == 200)


def test_litellm_still_reads_the_private_name() -> None:
    program = (
        "from litellm.constants import RETURN_RAW_MODEL_NAME_METADATA_KEY as name; print(name)"
    )
    command = [str(VENV / "bin" / "python"), "-c", program]
    found = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    assert found.stdout.strip() == RAW_MODEL_NAME


def test_a_policy_changes_under_load_without_a_failed_request(world: World) -> None:
    """Even versions send 5,000 tokens to Haiku, odd ones to Opus."""
    store = world.service.store
    if store.active_version().version % 2 == 0:
        publish(world.service, 100)
    stopped = threading.Event()
    answers: list[tuple[str, str]] = []

    def send(worker: int) -> None:
        with httpx.Client(timeout=120) as client:
            proxy = Proxy(world.proxy.url, client)
            while not stopped.is_set():
                response = proxy.ask(16_500, session=f"w-{worker}", stream=worker % 2 == 0)
                answers.append((response.headers.get("x-turnwise-policy", ""), served(response)))

    with ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send, worker) for worker in range(4)]
        for number in range(6):
            wanted = str(publish(world.service, 10_000 if number % 2 == 0 else 100))
            wait_until(lambda wanted=wanted: any(version == wanted for version, _ in answers[-8:]))
        stopped.set()
        for future in sending:
            future.result()
    seen = {version for version, _ in answers}
    assert len(seen) >= 6
    for version, model in answers[8:]:
        assert model == (HAIKU if int(version) % 2 == 0 else OPUS), version


def test_an_error_of_the_upstream_is_reported_with_its_status(world: World) -> None:
    world.api.statuses = [400]
    response = world.proxy.ask(100_000, session="failing")
    assert response.status_code == 400
    wait_until(lambda: any(row["session_id"] == "failing" for row in world.service.decisions))
    (row,) = [row for row in world.service.decisions if row["session_id"] == "failing"]
    assert row["upstream_status"] == 400


def test_without_the_service_the_last_good_policy_decides_also_after_a_restart(
    tmp_path: Path,
) -> None:
    api = FakeAnthropicApi()
    with running_server(api) as api_url:
        with policy_service(tmp_path) as service:
            activate(service.store, size_policy(10_000))
            (tmp_path / "trusted.json").write_text(json.dumps(service.trusted.to_document()))
            with litellm_proxy(tmp_path, service.url, api_url) as proxy:
                wait_until(lambda: served(proxy.ask(300)) == HAIKU)
        with litellm_proxy(tmp_path, service.url, api_url) as proxy:
            assert served(proxy.ask(300)) == HAIKU
            assert served(proxy.ask(100_000)) == OPUS
        (tmp_path / "policy.json").unlink()
        with litellm_proxy(tmp_path, service.url, api_url) as proxy:
            response = proxy.ask(300)
            assert served(response) == OPUS
            assert response.headers["x-turnwise-policy"] == "0"


def test_the_decision_stands_on_litellm_s_span(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.read_text().replace("plugin.callback", 'plugin.callback", "otel'))
    api = FakeAnthropicApi()
    with (
        running_server(api) as api_url,
        policy_service(tmp_path) as service,
        span_collector() as (traces_url, spans),
    ):
        activate(service.store, size_policy(10_000))
        (tmp_path / "trusted.json").write_text(json.dumps(service.trusted.to_document()))
        given = {"OTEL_EXPORTER": "otlp_http", "OTEL_ENDPOINT": traces_url}
        with litellm_proxy(tmp_path, service.url, api_url, config=config, variables=given) as proxy:
            wait_until(lambda: proxy.ask(300).headers.get("x-turnwise-policy") == "1")
            name = proxy.ask(300).headers["request-id"]
            wait_until(lambda: any(span["turnwise.decision.id"] == name for span in spans))
    (span, *_) = [span for span in spans if span["turnwise.decision.id"] == name]
    assert (span["turnwise.policy.rule"], span["turnwise.model.requested"]) == ("short", OPUS)
    assert span["turnwise.model.routed"] == HAIKU


def test_two_workers_keep_to_each_key_s_models_and_log_the_decision_in_litellm_s_own_way(
    tmp_path: Path,
) -> None:
    (tmp_path / "limited_keys.py").write_text(CUSTOM_AUTH)
    (tmp_path / "recorder.py").write_text(RECORDER)
    config = tmp_path / "config.yaml"
    group = "    model_info: {access_groups: [small models]}\n"
    text = CONFIG.read_text().replace("\nlitellm_settings:", f"{group}\nlitellm_settings:")
    text = text.replace("plugin.callback", 'plugin.callback", "recorder.recorder')
    config.write_text(f"{text}  custom_auth: limited_keys.authorise\n")
    api = FakeAnthropicApi()
    with running_server(api) as api_url, policy_service(tmp_path) as service:
        activate(service.store, size_policy(10_000))
        (tmp_path / "trusted.json").write_text(json.dumps(service.trusted.to_document()))
        with litellm_proxy(tmp_path, service.url, api_url, config=config, workers=2) as proxy:

            def instances() -> int:
                proxy.client.close()  # a worker keeps the connections that it has accepted
                proxy.client = httpx.Client(timeout=120)
                assert served(proxy.ask(300, session="limited")) == OPUS
                rows = [row for row in service.decisions if row["policy_version"] == 1]
                return len({row["instance"] for row in rows})

            wait_until(lambda: instances() == 2, 120)
            assert served(proxy.ask(300, session="any")) == HAIKU
            grouped = proxy.ask(300, session="group")
            assert served(grouped) == HAIKU
            name = grouped.headers["request-id"]
            wait_until(lambda: {"any", "group"} <= {row["session_id"] for row in service.decisions})
            log = tmp_path / "spend.jsonl"
            wait_until(lambda: log.exists() and name in log.read_text())
            proxy.client.close()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    (row,) = [row for row in rows if row["spend"]["turnwise.decision.id"] == name]
    assert row["spend"]["turnwise.model.routed"] == HAIKU
    assert {"policy:1", "arm:stable"} <= set(row["tags"])
    rules = {(row["session_id"], row["rule_id"]) for row in service.decisions}
    assert {("limited", "guard:not_allowed"), ("any", "short"), ("group", "short")} <= rules
