"""What recordings of other days may hold: killed clients, rewriting gateways, older versions.

The shipped recordings' records, changed as those clients and gateways would change them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from collectors.claude_code_turns import assemble
from loop.domain.turns import Event, Turn
from loop.ledger.prices import load_price_book
from loop.ledger.pricing import price
from tests.collectors.recordings import expected, session_events

A01, A02, A05 = "a01_read_answer", "a02_fix_bug_failed_edit", "a05_subagent"
SERVED = ("claude_code.api_request", "claude_code.assistant_response")
BOOK = load_price_book()


def changed(events: list[Event], names: Collection[str], **attributes: object) -> list[Event]:
    return [
        replace(event, attributes={**event.attributes, **attributes})
        if event.name in names
        else event
        for event in events
    ]


def without(events: list[Event], *attributes: str) -> list[Event]:
    return [
        replace(
            event, attributes={k: v for k, v in event.attributes.items() if k not in attributes}
        )
        for event in events
    ]


def priced(events: list[Event]) -> list[Turn]:
    return [price(turn, BOOK) for turn in assemble(events).turns]


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-haiku-4-5-20251001"])
@pytest.mark.parametrize("kinds", [("log", "span"), ("log",)])
def test_a_rewriting_gateways_turns_are_charged_as_what_was_served(
    model: str, kinds: tuple[str, ...]
) -> None:
    recorded = [event for event in session_events(A01) if event.kind in kinds]
    cheaper, dearer = priced(changed(recorded, SERVED, model=model)), priced(recorded)
    for cheap, dear in zip(cheaper, dearer, strict=True):
        assert (cheap.served_model, cheap.usage) == (model, dear.usage)
        assert cheap.client_cost_microusd == dear.client_cost_microusd  # as the client priced it
        assert cheap.cost_microusd is not None
        assert dear.cost_microusd is not None
        assert abs(5 * cheap.cost_microusd - dear.cost_microusd) <= 5


def test_a_model_that_no_price_book_knows_is_unpriced_and_shown() -> None:
    for turn in priced(changed(session_events(A01), SERVED, model="in-house-model")):
        assert turn.cost_microusd is None
        assert turn.unpriced_reason == "unknown model in-house-model"
        assert turn.usage.input_tokens > 0


@pytest.mark.parametrize("share", [0.3, 0.45, 0.6, 0.75, 0.9])
def test_what_a_killed_client_sent_before_counts_once_and_nothing_is_made_up(share: float) -> None:
    recorded = session_events(A02)
    times = sorted(event.at_us for event in recorded if event.kind == "log")
    killed_at_us = times[int(share * len(times))]

    def was_sent(event: Event) -> bool:
        ended_at_us = event.attributes.get("otel.ended_at_us", event.at_us)
        return event.kind != "metric" and ended_at_us <= killed_at_us

    whole = {turn.turn_id: turn for turn in priced(recorded)}
    turns = priced([event for event in recorded if was_sent(event)])
    assert turns
    for turn in turns:
        known = whole[turn.turn_id]
        if turn.usage.total_input_tokens:
            assert (turn.usage, turn.cost_microusd) == (known.usage, known.cost_microusd)
        else:
            assert turn.cost_microusd is None
        known_ids = {call.tool_use_id for call in known.tool_calls}
        assert {call.tool_use_id for call in turn.tool_calls} <= known_ids | {""}


def test_a_tool_that_was_running_when_the_client_was_killed_has_no_outcome() -> None:
    recorded = session_events(A02)
    decided = min(event.at_us for event in recorded if event.name == "claude_code.tool_decision")
    turns = priced([e for e in recorded if e.kind == "log" and e.at_us <= decided])
    calls = [call for turn in turns for call in turn.tool_calls]
    assert [(call.name, call.success, call.decision) for call in calls] == [
        ("Bash", None, "accept")
    ]


def test_an_mcp_tool_that_failed_is_a_failed_call_without_output() -> None:
    events = [
        replace(event, attributes={k: v for k, v in event.attributes.items() if k != "otel.events"})
        for event in changed(
            session_events("a14_mcp_and_hooks"),
            ("claude_code.tool_result",),
            success="false",
            error="the server said no",
        )
    ]
    session = assemble(events)
    (call,) = [call for turn in session.turns for call in turn.tool_calls]
    assert (call.name, call.success) == ("mcp__tickets__lookup", False)
    kinds = {(c.kind, c.text) for c in session.contents if c.tool_use_id == call.tool_use_id}
    assert ("tool_error", "the server said no") in kinds
    assert not [text for kind, text in kinds if kind == "tool_output"]


def test_a_session_id_in_the_resource_block_moves_nothing() -> None:
    events = [
        replace(event, resource={**event.resource, "session.id": "spoofed", "user.id": "mallory"})
        for event in session_events(A01)
    ]
    assert {turn.session_id for turn in priced(events)} == {expected()[A01]["session_id"]}
    assert {turn.developer for turn in priced(events)} == {"dana@example.com"}


def test_repository_labels_that_come_late_name_the_repository_of_all_turns() -> None:
    recorded = session_events(A05)
    labels = {
        "vcs.repository.url.full": "https://example.com/acme/shop",
        "vcs.owner.name": "acme",
        "vcs.repository.name": "shop",
    }
    first_tool = min(e.at_us for e in recorded if e.name == "claude_code.tool_decision")
    labelled = [
        replace(event, attributes={**event.attributes, **labels})
        if event.at_us >= first_tool
        else event
        for event in recorded
    ]
    assert {turn.repository for turn in priced(labelled)} == {"https://example.com/acme/shop"}


TOOL_EVENTS = ("claude_code.tool_decision", "claude_code.tool_result")
NEW_EVENTS = ("claude_code.plugin_loaded", "claude_code.managed_settings_resolved")
NEW_ON_TOOLS = ("request_id", "agent_id", "permission_mode", "tool_source")
NEW_ATTRIBUTES = (
    "agent_id", "message.uuid", "ttft_ms", "cache_creation_5m_tokens", "cache_creation_1h_tokens",
    "prompt_text", "effort", "error_class", "anthropic.provider", "anthropic.custom_base_url",
    "gen_ai.conversation.id", "gen_ai.provider.name", "gen_ai.operation.name",
)  # fmt: skip


def as_older_client(events: list[Event]) -> list[Event]:
    """What 2.1.197 sends of the same session: every difference between the two that is known. It
    was told from recordings of both, of which those of the older one were not kept."""
    sent = without([e for e in events if e.name not in NEW_EVENTS], *NEW_ATTRIBUTES)
    of_tools = without([e for e in sent if e.name in TOOL_EVENTS], *NEW_ON_TOOLS)
    return [*(e for e in sent if e.name not in TOOL_EVENTS), *of_tools]


@pytest.mark.parametrize("kinds", [("log", "span"), ("log",)])
@pytest.mark.parametrize("name", sorted(expected()))
def test_what_an_older_client_sends_of_a_session_is_the_same_turns(
    name: str, kinds: tuple[str, ...]
) -> None:
    recorded = [event for event in session_events(name) if event.kind in kinds]
    older, newer = priced(as_older_client(recorded)), priced(recorded)
    assert [t.turn_id for t in older] == [t.turn_id for t in newer]
    assert [t.status for t in older] == [t.status for t in newer]
    for before, now in zip(older, newer, strict=True):
        if before.usage is None or now.usage is None:
            assert before.usage == now.usage
            continue
        is_split = now.usage.cache_creation_1h_tokens > 0
        if not is_split:
            assert (before.usage, before.cost_microusd) == (now.usage, now.cost_microusd)
            continue
        # All counted as 5-minute writes, which cost less; the turn says that it was assumed.
        assert before.cache_split_assumed
        assert before.usage.cache_creation_5m_tokens == (
            now.usage.cache_creation_5m_tokens + now.usage.cache_creation_1h_tokens
        )
    calls = [sorted(c.name for t in turns for c in t.tool_calls) for turns in (older, newer)]
    assert calls[0] == calls[1]


@pytest.mark.parametrize("kinds", [("log", "span"), ("log",)])
def test_an_older_client_with_a_foreground_agent_is_told_apart_the_same(
    kinds: tuple[str, ...],
) -> None:
    recorded = [event for event in session_events(A05) if event.kind in kinds]
    older = as_older_client(recorded)
    assert [(t.turn_id, t.usage, t.cost_microusd, t.request_class) for t in priced(older)] == [
        (t.turn_id, t.usage, t.cost_microusd, t.request_class) for t in priced(recorded)
    ]
    assert [t.agent_name for t in priced(older)] == [t.agent_name for t in priced(recorded)]
    assert [[call.name for call in t.tool_calls] for t in priced(older)] == [
        [call.name for call in t.tool_calls] for t in priced(recorded)
    ]
