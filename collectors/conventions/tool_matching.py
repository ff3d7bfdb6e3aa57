"""Tool calls of a session's requests: what was asked for, what ran, and what came of it.

A call is told by the answer that asks for it, by the span of its execution and by the message that
gives its result to the model. They are joined on the call's id; a span without one is the run of
the latest call of that tool that was asked for before it in the same trace and has no run yet. A
tool that ran without a model asking for it is no tool call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from collectors.conventions.convention import AskedTool, GivenResult, Text, ToolRun
from collectors.conventions.messages import parse_json
from collectors.conventions.requests import ToldRequest, ended_at_us
from collectors.event_fields import text
from loop.domain.turns import ToolCall

_CLOCK_US = 2_000


@dataclass(slots=True)
class ToldTool:
    """One tool call with all that is told of it."""

    tool_use_id: str
    name: str
    turn_id: str
    asked_at_us: int
    source: str  # the convention that told of it first
    arguments: Text | None = None
    run: ToolRun | None = None
    result: GivenResult | None = None

    def call(self) -> ToolCall:
        run = self.run
        return ToolCall(
            tool_use_id=self.tool_use_id,
            name=self.name,
            success=self._success(),
            error_type=run.error_type if run is not None else "",
            duration_ms=(ended_at_us(run.event) - run.event.at_us) // 1000 if run else None,
            at_us=self.started_at_us(),
        )

    def _success(self) -> bool | None:
        if self.run is not None:
            return not self.run.failed
        if self.result is not None and self.result.is_error is not None:
            return not self.result.is_error
        return None

    def started_at_us(self) -> int:
        return self.run.event.at_us if self.run is not None else self.asked_at_us

    def ended_at_us(self) -> int:
        return ended_at_us(self.run.event) if self.run is not None else self.asked_at_us

    def input(self) -> Text | None:
        run_arguments = self.run.arguments if self.run is not None else None
        return self.arguments or run_arguments

    def output(self) -> Text | None:
        told = self.run.output if self.run is not None else None
        given = self.result.output if self.result is not None else None
        return told if told is not None and told.state == "present" else given or told


def match_tools(requests: Sequence[ToldRequest], runs: Sequence[ToolRun]) -> list[ToldTool]:
    """The tool calls of the requests, in the order in which they were asked for."""
    history = _history(requests)
    tools: list[ToldTool] = []
    by_id: dict[str, ToldTool] = {}
    for request in requests:
        asked = [tool for message in request.answered() for tool in message.asked]
        for number, tool in enumerate(asked):
            tool_use_id = tool.tool_use_id or _later_id(tool, history, by_id)
            if tool_use_id in by_id:
                continue
            tool_use_id = tool_use_id or f"tool:{request.event.event_id}:{number}"
            told = ToldTool(
                tool_use_id,
                tool.name,
                request.turn_id,
                request.ended_at_us(),
                request.answered_source(),
                tool.arguments,
            )
            tools.append(told)
            by_id[tool_use_id] = told
    _join_runs(requests, runs, tools, by_id)
    for request in requests:
        for message in request.asked():
            for result in message.results:
                found = by_id.get(result.tool_use_id)
                if found is not None and found.result is None:
                    found.result = result
    return tools


def _history(requests: Sequence[ToldRequest]) -> list[AskedTool]:
    """Tool calls as later requests repeat them, with ids that the answer itself may lack."""
    found: dict[str, AskedTool] = {}
    for request in requests:
        for message in request.asked():
            for tool in message.asked:
                if tool.tool_use_id:
                    found.setdefault(tool.tool_use_id, tool)
    return list(found.values())


def _later_id(tool: AskedTool, history: Sequence[AskedTool], by_id: dict[str, ToldTool]) -> str:
    for other in history:
        if (
            other.tool_use_id not in by_id
            and other.name == tool.name
            and _same_arguments(other.arguments, tool.arguments)
        ):
            return other.tool_use_id
    return ""


def _same_arguments(one: Text | None, other: Text | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.text == other.text or parse_json(one.text) == parse_json(other.text))


def _join_runs(
    requests: Sequence[ToldRequest],
    runs: Sequence[ToolRun],
    tools: list[ToldTool],
    by_id: dict[str, ToldTool],
) -> None:
    waiting: dict[tuple[str, str], list[ToldTool]] = {}
    by_trace: dict[str, list[ToldRequest]] = {}
    trace_of: dict[str, str] = {}
    for request in requests:
        by_trace.setdefault(request.trace_id, []).append(request)
        trace_of[request.turn_id] = request.trace_id
    left: list[ToolRun] = []
    for run in sorted(runs, key=lambda run: (run.event.at_us, run.event.event_id)):
        known = by_id.get(run.tool_use_id) if run.tool_use_id else None
        if known is None:
            left.append(run)
        elif known.run is None:
            known.run = run
    for tool in tools:
        if tool.run is None:
            waiting.setdefault((trace_of[tool.turn_id], tool.name), []).append(tool)
    for run in left:
        trace_id = text(run.event, "otel.trace_id")
        asked = waiting.get((trace_id, run.name), [])
        if not run.tool_use_id and (found := _asked_before(asked, run)) is not None:
            found.run = run
            asked.remove(found)
            continue
        silent = _silent_before(by_trace.get(trace_id, []), run)
        if silent is not None:
            tool_use_id = run.tool_use_id or f"tool:{run.event.event_id}"
            if tool_use_id not in by_id:
                by_id[tool_use_id] = ToldTool(
                    tool_use_id,
                    run.name,
                    silent.turn_id,
                    silent.ended_at_us(),
                    run.convention,
                    run=run,
                )
                tools.append(by_id[tool_use_id])


def _asked_before(asked: Sequence[ToldTool], run: ToolRun) -> ToldTool | None:
    """The latest call that was asked for before a run; of one answer's calls the first."""
    earlier = [tool for tool in asked if tool.asked_at_us <= run.event.at_us + _CLOCK_US]
    return max(earlier, key=lambda tool: tool.asked_at_us) if earlier else None


def _silent_before(requests: Sequence[ToldRequest], run: ToolRun) -> ToldRequest | None:
    """The last of a trace's requests before a run, if what it answered is not told: a request
    whose answer is known asked for what its answer says."""
    earlier = [
        request
        for request in requests
        if not request.failed and request.ended_at_us() <= run.event.at_us + _CLOCK_US
    ]
    if not earlier:
        return None
    last = max(earlier, key=lambda request: (request.ended_at_us(), request.turn_id))
    return None if last.answered() else last
