"""Incremental assembly gives what assembling the whole session gives, at every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.attribution import Attribution
from collectors.claude_code_turns import AssembledSession, assemble
from collectors.session_parts import SessionParts
from loop.domain.turns import Content, Event, Turn
from tests.collectors.recordings import expected, session_events, transcript_events

ATTRIBUTION = Attribution()
CLAIMS = {
    *ATTRIBUTION.developer_attributes,
    *ATTRIBUTION.org_path_attributes,
    "organization.id",
    "vcs.repository.url.full",
    "vcs.owner.name",
    "vcs.repository.name",
}
NAMES = sorted(expected())
EVENTS = {name: session_events(name) for name in NAMES}
TRANSCRIPTS = transcript_events("a01_read_answer")
DROPPED = (
    "request_id",
    "prompt.id",
    "otel.trace_id",
    "otel.span_id",
    "tool_use_id",
    "user.email",
    "user.id",
    "event.sequence",
)


class View:
    """What a reader of the lake has after some changes."""

    def __init__(self) -> None:
        self.parts = SessionParts(ATTRIBUTION)
        self.turns: dict[str, Turn] = {}
        self.contents: dict[str, list[Content]] = {}

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self.parts.add(event)
        if self.parts.whole:
            return
        changes = self.parts.take_changes()
        for turn_id in changes.listed:
            self.turns.pop(turn_id, None)
            self.contents.pop(turn_id, None)
        for turn in changes.turns:
            assert turn.turn_id in changes.listed
            self.turns[turn.turn_id] = turn
        for content in changes.contents:
            assert content.turn_id in changes.listed
            self.contents.setdefault(content.turn_id, []).append(content)

    def check(self, whole: AssembledSession) -> None:
        """Nothing to check once the session must be assembled whole."""
        if self.parts.whole:
            return
        assert self.turns == {turn.turn_id: turn for turn in whole.turns}
        texts = [text for group in self.contents.values() for text in group]
        assert sorted(map(repr, texts)) == sorted(map(repr, whole.contents))


def in_one_session(names: Iterable[str]) -> list[Event]:
    """Several recordings as one session of one owner: so a session of many prompts."""
    return [
        replace(
            event,
            session_id="s",
            attributes=same_owner({**event.attributes, "session.id": "s"}),
            resource=same_owner(event.resource),
        )
        for name in names
        for event in EVENTS[name]
    ]


def same_owner(attributes: Mapping[str, object]) -> dict[str, object]:
    return {key: f"the same {key}" if key in CLAIMS else value for key, value in attributes.items()}


def without(event: Event, names: Iterable[str]) -> Event:
    kept = {key: value for key, value in event.attributes.items() if key not in names}
    return replace(event, attributes=kept)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_each_step_equals_the_whole(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    events = data.draw(st.permutations(in_one_session(names)))
    view, begin = View(), 0
    while begin < len(events):
        size = data.draw(st.integers(1, 40))
        view.add(events[begin : begin + size])
        begin += size
        view.check(assemble(events[:begin], ATTRIBUTION))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_each_step_equals_the_whole_where_records_lack_what_joins_them(
    data: st.DataObject,
) -> None:
    events = data.draw(st.permutations(in_one_session(data.draw(
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True)))))  # fmt: skip
    dropped = data.draw(st.sets(st.sampled_from(DROPPED), max_size=3))
    share = data.draw(st.integers(1, 4))
    events = [
        without(event, dropped) if index % share == 0 else event
        for index, event in enumerate(events)
    ]
    half = data.draw(st.integers(0, len(events)))
    view = View()
    for count in (half, len(events)):
        view.add(events[half if count > half else 0 : count])
        view.check(assemble(events[:count], ATTRIBUTION))


def test_a_session_of_several_prompts_costs_what_its_new_part_costs() -> None:
    names = ["a02_fix_bug_failed_edit", "a11_two_prompts", "a01_read_answer"]
    view = View()
    view.add(in_one_session(names[:2]))
    before = dict(view.turns)
    for event in in_one_session(names[2:]):
        view.parts.add(event)
    assert not view.parts.whole
    changes = view.parts.take_changes()
    assert changes.turns
    assert not changes.listed & before.keys()


def test_what_looks_at_the_whole_session_is_assembled_whole() -> None:
    live = EVENTS["a01_read_answer"]
    nameless = next(event for event in live if event.name == "claude_code.api_request")
    other = replace(live[0], event_id="other", credential="another")
    for event in (TRANSCRIPTS[0], without(nameless, ["request_id"]), other):
        parts = SessionParts(ATTRIBUTION)
        for one in (*live, event):
            parts.add(one)
        assert parts.whole
