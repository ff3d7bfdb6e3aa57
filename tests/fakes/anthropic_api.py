"""A fake Anthropic API over a real socket: Messages in JSON and SSE, and its refusals.

It answers in the shapes of the recorded client sessions, keeps every request as it came, and
refuses what the models refuse: adaptive thinking and effort on Haiku 4.5, a thinking budget and
sampling parameters on Opus 4.7, a budget that max_tokens does not cover. Token counts are
characters over four.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

MODELS = ("claude-opus-4-7", "claude-haiku-4-5", "claude-sonnet-4-6")


@dataclass(frozen=True)
class SeenRequest:
    """One request as it arrived; ``headers`` has lower-case names."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class FakeAnthropicApi:
    """An ASGI app. The switches change how it misbehaves.

    ``statuses`` are answered to the next requests, one each, before it works again; ``script``
    gives the content blocks for a request in place of ``text``.
    """

    text: str = "Done. The discount for gold customers is 10 %."
    chunk_seconds: float = 0.0
    statuses: list[int] = field(default_factory=list)
    break_stream: bool = False
    hang_seconds: float = 0.0
    script: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
    seen: list[SeenRequest] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    cancelled: int = 0
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for reply in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
                await receive()
                await send({"type": reply})
            return
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request = SeenRequest(
            scope["method"], scope["path"], scope["query_string"].decode(), headers, body
        )
        self.seen.append(request)
        number = next(self._numbers)
        if self.hang_seconds:
            await asyncio.sleep(self.hang_seconds)
        if self.statuses:
            status = self.statuses.pop(0)
            kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
            await self._json(send, status, _error(kind, "scripted"), number)
        elif request.path == "/v1/messages/count_tokens":
            await self._json(send, 200, {"input_tokens": len(body) // 4}, number)
        elif request.path == "/v1/messages":
            await self._messages(request, receive, send, number)
        else:
            await self._json(send, 404, _error("not_found_error", request.path), number)

    async def _messages(
        self, request: SeenRequest, receive: Receive, send: Send, number: int
    ) -> None:
        problem = refusal_of(request.json, request.headers.get("anthropic-beta", ""))
        if problem:
            self.refusals.append(problem)
            status = 404 if problem.startswith("model:") else 400
            kind = "not_found_error" if status == 404 else "invalid_request_error"
            await self._json(send, status, _error(kind, problem), number)
        elif request.json.get("stream"):
            await self._events(request, receive, send, number)
        else:
            message = {
                **_message(request, number),
                "content": self._blocks(request),
                "stop_reason": _stop_reason(self._blocks(request)),
                "usage": _usage(request, len(self.text) // 4),
            }
            await self._json(send, 200, message, number)

    async def _events(
        self, request: SeenRequest, receive: Receive, send: Send, number: int
    ) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-cache"),
                    (b"request-id", f"req_{number:024d}".encode()),
                ],
            }
        )
        start = {**_message(request, number), "content": [], "usage": _usage(request, 1)}
        blocks = self._blocks(request)
        events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
        for index, block in enumerate(blocks):
            events += _block_events(index, block)
        events += [
            {
                "type": "message_delta",
                "delta": {"stop_reason": _stop_reason(blocks), "stop_sequence": None},
                "usage": {"output_tokens": len(self.text) // 4},
            },
            {"type": "message_stop"},
        ]
        leaving = asyncio.ensure_future(receive())
        for index, event in enumerate(events):
            if self.break_stream and index == 3:
                leaving.cancel()
                return
            if leaving.done():
                self.cancelled += 1
                return
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            await asyncio.sleep(self.chunk_seconds)
        leaving.cancel()
        await send({"type": "http.response.body", "body": b""})

    def _blocks(self, request: SeenRequest) -> list[dict[str, Any]]:
        if self.script is not None:
            return self.script(request.json)
        return [{"type": "text", "text": self.text}]

    async def _json(self, send: Send, status: int, document: object, number: int) -> None:
        body = json.dumps(document).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"request-id", f"req_{number:024d}".encode()),
            (b"anthropic-organization-id", b"00000000-0000-4000-8000-000000000001"),
        ]
        if status == 429:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _block_events(index: int, block: Mapping[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "tool_use":
        begun, text = {**block, "input": {}}, json.dumps(block["input"])
        kind, name = "input_json_delta", "partial_json"
    else:
        begun, text = {"type": "text", "text": ""}, block["text"]
        kind, name = "text_delta", "text"
    deltas = [
        {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": kind, name: text[at : at + 8]},
        }
        for at in range(0, len(text), 8)
    ]
    return [
        {"type": "content_block_start", "index": index, "content_block": begun},
        *deltas,
        {"type": "content_block_stop", "index": index},
    ]


def _stop_reason(blocks: list[dict[str, Any]]) -> str:
    return "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"


def refusal_of(body: Mapping[str, Any], beta: str) -> str:
    """Why a model would refuse this request; empty when it would not."""
    model = body.get("model")
    if model not in MODELS:
        return f"model: {model}"
    thinking, max_tokens = body.get("thinking") or {}, body.get("max_tokens", 0)
    effort = (body.get("output_config") or {}).get("effort")
    if model == "claude-haiku-4-5":
        if thinking.get("type") == "adaptive":
            return "adaptive thinking is not supported on this model"
        if effort:
            return "This model does not support the effort parameter."
    if model == "claude-opus-4-7":
        if thinking.get("type") == "enabled":
            return '"thinking.type.enabled" is not supported for this model.'
        if "temperature" in body:
            return "temperature: is not supported for this model."
    if any(message.get("role") == "system" for message in body["messages"]):
        return "messages: unexpected role system"
    edits = (body.get("context_management") or {}).get("edits", [])
    if edits and not thinking:
        return "clear_thinking_20251015 requires thinking to be enabled or adaptive"
    if effort and "effort-2025-11-24" not in beta:
        return "output_config: Extra inputs are not permitted"
    if max_tokens > (64_000 if model == "claude-haiku-4-5" else 128_000):
        return f"max_tokens: {max_tokens} > the model's maximum"
    if thinking.get("type") == "enabled" and not 1024 <= thinking["budget_tokens"] < max_tokens:
        return "max_tokens must be greater than thinking.budget_tokens"
    return ""


def _message(request: SeenRequest, number: int) -> dict[str, Any]:
    return {
        "id": f"msg_{number:024d}",
        "type": "message",
        "role": "assistant",
        "model": request.json["model"],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(request: SeenRequest, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": 4,
        "cache_creation_input_tokens": len(request.body) // 4,
        "cache_read_input_tokens": 0,
        "cache_creation": {
            "ephemeral_5m_input_tokens": len(request.body) // 4,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}
