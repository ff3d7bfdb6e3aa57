"""An edge proxy between a real HTTP client, a real service and a fake API, over sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from routing_policies.client import PolicyClient
from routing_policies.decision_reporter import DecisionReporter
from routing_policies.edge_proxy import EdgeProxy, edge_app
from tests.fakes.anthropic_api import FakeAnthropicApi
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import PolicyService, policy_service

OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,effort-2025-11-24"


def request_body(chars: int, *, stream: bool = False, model: str = OPUS) -> dict[str, Any]:
    """A main-loop request in the shape of the recorded ones, of about ``chars`` characters."""
    return {
        "model": model,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>\nx\n</system-reminder>"},
                    {"type": "text", "text": "y" * chars, "cache_control": {"type": "ephemeral"}},
                ],
            }
        ],
        "system": [{"type": "text", "text": "You are a Claude agent."}],
        "metadata": {"user_id": json.dumps({"device_id": "d", "session_id": "s-body"})},
        "max_tokens": 64_000,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "xhigh"},
        "stream": stream,
        "tools": [{"name": "Read", "description": "Reads.", "input_schema": {"type": "object"}}],
    }


def headers(session: str = "s1") -> dict[str, str]:
    return {
        "x-api-key": "sk-test",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": BETAS,
        "x-claude-code-session-id": session,
        "cookie": "secret=1",
        "x-tw-org": "acme/pay",
    }


@dataclass
class Edge:
    url: str
    service: PolicyService
    api: FakeAnthropicApi
    client: PolicyClient
    reporter: DecisionReporter
    http: httpx.Client
    app: EdgeProxy
    upstream_url: str

    def post(self, body: dict[str, Any], session: str = "s1") -> httpx.Response:
        return self.http.post(
            f"{self.url}/v1/messages?beta=true", json=body, headers=headers(session)
        )

    def decisions(self) -> list[dict[str, Any]]:
        """What the service was told of so far."""
        while self.reporter.send_batch():
            continue
        return self.service.decisions

    def sync(self) -> None:
        self.client.poll_once(wait_seconds=0)


@contextmanager
def edge_before(folder: Path, api_url: str | None = None, **options: Any) -> Iterator[Edge]:
    api = FakeAnthropicApi()
    with ExitStack() as stack:
        service = stack.enter_context(policy_service(folder))
        upstream = api_url or stack.enter_context(running_server(api))
        client = PolicyClient(service.url, service.trusted, instance="edge-1")
        reporter = DecisionReporter(service.url)
        app = edge_app(client, upstream, reporter.report, **options)
        url = stack.enter_context(running_server(app))
        http = stack.enter_context(httpx.Client(timeout=20))
        yield Edge(url, service, api, client, reporter, http, app, upstream)
        client.stop()
        reporter.stop()


def served_model(answer: httpx.Response) -> str:
    if answer.headers["content-type"].startswith("text/event-stream"):
        first = answer.text.split("\n\n")[0].split("data: ", 1)[1]
        return json.loads(first)["message"]["model"]
    return answer.json()["model"]


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
