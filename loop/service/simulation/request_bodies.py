"""Request bodies and headers as the real client (2.1.330) sends them, with filler for its texts.

A body holds some 85 KB, of which only the conversation changes from turn to turn: system prompt
and tools are serialised once per repository and joined as bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from loop.service.simulation.draws import digest
from loop.service.simulation.parameters import FleetParameters

CLIENT_VERSION = "2.1.330"
BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "thinking-token-count-2026-05-13,advanced-tool-use-2025-11-20,effort-2025-11-24"
)
TOOL_NAMES = ("Agent", "Bash", "Edit", "Glob", "Grep", "Read", "Skill", "TodoWrite", "Write")
SUBAGENT_TOOL_NAMES = ("Bash", "Read", "Skill", "Grep")
_MARK = {"type": "ephemeral"}
_SYSTEM_SHARE = 0.37  # of the static part, as recorded: 29 KB of 77 KB
_HAS_BUDGET = ("claude-haiku-4-5",)


@dataclass(slots=True)
class MessageLog:
    """The messages of one agent, serialised as they are added.

    ``cache_control`` lies on the last block only, so the last message is kept apart.
    """

    _done: list[bytes] = field(default_factory=list)
    _last: dict[str, Any] | None = None

    def add(self, role: str, content: list[dict[str, Any]]) -> None:
        if self._last is not None:
            self._done.append(orjson.dumps(self._last))
        self._last = {"role": role, "content": content}

    def encoded(self) -> bytes:
        """The JSON array's inside, with the mark on the last block."""
        assert self._last is not None, "a conversation begins with a prompt"
        *before, block = self._last["content"]
        marked = {**self._last, "content": [*before, {**block, "cache_control": _MARK}]}
        return b",".join([*self._done, orjson.dumps(marked)])


def opening_content(
    root: str, repository: str, prompt: str, parameters: FleetParameters, *, is_subagent: bool
) -> list[dict[str, Any]]:
    """The blocks of the first user message: reminders, then the human's prompt as the last."""
    environment = (
        "<system-reminder>\n# Environment\nYou have been invoked in the following environment: \n"
        f" - Primary working directory: {root}\n - Is a git repository: true\n</system-reminder>"
    )
    room = (parameters.reminder_chars // (3 if is_subagent else 1)) - len(environment)
    texts = [environment, *_reminders(repository, room), prompt]
    return [{"type": "text", "text": text} for text in texts]


def request_body(
    model: str,
    messages: MessageLog,
    user: dict[str, object],
    repository: str,
    parameters: FleetParameters,
    *,
    is_subagent: bool = False,
) -> bytes:
    """One body. ``user`` goes into ``metadata.user_id`` as a JSON string."""
    chars = parameters.subagent_body_chars if is_subagent else parameters.static_body_chars
    rest = {
        "metadata": {"user_id": json.dumps(user, separators=(",", ":"))},
        **_model_fields(model),
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "stream": parameters.stream,
    }
    return b"".join(
        (
            b'{"model":"%s","messages":[' % model.encode(),
            messages.encoded(),
            b"],",
            _static_part(repository, chars, is_subagent),
            b",",
            orjson.dumps(rest)[1:],
        )
    )


def request_headers(
    session_id: str,
    prompt_id: str,
    traceparent: str,
    attribution: dict[str, str],
    agent_id: str = "",
) -> dict[str, str]:
    """Headers with gateway hints on; ``attribution`` are those that the customer adds."""
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "User-Agent": f"claude-cli/{CLIENT_VERSION} (external, sdk-cli)",
        "X-Claude-Code-Session-Id": session_id,
        "X-Stainless-Lang": "js",
        "X-Stainless-Package-Version": "0.128.0",
        "X-Stainless-Retry-Count": "0",
        "X-Turnwise-Simulated": "true",
        "anthropic-beta": BETAS,
        "anthropic-dangerous-direct-browser-access": "true",
        "anthropic-version": "2023-06-01",
        "traceparent": traceparent,
        "x-api-key": "simulated-key",
        "x-app": "cli",
        "x-claude-code-prompt-id": prompt_id,
        "x-claude-code-request-class": "subagent" if agent_id else "main",
        **attribution,
    }
    if agent_id:
        headers |= {"x-claude-code-agent-id": agent_id, "x-claude-code-agent-type": "Explore"}
    return headers


def effort_of(model: str) -> str:
    """The effort that the client asks of a model, ``""`` where it asks for none."""
    return {"claude-opus-4-7": "xhigh", "claude-sonnet-4-6": "high"}.get(model, "")


def first_body_chars(prompt_chars: int, parameters: FleetParameters) -> int:
    """About how many characters a session's first request has."""
    return parameters.static_body_chars + parameters.reminder_chars + prompt_chars


def _model_fields(model: str) -> dict[str, Any]:
    if model in _HAS_BUDGET:
        thinking = {"budget_tokens": 31_999, "type": "enabled", "display": "omitted"}
        return {"max_tokens": 32_000, "thinking": thinking}
    return {
        "max_tokens": 64_000,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {"effort": effort_of(model)},
    }


@lru_cache(maxsize=256)
def _reminders(repository: str, chars: int) -> tuple[str, ...]:
    pieces = 9
    text = _filler(f"instructions of {repository}", max(chars // pieces, 1))
    return tuple(f"<system-reminder>\n{n}. {text}\n</system-reminder>" for n in range(pieces))


@lru_cache(maxsize=256)
def _static_part(repository: str, chars: int, is_subagent: bool) -> bytes:
    """``"system":[…],"tools":[…]`` of that size, the same for a whole repository."""
    names = SUBAGENT_TOOL_NAMES if is_subagent else TOOL_NAMES
    marker = " cc_is_subagent=true;" if is_subagent else ""
    billing = f"x-anthropic-billing-header: cc_version={CLIENT_VERSION}.000; cc_entrypoint=sdk-cli;"
    system_chars = int(chars * _SYSTEM_SHARE)
    agent = "You are a Claude agent, built on Anthropic's Claude Agent SDK. (simulated)"
    system = [
        {"type": "text", "text": billing + marker},
        {"type": "text", "text": agent, "cache_control": _MARK},
        {
            "type": "text",
            "text": _filler(f"system prompt for {repository}", system_chars),
            "cache_control": _MARK,
        },
    ]
    each = (chars - system_chars) // len(names)
    tools = [
        {
            "name": name,
            "description": _filler(f"the tool {name}", each - 120),
            "input_schema": {"type": "object", "properties": {}, "additionalProperties": True},
        }
        for name in names
    ]
    return orjson.dumps({"system": system, "tools": tools})[1:-1]


def _filler(about: str, chars: int) -> str:
    sentence = f"Simulated text about {about}, reference {digest(8, about)}. "
    return (sentence * (chars // len(sentence) + 1))[:chars]
