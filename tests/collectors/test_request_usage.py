"""Which source the tokens of a turn are read from, and the terms that it was served on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from collectors.claude_code_turns import assemble
from loop.domain.turns import Event, TokenUsage, Turn
from tests.collectors.recordings import session_events, transcript_events_of

A13 = "a13_oauth_identity"  # writes to the 1-hour cache
SPLIT = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 900}


def told(request_id: str, *, stop_reason: str | None = "end_turn", **usage: Any) -> list[Event]:
    """A transcript's one line about an answer."""
    line = {
        "type": "assistant",
        "uuid": f"u-{request_id}",
        "requestId": request_id,
        "timestamp": "2026-11-01T10:00:00Z",
        "message": {
            "id": f"msg-{request_id}",
            "model": "claude-opus-4-7",
            "content": [{"type": "text", "text": "Done."}],
            "stop_reason": stop_reason,
            "usage": usage,
        },
    }
    return transcript_events_of([line], "s")


def only(events: list[Event]) -> Turn:
    (turn,) = assemble(events).turns
    return turn


def span_of(request_id: str, **attributes: int) -> Event:
    named = {"request_id": request_id, "otel.span_id": "1", "success": True, **attributes}
    return Event("e1", "span", "claude_code.llm_request", "s", 1, 0, named, {}, 1)


def test_terms_are_read_from_a_transcript() -> None:
    turn = only(
        told(
            "req_1",
            input_tokens=1,
            output_tokens=2,
            speed="fast",
            service_tier="batch",
            inference_geo="us",
        )
    )
    assert (turn.message_id, turn.usage_source) == ("msg-req_1", "transcript")
    assert (turn.speed, turn.service_tier, turn.inference_geo) == ("fast", "batch", "us")


@pytest.mark.parametrize("nowhere", [None, "", "not_available", 7])
def test_a_region_that_the_api_does_not_name_is_not_stated(nowhere: Any) -> None:
    assert only(told("req_1", output_tokens=2, inference_geo=nowhere)).inference_geo == ""


def test_telemetry_says_normal_for_the_standard_speed() -> None:
    events = [event for event in session_events(A13) if event.kind == "log"]
    assert {turn.speed for turn in assemble(events).turns} == {"standard"}
    fast = [replace(e, attributes={**e.attributes, "speed": "fast"}) for e in events]
    assert {turn.speed for turn in assemble(fast).turns} == {"fast"}


def test_an_event_with_its_split_is_whole_and_a_span_alone_assumes_five_minutes() -> None:
    events = session_events(A13)
    (whole,) = assemble([e for e in events if e.kind == "log"]).turns
    (spans_only,) = assemble([e for e in events if e.kind == "span"]).turns
    assert whole.usage.cache_creation_1h_tokens > 0
    assert (whole.usage_source, whole.cache_split_assumed) == ("otlp-log", False)
    assert (spans_only.usage_source, spans_only.cache_split_assumed) == ("otlp-span", True)
    assert spans_only.usage.cache_creation_5m_tokens == whole.usage.cache_creation_1h_tokens


@pytest.mark.parametrize(("creation", "is_taken"), [(900, True), (901, False)])
def test_a_split_is_taken_from_another_source_only_if_the_sums_agree(
    creation: int, is_taken: bool
) -> None:
    span = span_of("req_1", input_tokens=3, output_tokens=70, cache_creation_tokens=creation)
    partial = told(
        "req_1", stop_reason=None, output_tokens=1, cache_creation_input_tokens=900,
        cache_creation=SPLIT,
    )  # fmt: skip
    turn = only([span, *partial])
    assert (turn.usage_source, turn.cache_split_assumed) == ("otlp-span", not is_taken)
    hourly = 900 if is_taken else 0
    assert turn.usage == TokenUsage(3, 70, 0, creation - hourly, hourly)


def test_an_answer_that_an_older_client_never_completed_is_said_to_be_partial() -> None:
    turn = only(told("req_1", stop_reason=None, input_tokens=2, output_tokens=3))
    assert (turn.usage_source, turn.usage.output_tokens) == ("transcript-partial", 3)
