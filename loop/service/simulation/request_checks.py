"""What the Messages API refuses, in its own error envelope.

The parameter rules are those that make model rewriting need repair: haiku takes no adaptive
thinking and no effort, opus 4.7 no thinking budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from loop.service.simulation.parameters import FleetParameters, ModelSkill


class Rejection(Exception):
    """An answer other than 200; private to the simulated API, never raised to its caller."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message

    def envelope(self, request_id: str) -> bytes:
        error = {"type": self.kind, "message": self.message}
        return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


def check_request(
    document: Mapping[str, Any], headers: Mapping[str, str], parameters: FleetParameters
) -> None:
    """Raises :class:`Rejection` for what the real API would refuse before any model runs."""
    if "x-api-key" not in headers and "authorization" not in headers:
        raise Rejection(401, "authentication_error", "x-api-key header is required")
    if "anthropic-version" not in headers:
        raise _invalid("anthropic-version: header is required")
    for name in ("model", "messages", "max_tokens"):
        if name not in document:
            raise _invalid(f"{name}: Field required")
    messages = document["messages"]
    if not isinstance(messages, list) or not messages:
        raise _invalid("messages: at least one message is required")
    if not all(isinstance(message, dict) and "content" in message for message in messages):
        raise _invalid("messages: each message must be an object with content")
    model = str(document["model"])
    if model not in parameters.skills:
        raise Rejection(404, "not_found_error", f"model: {model}")
    _check_parameters(document, model, parameters.skills[model])


def context_rejection(model: str, tokens: int, parameters: FleetParameters) -> Rejection | None:
    """The refusal of an input beyond the model's context, or ``None``."""
    limit = parameters.skills[model].context_tokens
    if tokens <= limit:
        return None
    return _invalid(f"prompt is too long: {tokens} tokens > {limit} maximum")


def _check_parameters(document: Mapping[str, Any], model: str, skill: ModelSkill) -> None:
    max_tokens = document["max_tokens"]
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise _invalid("max_tokens: must be a positive integer")
    if max_tokens > skill.max_output_tokens:
        raise _invalid(
            f"max_tokens: {max_tokens} > {skill.max_output_tokens}, which is the maximum allowed "
            f"number of output tokens for {model}"
        )
    _check_thinking(document.get("thinking") or {}, max_tokens, skill)
    effort = (document.get("output_config") or {}).get("effort")
    if effort is not None and not skill.efforts:
        raise _invalid("This model does not support the effort parameter.")
    if effort is not None and effort not in skill.efforts:
        raise _invalid(f"output_config.effort: '{effort}' is not supported on this model")
    sampling = [name for name in ("temperature", "top_p", "top_k") if name in document]
    if sampling and not skill.takes_sampling:
        raise _invalid(f"{sampling[0]}: not supported on this model")


def _check_thinking(thinking: Mapping[str, Any], max_tokens: int, skill: ModelSkill) -> None:
    kind = thinking.get("type", "disabled")
    if kind == "adaptive" and kind not in skill.thinking:
        raise _invalid("adaptive thinking is not supported on this model")
    if kind == "enabled" and kind not in skill.thinking:
        raise _invalid(
            '"thinking.type.enabled" is not supported for this model. Use '
            '"thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
        )
    if kind == "enabled" and not 1024 <= thinking.get("budget_tokens", 0) < max_tokens:
        raise _invalid(
            "`max_tokens` must be greater than `thinking.budget_tokens`, which must be at least "
            "1024"
        )


def _invalid(message: str) -> Rejection:
    return Rejection(400, "invalid_request_error", message)
