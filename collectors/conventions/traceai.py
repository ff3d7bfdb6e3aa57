"""traceAI (Future AGI): ``gen_ai.span.kind`` (older releases: ``fi.span.kind``) with GenAI names,
messages as indexed attributes.

traceai-anthropic 0.1.10 puts the API's ``input_tokens`` into ``gen_ai.usage.input_tokens`` as they
are, without cached ones, and tells no cached ones. Where the whole answer is in ``output.value``
(for answers that were not streamed) its own usage counts; where it is not, the call is unpriced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.api_usage import UNSTATED, terms_of
from collectors.conventions.convention import ModelCall, ToldSession, ToolRun, is_failed
from collectors.conventions.messages import parse_json, read_indexed, told_text
from collectors.conventions.otel_genai import INPUT_TOKENS, OUTPUT_TOKENS, finish_reason
from collectors.conventions.span_errors import error_status, microusd
from collectors.conventions.token_counts import api_usage, call_usage
from collectors.event_fields import integer, text
from loop.domain.turns import Event

KINDS = ("gen_ai.span.kind", "fi.span.kind")
_READ = (
    "gen_ai.usage.cache_read_tokens",
    "gen_ai.usage.input_tokens.cache_read",
    "llm.token_count.prompt_details.cache_read",
)
_WRITE = (
    "gen_ai.usage.cache_write_tokens",
    "gen_ai.usage.input_tokens.cache_write",
    "llm.token_count.prompt_details.cache_write",
)


class TraceAi:
    """The adapter of ``traceai``."""

    name = "traceai"
    rank = 20

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        if scope.startswith(("traceai", "fi_instrumentation", "fi.")):
            return True
        return any(kind in attributes for kind in KINDS)

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        return text(attributes, "session.id", "gen_ai.conversation.id")

    def read(self, events: Sequence[Event]) -> ToldSession:
        told = ToldSession()
        for event in events:
            if event.kind != "span":
                continue
            kind = text(event, *KINDS).upper()
            if kind == "TOOL":
                told.tools.append(_tool(event))
            elif kind == "AGENT":
                name = text(event, "gen_ai.agent.name") or event.name
                told.agents[text(event, "otel.span_id")] = name
            elif kind == "LLM" or (not kind and _is_unfinished_call(event)):
                told.calls.append(_call(event))
        return told


def _is_unfinished_call(event: Event) -> bool:
    """The kind is set at the end of a call, so that one that fails has none."""
    return bool(text(event, "gen_ai.request.model", "llm.model_name"))


def _call(event: Event) -> ModelCall:
    answer = parse_json(event.attributes.get("output.value"))
    whole = answer if isinstance(answer, Mapping) else {}
    usage = api_usage(answer)
    attributes = event.attributes
    return ModelCall(
        event,
        message_id=text(whole, "id"),
        requested_model=text(event, "gen_ai.request.model", "llm.model_name"),
        served_model=text(event, "gen_ai.response.model") or text(whole, "model"),
        usage=usage
        or call_usage(
            input_tokens=integer(event, *INPUT_TOKENS, "llm.token_count.prompt"),
            output_tokens=integer(event, *OUTPUT_TOKENS, "llm.token_count.completion"),
            cache_read=integer(event, *_READ),
            cache_creation=integer(event, *_WRITE),
            includes_cache=False,
        ),
        terms=terms_of(whole["usage"]) if usage else UNSTATED,
        cost_microusd=microusd(attributes.get("gen_ai.cost.total")),
        stop_reason=finish_reason(event) or text(whole, "stop_reason"),
        failed=is_failed(event),
        error_status=error_status(event),
        asked=read_indexed(attributes, "gen_ai.input.messages")
        or read_indexed(attributes, "llm.input_messages"),
        answered=read_indexed(attributes, "gen_ai.output.messages")
        or read_indexed(attributes, "llm.output_messages"),
    )


def _tool(event: Event) -> ToolRun:
    return ToolRun(
        event,
        text(event, "gen_ai.tool.name", "tool.name") or event.name,
        text(event, "gen_ai.tool.call.id", "tool_call.id"),
        told_text(event.attributes.get("input.value")),
        told_text(event.attributes.get("output.value")),
        is_failed(event),
        text(event, "error.type"),
    )
