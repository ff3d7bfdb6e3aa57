"""Langfuse's SDK: ``langfuse.observation.*`` attributes, values as JSON text.

The classes of ``langfuse.observation.usage_details`` are apart from each other, so ``input`` is
without cached tokens; the names are the caller's own, and those of Langfuse's documentation for
Anthropic and OpenAI are known. A wrapper around another instrumentation's span (a generation around
the Anthropic SDK's own span) is one request with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.conventions.convention import (
    CallUsage,
    ModelCall,
    ToldSession,
    ToolRun,
    is_failed,
)
from collectors.conventions.messages import parse_json, read_messages, told_text
from collectors.conventions.otel_genai import genai_usage
from collectors.conventions.span_errors import error_status, microusd
from collectors.conventions.token_counts import call_usage
from collectors.event_fields import integer, text
from collectors.otlp_decoding import iso_time_us
from loop.domain.turns import Event

PREFIX = "langfuse."
_OBSERVATION = "langfuse.observation."
_READ = ("cache_read_input_tokens", "input_cached_tokens", "input_cache_read", "cache_read")
_CREATION = ("cache_creation_input_tokens", "input_cache_creation", "cache_creation")
_CREATION_1H = ("input_cache_creation_1h", "cache_creation_1h_input_tokens")
_COST_TOTAL = "total"


class Langfuse:
    """The adapter of ``langfuse``."""

    name = "langfuse"
    rank = 20

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        return scope.startswith("langfuse") or f"{_OBSERVATION}type" in attributes

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        return text(
            attributes, "session.id", "langfuse.session.id", "langfuse.trace.metadata.session_id"
        )

    def read(self, events: Sequence[Event]) -> ToldSession:
        told = ToldSession()
        for event in events:
            if event.kind != "span":
                continue
            if user := text(event, "langfuse.user.id"):
                told.identity[event.event_id] = {"user.id": user}
            kind = text(event, f"{_OBSERVATION}type")
            if kind == "generation":
                told.calls.append(_call(event))
            elif kind == "tool":
                told.tools.append(_tool(event))
            elif kind == "agent":
                told.agents[text(event, "otel.span_id")] = event.name
        return told


def _call(event: Event) -> ModelCall:
    model = text(event, f"{_OBSERVATION}model.name", "gen_ai.response.model")
    failed = _is_failed(event)
    answer = parse_json(event.attributes.get(f"{_OBSERVATION}output"))
    return ModelCall(
        event,
        message_id=text(event, "gen_ai.response.id")
        or (text(answer, "id") if isinstance(answer, Mapping) else ""),
        requested_model=model or text(event, "gen_ai.request.model"),
        served_model="" if failed else model,
        usage=_usage(event) or genai_usage(event),
        cost_microusd=_cost(event),
        failed=failed,
        error_status=error_status(event),
        ttft_ms=_ttft_ms(event),
        asked=_messages(event, f"{_OBSERVATION}input", "user"),
        answered=_messages(event, f"{_OBSERVATION}output", "assistant"),
    )


def _ttft_ms(event: Event) -> int | None:
    first_at_us = iso_time_us(parse_json(_value(event, f"{_OBSERVATION}completion_start_time")))
    return (first_at_us - event.at_us) // 1000 if first_at_us >= event.at_us else None


def _usage(event: Event) -> CallUsage | None:
    usage = parse_json(event.attributes.get(f"{_OBSERVATION}usage_details"))
    if not isinstance(usage, Mapping):
        return None
    if integer(usage, "prompt_tokens") is not None:
        # OpenAI's own object, which Langfuse takes too: its prompt tokens include cached ones.
        details = usage.get("prompt_tokens_details")
        cached = integer(details, "cached_tokens") if isinstance(details, Mapping) else None
        return call_usage(
            input_tokens=integer(usage, "prompt_tokens"),
            output_tokens=integer(usage, "completion_tokens"),
            cache_read=cached,
            includes_cache=True,
        )
    one_hour = integer(usage, *_CREATION_1H)
    creation = integer(usage, *_CREATION)
    return call_usage(
        input_tokens=integer(usage, "input", "input_tokens"),
        output_tokens=integer(usage, "output", "output_tokens"),
        cache_read=integer(usage, *_READ),
        cache_creation=creation if one_hour is None else (creation or 0) + one_hour,
        one_hour=one_hour,
        includes_cache=False,
    )


def _cost(event: Event) -> int | None:
    costs = parse_json(event.attributes.get(f"{_OBSERVATION}cost_details"))
    if not isinstance(costs, Mapping):
        return None
    if _COST_TOTAL in costs:
        return microusd(costs[_COST_TOTAL])
    parts = [microusd(cost) for cost in costs.values()]
    return sum(part or 0 for part in parts) if parts and None not in parts else None


def _tool(event: Event) -> ToolRun:
    call_id = parse_json(
        _value(event, f"{_OBSERVATION}metadata.tool_call_id", f"{_OBSERVATION}metadata.id")
    )
    return ToolRun(
        event,
        event.name,
        call_id if isinstance(call_id, str) else "",
        told_text(event.attributes.get(f"{_OBSERVATION}input")),
        told_text(event.attributes.get(f"{_OBSERVATION}output")),
        _is_failed(event),
    )


def _is_failed(event: Event) -> bool:
    return is_failed(event) or text(event, f"{_OBSERVATION}level") == "ERROR"


def _messages(event: Event, attribute: str, role: str) -> Any:
    """Input and output may be messages, blocks of one message, or a text."""
    value = parse_json(event.attributes.get(attribute))
    if isinstance(value, Mapping) and "messages" in value:
        value = value["messages"]
    if isinstance(value, list) and not any("role" in item for item in value if _is_map(item)):
        value = {"role": role, "content": value} if value else None
    if isinstance(value, str):
        value = {"role": role, "content": value}
    messages = read_messages(value)
    return tuple(message for message in messages if message.role or message.texts or message.asked)


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _value(event: Event, *names: str) -> Any:
    attributes = event.attributes
    return next((attributes[name] for name in names if attributes.get(name) is not None), None)
