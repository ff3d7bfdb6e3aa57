"""The simulated client's side of ``POST /v1/messages``: retries, and reading JSON or SSE."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from loop.domain.turns import TokenUsage
from loop.service.simulation.client_records import Served
from loop.service.simulation.http_connection import HttpAnswer, HttpConnection

ATTEMPTS = 4
RETRY_SECONDS = 0.02  # real time; the client's own waits pass on the virtual clock
RETRIED_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


class ModelClient:
    """Sends bodies to a gateway, one after another; ``requests`` counts them."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self.requests = 0

    async def send(
        self, body: bytes, headers: dict[str, str], advance: Callable[[str, int], int], at_us: int
    ) -> Served:
        """One request, with the retries of the real client; its waits pass on the virtual clock.

        ``advance(served_model, attempt)`` moves that clock to the end of an attempt and returns
        it. Raises ``Unavailable`` when the gateway can't be reached at all.
        """
        attempts: list[int] = []
        now_us = at_us
        while True:
            attempts.append(now_us)
            self.requests += 1
            response = await self._connection.post("/v1/messages?beta=true", body, headers)
            request_id = response.headers.get("request-id", "")
            if response.status == 200:
                message = _message_of(response)
                now_us = advance(message["model"], len(attempts))
                return _served(message, request_id, at_us, now_us, tuple(attempts))
            now_us = advance("", len(attempts))
            if response.status not in RETRIED_STATUSES or len(attempts) == ATTEMPTS:
                error = _error_text(response)
                return Served(
                    response.status, request_id, at_us, now_us, tuple(attempts), error=error
                )
            await asyncio.sleep(RETRY_SECONDS * len(attempts))


def _served(
    message: dict[str, Any], request_id: str, start_us: int, end_us: int, attempts: tuple[int, ...]
) -> Served:
    usage = message["usage"]
    written = usage.get("cache_creation") or {}
    return Served(
        200,
        request_id,
        start_us,
        end_us,
        attempts,
        model=message["model"],
        content=tuple(message["content"]),
        stop_reason=message["stop_reason"],
        usage=TokenUsage(
            input_tokens=usage["input_tokens"],
            output_tokens=usage["output_tokens"],
            cache_read_tokens=usage["cache_read_input_tokens"],
            cache_creation_5m_tokens=written.get("ephemeral_5m_input_tokens", 0),
            cache_creation_1h_tokens=written.get("ephemeral_1h_input_tokens", 0),
        ),
    )


def _message_of(response: HttpAnswer) -> dict[str, Any]:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        return dict(orjson.loads(response.body))
    message: dict[str, Any] = {}
    partial_json: dict[int, str] = {}
    for line in response.body.split(b"\n"):
        if line.startswith(b"data: "):
            _apply(orjson.loads(line[6:]), message, partial_json)
    return message


def _apply(event: dict[str, Any], message: dict[str, Any], partial_json: dict[int, str]) -> None:
    """Adds one server-sent event to the message that it belongs to."""
    kind = event["type"]
    if kind == "message_start":
        message.update(event["message"])
    elif kind == "content_block_start":
        message["content"].append(event["content_block"])
    elif kind == "content_block_delta":
        delta, index = event["delta"], event["index"]
        if delta["type"] == "text_delta":
            message["content"][index]["text"] += delta["text"]
        else:
            partial_json[index] = partial_json.get(index, "") + delta["partial_json"]
    elif kind == "content_block_stop" and event["index"] in partial_json:
        encoded = partial_json.pop(event["index"])
        message["content"][event["index"]]["input"] = orjson.loads(encoded or "{}")
    elif kind == "message_delta":
        message.update(event["delta"])
        message["usage"].update(event["usage"])


def _error_text(response: HttpAnswer) -> str:
    try:
        return str(orjson.loads(response.body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status}"
