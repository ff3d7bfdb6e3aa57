"""The columns' routes are the routes of ``decide()``, turn by turn."""

from __future__ import annotations

from hypothesis import given, settings
from turn_strategies import START_US, logged_turns, routing_policies

from loop.domain.policies import (
    Condition,
    Decision,
    Guards,
    Route,
    RoutingPolicy,
    Rule,
    decide,
    unit_key,
)
from loop.domain.turns import TokenUsage, Turn
from optimizers.routing import routes
from optimizers.turn_frame import TurnFrame


def walk(policy: RoutingPolicy, frame: TurnFrame) -> list[Route]:
    """Every turn through ``decide()`` in order of time, the last route kept per unit."""
    kept: dict[tuple[str, str], Route] = {}
    decided: dict[int, Route] = {}
    rows = range(len(frame)) if frame.time_order is None else frame.time_order.tolist()
    for row in rows:
        request = frame.request(row, policy)
        key = unit_key(policy, request)
        kept[key] = decided[row] = decide(policy, request, kept.get(key))
    return [decided[row] for row in range(len(frame))]


@settings(max_examples=100, deadline=None)
@given(logged_turns(), routing_policies())
def test_routes_equal_a_walk_of_decide(turns: list[Turn], policy: RoutingPolicy) -> None:
    frame = TurnFrame.from_turns(turns)
    routed = routes(policy, frame)
    assert [routed.at(row) for row in range(len(frame))] == walk(policy, frame)


@given(logged_turns(), routing_policies())
def test_routes_of_a_part_are_a_part_of_the_routes(
    turns: list[Turn], policy: RoutingPolicy
) -> None:
    frame = TurnFrame.from_turns(turns)
    chosen = frame.session_starts() >= 0
    chosen[0] = False
    part = frame.of_sessions(chosen)
    whole, some = routes(policy, frame), routes(policy, part)
    kept = [row for row in range(len(frame)) if frame.session[row] != 0]
    assert [some.at(row) for row in range(len(part))] == [whole.at(row) for row in kept]


@given(logged_turns())
def test_the_order_of_arrival_makes_no_difference(turns: list[Turn]) -> None:
    there, back = TurnFrame.from_turns(turns), TurnFrame.from_turns(turns[::-1])
    assert there.turn_ids.tolist() == back.turn_ids.tolist()
    assert there.segment.tolist() == back.segment.tolist()


def _turn(number: int, **parts: object) -> Turn:
    values: dict[str, object] = {
        "turn_id": f"t{number}",
        "request_id": f"t{number}",
        "session_id": "s",
        "started_at_us": START_US + number,
        "ended_at_us": START_US + number,
        "sequence": 0,
        "requested_model": "claude-opus-4-7",
        "served_model": "claude-opus-4-7",
    }
    return Turn(**(values | parts))  # type: ignore[arg-type]


def test_a_logged_decision_brings_its_own_features() -> None:
    turn = _turn(0, usage=TokenUsage(input_tokens=3, cache_read_tokens=90_000), prompt_chars=330)
    decision = Decision(
        "t0", START_US, "s", "", 7, 1, "sha256:x", "canary", 12, 0.25, "short",
        "claude-opus-4-7", "claude-haiku-4-5", total_input_tokens=9_000, prompt_tokens=250,
    )  # fmt: skip
    logged = TurnFrame.from_turns([turn], [decision])
    plain = TurnFrame.from_turns([turn])
    policy = RoutingPolicy("p", ())
    assert logged.request(0, policy).total_input_tokens == 9_000
    assert logged.request(0, policy).prompt_tokens == 250
    assert plain.request(0, policy).total_input_tokens == 90_003
    assert plain.request(0, policy).prompt_tokens == 100
    assert (logged.serial[0], logged.propensity[0], logged.arm.at(0)) == (7, 0.25, "canary")


def test_a_title_request_does_not_route_its_session() -> None:
    policy = RoutingPolicy(
        "classic",
        (Rule("short", (Condition("input_tokens", "<", 10_000),), "claude-haiku-4-5"),),
        default_model="claude-opus-4-7",
        guards=Guards({"claude-haiku-4-5": 150_000}),
    )
    frame = TurnFrame.from_turns(
        [
            _turn(0, request_class="auxiliary", usage=TokenUsage(input_tokens=300)),
            _turn(1, starts_prompt=True, usage=TokenUsage(cache_read_tokens=60_000)),
            _turn(2, agent_id="a", usage=TokenUsage(cache_read_tokens=5_000)),
        ]
    )
    routed = routes(policy, frame)
    by_turn = {frame.turn_ids[row]: routed.at(row).model for row in range(3)}
    assert by_turn == {
        "t0": "claude-haiku-4-5",
        "t1": "claude-opus-4-7",
        "t2": "claude-opus-4-7",  # the session's route: a unit of session covers its subagents
    }
