"""What a gateway can know of a ``POST /v1/messages`` request before it is served.

Token counts are estimates: characters over the policy's ``chars_per_token``, images at their flat
price. The four measures are those of the log, so that a threshold means the same in both:

- *total*: system, tools and messages;
- *uncached*: what lies after the last ``cache_control`` breakpoint (all, where there is none);
- *new*: what lies after the last assistant message (all, where there is none);
- *prompt*: the human's own words in the last human message.

Everything here is total: a body that no client would send gives zeros, never an exception.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from loop.domain.budget_pauses import Requester
from loop.domain.policies import Estimator, RouteRequest

# Texts that the client adds to a user message; no human wrote them.
_CLIENT_TEXTS = ("<system-reminder>", "<task-notification>")
_REQUEST_CLASSES = {
    "main": "main",
    "subagent": "subagent",
    "workflow": "subagent",
    "compaction": "auxiliary",
    "auxiliary": "auxiliary",
    "side_reply": "auxiliary",
}
_OLD_SESSION_ID = re.compile(r"_session_([0-9a-fA-F-]{36})$")


class _Part(NamedTuple):
    """One stretch of the input, in the order in which the provider caches it.

    Whole numbers, so that a sum over the parts comes out the same in every gateway language.
    """

    characters: int
    images: int
    message: int  # index among the messages, -1 for tools and system
    is_breakpoint: bool


def read_features(
    body: Mapping[str, Any], headers: Mapping[str, str], estimator: Estimator
) -> RouteRequest:
    """The routing features of one request. ``headers`` has lower-case names."""
    messages = [message for message in _items(body.get("messages")) if isinstance(message, dict)]
    parts = _parts(body, messages)
    last_assistant = _last_index(messages, "assistant")
    turn = [message for message in messages[last_assistant + 1 :] if message.get("role") == "user"]
    in_tool_loop = any(_has_tool_result(message) for message in turn)
    agent_id = headers.get("x-claude-code-agent-id", "")
    return RouteRequest(
        requested_model=_clean(str(body.get("model") or "")),
        session_id=session_of(body, headers),
        agent_id=agent_id,
        agent_name=headers.get("x-claude-code-agent-type", ""),
        request_class=_request_class(body, headers, agent_id),
        org_path=headers.get("x-tw-org", ""),
        repository=headers.get("x-tw-repo", ""),
        effort=_effort(body),
        turn_index=sum(message.get("role") == "assistant" for message in messages),
        total_input_tokens=_tokens(parts, estimator),
        uncached_input_tokens=_tokens(_after_last_breakpoint(parts), estimator),
        new_tokens=_tokens(
            [part for part in parts if last_assistant < 0 or part.message > last_assistant],
            estimator,
        ),
        prompt_tokens=int(len(human_prompt(messages)) / estimator.chars_per_token),
        starts_user_turn=bool(turn) and not in_tool_loop,
        in_tool_loop=in_tool_loop,
    )


def session_of(body: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """The session: the client's header, else its ``metadata.user_id``, else the conversation.

    A client that names no session is still kept on one route, by a digest of the first message,
    which stays the same as its conversation grows.
    """
    named = headers.get("x-claude-code-session-id", "")
    if named:
        return named
    old = _OLD_SESSION_ID.search(_user_id(body))
    if old:
        return old[1]
    session_id = _user_fields(body).get("session_id")
    if isinstance(session_id, str):
        return _clean(session_id)
    first = next(iter(_items(body.get("messages"))), None)
    digest = hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()
    return f"conversation-{digest[:16]}"


def requester_of(body: Mapping[str, Any], headers: Mapping[str, str]) -> Requester:
    """Who a request says it is from. ``headers`` has lower-case names."""
    return Requester(
        org_path=headers.get("x-tw-org", ""),
        developer=headers.get("x-tw-developer", ""),
        repository=headers.get("x-tw-repo", ""),
        device_id=_clean(str(_user_fields(body).get("device_id") or "")),
        session_id=session_of(body, headers),
    )


def human_prompt(messages: Iterable[Any]) -> str:
    """The last text that a human wrote: the last text block of the last message that has one."""
    prompt = ""
    for message in messages:
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        texts = [content] if isinstance(content, str) else [_text(item) for item in _items(content)]
        own = [text for text in texts if text and not text.lstrip().startswith(_CLIENT_TEXTS)]
        prompt = own[-1] if own else prompt
    return prompt


def _user_id(body: Mapping[str, Any]) -> str:
    metadata = body.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    return user_id if isinstance(user_id, str) else ""


def _user_fields(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the client writes as JSON text into ``metadata.user_id``."""
    try:
        fields = json.loads(_user_id(body) or "{}")
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _parts(body: Mapping[str, Any], messages: list[dict[str, Any]]) -> list[_Part]:
    parts = [
        _Part(_json_length(tool), 0, -1, _is_breakpoint(tool)) for tool in _items(body.get("tools"))
    ]
    parts += [_part(item, -1) for item in _blocks(body.get("system"))]
    for index, message in enumerate(messages):
        parts += [_part(item, index) for item in _blocks(message.get("content"))]
    return parts


