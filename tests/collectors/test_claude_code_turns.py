"""Assembly: exact totals from whatever subset of records arrives, in whatever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.claude_code_turns import NO_TOKENS_REASON, assemble
from loop.domain.turns import METRIC_SOURCE, Event, TokenUsage, Turn
from tests.collectors.recordings import (
    check_totals,
    expected,
    expected_sessions,
    session_events,
    transcript_events,
)

SESSIONS = {
    session_id: [name for name, entry in expected().items() if entry["session_id"] == session_id]
    for session_id in expected_sessions()
}
EVENTS = {session_id: session_events(*names) for session_id, names in SESSIONS.items()}
TRANSCRIPTS = (
    "a01_read_answer",
    "a02_fix_bug_failed_edit",
    "a04_overload_retry_unfaithful",
    "a05_subagent",
)


def turns_of(*names: str, **kwargs: object) -> tuple[Turn, ...]:
    return assemble(session_events(*names, **kwargs)).turns  # type: ignore[arg-type]


@pytest.mark.parametrize("session_id", SESSIONS)
def test_every_recorded_session_sums_to_what_the_api_served(session_id: str) -> None:
    turns = assemble(EVENTS[session_id]).turns
    check_totals(turns, {session_id: expected_sessions()[session_id]})


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_order_and_duplication_make_no_difference(data: st.DataObject) -> None:
    session_id = data.draw(st.sampled_from(sorted(SESSIONS)))
    events = EVENTS[session_id]
    again = data.draw(st.lists(st.sampled_from(events), max_size=len(events)))
    shuffled = data.draw(st.permutations([*events, *again]))
    assert assemble(shuffled) == assemble(events)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_subset_of_the_records_assembles_and_never_counts_more_than_all(
    data: st.DataObject,
) -> None:
    session_id = data.draw(st.sampled_from(sorted(SESSIONS)))
    events = EVENTS[session_id]
    kept = data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    whole = assemble(events)
    part = assemble([event for event, keep in zip(events, kept, strict=True) if keep])

    def usage(turns: tuple[Turn, ...]) -> TokenUsage:
        return sum((turn.usage for turn in turns), TokenUsage())

    assert usage(part.turns).total_input_tokens <= usage(whole.turns).total_input_tokens
    assert usage(part.turns).output_tokens <= usage(whole.turns).output_tokens
    # What is left of a request may tell no tokens while a metric point does: that is a turn of the
    # metric beside the request's, which is none of the whole's.
    requests = [turn for turn in part.turns if turn.usage_source != METRIC_SOURCE]
    assert len(requests) <= len(whole.turns)
    known = {turn.turn_id: turn for turn in whole.turns}
    for turn in part.turns:
        if turn.usage == TokenUsage() and turn.status != "error":
            assert turn.unpriced_reason == NO_TOKENS_REASON
        assert turn.turn_id in known or turn.usage_source == METRIC_SOURCE
    ids = [call.tool_use_id for turn in part.turns for call in turn.tool_calls if not call.inferred]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("signals", [("logs",), ("traces",)])
@pytest.mark.parametrize("session_id", SESSIONS)
def test_logs_alone_and_spans_alone_count_the_same_tokens(
    session_id: str, signals: tuple[str, ...]
) -> None:
    events = [event for event in EVENTS[session_id] if event.kind + "s" == signals[0].replace(
        "traces", "spans")]  # fmt: skip
    turns = assemble(events).turns
    truth = expected_sessions()[session_id]
    served = [turn for turn in turns if turn.status != "error"]
    assert sorted(turn.request_id for turn in served) == truth["request_ids"]
    by_model: dict[str, int] = {}
    for turn in served:
        by_model[turn.model] = by_model.get(turn.model, 0) + turn.usage.total_input_tokens
    assert by_model == {
        model: tokens["input"] + tokens["cacheRead"] + tokens["cacheCreation"]
        for model, tokens in truth["tokens"].items()
    }
    told = sum(not call.inferred for turn in turns for call in turn.tool_calls)
    assert told <= truth["tools"].total()


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["true", "1e400", "-5", "<REDACTED>", '{"a":', "[TOOL RESULT: toolu_1]\nx"]),
    st.lists(st.none() | st.integers() | st.dictionaries(st.text(max_size=3), st.text())),
    st.dictionaries(st.text(max_size=3), st.integers()),
)
NAMES = sorted({event.name for events in EVENTS.values() for event in events})
ATTRIBUTES = sorted({key for events in EVENTS.values() for e in events for key in e.attributes})


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_values_of_any_type_in_any_attribute_assemble(data: st.DataObject) -> None:
    session_id = data.draw(st.sampled_from(sorted(SESSIONS)))
    changes = data.draw(
        st.lists(st.tuples(st.integers(0, 200), st.sampled_from(ATTRIBUTES), ODD_VALUES))
    )
    events = list(EVENTS[session_id])
    for number, (position, key, value) in enumerate(changes):
        event = events[position % len(events)]
        attributes = {**event.attributes, key: value}
        # Other content, another id: where the session was sent twice, both versions are there.
        changed = replace(event, event_id=f"changed-{number}", attributes=attributes)
        events[position % len(events)] = changed
    name = data.draw(st.sampled_from(NAMES))
    events.append(replace(events[0], event_id="odd", name=name, attributes={}))
    assembled = assemble(events)
    assert assemble(reversed(events)) == assembled


def _as_older_client(event: Event) -> Event:
    """The record as client 2.1.197 wrote it: no request ids on tool events, no agent ids."""
    dropped = {"message.uuid", "ttft_ms", "prompt_text", "gen_ai.conversation.id", "agent_id"}
    dropped |= {"cache_creation_5m_tokens", "cache_creation_1h_tokens", "effort", "error_class"}
    if event.name in ("claude_code.tool_decision", "claude_code.tool_result"):
        dropped |= {"request_id", "permission_mode", "tool_source"}
    attributes = {key: value for key, value in event.attributes.items() if key not in dropped}
    return replace(event, attributes=attributes)


@pytest.mark.parametrize("signals", [("log", "span"), ("log",)])
@pytest.mark.parametrize("session_id", SESSIONS)
def test_an_older_clients_tool_events_join_their_requests_by_order(
    session_id: str, signals: tuple[str, ...]
) -> None:
    recorded = [event for event in EVENTS[session_id] if event.kind in signals]
    older = assemble([_as_older_client(event) for event in recorded]).turns
    newer = assemble(recorded).turns

    def calls(turns: tuple[Turn, ...]) -> dict[str, str]:
        return {
            call.tool_use_id: turn.turn_id
            for turn in turns
            for call in turn.tool_calls
            if not call.inferred
        }

    assert calls(older) == calls(newer)
    assert [turn.usage.total_input_tokens for turn in older] == [
        turn.usage.total_input_tokens for turn in newer
    ]
    assert [turn.request_class for turn in older] == [turn.request_class for turn in newer]


@pytest.mark.parametrize("session_id", SESSIONS)
def test_requests_without_any_id_are_paired_by_tokens_and_time(session_id: str) -> None:
    names = ("request_id", "gen_ai.response.id")
    nameless = [
        replace(
            event,
            attributes={key: value for key, value in event.attributes.items() if key not in names},
        )
        for event in EVENTS[session_id]
    ]
    turns, known = assemble(nameless).turns, assemble(EVENTS[session_id]).turns
    assert len(turns) == len(known)
    assert [turn.usage for turn in turns] == [turn.usage for turn in known]
    assert all(turn.turn_id and not turn.request_id for turn in turns)


def test_retries_that_succeeded_count_as_attempts() -> None:
    first, second = turns_of("a04_overload_retry_unfaithful")
    assert (first.attempts, first.status, first.failed_attempts) == (4, "ok", 3)
    assert second.attempts == 1


def test_retries_that_were_exhausted_are_one_failed_turn() -> None:
    (turn,) = turns_of("a08_retries_exhausted")
    assert (turn.status, turn.error_status, turn.attempts) == ("error", 529, 3)
    assert turn.served_model == ""
    assert turn.requested_model == "claude-sonnet-4-6"


def test_a_failed_edit_that_left_no_event_is_inferred() -> None:
    turns = turns_of("a02_fix_bug_failed_edit")
    inferred = [call for turn in turns for call in turn.tool_calls if call.inferred]
    assert len(inferred) == 1
    assert (inferred[0].tool_use_id, inferred[0].name, inferred[0].success) == ("", "", None)


def test_a_rejected_tool_has_no_success() -> None:
    calls = [call for turn in turns_of("a07_permission_denied") for call in turn.tool_calls]
    assert [(call.name, call.decision, call.success) for call in calls] == [
        ("Write", "reject", None)
    ]


def test_refusals_are_served_requests() -> None:
    turns = turns_of("a15_refusal")
    assert [(turn.status, turn.stop_reason) for turn in turns] == [("refused", "refusal")] * 2
    assert all(turn.usage.output_tokens for turn in turns)


def test_mcp_tools_have_their_full_name_from_either_signal() -> None:
    for signals in (("logs",), ("traces",)):
        turns = turns_of("a14_mcp_and_hooks", signals=signals)
        assert [call.name for turn in turns for call in turn.tool_calls] == ["mcp__tickets__lookup"]


def test_a_subagents_turns_are_told_apart_and_its_notification_is_no_human_prompt() -> None:
    turns = turns_of("a05_subagent")
    agents = [turn for turn in turns if turn.agent_id]
    assert len(agents) == 3
    assert {(turn.agent_name, turn.request_class) for turn in agents} == {("Explore", "subagent")}
    assert [turn.prompt_chars for turn in turns if not turn.agent_id] == [92, 92, None]
    assert sum(turn.starts_prompt for turn in turns) == 3  # two prompts, and the agent's share


def test_a_resumed_session_keeps_its_order_though_sequences_restart() -> None:
    turns = turns_of("a06_resume_of_a01", "a01_read_answer")
    assert [turn.request_id for turn in turns] == [
        *expected()["a01_read_answer"]["api"]["request_ids_ok"],
        *expected()["a06_resume_of_a01"]["api"]["request_ids_ok"],
    ]
    assert len({turn.prompt_id for turn in turns}) == 2


def test_one_hour_cache_writes_are_told_apart() -> None:
    (turn,) = turns_of("a13_oauth_identity")
    assert turn.usage.cache_creation_1h_tokens == 22206
    assert turn.usage.cache_creation_5m_tokens == 0
    (from_span,) = turns_of("a13_oauth_identity", signals=("traces",))
    assert from_span.usage.cache_creation_5m_tokens == 22206  # a span has no split


def test_attribution_reads_the_record_before_the_resource() -> None:
    turn = turns_of("a01_read_answer")[0]
    assert (turn.developer, turn.org_path) == (
        "dana@example.com",
        "engineering/payments/cc-4711",
    )
    assert turns_of("a13_oauth_identity")[0].developer == "dana-oauth@example.com"
    assert turns_of("a12_cumulative_all_labels")[0].repository == (
        "https://github.com/acme-corp/shop"
    )
    events = [
        replace(event, resource={**event.resource, "enduser.id": "mallory@example.com"})
        for event in session_events("a01_read_answer")
    ]
    assert {turn.developer for turn in assemble(events).turns} == {"dana@example.com"}


def test_redacted_content_is_said_to_be_redacted() -> None:
    session = assemble(session_events("a09_defaults_redacted"))
    states = {(content.kind, content.state) for content in session.contents}
    assert states == {("prompt", "redacted"), ("assistant_text", "redacted")}
    assert all(content.text == "" and content.chars > 0 for content in session.contents)


def test_cut_content_is_said_to_be_cut() -> None:
    mark = "\n[TRUNCATED - Content exceeds 60KB limit]"
    events = [
        replace(event, attributes={**event.attributes, "response": "x" * 100 + mark})
        if event.name == "claude_code.assistant_response"
        else event
        for event in session_events("a13_oauth_identity")
    ]
    (answer,) = [c for c in assemble(events).contents if c.kind == "assistant_text"]
    assert answer.state == "truncated"


def test_a_gateways_rewrite_shows_the_requested_and_the_served_model() -> None:
    events = [
        replace(event, attributes={**event.attributes, "model": "claude-haiku-4-5"})
        if event.name in ("claude_code.api_request", "claude_code.assistant_response")
        else event
        for event in session_events("a01_read_answer")
    ]
    for turn in assemble(events).turns:
        assert (turn.requested_model, turn.served_model) == ("claude-opus-4-7", "claude-haiku-4-5")


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_transcript_alone_counts_what_the_api_served(name: str) -> None:
    turns = assemble(transcript_events(name)).turns
    entry = expected()[name]
    truth = expected_sessions()[entry["session_id"]]
    if name == "a01_read_answer":  # its file ends before the resume
        turns = assemble([*transcript_events(name), *session_events("a06_resume_of_a01")]).turns
    check_totals(turns, {entry["session_id"]: truth})
    assert not [call for turn in turns for call in turn.tool_calls if call.inferred]


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_transcript_adds_evidence_and_no_turns(name: str) -> None:
    alone = assemble(session_events(name))
    both = assemble([*transcript_events(name), *session_events(name)])
    assert [turn.turn_id for turn in both.turns] == [turn.turn_id for turn in alone.turns]
    assert [turn.usage for turn in both.turns] == [turn.usage for turn in alone.turns]
    assert [turn.prompt_id for turn in both.turns] == [turn.prompt_id for turn in alone.turns]
    assert all("transcript" in turn.sources for turn in both.turns)


def test_the_transcript_tells_what_failed_tools_put_out() -> None:
    events = [
        *transcript_events("a02_fix_bug_failed_edit"),
        *session_events("a02_fix_bug_failed_edit"),
    ]
    session = assemble(events)
    calls = [call for turn in session.turns for call in turn.tool_calls]
    assert [(call.name, call.success) for call in calls] == [
        ("Bash", False),
        ("Read", True),
        ("Edit", False),
        ("Edit", True),
        ("Bash", True),
    ]
    outputs = {
        content.tool_use_id: content.text
        for content in session.contents
        if content.kind == "tool_output"
    }
    assert "FAIL: test_total" in outputs[calls[0].tool_use_id]
    assert "String to replace not found" in outputs[calls[2].tool_use_id]


def test_the_gateways_decision_joins_its_turn() -> None:
    events = session_events("a01_read_answer")
    request_id = expected()["a01_read_answer"]["api"]["request_ids_ok"][0]
    decision = Event(
        "d1",
        "decision",
        "turnwise.decision",
        events[0].session_id,
        events[0].at_us,
        0,
        {
            "decision_id": request_id,
            "serial": 7,
            "policy_version": 3,
            "arm": "canary",
            "rule_id": "small",
            "requested_model": "claude-opus-5-5",
            "routed_model": "claude-haiku-4-5",
        },
        {},
        1,
    )
    turns = assemble([*events, decision]).turns
    routed = turns[0]
    assert (routed.policy_serial, routed.policy_version) == (7, 3)
    assert (routed.arm, routed.rule_id) == ("canary", "small")
    assert routed.requested_model == "claude-opus-5-5"
    assert "gateway" in routed.sources
    assert turns[1].policy_serial is None
