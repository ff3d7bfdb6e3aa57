"""Records that disagree: one rules, whatever came first, and no replay changes a sum."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.claude_code_turns import assemble
from collectors.event_identity import (
    conflicts_among,
    identity_of,
    in_order_of_rule,
    ruling_events,
    tokens_of,
)
from loop.domain.turns import Event
from tests.collectors.recordings import session_events, transcript_events

RECORDED = [
    event
    for event in (*session_events("a05_subagent"), *transcript_events("a05_subagent"))
    if event.kind != "metric"
]


def changed(event: Event, number: int, output_tokens: int) -> Event:
    """Another version of a record: the same identity, other content."""
    attributes = {**event.attributes, "output_tokens": output_tokens, "changed": number}
    return replace(event, event_id=f"changed-{number}", attributes=attributes)


VERSIONS = st.lists(
    st.tuples(st.integers(0, len(RECORDED) - 1), st.integers(0, 10_000)), min_size=1, max_size=5
)


@settings(max_examples=40)
@given(versions=VERSIONS, times=st.integers(1, 3), seed=st.randoms(use_true_random=False))
def test_the_order_and_number_of_arrivals_change_nothing(
    versions: list[tuple[int, int]], times: int, seed: object
) -> None:
    others = [
        changed(RECORDED[position], number, tokens)
        for number, (position, tokens) in enumerate(versions)
    ]
    events = [*RECORDED, *others]
    shuffled = events * times
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assemble(shuffled) == assemble(events)
    assert conflicts_among(events) == conflicts_among(reversed(events))
    ruling = {identity_of(event): event for event in ruling_events(events)}
    assert len(ruling) == len({identity_of(event) for event in events})
    for other in others:
        assert tokens_of(ruling[identity_of(other)]) >= tokens_of(other)


def test_the_recordings_hold_no_conflict() -> None:
    assert conflicts_among({event.event_id: event for event in RECORDED}.values()) == []


def test_of_decisions_the_earliest_rules() -> None:
    base = Event("b", "decision", "turnwise.decision", "s", 2, 0, {"decision_id": "r"}, {}, 1)
    earlier = replace(base, event_id="z", at_us=1)
    assert in_order_of_rule([base, earlier]) == [earlier, base]
