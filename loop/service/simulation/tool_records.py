"""What the real client records of a tool call: two events, three spans, and counts of edits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from loop.service.simulation.client_records import Agent, ClientRecords, Served
from loop.service.simulation.telemetry import Attributes
from loop.service.simulation.workspace import ToolOutcome

_CUT_CHARS = 512  # the client cuts longer values of tool_input


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One call that the client ran. Times in UTC microseconds."""

    served: Served
    outcome: ToolOutcome
    agent: Agent
    asked_at_us: int
    allowed_at_us: int
    ended_at_us: int
    execution_span_id: bytes

    @property
    def call(self) -> dict[str, Any]:
        assert self.served.tool_use is not None, "only a request for a tool is recorded here"
        return self.served.tool_use


def record_tool(records: ClientRecords, use: ToolUse) -> None:
    """Writes all records of one call."""
    tool_span_id, wait_span_id = records.new_span_id(), records.new_span_id()
    _record_events(records, use, wait_span_id)
    _record_spans(records, use, tool_span_id, wait_span_id)
    if use.call["name"] == "Edit":
        _count_edit(records, use)


def _record_events(records: ClientRecords, use: ToolUse, wait_span_id: bytes) -> None:
    name, tool_input = use.call["name"], use.call["input"]
    parameters = _tool_parameters(name, tool_input)
    named: Attributes = {"tool_name": name, "tool_use_id": use.call["id"]}
    origin: Attributes = {"request_id": use.served.request_id, **use.agent.identity}
    decision: Attributes = {
        "decision": "accept",
        "source": "config",
        **named,
        "tool_source": "builtin",
        **parameters,
        "permission_mode": "acceptEdits",
        **origin,
    }
    records.event("tool_decision", use.allowed_at_us, wait_span_id, decision)
    if use.outcome.succeeded:
        verdict: Attributes = {"success": "true"}
        size: Attributes = {"tool_result_size_bytes": str(len(use.outcome.text))}
    else:
        failure = {"error_type": "ShellError", "error": "Shell command failed"}
        verdict, size = {"success": "false", **failure}, {}
    result: Attributes = {
        **named,
        **verdict,
        "duration_ms": str((use.ended_at_us - use.allowed_at_us) // 1000),
        **parameters,
        "tool_input": _compact(_cut(tool_input)),
        "tool_input_size_bytes": str(len(_compact(tool_input))),
        **size,
        **origin,
    }
    records.event("tool_result", use.ended_at_us, use.agent.parent_span_id, result)


def _record_spans(
    records: ClientRecords, use: ToolUse, tool_span_id: bytes, wait_span_id: bytes
) -> None:
    name, tool_use_id = use.call["name"], use.call["id"]
    conversation: Attributes = {"gen_ai.conversation.id": use.agent.agent_id or records.session_id}
    ids: Attributes = {"tool_use_id": tool_use_id, "gen_ai.tool.call.id": tool_use_id}
    records.telemetry.span(
        "tool.blocked_on_user",
        use.asked_at_us,
        use.allowed_at_us,
        {
            **conversation,
            "duration_ms": (use.allowed_at_us - use.asked_at_us) // 1000,
            "decision": "accept",
            "source": "config",
        },
        trace_id=records.trace_id,
        span_id=wait_span_id,
        parent_span_id=tool_span_id,
    )
    error = "" if use.outcome.succeeded else "Shell command failed"
    failure = {"error.type": "tool_error", "error": error, "error_class": "ShellError"}
    records.telemetry.span(
        "tool.execution",
        use.allowed_at_us,
        use.ended_at_us,
        {
            **conversation,
            **ids,
            "duration_ms": (use.ended_at_us - use.allowed_at_us) // 1000,
            "success": use.outcome.succeeded,
            **(failure if error else {}),
        },
        trace_id=records.trace_id,
        span_id=use.execution_span_id,
        parent_span_id=tool_span_id,
        error=error,
    )
    output = dict(use.outcome.output)
    records.telemetry.span(
        "tool",
        use.asked_at_us,
        use.ended_at_us,
        {
            "tool_name": name,
            "tool_name_safe": name,
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            **conversation,
            **_tool_details(name, use.call["input"]),
            **use.agent.identity,
            **ids,
            "duration_ms": (use.ended_at_us - use.asked_at_us) // 1000,
        },
        trace_id=records.trace_id,
        span_id=tool_span_id,
        parent_span_id=use.agent.parent_span_id,
        events=[("tool.output", use.ended_at_us, output)] if output else [],
    )


def _count_edit(records: ClientRecords, use: ToolUse) -> None:
    model = {"model": records.requested_model}
    lines = {"added": use.outcome.lines_added, "removed": use.outcome.lines_removed}
    for kind, amount in lines.items():
        records.telemetry.count(
            "lines_of_code.count", amount, use.ended_at_us, {"type": kind, **model}
        )
    decision: Attributes = {
        "decision": "accept",
        "source": "config",
        "tool_name": "Edit",
        "language": "Python",
    }
    records.telemetry.count("code_edit_tool.decision", 1, use.ended_at_us, decision)


def _tool_parameters(name: str, tool_input: dict[str, Any]) -> dict[str, str]:
    if name == "Agent":
        given = {"subagent_type": tool_input["subagent_type"]}
    elif name == "Bash":
        given = {
            "bash_command": tool_input["command"].split()[0],
            "full_command": tool_input["command"],
            "description": tool_input["description"],
        }
    else:
        return {}
    return {"tool_parameters": _compact(given)}


def _tool_details(name: str, tool_input: dict[str, Any]) -> dict[str, str]:
    if name == "Agent":
        return {"subagent_type": tool_input["subagent_type"]}
    if name != "Bash":
        return {"file_path": tool_input["file_path"]}
    program = tool_input["command"].split()[0]
    return {
        "full_command": tool_input["command"],
        "bash_command_class": "lang_runtime" if program == "python" else "file_search",
        "bash_argv0": program,
    }


def _cut(tool_input: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value[:_CUT_CHARS] if isinstance(value, str) else value
        for key, value in tool_input.items()
    }


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))
