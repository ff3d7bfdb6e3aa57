"""Lines of the client's own transcript files as events, and as the requests they tell of.

One line holds one content block; all lines of a message repeat its id and its whole usage, so
usage counts once per message and the line with most output wins (earlier ones may be partial).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from collectors.api_usage import UNSTATED, ServiceTerms, has_split, terms_of, usage_of
from collectors.content_modes import hidden_chars
from collectors.event_fields import integer, text
from collectors.otlp_decoding import DecodedBody, EventFactory, digest, iso_time_us
from collectors.segments import Record
from loop.domain.errors import BadInput
from loop.domain.turns import Event, TokenUsage

LINE_TYPES = ("user", "assistant", "system")
SIDECHAIN = "sidechain"
SYNTHETIC_MODEL = "<synthetic>"
_EVENT_PREFIX = "transcript."
# What assembly reads; the rest (prompt snapshots, structured results, thinking budgets) repeats it
# or is large.
_KEPT = (
    "uuid", "parentUuid", "subtype", "isSidechain", "isMeta", "agentId", "promptId", "requestId",
    "requestedModel", "effort", "isApiErrorMessage", "apiErrorStatus", "retryAttempt", "error",
    "toolDenialKind", "permissionDecision", "origin", "promptSource", "version", "attributionAgent",
    "forkedFrom",
)  # fmt: skip
_NO_PROMPTS = ("<local-command-", "[Request interrupted")
_KEPT_MESSAGE = ("id", "role", "model", "content", "stop_reason", "usage")


@dataclass(slots=True)
class TranscriptRequest:
    """One model request as the transcript tells it. Times are those of its lines."""

    key: str
    request_id: str = ""
    message_id: str = ""
    prompt_id: str = ""
    agent_id: str = ""
    agent_name: str = ""
    requested_model: str = ""
    served_model: str = ""
    effort: str = ""
    stop_reason: str = ""
    usage: TokenUsage | None = None
    has_split: bool = True
    terms: ServiceTerms = UNSTATED
    first_at_us: int = 0
    last_at_us: int = 0
    sequence: int = 0
    failed_attempts: int = 0
    error_status: int | None = None
    error_text: str = ""
    is_error: bool = False
    version: str = ""
    texts: list[str] = field(default_factory=list)
    uuids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class TranscriptTool:
    """A tool call and its result as the transcript tells it; ``result`` ``None``: not seen."""

    tool_use_id: str
    key: str = ""  # of the request
    name: str = ""
    input_text: str = ""
    result: str | None = None
    is_error: bool = False
    decision: str = ""
    at_us: int = 0
    result_at_us: int = 0


@dataclass(slots=True)
class TranscriptPrompt:
    prompt_id: str
    text: str
    at_us: int
    sequence: int
    from_human: bool


@dataclass(slots=True)
class Transcript:
    requests: dict[str, TranscriptRequest] = field(default_factory=dict)
    tools: dict[str, TranscriptTool] = field(default_factory=dict)
    prompts: dict[str, TranscriptPrompt] = field(default_factory=dict)


def encode_batch(
    session_id: str, agent_id: str, numbers: Sequence[int], lines: Sequence[bytes]
) -> bytes:
    """The body of a journal record: one JSON line of ``session_id``, ``agent_id`` (both serve where
    a line names none) and the ``numbers`` of the lines, then these as they are in their file."""
    head = {"session_id": session_id, "agent_id": agent_id, "numbers": numbers}
    return b"\n".join([orjson.dumps(head), *lines])


def decode_transcript(record: Record, factory: EventFactory) -> DecodedBody:
    """Events of one journal record as :func:`encode_batch` wrote it.

    Raises:
        BadInput: the record is not of that shape.
    """
    try:
        first, *lines = record.body.split(b"\n")
        head = orjson.loads(first)
        session_id, agent_id = str(head["session_id"]), str(head["agent_id"])
        events = []
        for number, raw in zip(head["numbers"], lines, strict=True):
            line = orjson.loads(raw)
            line = agent_line(line) or line
            if agent_id:
                line.setdefault("agentId", agent_id)
            events.append(line_event(line, number, session_id, factory))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput("The transcript batch can't be read.", why=repr(error)) from error
    return DecodedBody(events, sum(not event.session_id for event in events))


def line_event(
    line: Mapping[str, Any], number: int, session_id: str, factory: EventFactory
) -> Event:
    """The event of one line; ``session_id`` serves where the line names none."""
    kept: dict[str, Any] = {name: line[name] for name in _KEPT if line.get(name) is not None}
    message = line.get("message")
    if isinstance(message, Mapping):
        kept["message"] = {
            name: _without_images(message[name]) for name in _KEPT_MESSAGE if name in message
        }
    if line.get("isSidechain") is True:
        kept.setdefault("agentId", SIDECHAIN)  # older clients name no agent
    session_id = text(line, "sessionId") or session_id
    # Without a uuid, all of the line tells it from others; with one, what is kept of it does, so
    # that a line says the same however it came (by itself, or wrapped in a line of its parent).
    stated = kept if text(line, "uuid") else line
    return Event(
        digest("transcript", session_id, line.get("timestamp"), line.get("type"), stated),
        "transcript",
        _EVENT_PREFIX + text(line, "type"),
        session_id,
        iso_time_us(line.get("timestamp")) or factory.received_at_us,
        number,
        kept,
        {},
        factory.received_at_us,
        factory.credential,
    )


def agent_line(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """The line of a subagent that a line of type ``progress`` of its parent wraps.

    Clients that ran agents in the foreground wrote their messages there, the only place where
    these requests are told of. ``None`` for any other line.
    """
    data = _mapping(line.get("data"))
    wrapped = _mapping(data.get("message"))
    if line.get("type") != "progress" or data.get("type") != "agent_progress":
        return None
    if wrapped.get("type") not in LINE_TYPES or not isinstance(wrapped.get("message"), Mapping):
        return None
    around = {name: line[name] for name in ("sessionId", "version", "timestamp") if name in line}
    return {
        **around,
        **wrapped,
        "isSidechain": True,
        "agentId": text(data, "agentId") or text(line, "parentToolUseID") or SIDECHAIN,
    }


def _without_images(value: Any) -> Any:
    """Content blocks without what is encoded in them (images, documents)."""
    if isinstance(value, list):
        return [_without_images(item) for item in value]
    if isinstance(value, Mapping):
        is_encoded = value.get("type") in ("image", "document")
        return {
            key: "[left out]" if is_encoded and key == "source" else _without_images(item)
            for key, item in value.items()
        }
    return value


def read_transcript(events: Iterable[Event]) -> Transcript:
    """What a session's transcript events tell, whatever their order."""
    ordered = sorted(events, key=lambda event: (event.at_us, event.sequence, event.event_id))
    transcript = Transcript()
    lines = {text(event, "uuid"): event for event in ordered}
    prompt_ids: dict[str, str] = {}  # by agent: assistant lines name no prompt themselves
    for event in ordered:
        agent_id = text(event, "agentId")
        if event.name == "transcript.user":
            _read_user(event, transcript)
            prompt_ids[agent_id] = _prompt_of(event) or prompt_ids.get(agent_id, "")
        elif event.name == "transcript.assistant":
            request = _read_assistant(event, lines, transcript)
            if request is not None and not request.prompt_id:
                request.prompt_id = prompt_ids.get(agent_id, "")
    return transcript


