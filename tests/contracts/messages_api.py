"""What every stand-in for the Anthropic Messages API must do.

The shapes are those of real traffic: the message documents are compared with the ones that the
recorded client stored (``examples/recordings/*/transcript``), the refusals are the ones that the
real client met and healed itself from, the events are those of the documented stream.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
RECORDINGS = Path(__file__).parents[2] / "examples" / "recordings"
HEADERS = {
    "x-api-key": "test-key",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,effort-2025-11-24",
}
USAGE_CLASSES = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)


def recorded_message() -> dict[str, Any]:
    """An assistant message as the recorded client got it."""
    (path,) = RECORDINGS.glob("a01_read_answer/transcript/*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return next(line["message"] for line in lines if line["type"] == "assistant")


def body_for(model: str, **fields: Any) -> dict[str, Any]:
    """A small request that ``model`` accepts."""
    user = {"device_id": "d", "account_uuid": "", "session_id": "contract-session"}
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 4096,
        "system": [{"type": "text", "text": "You are an agent."}],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Fix pages_of_search() in search/pages.py."}],
            }
        ],
        "metadata": {"user_id": json.dumps(user)},
    }
    return {**body, **fields}


def read_events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events as (event, data)."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], json.loads(fields["data"])))
    return found


class MessagesApiContract:
    """Subclass it and give a ``messages_api`` fixture: the base URL of a running server."""

    def post(self, base_url: str, body: Any, headers: dict[str, str] = HEADERS) -> httpx.Response:
        url = f"{base_url}/v1/messages?beta=true"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(url, content=content, headers=headers, trust_env=False)

    def test_a_message_has_the_recorded_shape(self, messages_api: str) -> None:
        response = self.post(messages_api, body_for(OPUS))
        assert response.status_code == 200
        assert response.headers["request-id"].startswith("req_")
        message, recorded = response.json(), recorded_message()
        assert message["id"].startswith("msg_")
        for key, value in message.items():
            assert key in recorded
            if key != "stop_sequence":
                assert isinstance(value, type(recorded[key])), key
        for key in USAGE_CLASSES:
            assert isinstance(message["usage"][key], int), key
        for key, value in message["usage"].items():
            assert isinstance(value, type(recorded["usage"][key])), key
        assert message["stop_reason"] in ("end_turn", "tool_use")
        for block in message["content"]:
            assert block["type"] in ("text", "tool_use", "thinking")

    def test_cache_writes_split_into_lifetimes(self, messages_api: str) -> None:
        usage = self.post(messages_api, body_for(OPUS)).json()["usage"]
        split = usage["cache_creation"]
        assert sum(split.values()) == usage["cache_creation_input_tokens"]
        assert set(split) == {"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"}

    @pytest.mark.parametrize("model", [OPUS, HAIKU])
    def test_the_response_names_the_model_that_served(self, messages_api: str, model: str) -> None:
        assert self.post(messages_api, body_for(model)).json()["model"] == model

    def test_a_stream_is_a_message_in_events(self, messages_api: str) -> None:
        response = self.post(messages_api, body_for(OPUS, stream=True))
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["request-id"].startswith("req_")
        events = [event for event in read_events(response.text) if event[0] != "ping"]
        assert all(name == data["type"] for name, data in events)
        names = [name for name, _ in events]
        assert names[0] == "message_start"
        assert names[-2:] == ["message_delta", "message_stop"]
        start = events[0][1]["message"]
        assert start["content"] == []
        assert start["stop_reason"] is None
        assert start["model"] == OPUS
        assert start["usage"]["input_tokens"] >= 0
        assert self._blocks_are_whole(events[1:-2])
        delta = events[-2][1]
        assert delta["delta"]["stop_reason"] in ("end_turn", "tool_use")
        assert delta["usage"]["output_tokens"] > 0

    def _blocks_are_whole(self, events: list[tuple[str, dict[str, Any]]]) -> bool:
        """Blocks come one after another: a start, deltas of that index, a stop."""
        index, is_open = -1, False
        for name, data in events:
            if name == "content_block_start":
                assert not is_open
                index, is_open = index + 1, True
            assert is_open
            assert data["index"] == index
            if name == "content_block_stop":
                is_open = False
        return not is_open and index >= 0

    @pytest.mark.parametrize(
        ("model", "fields"),
        [
            (HAIKU, {"thinking": {"type": "adaptive"}}),
            (HAIKU, {"output_config": {"effort": "high"}}),
            (HAIKU, {"max_tokens": 1000, "thinking": {"type": "enabled", "budget_tokens": 2000}}),
            (OPUS, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
            (OPUS, {"temperature": 0.5}),
        ],
        ids=["haiku-adaptive", "haiku-effort", "budget", "opus-budget", "opus-temperature"],
    )
    def test_parameters_of_another_model_are_refused(
        self, messages_api: str, model: str, fields: dict[str, Any]
    ) -> None:
        response = self.post(messages_api, body_for(model, **fields))
        self._is_error(response, 400, "invalid_request_error")

    @pytest.mark.parametrize(
        ("model", "fields"),
        [
            (OPUS, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
            (HAIKU, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ],
        ids=["opus", "haiku"],
    )
    def test_parameters_of_the_model_are_taken(
        self, messages_api: str, model: str, fields: dict[str, Any]
    ) -> None:
        assert self.post(messages_api, body_for(model, **fields)).status_code == 200

    def test_broken_json_is_a_bad_request(self, messages_api: str) -> None:
        self._is_error(self.post(messages_api, b"{"), 400, "invalid_request_error")

    def _is_error(self, response: httpx.Response, status: int, kind: str) -> None:
        assert response.status_code == status
        document = response.json()
        assert document["type"] == "error"
        assert document["error"]["type"] == kind
        assert document["error"]["message"]
        assert response.headers["request-id"].startswith("req_")
