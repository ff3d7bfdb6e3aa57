"""OpenInference (Arize): ``openinference.span.kind`` and the ``llm.*`` attributes.

``llm.token_count.prompt`` includes the cached tokens that ``prompt_details`` lists, and a detail of
zero is not sent: both are in the specification's and the Anthropic instrumentation's words. Where
the answer of Anthropic's API is kept whole in ``output.value``, its own usage counts: it alone has
the cache writes split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.api_usage import UNSTATED, terms_of
from collectors.conventions.convention import ModelCall, ToldSession, ToolRun, is_failed
from collectors.conventions.messages import parse_json, read_indexed, read_messages, told_text
from collectors.conventions.span_errors import error_status, microusd
from collectors.conventions.token_counts import api_usage, call_usage
from collectors.event_fields import integer, text
from loop.domain.turns import Event

KIND = "openinference.span.kind"
_COUNT = "llm.token_count."


class OpenInference:
    """The adapter of ``openinference``."""

    name = "openinference"
    rank = 80

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        return KIND in attributes or scope.startswith("openinference.instrumentation")

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        return text(attributes, "session.id")

    def read(self, events: Sequence[Event]) -> ToldSession:
        told = ToldSession()
        for event in events:
            if event.kind != "span":
                continue
            kind = text(event, KIND).upper()
            if kind == "LLM":
                told.calls.append(_call(event))
            elif kind == "TOOL":
                told.tools.append(_tool(event))
            elif kind == "AGENT":
                told.agents[text(event, "otel.span_id")] = text(event, "agent.name") or event.name
        return told


def _call(event: Event) -> ModelCall:
    answer = parse_json(event.attributes.get("output.value"))
    whole = answer if isinstance(answer, Mapping) else {}
    served = text(event, "llm.response.model_name") or text(whole, "model")
    requested = text(event, "llm.request.model_name") or _parameter_model(event)
    named = text(event, "llm.model_name")
    failed = is_failed(event)
    usage = api_usage(answer)
    return ModelCall(
        event,
        message_id=text(whole, "id"),
        requested_model=requested or named,
        # The older attribute names whichever model is known: the one that answered if any did.
        served_model=served or ("" if failed else named),
        usage=usage or _usage(event),
        terms=terms_of(whole["usage"]) if usage else UNSTATED,
        cost_microusd=microusd(event.attributes.get("llm.cost.total")),
        stop_reason=text(event, "llm.finish_reason") or _stop_reason(whole),
        failed=failed,
        error_status=error_status(event),
        asked=read_indexed(event.attributes, "llm.input_messages")
        or _plain_messages(event, "input.value", "messages"),
        answered=read_indexed(event.attributes, "llm.output_messages"),
    )


def _usage(event: Event) -> Any:
    return call_usage(
        input_tokens=integer(event, f"{_COUNT}prompt"),
        output_tokens=integer(event, f"{_COUNT}completion"),
        cache_read=integer(event, f"{_COUNT}prompt_details.cache_read"),
        cache_creation=integer(event, f"{_COUNT}prompt_details.cache_write"),
        includes_cache=True,
        tells_cache=True,
    )


def _tool(event: Event) -> ToolRun:
    return ToolRun(
        event,
        text(event, "tool.name") or event.name,
        text(event, "tool_call.id", "tool.id"),
        told_text(_value(event, "input.value", "tool.parameters")),
        told_text(_value(event, "output.value")),
        is_failed(event),
        text(event, "error.type"),
    )


def _parameter_model(event: Event) -> str:
    parameters = parse_json(event.attributes.get("llm.invocation_parameters"))
    return text(parameters, "model") if isinstance(parameters, Mapping) else ""


def _stop_reason(answer: Mapping[str, Any]) -> str:
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return text(choices[0], "finish_reason")
    return text(answer, "stop_reason", "finish_reason")


def _plain_messages(event: Event, attribute: str, key: str) -> Any:
    value = parse_json(event.attributes.get(attribute))
    if isinstance(value, Mapping):
        return read_messages(value.get(key))
    return read_messages(value) if isinstance(value, list) else ()


def _value(event: Event, *names: str) -> Any:
    attributes = event.attributes
    return next((attributes[name] for name in names if attributes.get(name) is not None), None)
