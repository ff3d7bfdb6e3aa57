"""The OTel GenAI semantic conventions, by current and by deprecated attribute names.

Model spans carry ``gen_ai.operation.name`` (``chat``, ``text_completion``, ``generate_content``)
or, before there was one, ``gen_ai.request.model``. Messages come as attributes
(``gen_ai.input.messages``, before that ``gen_ai.prompt``), as events of the span, or as log records
of the same span (``gen_ai.user.message``, ``gen_ai.choice``,
``gen_ai.client.inference.operation.details``).

``gen_ai.usage.input_tokens`` includes what was read from and written to the cache: the attribute
registry says so of ``gen_ai.usage.cache_read.input_tokens``, and the instrumentations add it up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from collectors.conventions.convention import (
    CallUsage,
    Message,
    ModelCall,
    ToldSession,
    ToolRun,
    is_failed,
)
from collectors.conventions.messages import parse_json, read_messages, told_text
from collectors.conventions.span_errors import (
    error_status,
    microusd,
    milliseconds,
    span_events,
)
from collectors.conventions.token_counts import call_usage
from collectors.event_fields import integer, text
from loop.domain.turns import Event

PREFIX = "gen_ai."
CALLS = ("chat", "text_completion", "generate_content", "completion")
INPUT_EVENTS = (
    "gen_ai.system.message",
    "gen_ai.user.message",
    "gen_ai.assistant.message",
    "gen_ai.tool.message",
)
CHOICE, DETAILS = "gen_ai.choice", "gen_ai.client.inference.operation.details"
INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
CACHE_READ = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.input_tokens.cached",
)
CACHE_CREATION = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
)
ONE_HOUR = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"
# Traceloop and Langfuse put their session on every span of a process, whoever made it.
SESSION = (
    "session.id",
    "traceloop.association.properties.session_id",
    "traceloop.association.properties.session.id",
    "traceloop.association.properties.conversation_id",
    "langfuse.session.id",
    "gen_ai.conversation.id",
)
USER = (
    "traceloop.association.properties.user_id",
    "traceloop.association.properties.user.id",
    "langfuse.user.id",
)


class OtelGenAi:
    """The adapter of ``otel-genai``."""

    name = "otel-genai"
    rank = 90

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        if name.startswith(PREFIX) or "gen_ai.operation.name" in attributes:
            return True
        return "gen_ai.system" in attributes or "gen_ai.provider.name" in attributes

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        return text(attributes, *SESSION)

    def read(self, events: Sequence[Event]) -> ToldSession:
        return read_genai(events)


def read_genai(events: Sequence[Event], *, tells_cache: bool = False) -> ToldSession:
    """Reads spans and log records with ``gen_ai`` names. ``tells_cache`` as in ``call_usage``."""
    told = ToldSession()
    said = _said_by_span(events)
    for event in events:
        if event.kind != "span":
            continue
        told.identity[event.event_id] = stated_user(event)
        operation = text(event, "gen_ai.operation.name")
        if operation == "execute_tool" or (not operation and text(event, "gen_ai.tool.call.id")):
            told.tools.append(genai_tool(event))
        elif operation in ("invoke_agent", "create_agent"):
            if operation == "invoke_agent":
                told.agents[text(event, "otel.span_id")] = text(event, "gen_ai.agent.name")
        elif is_call(event, operation):
            told.calls.append(genai_call(event, said, tells_cache=tells_cache))
    return told


def stated_user(event: Event) -> dict[str, str]:
    """The user under names of Traceloop's and Langfuse's, as the attribution knows it."""
    user = text(event, *USER)
    return {"user.id": user} if user else {}


def is_call(event: Event, operation: str) -> bool:
    if operation:
        return operation in CALLS
    return bool(text(event, "gen_ai.request.model")) and event.kind == "span"


def genai_call(
    event: Event,
    said: Mapping[str, tuple[list[Message], list[Message]]],
    *,
    tells_cache: bool = False,
) -> ModelCall:
    """One model span. ``said`` holds the messages of log records by span id."""
    asked, answered = said.get(text(event, "otel.span_id"), ([], []))
    return ModelCall(
        event,
        request_id=text(event, "anthropic.request.id"),
        message_id=text(event, "gen_ai.response.id"),
        requested_model=text(event, "gen_ai.request.model"),
        served_model=text(event, "gen_ai.response.model"),
        usage=genai_usage(event, tells_cache=tells_cache),
        cost_microusd=microusd(event.attributes.get("gen_ai.usage.cost")),
        stop_reason=finish_reason(event) or _choice_reason(event),
        failed=is_failed(event),
        error_status=error_status(event),
        ttft_ms=milliseconds(event.attributes.get("gen_ai.response.time_to_first_chunk")),
        asked=_input_messages(event) or tuple(asked),
        answered=_output_messages(event) or tuple(answered),
        offered=told_text(event.attributes.get("gen_ai.tool.definitions")),
    )


def genai_usage(event: Event, *, tells_cache: bool = False) -> CallUsage | None:
    return call_usage(
        input_tokens=integer(event, *INPUT_TOKENS),
        output_tokens=integer(event, *OUTPUT_TOKENS),
        cache_read=integer(event, *CACHE_READ),
        cache_creation=integer(event, *CACHE_CREATION),
        one_hour=integer(event, ONE_HOUR),
        includes_cache=True,
        tells_cache=tells_cache,
    )


def genai_tool(event: Event) -> ToolRun:
    name = text(event, "gen_ai.tool.name")
    if not name and event.name.startswith("execute_tool "):
        name = event.name.removeprefix("execute_tool ")
    return ToolRun(
        event,
        name,
        text(event, "gen_ai.tool.call.id"),
        told_text(_first(event, "gen_ai.tool.call.arguments", "input.value")),
        told_text(_first(event, "gen_ai.tool.call.result", "output.value")),
        is_failed(event),
        text(event, "error.type"),
    )


def finish_reason(event: Event) -> str:
    """The first finish reason: a list, its JSON text, or one text."""
    for name in ("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason"):
        reasons = parse_json(event.attributes.get(name))
        if isinstance(reasons, str) and reasons:
            return reasons
        if isinstance(reasons, list) and reasons and isinstance(reasons[0], str):
            return reasons[0]
    return text(event, "anthropic.message.stop_reason")


def _choice_reason(event: Event) -> str:
    return next((text(said, "finish_reason") for said in span_events(event, CHOICE)), "")


def _input_messages(event: Event) -> tuple[Message, ...]:
    for name in ("gen_ai.input.messages", "gen_ai.prompt"):
        if messages := read_messages(event.attributes.get(name)):
            return messages
    for details in span_events(event, DETAILS, "gen_ai.content.prompt"):
        told = _first(details, "gen_ai.input.messages", "gen_ai.prompt")
        if messages := read_messages(told):
            return messages
    return tuple(
        message
        for name, said in _span_messages(event)
        if name in INPUT_EVENTS
        for message in read_messages(_with_role(said, name))
    )


def _output_messages(event: Event) -> tuple[Message, ...]:
    for name in ("gen_ai.output.messages", "gen_ai.completion"):
        if messages := read_messages(event.attributes.get(name)):
            return messages
    for details in span_events(event, DETAILS, "gen_ai.content.completion"):
        told = _first(details, "gen_ai.output.messages", "gen_ai.completion")
        if messages := read_messages(told):
            return messages
    return tuple(
        message
        for name, said in _span_messages(event)
        if name == CHOICE
        for message in read_messages(_with_role(said, name))
    )


def _span_messages(event: Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A span's own events that are messages; pydantic-ai keeps them in one attribute."""
    events = event.attributes.get("otel.events")
    for item in events if isinstance(events, list) else []:
        if isinstance(item, Mapping) and isinstance(item.get("attributes"), Mapping):
            yield str(item.get("name")), item["attributes"]
    kept = parse_json(event.attributes.get("events"))
    for item in kept if isinstance(kept, list) else []:
        if isinstance(item, Mapping):
            yield text(item, "event.name"), item


