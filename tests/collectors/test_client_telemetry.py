"""docs/client-telemetry.md says what is read of each record; recordings show whether it is so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.body_decoding import decode
from collectors.claude_code_turns import AssembledSession, assemble
from collectors.cross_checks import REASONS, cross_check
from collectors.raw_body_files import BodyReport, read_bodies
from collectors.request_usage import USAGE_ORDER
from collectors.segments import Record
from loop.domain.turns import Event, TokenUsage
from tests.collectors.recordings import (
    RECEIVED_AT_US,
    expected,
    expected_sessions,
    session_events,
    transcript_events,
)

PAGE = (Path(__file__).parents[2] / "docs" / "client-telemetry.md").read_text()
KINDS = {"Events": "log", "Spans": "span", "Metrics": "metric"}
SESSIONS = {
    session_id: [name for name, entry in expected().items() if entry["session_id"] == session_id]
    for session_id in expected_sessions()
}


def rows() -> dict[tuple[str, str], tuple[bool, bool]]:
    """By kind and name: whether the record was seen, and whether turns or texts read it."""
    found = {}
    for heading, kind in KINDS.items():
        section = PAGE.split(f"### {heading}\n")[1].split("\n#")[0]
        for name, seen, read in re.findall(
            r"^\| `([\w.]+)` \| (yes|no) \| (.+) \|$", section, re.M
        ):
            found[kind, name] = (seen == "yes", not read.startswith("kept"))
    return found


ROWS = rows()


@cache
def sessions() -> list[list[Event]]:
    bodies = Path(__file__).parents[1] / "recorded_bodies"
    imported = [
        event
        for body in read_bodies([bodies], BodyReport())
        for event in decode(Record("logs", "json", body, RECEIVED_AT_US)).events
    ]
    return [*(session_events(*names) for names in SESSIONS.values()), imported]


def without_agent_names(events: Iterable[Event]) -> list[Event]:
    return [
        replace(e, attributes={k: v for k, v in e.attributes.items() if k != "agent.name"})
        if e.name == "claude_code.api_request"
        else e
        for e in events
    ]


VARIANTS: dict[str, Callable[[list[Event]], list[Event]]] = {
    "all": lambda events: events,
    "logs": lambda events: [e for e in events if e.kind == "log"],
    "spans": lambda events: [e for e in events if e.kind == "span"],
    "metrics": lambda events: [e for e in events if e.kind == "metric"],
    "nameless agents": lambda events: [e for e in without_agent_names(events) if e.kind == "log"],
    "no source of the agent": lambda events: [
        replace(e, attributes={k: v for k, v in e.attributes.items() if k != "query_source"})
        for e in without_agent_names(events)
        if e.kind == "log"
    ],
}


@cache
def assembled(variant: str, number: int) -> AssembledSession:
    return assemble(VARIANTS[variant](sessions()[number]))


def matters(kind: str, name: str) -> bool:
    """Whether any session says something else without the records of that name."""
    for variant, narrow in VARIANTS.items():
        for number, events in enumerate(sessions()):
            chosen = narrow(events)
            rest = [event for event in chosen if (event.kind, event.name) != (kind, name)]
            if len(rest) < len(chosen) and assemble(rest) != assembled(variant, number):
                return True
    return False


def test_every_recorded_record_stands_on_the_page() -> None:
    recorded = {(event.kind, event.name) for events in sessions() for event in events}
    assert recorded <= {key for key, (seen, _) in ROWS.items() if seen}
    assert len(ROWS) == 48


@pytest.mark.parametrize(
    ("kind", "name"), [key for key, (seen, _) in ROWS.items() if seen], ids=str
)
def test_what_is_said_to_be_read_is_read_and_nothing_else(kind: str, name: str) -> None:
    if not any((e.kind, e.name) == (kind, name) for events in sessions() for e in events):
        # Seen in recordings that are not shipped: only what is never read may lack one here.
        assert not ROWS[kind, name][1], "what is read must be in a shipped recording"
        return
    assert matters(kind, name) == ROWS[kind, name][1]


@pytest.mark.parametrize(
    ("kind", "name"), [key for key, (_, is_read) in ROWS.items() if not is_read], ids=str
)
def test_a_record_that_is_only_kept_changes_nothing_whatever_it_says(kind: str, name: str) -> None:
    events = sessions()[1]
    said: dict[str, Any] = {}
    for event in events:
        said |= event.attributes
    said |= {"request_id": "req_x", "tool_use_id": "toolu_x", "agent_id": "a", "otel.span_id": "9"}
    record = replace(events[0], event_id="x", kind=kind, name=name, attributes=said)
    assert assemble([*events, record]) == assemble(events)


def test_the_order_of_trust_is_the_pages() -> None:
    (row,) = re.findall(r"^\| tokens \|(.+)\|$", PAGE, re.M)
    assert tuple(re.findall(r"`([\w-]+)`", row)) == USAGE_ORDER
    named = PAGE.split("| reason |")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", named, re.M)) == set(REASONS)


JOINS = {"request_id", "gen_ai.response.id", "requestId", "message", "uuid", "message.uuid"}
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.lists(st.integers(0, 3), max_size=2), st.dictionaries(st.text(max_size=2), st.none()),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_attributes_that_lack_or_are_of_other_types_crash_nothing_and_invent_nothing(
    data: st.DataObject,
) -> None:
    session_id = data.draw(st.sampled_from(sorted(SESSIONS)))
    names = SESSIONS[session_id]
    events = [*session_events(*names), *(e for name in names for e in transcript_events(name))]
    whole = assemble(events)
    attributes = sorted({key for event in events for key in event.attributes})
    dropped = data.draw(st.sets(st.sampled_from(attributes), max_size=6))
    # Counts are not retyped to other counts: a number that was sent is believed.
    retyped = data.draw(
        st.dictionaries(st.sampled_from(attributes), ODD.filter(lambda v: not _is_count(v)))
    )
    chosen = data.draw(st.sets(st.sampled_from(range(len(events))), max_size=40))

    def change(event: Event) -> Event:
        kept = {k: v for k, v in event.attributes.items() if k not in dropped}
        changed = {k: retyped.get(k, v) for k, v in kept.items()}
        return replace(event, attributes=changed)

    odd = [change(e) if number in chosen else e for number, e in enumerate(events)]
    session = assemble(odd)
    check = cross_check(odd, session.turns)
    assert set(check.reasons) <= set(REASONS)
    used = sum((turn.usage for turn in session.turns), TokenUsage())
    truth = sum((turn.usage for turn in whole.turns), TokenUsage())
    if not JOINS & (dropped | retyped.keys()):
        assert used.total_input_tokens <= truth.total_input_tokens
        assert used.output_tokens <= truth.output_tokens
    # A request whose ids were taken from one record and not from the others may stand twice, but
    # never more often than there are sources that count tokens.
    assert used.total_input_tokens <= 3 * truth.total_input_tokens
    known = {call.tool_use_id for turn in whole.turns for call in turn.tool_calls}
    known |= {str(value) for value in retyped.values()}
    for turn in session.turns:
        assert {call.tool_use_id for call in turn.tool_calls} <= known | {""}
    texts = {content.text for content in whole.contents}
    assert whole.turns or not texts


def _is_count(value: object) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)
