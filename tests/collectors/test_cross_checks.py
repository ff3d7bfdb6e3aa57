"""Logs, metrics and spans side by side: they agree, or the reason is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.claude_code_turns import assemble
from collectors.cross_checks import COST, REASONS, REQUESTS, CrossCheck, cross_check
from collectors.token_metrics import TOKEN_USAGE
from loop.domain.turns import Event
from tests.collectors.recordings import expected, expected_sessions, session_events

SESSIONS = {
    session_id: [name for name, entry in expected().items() if entry["session_id"] == session_id]
    for session_id in expected_sessions()
}
A02 = "a02_fix_bug_failed_edit"


def check(events: list[Event]) -> CrossCheck:
    return cross_check(events, assemble(events).turns)


@pytest.mark.parametrize("session_id", SESSIONS)
def test_the_three_sources_of_every_recording_agree(session_id: str) -> None:
    found = check(session_events(*SESSIONS[session_id]))
    assert (found.agrees, found.reasons) == (True, ())
    served = expected_sessions()[session_id]["tokens"]
    for item in found.sums:
        assert item.by_gateway is None
        if item.measure == COST:
            assert item.by_span is None
            assert item.difference <= served[item.model]["requests"]
            continue
        told = {item.by_event, item.by_span, item.charged}
        if item.measure != REQUESTS:
            told.add(item.by_metric)
        assert len(told) == 1
    assert {item.model for item in found.sums} == set(served)


@pytest.mark.parametrize("kinds", [("log",), ("span",), ("metric",), ()])
def test_one_source_alone_has_nothing_to_disagree_with(kinds: tuple[str, ...]) -> None:
    found = check([event for event in session_events(A02) if event.kind in kinds])
    assert found.agrees
    assert len(found.sources) == len(kinds)


def test_a_killed_clients_last_metrics_and_spans_are_missed() -> None:
    recorded = session_events(A02)
    last = max(event.at_us for event in recorded if event.name == "claude_code.llm_request")
    lost = [
        e for e in recorded if not (e.kind == "metric" or (e.kind == "span" and e.at_us == last))
    ]
    assert check(lost).reasons == ("spans_behind",)
    halved = [
        replace(
            event,
            event_id=event.event_id + "-",
            at_us=event.at_us - 400_000,
            attributes={
                **event.attributes,
                "otel.value": float(event.attributes["otel.value"]) // 2,
            },  # type: ignore[arg-type]
        )
        for event in recorded
        if event.name == TOKEN_USAGE
    ]
    found = check([*(e for e in recorded if e.kind != "metric"), *halved])
    assert found.reasons == ("metrics_behind",)
    for item in found.sums:
        if item.by_metric is not None and item.measure != COST:
            assert item.difference == (item.by_event or 0) - item.by_metric


def test_lost_logs_are_named() -> None:
    recorded = session_events(A02)
    first = min(event.at_us for event in recorded if event.name == "claude_code.api_request")
    kept = [e for e in recorded if (e.name, e.at_us) != ("claude_code.api_request", first)]
    found = check(kept)
    assert found.reasons == ("logs_behind",)
    # The span tells of the request, so nothing is missing from what is charged.
    assert {item.charged for item in found.sums if item.measure == "input_tokens"} == {
        item.by_metric for item in found.sums if item.measure == "input_tokens"
    }


def test_a_rewritten_model_is_told_from_a_difference() -> None:
    recorded = [
        replace(event, attributes={**event.attributes, "model": "claude-haiku-4-5"})
        if event.name in ("claude_code.api_request", "claude_code.assistant_response")
        else event
        for event in session_events(A02)
    ]
    found = check(recorded)
    assert found.reasons == ("model_rewritten",)
    (served, asked) = [item for item in found.sums if item.measure == "output_tokens"]
    assert (served.model, asked.model) == ("claude-haiku-4-5", "claude-sonnet-4-6")
    assert (served.by_event, served.by_metric) == (asked.by_metric, 0)


@pytest.mark.parametrize(
    ("extra", "reasons"), [(0, ()), (2, ("retries",)), (-1, ("past_the_gateway",))]
)
def test_requests_are_compared_with_the_gateways(extra: int, reasons: tuple[str, ...]) -> None:
    recorded = session_events(A02)
    served = [e for e in recorded if e.name == "claude_code.api_request"]
    decisions = [
        replace(
            served[number % len(served)],
            event_id=f"d{number}",
            kind="decision",
            name="turnwise.decision",
            attributes={"decision_id": f"req-{number}", "routed_model": "whatever-it-calls-it"},
        )
        for number in range(len(served) + extra)
    ]
    found = check([*recorded, *decisions])
    assert found.reasons == reasons
    (of_all,) = [item for item in found.sums if item.model == ""]
    assert (of_all.by_event, of_all.by_gateway) == (len(served), len(decisions))


def test_what_no_reason_explains_is_said_to_be_unknown() -> None:
    recorded = [
        replace(e, attributes={**e.attributes, "otel.value": 1.0})
        if e.name == "claude_code.cost.usage"
        else e
        for e in session_events(A02)
    ]
    assert check(recorded).reasons == ("unknown",)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_subset_in_any_order_is_checked_alike(data: st.DataObject) -> None:
    session_id = data.draw(st.sampled_from(sorted(SESSIONS)))
    events = session_events(*SESSIONS[session_id])
    kept = data.draw(st.lists(st.sampled_from(events), unique_by=lambda event: event.event_id))
    again = data.draw(st.lists(st.sampled_from(kept), max_size=5)) if kept else []
    turns = assemble(kept).turns
    found = cross_check(kept, turns)
    assert cross_check(data.draw(st.permutations([*kept, *again])), turns) == found
    assert set(found.reasons) <= REASONS.keys()
    assert found.agrees or any(item.difference for item in found.sums)