def _prompt_of(event: Event) -> str:
    if text(event, "promptId"):
        return text(event, "promptId")
    blocks = _blocks(_mapping(event.attributes.get("message")).get("content"))
    is_answer = any(block.get("type") == "tool_result" for block in blocks)
    return "" if is_answer or event.attributes.get("isMeta") is True else text(event, "uuid")


def _read_assistant(
    event: Event, lines: Mapping[str, Event], transcript: Transcript
) -> TranscriptRequest | None:
    message = _mapping(event.attributes.get("message"))
    model, message_id = text(message, "model"), text(message, "id")
    is_error = event.attributes.get("isApiErrorMessage") is True
    if model == SYNTHETIC_MODEL and not is_error:
        return None  # the client's own words, no request
    request_id = text(event, "requestId")
    key = request_id or ("" if is_error else message_id) or f"line:{text(event, 'uuid')}"
    request = transcript.requests.get(key)
    if request is None:
        request = transcript.requests[key] = TranscriptRequest(
            key, request_id, first_at_us=event.at_us, sequence=event.sequence
        )
    request.first_at_us = min(request.first_at_us, event.at_us)
    request.last_at_us = max(request.last_at_us, event.at_us)
    request.agent_id = request.agent_id or text(event, "agentId")
    request.agent_name = request.agent_name or text(event, "attributionAgent")
    request.version = request.version or text(event, "version")
    request.uuids.add(text(event, "uuid"))
    statuses = _retries_before(event, lines)
    request.failed_attempts = max(request.failed_attempts, len(statuses))
    if statuses:
        request.error_status = statuses[0]
    if is_error:
        request.is_error = True
        request.error_status = integer(event, "apiErrorStatus") or request.error_status
        request.error_text = _plain_text(message.get("content"))
        return request
    request.message_id = request.message_id or message_id
    request.requested_model = text(event, "requestedModel") or request.requested_model
    request.served_model = model or request.served_model
    request.effort = text(event, "effort") or request.effort
    request.stop_reason = text(message, "stop_reason") or request.stop_reason
    usage = message.get("usage")
    if isinstance(usage, Mapping):
        told = usage_of(usage)
        if request.usage is None or told.output_tokens >= request.usage.output_tokens:
            request.usage, request.has_split = told, has_split(usage)
        request.terms = terms_of(usage).or_else(request.terms)
    for block in _blocks(message.get("content")):
        if block.get("type") == "text" and text(block, "text") not in ("", *request.texts):
            request.texts.append(text(block, "text"))
        elif block.get("type") in ("tool_use", "server_tool_use") and text(block, "id"):
            tool = _tool(transcript, text(block, "id"))
            tool.key, tool.name, tool.at_us = key, text(block, "name"), event.at_us
            tool.input_text = input_text(block)
    return request