def _part(block: Any, message: int) -> _Part:
    characters, images = _size(block)
    return _Part(characters, images, message, _is_breakpoint(block))


def _size(block: Any) -> tuple[int, int]:
    """Characters and images of one content block."""
    if not isinstance(block, dict):
        return 0, 0
    kind = block.get("type")
    if kind == "image":
        return 0, 1
    if kind == "tool_result":
        inner = [_size(item) for item in _blocks(block.get("content"))]
        return sum(size[0] for size in inner), sum(size[1] for size in inner)
    if kind == "tool_use":
        return len(str(block.get("name"))) + _json_length(block.get("input")), 0
    text = block.get("text") or block.get("thinking")
    if isinstance(text, str):
        return len(text), 0
    return _json_length(block), 0


def _json_length(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False))


def _tokens(parts: Iterable[_Part], estimator: Estimator) -> int:
    characters = images = 0
    for part in parts:
        characters += part.characters
        images += part.images
    return math.ceil(characters / estimator.chars_per_token + images * estimator.image_tokens)


def _after_last_breakpoint(parts: list[_Part]) -> list[_Part]:
    marked = [index for index, part in enumerate(parts) if part.is_breakpoint]
    return parts[marked[-1] + 1 :] if marked else parts


def _is_breakpoint(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    inner = _items(block.get("content")) if block.get("type") == "tool_result" else []
    return bool(block.get("cache_control")) or any(_is_breakpoint(item) for item in inner)


def _request_class(body: Mapping[str, Any], headers: Mapping[str, str], agent_id: str) -> str:
    hinted = _REQUEST_CLASSES.get(headers.get("x-claude-code-request-class", ""))
    if hinted:
        return hinted
    if agent_id:
        return "subagent"
    # Without hints: titles, quota checks and summaries bring no tools, the main loop always does.
    return "main" if body.get("tools") else "auxiliary"


def _effort(body: Mapping[str, Any]) -> str:
    config = body.get("output_config")
    effort = config.get("effort") if isinstance(config, dict) else None
    return effort if isinstance(effort, str) else ""


def _has_tool_result(message: Mapping[str, Any]) -> bool:
    return any(
        isinstance(item, dict) and item.get("type") == "tool_result"
        for item in _items(message.get("content"))
    )


def _last_index(messages: list[dict[str, Any]], role: str) -> int:
    found = [index for index, message in enumerate(messages) if message.get("role") == role]
    return found[-1] if found else -1


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else _items(content)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(block: Any) -> str:
    if isinstance(block, dict) and block.get("type") == "text":
        text = block.get("text")
        return text if isinstance(text, str) else ""
    return ""


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON can escape but UTF-8 can't write."""
    return text.encode("utf-8", "replace").decode()
