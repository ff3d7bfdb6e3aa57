"""Portkey's export of complete logs, built from the shape that its documentation states."""

from __future__ import annotations

from typing import Any

import orjson

from collectors.body_decoding import decode
from collectors.segments import Record
from loop.domain.turns import Event

RECEIVED_AT_US = 1_800_000_000_000_000
START_NS = 1_790_000_000_000_000_000


def portkey_body(session_id: str = "sess-portkey-0001") -> bytes:
    """An OTLP/JSON traces body: a request that asks for a tool, its sequel, a failed one."""
    question = {"role": "user", "parts": [{"type": "text", "content": "What is the discount?"}]}
    call = {"type": "tool_call", "id": "toolu_p1", "name": "read_file", "arguments": {"path": "d"}}
    result = {"type": "tool_call_response", "id": "toolu_p1", "response": "10 %"}
    answer = {"role": "assistant", "parts": [call], "finish_reason": "tool_call"}
    done = {"type": "text", "content": "It is 10 %."}
    last = {"role": "assistant", "parts": [done], "finish_reason": "stop"}
    history = [question, answer, {"role": "tool", "parts": [result]}]
    spans = [
        _span(1, session_id, [question], answer, (1212, 40, 1000, 200), "msg_p1", "tool_call"),
        _span(2, session_id, history, last, (1267, 11, 1200, 60), "msg_p2", "stop"),
        _failed(3, session_id),
    ]
    resource = {"attributes": _pairs({"service.name": "portkey", "otel.semconv.version": "1.40.0"})}
    scoped = {"scope": {"name": "custom.genai.instrumentation"}, "spans": spans}
    return orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scoped]}]})


def portkey_events() -> list[Event]:
    return decode(Record("traces", "json", portkey_body(), RECEIVED_AT_US)).events


def _span(
    number: int,
    session_id: str,
    asked: list[Any],
    answered: Any,
    tokens: tuple[int, int, int, int],
    message_id: str,
    reason: str,
) -> dict[str, Any]:
    return _frame(
        number,
        {
            **_common(session_id),
            "gen_ai.response.model": "claude-sonnet-4-6",
            "gen_ai.response.id": message_id,
            "gen_ai.response.finish_reasons": [reason],
            "gen_ai.usage.input_tokens": tokens[0],
            "gen_ai.usage.output_tokens": tokens[1],
            "gen_ai.usage.cache_read.input_tokens": tokens[2],
            "gen_ai.usage.cache_creation.input_tokens": tokens[3],
            "gen_ai.input.messages": orjson.dumps(asked).decode(),
            "gen_ai.output.messages": orjson.dumps([answered]).decode(),
        },
        1,
    )


def _failed(number: int, session_id: str) -> dict[str, Any]:
    return _frame(number, {**_common(session_id), "error.type": "529"}, 2)


def _common(session_id: str) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.system": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-6",
        "gen_ai.conversation.id": session_id,
        "server.address": "api.anthropic.com",
    }


def _frame(number: int, attributes: dict[str, Any], status: int) -> dict[str, Any]:
    start = START_NS + number * 10_000_000_000
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": "chat claude-sonnet-4-6",
        "kind": 3,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 2_000_000_000),
        "status": {"code": status},
        "attributes": _pairs(attributes),
    }


def _pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"stringValue": value}
