"""Evidence inside raw API bodies (``OTEL_LOG_RAW_API_BODIES``) and detailed beta traces.

Request bodies are cut at 60 KB, but their JSON begins with the messages, so the tool results of
short sessions are whole; each is decoded by itself and a cut one is skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from collectors.api_usage import UNSTATED, ServiceTerms, has_split, terms_of, usage_of
from collectors.event_fields import text, without_reminders
from collectors.transcript_lines import input_text
from loop.domain.turns import Event, TokenUsage

BODY_FILE = "turnwise.body_file"
"""The attribute of a body that was read from a file of the client's (``raw_body_files``)."""

_RESULT_START = re.compile(r'\{"(?:tool_use_id":"|type":"tool_result")')
_SECTION = re.compile(
    r"^\[(USER|USER PROMPT|ASSISTANT|TOOL RESULT)(?:: ([^\]\n]+))?\]\n", re.MULTILINE
)
_SEPARATOR = re.compile(r"\n+---\n*\Z")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the model was given for a tool call."""

    tool_use_id: str
    text: str
    is_error: bool


@dataclass(slots=True)
class RawResponse:
    """An ``api_response_body``. ``usage`` is ``None`` where its body is cut or kept elsewhere: then
    only the ids are known."""

    event: Event
    request_id: str
    message_id: str
    model: str
    stop_reason: str
    usage: TokenUsage | None
    text: str
    requested_model: str = ""  # of the request's body
    has_split: bool = True
    terms: ServiceTerms = UNSTATED
    tool_uses: list[tuple[str, str, str]] = field(default_factory=list)  # id, name, input as JSON


def read_response(event: Event) -> RawResponse:
    """What the body of a response tells, as far as it is there."""
    try:
        message = orjson.loads(text(event, "body"))
    except orjson.JSONDecodeError:
        message = {}
    if not isinstance(message, dict):
        message = {}
    content = message.get("content")
    blocks = (
        [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    )
    stated = message.get("usage")
    usage = stated if isinstance(stated, Mapping) else None
    return RawResponse(
        event,
        text(event, "request_id"),
        text(message, "id") or text(event, "message.id"),
        text(message, "model"),
        text(message, "stop_reason"),
        usage_of(usage) if usage is not None else None,
        "\n".join(text(block, "text") for block in blocks if block.get("type") == "text"),
        "",
        usage is None or has_split(usage),
        terms_of(usage) if usage is not None else UNSTATED,
        [
            (text(block, "id"), text(block, "name"), input_text(block))
            for block in blocks
            if block.get("type") == "tool_use" and text(block, "id")
        ],
    )


def tool_results(request_bodies: Iterable[Event]) -> dict[str, ToolResult]:
    """Every whole tool result in the request bodies; a result repeats in all later bodies."""
    found: dict[str, ToolResult] = {}
    for event in request_bodies:
        body = text(event, "body")
        for match in _RESULT_START.finditer(body):
            block = _decode_at(body, match.start())
            if block is None or block.get("type") != "tool_result":
                continue
            tool_use_id = text(block, "tool_use_id")
            if tool_use_id and tool_use_id not in found:
                found[tool_use_id] = ToolResult(
                    tool_use_id,
                    without_reminders(_plain_text(block.get("content"))),
                    block.get("is_error") is True,
                )
    return found


def offered_tools(request_bodies: Iterable[Event]) -> dict[str, tuple[Event, str]]:
    """The tools that whole request bodies offer, as JSON of names and schemas, each with its event,
    by ``request_body_id``. Bodies that are cut say nothing: the list is what they lose."""
    found: dict[str, tuple[Event, str]] = {}
    for event in request_bodies:
        body = text(event, "body")
        if '"input_schema"' not in body:
            continue
        try:
            stated = orjson.loads(body).get("tools")
        except (orjson.JSONDecodeError, AttributeError):
            continue
        tools = [
            {"name": tool["name"], "input_schema": tool["input_schema"]}
            for tool in (stated if isinstance(stated, list) else [])
            if isinstance(tool, Mapping) and {"name", "input_schema"} <= tool.keys()
        ]
        if tools:
            key = text(event, "request_body_id")
            found.setdefault(key, (event, orjson.dumps(tools).decode()))
    return found


def context_results(span: Event) -> list[ToolResult]:
    """Tool results in a span's ``new_context``: sections headed ``[TOOL RESULT: id]``."""
    context = text(span, "new_context")
    heads = list(_SECTION.finditer(context))
    results = []
    for position, head in enumerate(heads):
        if head.group(1) != "TOOL RESULT" or not (head.group(2) or "").startswith("toolu_"):
            continue
        end = heads[position + 1].start() if position + 1 < len(heads) else len(context)
        content = without_reminders(_SEPARATOR.sub("", context[head.end() : end]))
        results.append(ToolResult(head.group(2), content, content.startswith("<tool_use_error>")))
    return results


def _decode_at(body: str, start: int) -> dict[str, Any] | None:
    try:
        value, _ = _DECODER.raw_decode(body, start)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _plain_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(
        text(block, "text")
        for block in blocks
        if isinstance(block, Mapping) and block.get("type") == "text"
    )
