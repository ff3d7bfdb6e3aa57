"""Tool calls of a session, each with the request that asked for it.

A call is told by up to six records (decision, result, two or three spans, transcript blocks, raw
bodies), all joined by ``tool_use_id``. Which request asked for it is read from the first that
says so; clients before request ids on tool events leave it to order: the request of the same
prompt (and, with spans, of the same parent) that began last before the call.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import orjson

from collectors.event_fields import boolean, integer, text
from collectors.session_facts import (
    BLOCKED,
    TOOL,
    TOOL_EXECUTION,
    RequestFacts,
    SessionFacts,
)
from collectors.transcript_lines import TranscriptTool
from loop.domain.turns import Event, ToolCall

_MCP_NAMES = ("mcp_tool", "mcp_other")
_USE_ERROR = "<tool_use_error>"


@dataclass(slots=True)
class ToolFacts:
    """All evidence of one tool call; ``turn_id`` "" when no request could be found for it."""

    tool_use_id: str
    turn_id: str = ""
    decision: Event | None = None
    result: Event | None = None
    span: Event | None = None
    execution: Event | None = None
    blocked: Event | None = None
    told: TranscriptTool | None = None
    name: str = ""
    records: list[Event] = field(default_factory=list)
    mentioned_at_us: int = 0  # when a raw body or a later request's context told of it

    def started_at_us(self) -> int:
        """The earliest time at which any record places the call."""
        starts = [event.at_us for event in (self.span, self.execution, self.decision) if event]
        if self.result:
            duration_us = 1000 * (integer(self.result, "duration_ms") or 0)
            starts.append(self.result.at_us - duration_us)
        if not starts and self.told:
            starts = [self.told.at_us or self.told.result_at_us]
        return min(starts, default=self.mentioned_at_us)

    def ended_at_us(self) -> int:
        if self.result:
            return self.result.at_us
        if self.span:
            return integer(self.span, "otel.ended_at_us") or self.span.at_us
        if self.told and self.told.result_at_us:
            return self.told.result_at_us
        return self.started_at_us()

    def call(self, context: SessionFacts) -> ToolCall:
        return ToolCall(
            tool_use_id=self.tool_use_id,
            name=self.name,
            success=self._success(context),
            error_type=self._error_type(context),
            decision=self._decision(),
            duration_ms=self._duration_ms(),
            at_us=self.started_at_us(),
        )

    def _decision(self) -> str:
        for event in (self.decision, self.blocked):
            if event is not None and (decision := text(event, "decision")):
                return decision
        if self.result is not None and (decision := text(self.result, "decision_type")):
            return decision
        return self.told.decision if self.told else ""

    def _success(self, context: SessionFacts) -> bool | None:
        if self._decision() == "reject":
            return None
        for event in (self.result, self.execution):
            if event is not None and (success := boolean(event, "success")) is not None:
                return success
        if self.told is not None and self.told.result is not None:
            return not self.told.is_error
        given = context.results.get(self.tool_use_id)
        if given is not None and given.is_error:
            return False
        return None

    def _error_type(self, context: SessionFacts) -> str:
        for event in (self.result, self.execution):
            if event is not None and (
                error := text(event, "error_type", "error_class", "error.type")
            ):
                return error
        given = context.results.get(self.tool_use_id)
        texts = [
            self.told.result if self.told and self.told.is_error else "",
            given.text if given else "",
        ]
        return (
            "tool_use_error" if any((item or "").startswith(_USE_ERROR) for item in texts) else ""
        )

    def _duration_ms(self) -> int | None:
        for event in (self.result, self.execution, self.span):
            if event is not None and (duration := integer(event, "duration_ms")) is not None:
                return duration
        return None


def read_tools(facts: SessionFacts) -> dict[str, ToolFacts]:
    """Every tool call that anything tells of, by ``tool_use_id``."""
    tools: dict[str, ToolFacts] = {}

    def of(tool_use_id: str) -> ToolFacts:
        tool = tools.get(tool_use_id)
        if tool is None:
            tool = tools[tool_use_id] = ToolFacts(tool_use_id)
        return tool

    for event in facts.by_name.get("claude_code.tool_decision", []):
        if tool_use_id := text(event, "tool_use_id"):
            of(tool_use_id).decision = event
    for event in facts.by_name.get("claude_code.tool_result", []):
        if tool_use_id := text(event, "tool_use_id"):
            of(tool_use_id).result = event
    by_span: dict[str, ToolFacts] = {}
    for event in facts.by_name.get(TOOL, []):
        if event.kind == "span" and (tool_use_id := _span_tool_id(event)):
            tool = by_span[text(event, "otel.span_id")] = of(tool_use_id)
            tool.span = event
    for event in facts.by_name.get(TOOL_EXECUTION, []):
        if tool_use_id := _span_tool_id(event):
            of(tool_use_id).execution = event
            by_span.setdefault(facts.tree.parent_of(event), of(tool_use_id))
    for event in facts.by_name.get(BLOCKED, []):
        parent = by_span.get(facts.tree.parent_of(event))
        if parent is not None:
            parent.blocked = event
    for tool_use_id, told in facts.transcript.tools.items():
        of(tool_use_id).told = told
    for tool_use_id, span in facts.context_of.items():
        of(tool_use_id).mentioned_at_us = span.at_us
    ended = {request.request_id: request.ended_at_us() for request in facts.requests}
    for tool_use_id, (request_id, _, _) in facts.raw_tools.items():
        of(tool_use_id).mentioned_at_us = ended.get(request_id, 0)
    for tool in tools.values():
        tool.records = [
            event for event in (tool.decision, tool.result, tool.span, tool.execution) if event
        ]
        tool.name = _name(tool, facts)
    if tools:
        _join_requests(tools, facts)
    return tools


def _span_tool_id(span: Event) -> str:
    return text(span, "tool_use_id", "gen_ai.tool.call.id")


def _name(tool: ToolFacts, facts: SessionFacts) -> str:
    if tool.told and tool.told.name:
        return tool.told.name
    if tool.tool_use_id in facts.raw_tools:
        return facts.raw_tools[tool.tool_use_id][1]
    fallback = ""
    for event in (tool.span, tool.result, tool.decision):
        if event is None:
            continue
        name = text(event, "tool_name", "gen_ai.tool.name", "tool_name_safe")
        if name and name not in _MCP_NAMES:
            return name
        fallback = fallback or name
        parameters = _parameters(event)
        server, mcp_tool = parameters.get("mcp_server_name"), parameters.get("mcp_tool_name")
        if isinstance(server, str) and isinstance(mcp_tool, str) and server and mcp_tool:
            return f"mcp__{server}__{mcp_tool}"
    return fallback


def _parameters(event: Event) -> dict[str, Any]:
    raw = text(event, "tool_parameters")
    if not raw:
        return {}
    try:
        parameters = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return parameters if isinstance(parameters, dict) else {}


def _join_requests(tools: dict[str, ToolFacts], facts: SessionFacts) -> None:
    known = {request.turn_id for request in facts.requests}
    timeline: _Timeline | None = None
    for tool in sorted(tools.values(), key=lambda tool: (tool.started_at_us(), tool.tool_use_id)):
        stated = next(filter(None, [text(event, "request_id") for event in tool.records]), "")
        raw_id = facts.raw_tools.get(tool.tool_use_id, ("", "", ""))[0]
        told_key = tool.told.key if tool.told else ""
        for candidate in (stated, raw_id, told_key):
            if candidate in known:
                tool.turn_id = candidate
                break
        else:
            timeline = timeline or _Timeline(facts)
            tool.turn_id = timeline.request_before(tool)


class _Timeline:
    """Finds the request that a call without a request id belongs to."""

    def __init__(self, facts: SessionFacts) -> None:
        self._facts = facts
        self._by_parent: dict[str, list[tuple[int, str]]] = {}
        self._by_prompt: dict[str, list[tuple[int, str]]] = {}
        for request in facts.requests:
            start = (request.started_at_us(), request.turn_id)
            if request.span is not None:
                parent = facts.tree.parent_of(request.span)
                self._by_parent.setdefault(parent, []).append(start)
                prompt_id = facts.tree.prompt_of(request.span)
            else:
                prompt_id = _prompt_of(request)
            self._by_prompt.setdefault(prompt_id, []).append(start)
        for starts in (*self._by_parent.values(), *self._by_prompt.values()):
            starts.sort()

    def request_before(self, tool: ToolFacts) -> str:
        at_us = tool.started_at_us()
        if tool.tool_use_id in self._facts.context_of and not tool.records and not tool.told:
            # Only its result was seen, on the next request: it was asked for by the one before.
            span = self._facts.context_of[tool.tool_use_id]
            parent = self._facts.tree.parent_of(span)
            return _last_before(self._by_parent.get(parent, []), span.at_us - 1)
        span_record = tool.span
        if span_record is not None:
            parent = self._facts.tree.parent_of(span_record)
            turn_id = _last_before(self._by_parent.get(parent, []), at_us)
            if turn_id:
                return turn_id
        prompt_id = next((text(event, "prompt.id") for event in tool.records
                          if text(event, "prompt.id")), "")  # fmt: skip
        if not prompt_id and span_record is not None:
            prompt_id = self._facts.tree.prompt_of(span_record)
        return _last_before(self._by_prompt.get(prompt_id, []), at_us)


def _prompt_of(request: RequestFacts) -> str:
    for event in request.logs():
        if text(event, "prompt.id"):
            return text(event, "prompt.id")
    return request.lines.prompt_id if request.lines else ""


def _last_before(starts: list[tuple[int, str]], at_us: int) -> str:
    index = bisect_right(starts, (at_us, "\U0010ffff"))
    return starts[index - 1][1] if index else ""
