"""OpenLLMetry (Traceloop): GenAI attributes beside ``traceloop.*`` and, in its older releases,
``llm.*`` and indexed ``gen_ai.prompt.N``.

Its Anthropic instrumentation adds cache reads and writes to ``gen_ai.usage.input_tokens`` and tells
both apart, zeros too. A streamed answer's output tokens are its own count of the stream's usage
events, one more than the API's (0.62.4 adds the first event's count to the last one's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.conventions.convention import ModelCall, ToldSession, ToolRun, is_failed
from collectors.conventions.messages import parse_json, read_indexed, told_text
from collectors.conventions.otel_genai import SESSION, genai_call, read_genai, stated_user
from collectors.event_fields import text
from loop.domain.turns import Event

# OTel's own instrumentations have scopes of the same beginning: these are Traceloop's.
_SCOPES = ("traceloop", "opentelemetry.instrumentation.anthropic", "@traceloop/")


class OpenLlmetry:
    """The adapter of ``openllmetry``."""

    name = "openllmetry"
    rank = 30

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        return (
            scope.startswith(_SCOPES)
            or "llm.request.type" in attributes
            or "traceloop.span.kind" in attributes
        )

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        return text(attributes, *SESSION)

    def read(self, events: Sequence[Event]) -> ToldSession:
        told = ToldSession()
        others = []
        for event in events:
            kind = text(event, "traceloop.span.kind")
            if kind == "tool":
                told.tools.append(_tool(event))
            elif kind == "agent":
                name = text(event, "traceloop.entity.name")
                told.agents[text(event, "otel.span_id")] = name
            elif _is_older_call(event):
                told.calls.append(_older_call(event))
            elif not kind:
                others.append(event)
            told.identity[event.event_id] = stated_user(event)
        rest = read_genai(others)
        told.calls += rest.calls
        told.tools += rest.tools
        told.agents.update(rest.agents)
        return told


def _tool(event: Event) -> ToolRun:
    return ToolRun(
        event,
        text(event, "traceloop.entity.name", "gen_ai.tool.name"),
        text(event, "gen_ai.tool.call.id"),
        told_text(event.attributes.get("traceloop.entity.input")),
        told_text(parse_json(event.attributes.get("traceloop.entity.output"))),
        is_failed(event),
        text(event, "error.type"),
    )


def _is_older_call(event: Event) -> bool:
    return event.kind == "span" and text(event, "llm.request.type") in ("chat", "completion")


def _older_call(event: Event) -> ModelCall:
    call = genai_call(event, {})
    call.asked = call.asked or read_indexed(event.attributes, "gen_ai.prompt")
    call.answered = call.answered or read_indexed(event.attributes, "gen_ai.completion")
    call.stop_reason = call.stop_reason or text(event, "gen_ai.completion.0.finish_reason")
    return call
