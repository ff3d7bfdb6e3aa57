"""The shapes of a Messages API answer: the message document and its server-sent events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from loop.domain.turns import TokenUsage

Content = dict[str, Any]


def message_of(
    message_id: str, model: str, content: Sequence[Content], stop_reason: str, usage: TokenUsage
) -> dict[str, Any]:
    """The whole message, as it is answered without streaming."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage_document(usage),
    }


def usage_document(usage: TokenUsage) -> dict[str, Any]:
    five_minutes = usage.cache_creation_5m_tokens
    one_hour = usage.cache_creation_1h_tokens
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": five_minutes + one_hour,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": five_minutes,
            "ephemeral_1h_input_tokens": one_hour,
        },
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    }


def stream_of(message: dict[str, Any]) -> list[bytes]:
    """The events of a message in two writes: the start, which gateways read the model and the
    input usage from, and the rest."""
    opening = {**message, "content": [], "stop_reason": None}
    opening["usage"] = {**message["usage"], "output_tokens": 1}
    return [
        _event("message_start", message=opening) + _event("ping"),
        b"".join(_rest_of(message)),
    ]


def _rest_of(message: dict[str, Any]) -> Iterator[bytes]:
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block)
    usage = message["usage"]
    totals = {
        name: usage[name]
        for name in (
            "input_tokens",
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "output_tokens",
        )
    }
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage=totals)
    yield _event("message_stop")


def _block_events(index: int, block: Content) -> Iterator[bytes]:
    if block["type"] == "text":
        empty: Content = {"type": "text", "text": ""}
        delta: Content = {"type": "text_delta", "text": block["text"]}
    else:
        empty = {**block, "input": {}}
        encoded = orjson.dumps(block["input"]).decode()
        delta = {"type": "input_json_delta", "partial_json": encoded}
    yield _event("content_block_start", index=index, content_block=empty)
    yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def _event(name: str, **fields: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps({"type": name, **fields}))
