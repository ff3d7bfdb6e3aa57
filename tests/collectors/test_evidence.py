"""Evidence of tool outputs: present, truncated, redacted or missing, by what each source tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from collectors.claude_code_turns import assemble
from loop.domain.turns import Event, EvidenceState, SessionTrace, ToolEvidence
from loop.lake.trace_loading import build_traces
from tests.collectors.recordings import session_events, transcript_events

A02 = "a02_fix_bug_failed_edit"  # Bash fails, an edit fails, an edit works, Bash works
A07 = "a07_permission_denied"
TELEMETRY, TRANSCRIPT = "telemetry", "transcript"
SOURCES = {
    TELEMETRY: lambda name: session_events(name),
    TRANSCRIPT: lambda name: transcript_events(name),
}


def trace_of(events: list[Event]) -> SessionTrace:
    session = assemble(events)
    (trace,) = build_traces(session.turns, session.contents)
    return trace


def tools_of(events: list[Event]) -> list[ToolEvidence]:
    return [tool for turn in trace_of(events).turns for tool in turn.tools]


def with_output(events: list[Event], output: str) -> list[Event]:
    """Every tool's output, as the span event ``tool.output`` gives it, replaced."""
    changed = []
    for event in events:
        given: Any = event.attributes.get("otel.events")
        if event.name == "claude_code.tool" and isinstance(given, list):
            told = [{"name": "tool.output", "attributes": {"output": output}}]
            event = replace(event, attributes={**event.attributes, "otel.events": told})
        changed.append(event)
    return changed


def output_states(events: list[Event]) -> dict[str, EvidenceState]:
    """By tool use id, what is known of the output itself: the client's word for a failure, such as
    "Shell command failed", is none."""
    session = assemble(events)
    states: dict[str, EvidenceState] = {
        call.tool_use_id: "missing" for turn in session.turns for call in turn.tool_calls
    }
    for content in session.contents:
        if content.kind == "tool_output":
            states[content.tool_use_id] = content.state
    return states


@pytest.mark.parametrize(
    ("sources", "failed", "worked"),
    [
        ((TELEMETRY,), "missing", "present"),
        ((TRANSCRIPT,), "present", "present"),
        ((TELEMETRY, TRANSCRIPT), "present", "present"),
    ],
)
def test_a_failed_calls_output_is_in_the_transcript_alone(
    sources: tuple[str, ...], failed: EvidenceState, worked: EvidenceState
) -> None:
    events = [event for source in sources for event in SOURCES[source](A02)]
    tools, states = tools_of(events), output_states(events)
    bash = [tool for tool in tools if tool.call.name == "Bash"]
    assert [tool.call.success for tool in bash] == [False, True]
    assert [states[tool.call.tool_use_id] for tool in bash] == [failed, worked]
    assert ("FAILED" in bash[0].output_text) == (failed == "present")
    edits = [tool for tool in tools if tool.call.name == "Edit" or tool.call.inferred]
    assert [tool.call.success for tool in edits] == [False if TRANSCRIPT in sources else None, True]
    assert [states[tool.call.tool_use_id] for tool in edits] == [failed, worked]


def test_a_raw_body_shows_what_a_failed_call_returned() -> None:
    recorded = session_events(A02)
    failed = next(t.call.tool_use_id for t in tools_of(recorded) if t.call.success is False)
    block = {"type": "tool_result", "tool_use_id": failed, "is_error": True, "content": "Exit 1"}
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": [block]}]}).decode()
    asked = replace(
        recorded[-1], event_id="raw", kind="log", name="claude_code.api_request_body",
        attributes={"body": body},
    )  # fmt: skip
    (tool,) = [t for t in tools_of([*recorded, asked]) if t.call.tool_use_id == failed]
    assert (tool.output_state, tool.output_text, tool.call.success) == ("present", "Exit 1", False)
    # Of a body that was cut inside the block, nothing is taken.
    cut = replace(asked, attributes={"body": body[: body.index("Exit")]})
    assert output_states([*recorded, cut])[failed] == "missing"


@pytest.mark.parametrize(
    ("output", "state"),
    [
        ("all good", "present"),
        ("x" * 30_000, "truncated"),
        ("x" * 61_440 + "\n[TRUNCATED - Content exceeds 60KB limit]", "truncated"),
        ("<REDACTED>", "redacted"),
        ("", "missing"),
    ],
    ids=["whole", "Bash's limit", "60 KB", "redacted", "empty"],
)
def test_the_state_of_an_output_on_a_span(output: str, state: EvidenceState) -> None:
    tools = tools_of(with_output(session_events(A02), output))
    (worked,) = [tool for tool in tools if tool.call.name == "Bash" and tool.call.success]
    expected = "present" if output == "" else state  # a command may well print nothing
    assert worked.output_state == expected
    assert worked.output_text == ("" if state in ("redacted", "missing") else output)


def test_a_whole_output_wins_over_a_cut_one() -> None:
    cut = with_output(session_events(A02), "x" * 30_000)
    (worked,) = [
        tool
        for tool in tools_of([*cut, *transcript_events(A02)])
        if tool.call.name == "Bash" and tool.call.success
    ]
    assert (worked.output_state, worked.output_text[:1]) == ("present", ".")


def test_a_rejected_call_has_no_output_and_no_outcome() -> None:
    (tool,) = tools_of(session_events(A07))
    assert (tool.call.decision, tool.call.success, tool.output_state) == ("reject", None, "missing")


def test_with_content_switched_off_outputs_are_missing_and_outcomes_known() -> None:
    tools = tools_of(session_events("a09_defaults_redacted"))
    assert tools
    for tool in tools:
        assert tool.call.success is not None
        assert tool.output_state == "missing"