def _said_by_span(events: Sequence[Event]) -> dict[str, tuple[list[Message], list[Message]]]:
    """Messages that came as log records: what was asked and what was answered, by span id."""
    said: dict[str, tuple[list[Message], list[Message]]] = {}
    for event in events:
        span_id = text(event, "otel.span_id")
        if event.kind != "log" or not span_id:
            continue
        asked, answered = said.setdefault(span_id, ([], []))
        body = event.attributes.get("otel.body")
        if event.name == DETAILS:
            sources = [event.attributes, body if isinstance(body, Mapping) else {}]
            for source in sources:
                asked += read_messages(source.get("gen_ai.input.messages"))
                answered += read_messages(source.get("gen_ai.output.messages"))
        elif isinstance(body, Mapping) and event.name in (*INPUT_EVENTS, CHOICE):
            target = answered if event.name == CHOICE else asked
            target += read_messages(_with_role(body, event.name))
    return said


def _with_role(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A message event with the role that its name implies."""
    role = "assistant" if name == CHOICE else name.removeprefix(PREFIX).removesuffix(".message")
    inner = parse_json(said.get("message"))
    if isinstance(inner, Mapping):
        said = inner
    return said if text(said, "role") else {**said, "role": role}


def _first(event: Event | Mapping[str, Any], *names: str) -> Any:
    attributes = event.attributes if isinstance(event, Event) else event
    return next((attributes[name] for name in names if attributes.get(name) is not None), None)
