"""The edge proxy as a sidecar: what it answers to gateways that serve by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loop.domain.budget_pauses import BudgetPause
from loop.domain.lifecycle import Actor, ActorKind
from routing_policies.edge_upstream import EdgeLimits
from tests.fakes.policy_service import activate, size_policy
from tests.routing_policies.edge_world import (
    HAIKU,
    OPUS,
    Edge,
    edge_before,
    headers,
    request_body,
)


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with edge_before(tmp_path, "http://127.0.0.1:9") as found:
        activate(found.service.store, size_policy(10_000))
        found.sync()
        yield found


def ask(edge: Edge, path: str, content: bytes, session: str = "s1") -> httpx.Response:
    return edge.http.post(f"{edge.url}{path}", content=content, headers=headers(session))


def portkey_call(body: Any, **changes: Any) -> bytes:
    call = {
        "request": {"json": body, "text": "", "isStreamingRequest": False},
        "response": {"json": {}, "text": "", "statusCode": None},
        "provider": "anthropic",
        "requestType": "messages",
        "metadata": {"tw_org": "acme/pay", "tw_request_class": "main"},
        "eventType": "beforeRequestHook",
        **changes,
    }
    return json.dumps(call).encode()


def test_a_gateway_is_told_what_to_send_instead(edge: Edge) -> None:
    answer = ask(edge, "/turnwise/decide", json.dumps(request_body(2_000)).encode())
    assert answer.status_code == 200
    assert (answer.json()["model"], answer.json()["thinking"]["type"]) == (HAIKU, "enabled")
    assert "effort-2025-11-24" not in answer.headers["x-turnwise-beta"]
    (row,) = edge.decisions()
    assert row["decision_id"] == answer.headers["request-id"]
    assert (row["routed_model"], row["org_path"]) == (HAIKU, "acme/pay")
    assert "effort_dropped" in row["fixes"]


def test_a_gateway_is_told_to_leave_it(edge: Edge) -> None:
    answer = ask(edge, "/turnwise/decide", json.dumps(request_body(80_000)).encode())
    assert (answer.status_code, answer.content) == (204, b"")
    (row,) = edge.decisions()
    assert (row["routed_model"], row["decision_id"]) == (OPUS, answer.headers["request-id"])


def test_a_gateway_is_told_of_a_used_up_budget(edge: Edge) -> None:
    reason = Actor(ActorKind.INSTALLATION, "budgets")
    pause = BudgetPause("b_1", "The budget is used up.", session_ids=("poor",))
    edge.service.store.publish_pauses("prod", [pause], reason, "a test")
    edge.sync()
    body = json.dumps(request_body(10)).encode()
    answer = ask(edge, "/turnwise/decide", body, "poor")
    assert (answer.status_code, answer.headers["x-turnwise-budget"]) == (402, "b_1")
    assert answer.json()["error"]["type"] == "billing_error"
    assert [row["upstream_status"] for row in edge.decisions()] == [402]


def test_portkey_gets_a_whole_body_back_without_flags_that_it_can_not_set(edge: Edge) -> None:
    body = {**request_body(2_000), "metadata": {"user_id": '{"session_id": "s-body"}'}}
    answer = edge.http.post(f"{edge.url}/turnwise/portkey", content=portkey_call(body)).json()
    assert answer["verdict"] is True
    assert answer["transformedData"]["request"]["json"]["model"] == HAIKU
    (row,) = edge.decisions()
    assert answer["data"]["decision_id"] == row["decision_id"]
    assert (row["session_id"], row["org_path"]) == ("s-body", "acme/pay")
    assert not [fix for fix in row["fixes"] if fix.startswith("beta_")]


def test_portkey_counts_tokens_for_the_model_that_would_serve(edge: Edge) -> None:
    call = portkey_call(request_body(2_000), requestType="messagesCountTokens")
    answer = edge.http.post(f"{edge.url}/turnwise/portkey", content=call).json()
    assert answer["transformedData"]["request"]["json"]["model"] == HAIKU
    assert edge.decisions() == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b'{"a":' * 50_000,
        portkey_call(None),
        portkey_call({"model": 7}),
        portkey_call({"model": OPUS}, requestType="chatComplete"),
        portkey_call({"model": OPUS}, eventType="afterRequestHook"),
        portkey_call(request_body(80_000)),
    ],
)
def test_what_is_not_to_be_changed_is_left(edge: Edge, raw: bytes) -> None:
    answer = edge.http.post(f"{edge.url}/turnwise/portkey", content=raw)
    assert answer.status_code == 200
    assert answer.json()["verdict"] is True
    assert "transformedData" not in answer.json()
    assert ask(edge, "/turnwise/decide", raw).status_code == 204


def test_a_call_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with edge_before(tmp_path, limits=EdgeLimits(max_body_bytes=100)) as edge:
        assert ask(edge, "/turnwise/decide", b"x" * 200).status_code == 413
