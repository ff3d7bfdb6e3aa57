"""The edge proxy with clients and upstreams that are slow, silent, gone or too many."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send

from loop.domain.budget_pauses import BudgetPause
from loop.domain.lifecycle import Actor, ActorKind
from loop.domain.policies import Route, RouteRequest, RoutingPolicy
from routing_policies.client import PolicyClient
from routing_policies.edge_proxy import edge_app
from routing_policies.edge_upstream import EdgeLimits
from routing_policies.kept_routes import KeptRoutes
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import activate, size_policy
from tests.routing_policies.edge_world import (
    HAIKU,
    OPUS,
    Edge,
    edge_before,
    headers,
    request_body,
    served_model,
    wait_until,
)

PIECE, PIECES = b"x" * 65_536, 2_000  # 131 MB: far more than sockets hold


@dataclass
class Fountain:
    """An upstream that streams as fast as it is taken, and sets a cookie."""

    sent: int = 0
    ended_early: bool = False
    cookies: list[str | None] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        while (await receive()).get("more_body"):
            continue
        named = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.cookies.append(named.get("cookie"))
        sent = [(b"content-type", b"text/event-stream"), (b"set-cookie", b"who=anna")]
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        leaving = asyncio.ensure_future(receive())
        for _ in range(PIECES):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            if leaving.done():
                self.ended_early = True
                return
            self.sent += 1
        leaving.cancel()
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def raw_request(url: str, body: bytes, announced: int | None = None) -> Iterator[socket.socket]:
    """A client that sends what it is told and reads nothing by itself."""
    parts = urlsplit(url)
    length = len(body) if announced is None else announced
    head = f"POST /v1/messages HTTP/1.1\r\nhost: edge\r\ncontent-length: {length}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(60)
        client.connect((parts.hostname, parts.port))
        client.sendall(head.encode() + body)
        yield client


def still(read: Callable[[], int], seconds: float = 60.0) -> int:
    """What ``read`` gives once it has stopped growing for half a second."""
    deadline = time.monotonic() + seconds
    last, since = read(), time.monotonic()
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < deadline, "it goes on growing"
        time.sleep(0.02)
        if (now := read()) != last:
            last, since = now, time.monotonic()
    return last


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with edge_before(tmp_path) as found:
        yield found


def test_a_client_that_reads_slowly_slows_the_upstream_and_gets_all(tmp_path: Path) -> None:
    fountain = Fountain()
    with running_server(fountain) as upstream, edge_before(tmp_path, upstream) as edge:
        with raw_request(edge.url, json.dumps(request_body(10)).encode()) as client:
            wait_until(lambda: fountain.sent > 0)
            held = still(lambda: fountain.sent)
            assert held < PIECES // 4, "the proxy reads ahead of its client"
            taken = 0
            while taken < PIECES * len(PIECE):
                taken += len(client.recv(1 << 20))
        assert not fountain.ended_early
        assert edge.post(request_body(10)).status_code == 200
    assert fountain.cookies == [None, None], "a cookie of the upstream goes to the next client"


def test_a_client_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    fountain, limits = Fountain(), EdgeLimits(client_idle_seconds=0.5)
    with (
        running_server(fountain) as upstream,
        edge_before(tmp_path, upstream, limits=limits) as edge,
    ):
        with raw_request(edge.url, json.dumps(request_body(10)).encode()):
            wait_until(lambda: edge.app.metrics.total("clients_stalled") == 1)
        wait_until(lambda: fountain.ended_early)
        wait_until(lambda: metric(edge, "turnwise_edge_open_requests") == 0)


def test_a_request_that_stops_halfway_is_a_408(tmp_path: Path) -> None:
    with (
        edge_before(tmp_path, limits=EdgeLimits(client_idle_seconds=0.3)) as edge,
        raw_request(edge.url, b'{"model": "claude', announced=1_000) as client,
    ):
        assert client.recv(1_000).startswith(b"HTTP/1.1 408 ")
    assert edge.api.seen == []


def test_a_stream_that_falls_silent_ends_with_an_error_event(tmp_path: Path) -> None:
    with edge_before(tmp_path, limits=EdgeLimits(idle_seconds=0.3)) as edge:
        edge.api.chunk_seconds = 30.0
        answer = edge.post(request_body(10, stream=True))
    assert answer.text.strip().split("\n\n")[-1].startswith("event: error")


def test_count_tokens_counts_for_the_model_that_would_serve_and_keeps_no_route(edge: Edge) -> None:
    activate(edge.service.store, size_policy(10_000, unit="session"))
    edge.sync()
    body = request_body(2_000)
    del body["max_tokens"], body["stream"]
    counted = edge.http.post(f"{edge.url}/v1/messages/count_tokens", json=body, headers=headers())
    assert counted.status_code == 200
    sent = edge.api.seen[-1]
    assert sent.path == "/v1/messages/count_tokens"
    assert sent.json["model"] == HAIKU
    assert "output_config" not in sent.json
    assert edge.client.status.kept_units == 0
    assert served_model(edge.post(request_body(100_000))) == OPUS
    # Now the session is kept on Opus, and so its tokens are counted, with the bytes as they came.
    counted = edge.http.post(f"{edge.url}/v1/messages/count_tokens", json=body, headers=headers())
    assert counted.status_code == 200
    assert edge.api.seen[-1].json == body
    assert len(edge.decisions()) == 1


def test_what_is_decided_is_logged_once_whatever_happens(edge: Edge) -> None:
    activate(edge.service.store, size_policy(10_000))
    reason = Actor(ActorKind.INSTALLATION, "budgets")
    pause = BudgetPause("b_1", "The budget is used up.", session_ids=("paused",))
    edge.service.store.publish_pauses("prod", [pause], reason, "a test")
    edge.sync()

    assert edge.post(request_body(10), session="good").status_code == 200
    edge.api.statuses = [529]
    assert edge.post(request_body(10), session="refused").status_code == 529
    paused = edge.post(request_body(10), session="paused")
    assert paused.status_code == 402
    assert paused.json()["error"]["message"] == "turnwise: The budget is used up."
    assert paused.headers["x-should-retry"] == "false"
    edge.api.break_stream = True
    edge.post(request_body(10, stream=True), session="broken")
    edge.api.break_stream = False

    edge.api.hang_seconds = 60.0
    with pytest.raises(httpx.ReadTimeout):
        edge.http.post(
            f"{edge.url}/v1/messages", json=request_body(10), headers=headers("left"), timeout=0.5
        )
    wait_until(lambda: edge.app.metrics.total("clients_left") == 1)
    edge.api.hang_seconds, edge.api.chunk_seconds = 0.0, 0.1
    edge.api.text = "word " * 200
    with edge.http.stream(
        "POST", f"{edge.url}/v1/messages", json=request_body(10, stream=True),
        headers=headers("left-midway"),
    ) as answer:  # fmt: skip
        next(answer.iter_raw())
    wait_until(lambda: edge.api.cancelled == 1)
    wait_until(lambda: metric(edge, "turnwise_edge_open_requests") == 0)

    rows = [(row["session_id"], row["upstream_status"]) for row in edge.decisions()]
    assert rows == [
        ("good", 200),
        ("refused", 529),
        ("paused", 402),
        ("broken", 200),
        ("left", None),
        ("left-midway", 200),
    ]
    assert len({row["decision_id"] for row in edge.decisions()}) == len(rows)


def test_more_requests_than_allowed_at_once_are_turned_away(tmp_path: Path) -> None:
    with edge_before(tmp_path, limits=EdgeLimits(max_requests=1)) as edge:
        edge.api.hang_seconds = 60.0
        body = json.dumps(request_body(10)).encode()
        with raw_request(edge.url, body):
            wait_until(lambda: len(edge.api.seen) == 1)
            away = edge.post(request_body(10))
        assert (away.status_code, away.headers["retry-after"]) == (503, "1")
        assert away.json()["error"]["type"] == "overloaded_error"
        edge.api.hang_seconds = 0.0
        wait_until(lambda: metric(edge, "turnwise_edge_open_requests") == 0)
        assert edge.post(request_body(10)).status_code == 200


def test_bodies_held_at_once_are_bounded(tmp_path: Path) -> None:
    with edge_before(tmp_path, limits=EdgeLimits(max_buffered_bytes=50_000)) as edge:
        assert edge.post(request_body(60_000)).status_code == 503
        assert edge.post(request_body(10_000)).status_code == 200
        wait_until(lambda: metric(edge, "turnwise_edge_buffered_bytes") == 0)


class _Broken(KeptRoutes):
    def decide(
        self, policy: RoutingPolicy, policy_digest: str, request: RouteRequest, *, keep: bool = True
    ) -> Route:
        raise LookupError("a body that nobody foresaw")


def test_a_request_does_not_fail_because_deciding_does(tmp_path: Path) -> None:
    with edge_before(tmp_path) as edge:
        activate(edge.service.store, size_policy(10_000))
        client = PolicyClient(
            edge.service.url, edge.service.trusted, kept_routes=_Broken(), instance="edge-2"
        )
        client.poll_once(wait_seconds=0)
        app = edge_app(client, edge.upstream_url, edge.reporter.report)
        with running_server(app) as url:
            answer = edge.http.post(f"{url}/v1/messages", json=request_body(10), headers=headers())
        client.stop()
    assert served_model(answer) == OPUS
    assert edge.service.decisions == []


def metric(edge: Edge, name: str, **labels: str) -> float | None:
    text = edge.http.get(f"{edge.url}/turnwise/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def test_prometheus_reads_its_metrics(edge: Edge) -> None:
    version = activate(edge.service.store, size_policy(10_000)).arms[0].policy_version
    edge.sync()
    edge.post(request_body(10))
    edge.post(request_body(100_000))
    edge.api.statuses = [500]
    edge.post(request_body(10))
    assert metric(edge, "turnwise_edge_requests_total", path="messages") == 3
    assert metric(edge, "turnwise_edge_responses_total", code="500") == 1
    decided = {"policy_version": str(version), "arm": "stable"}
    assert metric(edge, "turnwise_edge_decisions_total", rule="short", **decided) == 2
    assert metric(edge, "turnwise_edge_decisions_total", rule="default", **decided) == 1
    assert metric(edge, "turnwise_edge_rewritten_requests_total") == 2
    assert metric(edge, "turnwise_edge_deciding_seconds_count") == 3
    assert metric(edge, "turnwise_edge_first_byte_seconds_count", path="messages") == 3
    assert metric(edge, "turnwise_edge_policy_serial") == 1


def test_while_it_drains_it_is_not_ready_and_still_serves(edge: Edge) -> None:
    assert edge.http.get(f"{edge.url}/turnwise/readyz").status_code == 200
    edge.app.drain()
    unready = edge.http.get(f"{edge.url}/turnwise/readyz")
    assert (unready.status_code, unready.json()["draining"]) == (503, True)
    assert edge.http.get(f"{edge.url}/turnwise/healthz").json() == {"ok": True}
    assert edge.post(request_body(10)).status_code == 200


def test_a_gateway_behind_is_told_and_the_body_stays(tmp_path: Path) -> None:
    given: dict[str, Any] = {"mode": "stamp", "forward_prefixes": ("x-bf-", "X-TW-", "cookie")}
    with edge_before(tmp_path, **given) as edge:
        activate(edge.service.store, size_policy(10_000))
        edge.sync()
        body = json.dumps(request_body(2_000)).encode()
        edge.api.statuses = [200]
        answer = edge.http.post(
            f"{edge.url}/v1/messages",
            content=body,
            headers={
                **headers(),
                "x-bf-vk": "key",
                "x-tw-model": "claude-spoofed",
                "x-tw-repo": "a b/c",
            },
        )
        assert answer.status_code == 200
        sent = edge.api.seen[-1]
        (decision,) = edge.decisions()
    assert sent.body == body
    assert sent.headers["x-bf-vk"] == "key"
    assert "cookie" not in sent.headers
    assert sent.headers["x-tw-model"] == HAIKU
    assert sent.headers["x-tw-requested-model"] == OPUS
    assert (sent.headers["x-tw-arm"], sent.headers["x-tw-rule"]) == ("stable", "short")
    assert sent.headers["x-tw-decision"] == decision["decision_id"] == answer.headers["request-id"]
    assert int(sent.headers["x-tw-total-input-tokens"]) == decision["total_input_tokens"]
    assert (sent.headers["x-tw-org"], sent.headers["x-tw-repo"]) == ("acme/pay", "a%20b/c")


async def compressed(scope: Scope, receive: Receive, send: Send) -> None:
    """An upstream that compresses its answer."""
    if scope["type"] == "http":
        body = gzip.compress(b'{"type": "message"}')
        sent = [(b"content-encoding", b"gzip"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": body})


def test_a_compressed_answer_passes_as_it_is(tmp_path: Path) -> None:
    with running_server(compressed) as upstream, edge_before(tmp_path, upstream) as edge:
        answer = edge.post(request_body(10))
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json() == {"type": "message"}
