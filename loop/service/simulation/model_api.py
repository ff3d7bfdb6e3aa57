"""A fake Anthropic Messages API: ``POST /v1/messages``, JSON and server-sent events.

It is a fake at the network edge: request ids, usage, event shapes and error envelopes are those of
the real API (``tests/contracts/messages_api.py`` holds them), the intelligence is not. Requests say
in ``metadata.user_id`` (a JSON string, as the real client sends it) which session they belong to,
the virtual time (``simulated_at_us``) and a drift of the models' skill (``simulated_drift``), so
that any gateway that passes the body on passes them too.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from loop.domain.turns import TokenUsage
from loop.service.simulation.draws import between, digest, draw
from loop.service.simulation.message_events import Content, message_of, stream_of
from loop.service.simulation.parameters import FleetParameters
from loop.service.simulation.prompt_cache import Boundary, PromptCache, boundaries_of
from loop.service.simulation.request_checks import Rejection, check_request, context_rejection
from loop.service.simulation.scripted_model import Reply, next_reply, read_conversation

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sender:
    """What a request says of itself in ``metadata.user_id``."""

    session_id: str
    at_us: int
    drift: Mapping[str, float]


class ModelApi:
    """The ASGI application. One instance keeps the prompt cache of all its sessions.

    ``served`` counts the answers by status code.
    """

    def __init__(self, parameters: FleetParameters | None = None) -> None:
        self._parameters = parameters or FleetParameters()
        self._cache = PromptCache(self._parameters.min_cacheable_tokens)
        self._requests_of: dict[str, int] = {}
        self.served: dict[int, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        body = await _body_of(receive)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        request_id = f"req_{digest(24, 'request', len(self.served), time.time_ns())}"
        try:
            if (scope["method"], scope["path"]) != ("POST", "/v1/messages"):
                raise Rejection(404, "not_found_error", "Not Found")
            document = _document(body)
            check_request(document, headers, self._parameters)
            sender = _sender_of(document)
            number = self._requests_of.get(sender.session_id, 0)
            self._requests_of[sender.session_id] = number + 1
            request_id = f"req_{digest(24, 'request', sender.session_id, number)}"
            self._refuse_when_overloaded(sender, number)
            answer = self._answer(document, sender, number)
        except Rejection as rejection:
            self._count(rejection.status)
            await _reply(send, rejection.status, request_id, rejection.envelope(request_id))
            return
        self._count(200)
        if document.get("stream"):
            events = stream_of(answer)
            await _reply(send, 200, request_id, *events, content_type="text/event-stream")
        else:
            await _reply(send, 200, request_id, orjson.dumps(answer))

    def _count(self, status: int) -> None:
        self.served[status] = self.served.get(status, 0) + 1

    def _refuse_when_overloaded(self, sender: Sender, number: int) -> None:
        """529 once, and never twice in a row for one session."""
        share = self._parameters.overload_share
        before = number > 0 and draw("overload", sender.session_id, number - 1) < share
        if not before and draw("overload", sender.session_id, number) < share:
            raise Rejection(529, "overloaded_error", "Overloaded")

    def _answer(self, document: Mapping[str, Any], sender: Sender, number: int) -> dict[str, Any]:
        model = str(document["model"])
        boundaries = boundaries_of(document, self._parameters.chars_per_token)
        rejection = context_rejection(model, boundaries[-1].tokens, self._parameters)
        if rejection is not None:
            raise rejection
        parameters = replace(self._parameters, drift=sender.drift)
        is_subagent = "cc_is_subagent=true" in _first_system_text(document)
        conversation = read_conversation(document["messages"], is_subagent)
        reply = next_reply(conversation, model, sender.session_id, parameters)
        names = (sender.session_id, number)
        content = _content_of(reply, f"toolu_01{digest(22, 'tool', *names)}")
        usage = self._usage(model, boundaries, sender, content, number)
        message_id = f"msg_01{digest(22, 'message', *names)}"
        return message_of(message_id, model, content, reply.stop_reason, usage)

    def _usage(
        self,
        model: str,
        boundaries: list[Boundary],
        sender: Sender,
        content: list[Content],
        number: int,
    ) -> TokenUsage:
        usage = self._cache.usage_of(sender.session_id, model, boundaries, sender.at_us)
        spoken = math.ceil(len(orjson.dumps(content)) / self._parameters.chars_per_token)
        names = ("thinking", sender.session_id, number)
        thought = int(between(*self._parameters.thinking_tokens, *names))
        return replace(usage, output_tokens=spoken + thought)


def _content_of(reply: Reply, tool_use_id: str) -> list[Content]:
    content: list[Content] = [{"type": "text", "text": reply.text}] if reply.text else []
    if reply.tool_name:
        call = {"id": tool_use_id, "name": reply.tool_name, "input": dict(reply.tool_input or {})}
        content.append({"type": "tool_use", **call})
    return content


def _document(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY_BYTES:
        raise Rejection(413, "request_too_large", "Request exceeds the maximum size")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"The request body is not valid JSON: {error}"
        raise Rejection(400, "invalid_request_error", message) from error
    if not isinstance(document, dict):
        raise Rejection(400, "invalid_request_error", "The request body must be an object")
    return document


def _sender_of(document: Mapping[str, Any]) -> Sender:
    """The sender; a request without the simulation's own fields belongs to no session and now."""
    metadata = document.get("metadata") or {}
    try:
        user = json.loads(metadata.get("user_id") or "{}")
    except ValueError:
        user = {}
    now_us = time.time_ns() // 1000
    return Sender(
        str(user.get("session_id", "")),
        int(user.get("simulated_at_us", now_us)),
        dict(user.get("simulated_drift", {})),
    )


def _first_system_text(document: Mapping[str, Any]) -> str:
    system = document.get("system") or ""
    return system if isinstance(system, str) else str(system[0].get("text", ""))


async def _body_of(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "lifespan.startup.complete"})


async def _reply(
    send: Send,
    status: int,
    request_id: str,
    *chunks: bytes,
    content_type: str = "application/json",
) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"request-id", request_id.encode()),
        (b"anthropic-organization-id", b"00000000-0000-4000-8000-000000000000"),
    ]
    if content_type == "application/json":
        headers.append((b"content-length", str(sum(map(len, chunks))).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
