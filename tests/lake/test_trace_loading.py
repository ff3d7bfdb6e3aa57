"""Turns and texts become the trace that an evaluator reads."""

from __future__ import annotations

from loop.domain.turns import Content, ToolDefinition
from loop.lake.trace_loading import build_traces
from tests.lake.lake_records import content, turn


def test_evidence_is_joined_to_its_call_and_never_to_a_call_without_an_id() -> None:
    contents = [
        content(1, kind="tool_input", tool_use_id="toolu_1", text='{"path": "a"}'),
        content(1, kind="tool_error", tool_use_id="toolu_1", text="cut", state="truncated"),
        content(1, kind="tool_output", tool_use_id="", text="stray"),
    ]
    (trace,) = build_traces([turn(1)], contents)
    named, inferred = trace.turns[0].tools
    assert (named.input_text, named.input_state) == ('{"path": "a"}', "present")
    assert (named.output_text, named.output_state) == ("cut", "truncated")
    assert inferred.call.inferred
    assert (inferred.input_state, inferred.output_state) == ("missing", "missing")


def test_the_more_complete_of_two_sources_counts() -> None:
    contents = [
        content(1, text="Half of", state="truncated", source="otlp-log"),
        content(1, text="Half of it.", source="transcript"),
        content(1, text="And more.", sequence=9, source="transcript"),
        content(1, kind="prompt", text="", state="redacted", source="otlp-log"),
        content(1, kind="prompt", text="Do it", source="transcript"),
    ]
    (trace,) = build_traces([turn(1)], contents)
    assert trace.turns[0].texts == ("Half of it.", "And more.")
    assert trace.turns[0].text_state == "present"
    assert [(prompt.text, prompt.state) for prompt in trace.prompts] == [("Do it", "present")]


def test_redacted_text_is_no_text() -> None:
    redacted = content(1, text="<REDACTED>", state="redacted")
    (trace,) = build_traces([turn(1), turn(2)], [redacted])
    assert [(t.texts, t.text_state) for t in trace.turns] == [((), "redacted"), ((), "missing")]


def test_a_task_notification_is_no_human_prompt() -> None:
    notification = content(
        1, kind="prompt", prompt_id="p2", text="\n<task-notification>done</task-notification>"
    )
    prompt = content(2, kind="prompt", text="What is <task-notification>?")
    (trace,) = build_traces([], [notification, prompt])
    assert [(prompt.prompt_id, prompt.from_human) for prompt in trace.prompts] == [
        ("p2", False),
        ("p1", True),
    ]
    assert trace.turns == ()


def test_attributes_are_what_the_latest_turns_say() -> None:
    moved = turn(2, repository="shop", developer="lee")
    (trace,) = build_traces([turn(1), moved, turn(3, "s2")][:2], [])
    assert trace.attributes["developer"] == "lee"
    assert trace.attributes["repository"] == "shop"


def test_tools_on_offer_are_those_of_every_whole_list() -> None:
    def offered(number: int, text: str, state: str = "present") -> Content:
        return content(number, kind="tool_definitions", text=text, state=state)

    lists = [
        offered(1, '[{"name": "Read", "input_schema": {"required": ["a"]}}, {"name": "Ls"}, 7]'),
        offered(2, '[{"type": "function", "function": {"name": "Go", "parameters": {"a": 1}}}]'),
        offered(3, '[{"name": "Read", "parameters": {"required": ["b"]}}]'),
        offered(4, '[{"name": "Cut"}]', "truncated"),
        offered(5, "[{"),
        offered(6, '{"name": "NoList"}'),
    ]
    (trace,) = build_traces([turn(1)], lists)
    assert trace.tools == (
        ToolDefinition("Go", '{"a":1}'),
        ToolDefinition("Ls"),
        ToolDefinition("Read", '{"required":["b"]}'),
    )
