"""The table of legal moves, four eyes, review cycles, and the hash chain."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput, Conflict, Corrupt, Refused
from loop.domain.lifecycle import (
    FIRST_HASH,
    LEGAL_MOVES,
    Actor,
    ActorKind,
    State,
    Transition,
    check_move,
    next_states,
    verify_chain,
)

ANNA, BEN = Actor.parse("person:anna"), Actor.parse("person:ben")
GATE = Actor.parse("gate:offline")


def try_move(state: State, to: State, actor: Actor, cycle: int | None = 1) -> None:
    check_move(
        version=1,
        state=state,
        to=to,
        actor=actor,
        proposer=ANNA,
        current_cycle=1,
        review_cycle=cycle,
    )


@settings(deadline=None)
@given(st.sampled_from(State), st.sampled_from(State), st.sampled_from(ActorKind))
def test_a_move_is_legal_exactly_when_the_table_has_it(
    state: State, to: State, kind: ActorKind
) -> None:
    actor = Actor(kind, "ben")
    allowed = LEGAL_MOVES.get((state, to))
    if allowed is not None and kind in allowed:
        try_move(state, to, actor)
    else:
        with pytest.raises(Conflict if allowed is None else Refused):
            try_move(state, to, actor)


def test_final_states_lead_nowhere_and_every_other_leads_on() -> None:
    for state in State:
        assert state.is_final() == (next_states(state) == ())


def test_every_state_can_be_reached_from_a_proposal() -> None:
    reached = {State.PROPOSED}
    for _ in State:
        reached |= {to for (start, to) in LEGAL_MOVES if start in reached}
    assert reached == set(State)


def test_nothing_becomes_active_without_an_approval_but_the_installation() -> None:
    """Every path to real sessions leads through ``approved``, or is the installation's."""
    reached = {State.PROPOSED}
    for _ in State:
        reached |= {
            to
            for (start, to), kinds in LEGAL_MOVES.items()
            if start in reached and to is not State.APPROVED and kinds != {ActorKind.INSTALLATION}
        }
    assert not any(state.is_exposed() or state.may_be_published() for state in reached)


def test_an_inconclusive_gate_never_advances_by_itself() -> None:
    for to, kinds in (
        (to, kinds) for (start, to), kinds in LEGAL_MOVES.items() if start == "gate_inconclusive"
    ):
        if to is State.IN_REVIEW:
            assert kinds == {ActorKind.PERSON}


def test_only_the_rollout_promotes_a_canary() -> None:
    assert LEGAL_MOVES[(State.CANARY, State.ACTIVE)] == {ActorKind.ROLLOUT}
    assert (State.PAUSED, State.ACTIVE) not in LEGAL_MOVES


@pytest.mark.parametrize("name", ["anna", "Anna", " ANNA "])
def test_the_proposer_can_not_approve_however_the_name_is_written(name: str) -> None:
    with pytest.raises(Refused, match="second person"):
        try_move(State.IN_REVIEW, State.APPROVED, Actor(ActorKind.PERSON, name))
    try_move(State.IN_REVIEW, State.REJECTED, Actor(ActorKind.PERSON, name))


@pytest.mark.parametrize("to", [State.APPROVED, State.REJECTED])
@pytest.mark.parametrize("cycle", [None, 0, 2])
def test_a_decision_counts_for_its_own_review_only(to: State, cycle: int | None) -> None:
    with pytest.raises(Conflict, match="review cycle"):
        try_move(State.IN_REVIEW, to, BEN, cycle)
    try_move(State.IN_REVIEW, to, BEN, 1)


def test_the_reason_says_where_it_may_go_and_who_may() -> None:
    with pytest.raises(Conflict, match="gate_passed, gate_failed"):
        try_move(State.PROPOSED, State.CANARY, BEN)
    with pytest.raises(Refused, match="belongs to: gate"):
        try_move(State.PROPOSED, State.GATE_PASSED, BEN)


@settings(deadline=None)
@given(st.sampled_from(ActorKind), st.text(min_size=1).filter(lambda name: name.strip()))
def test_an_actor_survives_its_text(kind: ActorKind, name: str) -> None:
    assert Actor.parse(str(Actor(kind, name))) == Actor(kind, name.strip())


@pytest.mark.parametrize("text", ["", "anna", "robot:x", "person:", "person: ", ":x"])
def test_what_names_no_actor_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        Actor.parse(text)


def chain() -> list[tuple[Transition, str]]:
    steps = [
        (1, None, State.PROPOSED, ANNA, 0),
        (2, None, State.PROPOSED, ANNA, 0),
        (1, State.PROPOSED, State.GATE_PASSED, GATE, 0),
        (1, State.GATE_PASSED, State.IN_REVIEW, GATE, 1),
        (1, State.IN_REVIEW, State.APPROVED, BEN, 1),
        (2, State.PROPOSED, State.REJECTED, BEN, 0),
    ]
    rows: list[tuple[Transition, str]] = []
    previous = FIRST_HASH
    for number, (version, start, to, actor, cycle) in enumerate(steps, 1):
        row = Transition(
            number, version, start, to, actor, "why", cycle, 1_000 + number, previous, {"n": number}
        )
        previous = row.hash
        rows.append((row, previous))
    return rows


def test_a_whole_chain_verifies() -> None:
    assert verify_chain(chain()) == 6
    assert verify_chain([]) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "another"},
        {"actor": BEN, "at_us": 1},
        {"evidence": {}},
        {"version": 2},
        {"review_cycle": 2},
        {"previous_hash": "1" * 64},
        {"sequence": 9},
    ],
)
@pytest.mark.parametrize("rehashed", [False, True])
def test_an_altered_transition_is_found(changes: dict[str, object], rehashed: bool) -> None:
    """Even when its own hash was made to fit: the next one still chains to the old hash."""
    rows = chain()
    altered = replace(rows[2][0], **changes)  # type: ignore[arg-type]
    rows[2] = (altered, altered.hash if rehashed else rows[2][1])
    with pytest.raises(Corrupt):
        verify_chain(rows)


@pytest.mark.parametrize("gone", range(5))
def test_a_removed_transition_is_found(gone: int) -> None:
    rows = chain()
    del rows[gone]
    with pytest.raises(Corrupt):
        verify_chain(rows)


def test_exchanged_transitions_are_found() -> None:
    for one, other in itertools.combinations(range(6), 2):
        rows = chain()
        rows[one], rows[other] = rows[other], rows[one]
        with pytest.raises(Corrupt):
            verify_chain(rows)


def test_an_impossible_move_is_found_even_in_a_whole_chain() -> None:
    first = Transition(1, 1, None, State.PROPOSED, ANNA, "why", 0, 1, FIRST_HASH)
    jump = Transition(2, 1, State.PROPOSED, State.CANARY, BEN, "why", 0, 2, first.hash)
    with pytest.raises(Corrupt, match="no legal move"):
        verify_chain([(first, first.hash), (jump, jump.hash)])
