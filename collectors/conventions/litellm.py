"""LiteLLM's OTel callback: its own attributes, the GenAI names of
``OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental``, and ``LITELLM_OTEL_V2``.

``gen_ai.usage.input_tokens`` includes cached tokens; which they are stands in
``metadata.usage_object`` (cache writes split by lifetime), else in the GenAI attributes. The
session of a Claude Code request is the one that the client states in its header or in the body's
``metadata.user_id``, both of which LiteLLM keeps. ``raw_gen_ai_request`` repeats its parent.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from collectors.api_usage import UNSTATED, terms_of
from collectors.conventions.convention import CallUsage, ModelCall, ToldSession
from collectors.conventions.messages import parse_json, read_indexed
from collectors.conventions.otel_genai import CALLS, genai_call, genai_tool
from collectors.conventions.span_errors import microusd
from collectors.conventions.token_counts import call_usage
from collectors.event_fields import integer, text
from loop.domain.turns import Event

LEGACY, RAW = "litellm_request", "raw_gen_ai_request"
_REQUEST_ID_HEADERS = ("llm_provider-request-id", "request-id")
_HEADERS = "metadata.requester_custom_headers"
_END_USERS = (
    "metadata.user_api_key_end_user_id",
    "litellm.metadata.user_api_key_end_user_id",
    "llm.user",
)
_EMAILS = ("metadata.user_api_key_user_email", "litellm.metadata.user_api_key_user_email")
_TEAMS = ("metadata.user_api_key_team_alias", "litellm.team.alias")
_COSTS = ("gen_ai.cost.total_cost", "litellm.cost.total")
_USERS = ("metadata.user_api_key_user_id", "litellm.metadata.user_api_key_user_id")
_NOBODY = "default_user_id"
_MAX_LITERAL = 20_000
# Without the opt-in, LiteLLM puts the name of its own route where the operation's should be.
_OPERATIONS = (
    *CALLS,
    "acompletion",
    "atext_completion",
    "anthropic_messages",
    "responses",
    "aresponses",
)


class LiteLlm:
    """The adapter of ``litellm``."""

    name = "litellm"
    rank = 20

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        return scope.startswith("litellm") or "litellm.call_id" in attributes

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        headers = literal(attributes.get(_HEADERS))
        claimed = text(headers, "x-claude-code-session-id") if headers else ""
        if claimed:
            return claimed
        if named := text(attributes, "session.id", "gen_ai.conversation.id"):
            return named
        for name in _END_USERS:
            told = parse_json(attributes.get(name))
            if isinstance(told, Mapping) and text(told, "session_id"):
                return text(told, "session_id")
        return text(attributes, "metadata.session_id", "metadata.litellm_session_id")

    def read(self, events: Sequence[Event]) -> ToldSession:
        told = ToldSession()
        raws = {text(event, "otel.parent_span_id"): event for event in events if event.name == RAW}
        for event in events:
            if event.kind != "span" or event.name == RAW:
                continue
            operation = text(event, "gen_ai.operation.name")
            if operation == "execute_tool":
                told.tools.append(genai_tool(event))
            elif operation in _OPERATIONS:
                raw = raws.get(text(event, "otel.span_id"))
                told.calls.append(_call(event, raw))
                told.identity[event.event_id] = _identity(event)
        return told


def _call(event: Event, raw: Event | None) -> ModelCall:
    # The older form has the cached tokens in its usage object alone, which may not be stored.
    call = genai_call(event, {}, tells_cache=event.name != LEGACY)
    usage_object = literal(event.attributes.get("metadata.usage_object"))
    hidden = parse_json(event.attributes.get("hidden_params"))
    hidden = hidden if isinstance(hidden, Mapping) else {}
    call.usage = _usage(usage_object) or call.usage
    call.terms = terms_of(usage_object) if usage_object else UNSTATED
    if (
        call.failed
        and call.usage is not None
        and not any((call.usage.tokens.total_input_tokens, call.usage.tokens.output_tokens))
    ):
        call.usage = None  # zeros of a call that nothing answered
    call.request_id = _request_id(hidden)
    # On chat routes LiteLLM gives the answer an id of its own; the provider's is on the raw span.
    told_id = text(raw, "llm.anthropic.id", "llm.openai.id") if raw is not None else ""
    call.message_id = told_id or ("" if call.failed else call.message_id)
    for name in _COSTS:
        call.cost_microusd = call.cost_microusd or microusd(event.attributes.get(name))
    if call.cost_microusd is None:
        call.cost_microusd = microusd(hidden.get("response_cost"))
    if not any(message.asked for message in call.answered):
        call.answered += read_indexed(event.attributes, "gen_ai.completion")
    return call


def _usage(usage: Mapping[str, Any] | None) -> CallUsage | None:
    if not usage:
        return None
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, Mapping) else {}
    split = details.get("cache_creation_token_details")
    split = split if isinstance(split, Mapping) else {}
    read = integer(usage, "cache_read_input_tokens")
    creation = integer(usage, "cache_creation_input_tokens")
    return call_usage(
        input_tokens=integer(usage, "prompt_tokens"),
        output_tokens=integer(usage, "completion_tokens"),
        cache_read=read if read is not None else integer(details, "cached_tokens"),
        cache_creation=creation if creation is not None else integer(details, "cache_write_tokens"),
        one_hour=integer(split, "ephemeral_1h_input_tokens"),
        includes_cache=True,
        tells_cache=True,
    )


def _request_id(hidden: Mapping[str, Any]) -> str:
    headers = hidden.get("additional_headers")
    return text(headers, *_REQUEST_ID_HEADERS) if isinstance(headers, Mapping) else ""


def _identity(event: Event) -> dict[str, str]:
    told = {}
    if email := text(event, *_EMAILS):
        told["user.email"] = email
    for name in _END_USERS:
        user = text(event, name)
        if user and not user.startswith("{"):
            told.setdefault("enduser.id", user)
    user = text(event, *_USERS)
    if user and user != _NOBODY:
        told["user.id"] = user
    if team := text(event, *_TEAMS):
        told["team.id"] = team
    return told


def literal(value: Any) -> Mapping[str, Any] | None:
    """A mapping from its JSON text or, as LiteLLM writes them, from its Python text."""
    parsed = parse_json(value)
    if isinstance(parsed, Mapping):
        return parsed
    if not isinstance(value, str) or not value.startswith("{") or len(value) > _MAX_LITERAL:
        return None
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return parsed if isinstance(parsed, Mapping) else None
