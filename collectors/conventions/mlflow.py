"""MLflow's spans: ``mlflow.*`` attributes as JSON text, or GenAI names when it is told to translate
(``MLFLOW_ENABLE_OTEL_GENAI_SEMCONV``).

``mlflow.chat.tokenUsage`` adds cached tokens to ``input_tokens`` and names them; the translation to
GenAI names loses them, so that its calls are unpriced unless another source tells them. The session
and the user are metadata of the trace, which MLflow does not export over OTLP: a trace is a session
of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.api_usage import UNSTATED, terms_of
from collectors.conventions.convention import (
    CallUsage,
    ModelCall,
    ToldSession,
    ToolRun,
    is_failed,
)
from collectors.conventions.messages import parse_json, read_messages, told_text
from collectors.conventions.otel_genai import SESSION, read_genai
from collectors.conventions.span_errors import error_status
from collectors.conventions.token_counts import api_usage, call_usage
from collectors.event_fields import integer, text
from loop.domain.turns import Event

KIND = "mlflow.spanType"
_CALLS = ("CHAT_MODEL", "LLM")


class MlFlow:
    """The adapter of ``mlflow``."""

    name = "mlflow"
    rank = 20

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        return KIND in attributes or scope.startswith("mlflow")

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        return _text(attributes, "mlflow.trace.session") or text(attributes, *SESSION)

    def read(self, events: Sequence[Event]) -> ToldSession:
        told = ToldSession()
        translated = []
        for event in events:
            kind = _text(event.attributes, KIND)
            if kind in _CALLS:
                told.calls.append(_call(event))
            elif kind == "TOOL":
                told.tools.append(_tool(event))
            elif kind == "AGENT":
                told.agents[text(event, "otel.span_id")] = event.name
            elif not kind:
                translated.append(event)
            if user := _text(event.attributes, "mlflow.trace.user"):
                told.identity[event.event_id] = {"user.id": user}
        rest = read_genai(translated)
        told.calls += rest.calls
        told.tools += rest.tools
        told.agents.update(rest.agents)
        return told


def _call(event: Event) -> ModelCall:
    request = _mapping(event, "mlflow.spanInputs")
    answer = _mapping(event, "mlflow.spanOutputs")
    exact = api_usage(answer)
    system = read_messages([{"role": "system", "content": request.get("system")}])
    return ModelCall(
        event,
        message_id=text(answer, "id"),
        requested_model=text(request, "model") or _text(event.attributes, "mlflow.llm.model"),
        served_model=text(answer, "model"),
        usage=exact or _usage(_mapping(event, "mlflow.chat.tokenUsage")),
        terms=terms_of(answer["usage"]) if exact else UNSTATED,
        stop_reason=text(answer, "stop_reason") or _choice(answer, "finish_reason"),
        failed=is_failed(event),
        error_status=error_status(event),
        asked=(system if request.get("system") else ()) + read_messages(request.get("messages")),
        answered=read_messages(answer) if "choices" not in answer else _choices(answer),
    )


def _usage(usage: Mapping[str, Any]) -> CallUsage | None:
    return call_usage(
        input_tokens=integer(usage, "input_tokens"),
        output_tokens=integer(usage, "output_tokens"),
        cache_read=integer(usage, "cache_read_input_tokens"),
        cache_creation=integer(usage, "cache_creation_input_tokens"),
        one_hour=integer(usage, "cache_creation_input_tokens_above_1hr"),
        includes_cache=True,
    )


def _tool(event: Event) -> ToolRun:
    return ToolRun(
        event,
        event.name,
        _text(event.attributes, "mlflow.tool_call_id"),
        told_text(event.attributes.get("mlflow.spanInputs")),
        told_text(parse_json(event.attributes.get("mlflow.spanOutputs"))),
        is_failed(event),
    )


def _choices(answer: Mapping[str, Any]) -> tuple[Any, ...]:
    choices = answer.get("choices")
    return read_messages(choices) if isinstance(choices, list) else ()


def _choice(answer: Mapping[str, Any], name: str) -> str:
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return text(first, name) if isinstance(first, Mapping) else ""


def _mapping(event: Event, name: str) -> Mapping[str, Any]:
    value = parse_json(event.attributes.get(name))
    return value if isinstance(value, Mapping) else {}


def _text(attributes: Mapping[str, Any], name: str) -> str:
    value = parse_json(attributes.get(name))
    return value if isinstance(value, str) else ""
