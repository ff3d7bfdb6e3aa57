"""The edge proxy between a real HTTP client, a real service and a fake API, over sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from loop.domain.policies import RoutingPolicy, Rule
from routing_policies.client import PolicyClient
from routing_policies.edge_proxy import edge_app
from routing_policies.edge_upstream import EdgeLimits
from routing_policies.signing import TrustedKeys
from tests.fakes.anthropic_api import FakeAnthropicApi
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import activate, size_policy
from tests.routing_policies.edge_world import (
    BETAS,
    HAIKU,
    OPUS,
    Edge,
    edge_before,
    headers,
    request_body,
    served_model,
    wait_until,
)


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with edge_before(tmp_path) as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
def test_short_goes_to_haiku_and_long_to_opus(edge: Edge, stream: bool) -> None:
    activate(edge.service.store, size_policy(10_000))
    edge.sync()
    short = edge.post(request_body(2_000, stream=stream))
    long = edge.post(request_body(100_000, stream=stream))
    assert [short.status_code, long.status_code] == [200, 200], (short.text, long.text)
    assert served_model(short) == HAIKU
    assert served_model(long) == OPUS
    if stream:
        assert short.text.rstrip().endswith('{"type": "message_stop"}')


def test_parameters_are_fitted_to_the_routed_model(edge: Edge) -> None:
    activate(edge.service.store, size_policy(10_000))
    edge.sync()
    assert edge.post(request_body(2_000)).status_code == 200
    sent = edge.api.seen[-1]
    assert sent.json["thinking"] == {
        "type": "enabled",
        "budget_tokens": 31_999,
        "display": "omitted",
    }
    assert "output_config" not in sent.json
    assert "effort-2025-11-24" not in sent.headers["anthropic-beta"]


@pytest.mark.parametrize("chars", [80_000, 3_000_000])
def test_bytes_are_unchanged_when_nothing_is_rewritten(edge: Edge, chars: int) -> None:
    activate(edge.service.store, size_policy(10_000))
    edge.sync()
    odd = json.dumps(request_body(chars), indent=3).encode() + b"\n\n"
    answer = edge.http.post(f"{edge.url}/v1/messages?beta=true", content=odd, headers=headers())
    assert answer.status_code == 200
    assert edge.api.seen[-1].body == odd
    assert edge.api.seen[-1].query == "beta=true"


def test_only_listed_headers_cross(edge: Edge) -> None:
    edge.service.store.install_baseline()
    edge.sync()
    answer = edge.post(request_body(10))
    sent = edge.api.seen[-1].headers
    assert sent["x-api-key"] == "sk-test"
    assert sent["anthropic-beta"] == BETAS
    assert sent["x-claude-code-session-id"] == "s1"
    assert "cookie" not in sent
    assert "x-tw-org" not in sent
    assert answer.headers["anthropic-organization-id"]


def test_the_answer_names_the_decision_and_the_log_holds_it(edge: Edge) -> None:
    publication = activate(edge.service.store, size_policy(10_000))
    edge.sync()
    answer = edge.post(request_body(2_000), session="s-log")
    assert answer.headers["request-id"].startswith("tw_")
    assert answer.headers["x-upstream-request-id"].startswith("req_")
    assert answer.headers["x-turnwise-policy"] == str(publication.arms[0].policy_version)
    assert answer.headers["x-turnwise-arm"] == "stable"
    assert edge.reporter.send_batch() == 1
    (decision,) = edge.service.decisions
    assert decision["decision_id"] == answer.headers["request-id"]
    assert decision["session_id"] == "s-log"
    assert decision["serial"] == publication.serial
    assert decision["policy_digest"] == publication.arms[0].policy.digest
    assert decision["propensity"] == 1.0
    assert (decision["requested_model"], decision["routed_model"]) == (OPUS, HAIKU)
    assert decision["rule_id"] == "short"
    assert decision["upstream_status"] == 200
    assert 600 <= decision["total_input_tokens"] <= 800
    assert "effort_dropped" in decision["fixes"]
    assert (decision["gateway"], decision["instance"]) == ("edge", "edge-1")


def test_a_policy_change_under_load_fails_no_request(edge: Edge) -> None:
    store = edge.service.store
    activate(store, size_policy(100))
    edge.client.start()
    wait_until(lambda: edge.client.status.serial == 1)
    stop = threading.Event()
    seen: list[tuple[int, str, str]] = []

    def load(worker: int) -> None:
        with httpx.Client(timeout=20) as http:
            count = 0
            while not stop.is_set():
                count += 1
                answer = http.post(
                    f"{edge.url}/v1/messages",
                    json=request_body(5_000, stream=bool(count % 2)),
                    headers=headers(f"w{worker}-{count}"),
                )
                seen.append(
                    (answer.status_code, answer.headers["x-turnwise-policy"], served_model(answer))
                )

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load, worker) for worker in range(4)]
        for round_number in range(6):
            threshold = 10_000 + round_number if round_number % 2 == 0 else 100 + round_number
            serial = activate(store, size_policy(threshold)).serial
            wait_until(lambda serial=serial: edge.client.status.serial == serial)
            time.sleep(0.1)
        stop.set()
        for task in running:
            task.result()
    assert {status for status, _, _ in seen} == {200}
    # Versions alternate between a threshold above the request and one below it.
    expected = {True: HAIKU, False: OPUS}
    wrong = [row for row in seen if row[2] != expected[int(row[1]) % 2 == 0]]
    assert not wrong
    assert {model for _, _, model in seen} == {HAIKU, OPUS}


def test_it_fails_open_without_a_policy_server(tmp_path: Path) -> None:
    api = FakeAnthropicApi()
    client = PolicyClient("http://127.0.0.1:9", TrustedKeys({}), state_path=tmp_path / "lkg.json")
    client.start()
    decisions: list[Any] = []
    with (
        running_server(api) as upstream,
        running_server(edge_app(client, upstream, decisions.append)) as url,
        httpx.Client() as http,
    ):
        answer = http.post(f"{url}/v1/messages", json=request_body(100), headers=headers())
    client.stop()
    assert answer.status_code == 200
    assert served_model(answer) == OPUS
    assert decisions[0].rule_id == "passthrough:no_publication"
    assert json.loads(api.seen[0].body) == request_body(100)


def test_paths_that_are_not_routed_pass_as_they_are(edge: Edge) -> None:
    edge.service.store.install_baseline()
    edge.sync()
    body = b'{"model": "claude-opus-4-7",  "messages": []}'
    counted = edge.http.post(
        f"{edge.url}/v1/messages/count_tokens?beta=true", content=body, headers=headers()
    )
    assert counted.json() == {"input_tokens": len(body) // 4}
    assert edge.api.seen[-1].body == body
    assert counted.headers["request-id"].startswith("req_")
    models = edge.http.get(f"{edge.url}/v1/models", headers=headers())
    assert models.status_code == 404
    assert models.json()["error"]["type"] == "not_found_error"
    assert edge.api.seen[-1].method == "GET"
    assert len(edge.api.seen) == 2
    outside = edge.http.get(f"{edge.url}/admin")
    assert outside.status_code == 404
    assert len(edge.api.seen) == 2


@pytest.mark.parametrize("path", ["/v1/../admin", "/v1/%2e%2e/admin", "/v2/messages", "/"])
def test_nothing_outside_the_api_is_passed(edge: Edge, path: str) -> None:
    with httpx.Client() as http:
        request = http.build_request("GET", f"{edge.url}/v1/x")
        request.url = request.url.copy_with(raw_path=path.encode())
        answer = http.send(request)
    assert answer.status_code == 404
    assert edge.api.seen == []


@pytest.mark.parametrize("status", [400, 402, 429, 500, 529])
def test_upstream_errors_come_through(edge: Edge, status: int) -> None:
    edge.service.store.install_baseline()
    edge.sync()
    edge.api.statuses.append(status)
    answer = edge.post(request_body(10))
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == "scripted"
    assert answer.headers.get("retry-after") == ("1" if status == 429 else None)
    edge.reporter.send_batch()
    assert edge.service.decisions[0]["upstream_status"] == status


def test_an_upstream_that_is_away_is_a_502_in_the_api_s_envelope(tmp_path: Path) -> None:
    with edge_before(tmp_path, "http://127.0.0.1:9") as edge:
        answer = edge.post(request_body(10))
        edge.reporter.send_batch()
    assert answer.status_code == 502
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "api_error"
    assert answer.headers["request-id"].startswith("tw_")
    assert edge.service.decisions[0]["upstream_status"] is None


def test_an_upstream_that_is_slow_is_a_504(tmp_path: Path) -> None:
    with edge_before(tmp_path, limits=EdgeLimits(first_byte_seconds=0.2)) as edge:
        edge.api.hang_seconds = 2.0
        answer = edge.post(request_body(10))
    assert answer.status_code == 504
    assert answer.json()["error"]["type"] == "timeout_error"


def test_a_stream_that_breaks_ends_with_an_error_event(edge: Edge) -> None:
    edge.api.break_stream = True
    answer = edge.post(request_body(10, stream=True))
    last = answer.text.strip().split("\n\n")[-1]
    assert last.startswith("event: error")
    assert json.loads(last.split("data: ", 1)[1])["error"]["type"] == "api_error"


def test_events_arrive_while_the_upstream_still_writes(edge: Edge) -> None:
    edge.api.chunk_seconds = 0.15
    arrivals = []
    with edge.http.stream(
        "POST",
        f"{edge.url}/v1/messages",
        json=request_body(10, stream=True),
        headers=headers(),
    ) as answer:
        for _chunk in answer.iter_raw():
            arrivals.append(time.monotonic())
    assert len(arrivals) >= 5
    assert arrivals[-1] - arrivals[0] > 0.5


def test_a_client_that_leaves_ends_the_upstream_request(edge: Edge) -> None:
    edge.api.chunk_seconds = 0.1
    edge.api.text = "word " * 200
    with edge.http.stream(
        "POST",
        f"{edge.url}/v1/messages",
        json=request_body(10, stream=True),
        headers=headers(),
    ) as answer:
        next(answer.iter_raw())
    wait_until(lambda: edge.api.cancelled == 1)


def test_a_body_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with edge_before(tmp_path, limits=EdgeLimits(max_body_bytes=10_000)) as edge:
        answer = edge.post(request_body(20_000))
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "request_too_large"
        assert edge.api.seen == []


@pytest.mark.parametrize("body", [b"", b"[1]", b"{not json", b'{"model": 7}', b'{"a":' * 50_000])
def test_what_the_proxy_can_not_read_goes_on_unchanged(edge: Edge, body: bytes) -> None:
    edge.api.statuses.append(400)
    answer = edge.http.post(f"{edge.url}/v1/messages", content=body, headers=headers())
    assert answer.status_code == 400
    assert edge.api.seen[-1].body == body
    assert "x-turnwise-policy" not in answer.headers


def test_an_effort_set_by_a_rule_is_sent(edge: Edge) -> None:
    policy = RoutingPolicy(name="calm", rules=(Rule("all", (), "", effort="low"),), unit="request")
    activate(edge.service.store, policy)
    edge.sync()
    assert edge.post(request_body(100)).status_code == 200
    assert edge.api.seen[-1].json["output_config"] == {"effort": "low"}
    assert edge.api.seen[-1].json["model"] == OPUS


def test_the_status_page_counts(edge: Edge) -> None:
    activate(edge.service.store, size_policy(10_000))
    edge.sync()
    edge.post(request_body(100))
    state = edge.http.get(f"{edge.url}/turnwise/status").json()
    assert state["serial"] == 1
    assert state["requests"] == 1
    assert state["rewritten_requests"] == 1
    assert state["upstream_failures"] == 0