def _read_user(event: Event, transcript: Transcript) -> None:
    message = _mapping(event.attributes.get("message"))
    content = message.get("content")
    results = [block for block in _blocks(content) if block.get("type") == "tool_result"]
    for block in results:
        if not text(block, "tool_use_id"):
            continue
        tool = _tool(transcript, text(block, "tool_use_id"))
        tool.result = _plain_text(block.get("content"))
        tool.is_error = block.get("is_error") is True
        tool.result_at_us = event.at_us
        tool.decision = text(_mapping(event.attributes.get("permissionDecision")), "decision")
        if not tool.decision and text(event, "toolDenialKind"):
            tool.decision = "reject"
    prompt = _plain_text(content)
    prompt_id = text(event, "promptId") or text(event, "uuid")
    if (
        results
        or not prompt
        or event.attributes.get("isMeta") is True
        or text(event, "agentId")  # the task that a subagent was given is no prompt of a human
        or prompt.startswith(_NO_PROMPTS)
        or prompt_id in transcript.prompts
    ):
        return
    origin = text(_mapping(event.attributes.get("origin")), "kind")
    transcript.prompts[prompt_id] = TranscriptPrompt(
        prompt_id, prompt, event.at_us, event.sequence, origin != "task-notification"
    )


def _retries_before(event: Event, lines: Mapping[str, Event]) -> list[int | None]:
    """HTTP statuses of the failed attempts of this request, the last one first."""
    statuses: list[int | None] = []
    parent = lines.get(text(event, "parentUuid"))
    while parent is not None and text(parent, "subtype") == "api_error" and len(statuses) < 64:
        statuses.append(integer(_mapping(parent.attributes.get("error")), "status"))
        parent = lines.get(text(parent, "parentUuid"))
    return statuses


def input_text(block: Mapping[str, Any]) -> str:
    """The input of a tool call as JSON, or the mark that a content mode left in its place."""
    given = block.get("input")
    if isinstance(given, str) and hidden_chars(given) is not None:
        return given
    return orjson.dumps(given).decode()


def _tool(transcript: Transcript, tool_use_id: str) -> TranscriptTool:
    return transcript.tools.setdefault(tool_use_id, TranscriptTool(tool_use_id))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _blocks(content: Any) -> list[Mapping[str, Any]]:
    return (
        [block for block in content if isinstance(block, Mapping)]
        if isinstance(content, list)
        else []
    )


def _plain_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(
        text(block, "text") for block in _blocks(content) if block.get("type") == "text"
    )
