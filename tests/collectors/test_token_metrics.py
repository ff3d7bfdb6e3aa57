"""Metrics alone: read in either temporality, charged once, and never beside what logs tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.claude_code_turns import assemble
from collectors.session_assembly import assemble_session
from collectors.token_metrics import COST_USAGE, CUMULATIVE, DELTA, TOKEN_USAGE, read_metered
from loop.domain.turns import METRIC_SOURCE, Event, TokenUsage
from loop.ledger.pricing import price
from tests.collectors.pipeline import PRICES, pipeline
from tests.collectors.recordings import (
    all_bodies,
    expected,
    expected_sessions,
    session_events,
    transcript_events,
)
from tests.recorded_conventions.recordings import by_session, recorded_events

SESSIONS = {
    session_id: [name for name, entry in expected().items() if entry["session_id"] == session_id]
    for session_id in expected_sessions()
}
METRICS = {key: session_events(*names, signals=("metrics",)) for key, names in SESSIONS.items()}
OTHERS = {
    key: [
        *session_events(*names, signals=("logs", "traces")),
        *(event for name in names for event in transcript_events(name)),
    ]
    for key, names in SESSIONS.items()
}
CLASSES = {"input": 3, "output": 25, "cacheRead": 1, "cacheCreation": 6}
SECOND = 1_000_000
START = 1_795_000_000 * SECOND


def total(events: list[Event]) -> TokenUsage:
    return sum((turn.usage for turn in assemble(events).turns), TokenUsage())


def truth(session_id: str) -> TokenUsage:
    tokens: Counter[str] = Counter()
    for counted in expected_sessions()[session_id]["tokens"].values():
        tokens.update(counted)
    return TokenUsage(
        tokens["input"], tokens["output"], tokens["cacheRead"], tokens["cacheCreation"]
    )


@pytest.mark.parametrize("session_id", SESSIONS)
def test_a_session_of_metrics_alone_is_charged_what_the_api_served(session_id: str) -> None:
    turns = assemble(METRICS[session_id]).turns
    assert sum((turn.usage for turn in turns), TokenUsage()) == truth(session_id)
    by_model: Counter[str] = Counter()
    for turn in turns:
        by_model[turn.requested_model] += turn.usage.total_input_tokens
        assert (turn.sources, turn.usage_source) == ((METRIC_SOURCE,), METRIC_SOURCE)
        assert turn.cache_split_assumed == (turn.usage.cache_creation_5m_tokens > 0)
        assert turn.client_cost_microusd is not None
        assert (turn.request_id, turn.served_model, turn.status) == ("", "", "ok")
        assert turn.developer != "unattributed"
    assert by_model == {
        model: counted["input"] + counted["cacheRead"] + counted["cacheCreation"]
        for model, counted in expected_sessions()[session_id]["tokens"].items()
    }


@pytest.mark.parametrize("session_id", SESSIONS)
def test_metrics_beside_other_records_add_nothing(session_id: str) -> None:
    told = OTHERS[session_id]
    assert assemble([*told, *METRICS[session_id]]) == assemble(told)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_whatever_subset_arrives_nothing_is_counted_twice(data: st.DataObject) -> None:
    session_id = data.draw(st.sampled_from(sorted(SESSIONS)))
    events = [*OTHERS[session_id], *METRICS[session_id]]
    kept = data.draw(st.sets(st.sampled_from(range(len(events)))))
    found, whole = total([events[index] for index in kept]), truth(session_id)
    for name in whole.__slots__:
        if not name.startswith("cache_creation"):
            assert getattr(found, name) <= getattr(whole, name)
    assert found.total_input_tokens <= whole.total_input_tokens


def point(
    name: str, start: int, end: int, value: object, temporality: object, **labels: str
) -> Event:
    attributes = {
        "session.id": "s", "model": "claude-opus-4-7", "query_source": "main", **labels,
        "otel.value": value, "otel.started_at_us": start, "otel.temporality": temporality,
    }  # fmt: skip
    return Event(
        f"{name}{start}{end}{value}{labels}", "metric", name, "s", end, 0, attributes, {}, 1
    )


COUNTS = st.dictionaries(st.sampled_from(sorted(CLASSES)), st.integers(0, 10**6), min_size=1)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_both_temporalities_give_what_was_counted_in_any_order(data: st.DataObject) -> None:
    """Each process counts in a stream of its own; of cumulative points any but the last may be
    lost; all of them may come twice."""
    points: list[Event] = []
    counted: Counter[str] = Counter()
    for process in range(data.draw(st.integers(1, 3))):
        began = START + process * 1000 * SECOND
        so_far: Counter[str] = Counter()
        is_delta = data.draw(st.booleans())
        exports = data.draw(st.lists(COUNTS, min_size=1, max_size=4))
        for number, amounts in enumerate(exports):
            counted.update(amounts)
            so_far.update(amounts)
            end = began + (number + 1) * 60 * SECOND
            if is_delta:
                start = end - 60 * SECOND
                points += [
                    point(TOKEN_USAGE, start, end, value, DELTA, type=name)
                    for name, value in amounts.items()
                ]
            elif number == len(exports) - 1 or data.draw(st.booleans()):
                points += [
                    point(TOKEN_USAGE, began, end, float(value), CUMULATIVE, type=name)
                    for name, value in so_far.items()
                ]
    again = data.draw(st.lists(st.sampled_from(points), max_size=5))
    found = total(data.draw(st.permutations([*points, *again])))
    assert found == TokenUsage(
        counted["input"], counted["output"], counted["cacheRead"], counted["cacheCreation"]
    )


def test_a_cumulative_count_that_falls_was_reset() -> None:
    values = [10, 25, 5, 9]
    points = [
        point(TOKEN_USAGE, 0, START + 60 * SECOND * number, value, CUMULATIVE, type="input")
        for number, value in enumerate(values)
    ]
    assert [usage.tokens.input_tokens for usage in read_metered(points)] == [10, 15, 5, 4]


def test_two_values_of_one_interval_count_the_higher_one() -> None:
    points = [point(TOKEN_USAGE, 1, START, value, DELTA, type="output") for value in (7, 9)]
    assert total(points) == TokenUsage(output_tokens=9)


@pytest.mark.parametrize("value", [None, "seven", float("nan"), float("inf"), -3, True, [], 2**60])
def test_a_value_that_is_no_count_is_not_counted(value: object) -> None:
    assert not assemble([point(TOKEN_USAGE, 1, START, value, DELTA, type="input")]).turns


@pytest.mark.parametrize("temporality", [None, 0, 3, "x"])
def test_a_point_without_its_temporality_is_not_counted(temporality: object) -> None:
    assert not assemble([point(TOKEN_USAGE, 1, START, 5, temporality, type="input")]).turns


def log(at_us: int, **attributes: object) -> Event:
    named = {"request_id": f"req_{at_us}", "model": "claude-haiku-4-5", **attributes}
    return Event(f"log{at_us}", "log", "claude_code.api_request", "s", at_us, 0, named, {}, 1)


def test_only_intervals_that_no_log_tells_of_are_charged_from_metrics() -> None:
    """A client that logs from its second minute on: also where a gateway rewrote the model."""
    points = [
        point(TOKEN_USAGE, START + 60 * SECOND * n, START + 60 * SECOND * (n + 1), 100, DELTA,
              type="input")
        for n in range(3)
    ]  # fmt: skip
    logged = log(START + 90 * SECOND, input_tokens=100, output_tokens=0)
    turns = assemble([*points, logged]).turns
    assert [turn.usage_source for turn in turns] == [METRIC_SOURCE, "otlp-log", METRIC_SOURCE]
    lost = log(START + 90 * SECOND)  # tells of the request but not of its tokens
    assert total([*points, lost]) == TokenUsage(300)


def test_a_request_at_the_seam_of_two_intervals_is_not_counted_again() -> None:
    """The client counts a request some milliseconds before it logs it."""
    points = [
        point(TOKEN_USAGE, START, START + 60 * SECOND, 100, DELTA, type="input"),
        point(TOKEN_USAGE, START + 60 * SECOND, START + 120 * SECOND, 0, DELTA, type="input"),
    ]
    logged = log(START + 60 * SECOND + 30_000, input_tokens=100, output_tokens=0)
    assert total([*points, logged]) == TokenUsage(100)


@pytest.mark.parametrize(("routed", "served"), [(["cheap"], "cheap"), (["cheap", "dear"], "")])
def test_the_gateways_decisions_name_the_model_if_they_agree(
    routed: list[str], served: str
) -> None:
    minute = point(TOKEN_USAGE, START, START + 60 * SECOND, 100, DELTA, type="input")
    decisions = [
        Event(f"d{number}", "decision", "turnwise.decision", "s", START + SECOND, 0,
              {"requested_model": "claude-opus-4-7", "routed_model": model}, {}, 1)
        for number, model in enumerate(routed)
    ]  # fmt: skip
    (turn,) = assemble([minute, *decisions]).turns
    assert (turn.served_model, turn.model) == (served, served or "claude-opus-4-7")
    assert turn.sources == ((METRIC_SOURCE, "gateway") if served else (METRIC_SOURCE,))


def test_the_clients_own_cost_comes_along_and_the_price_is_ours() -> None:
    minute = [
        point(TOKEN_USAGE, START, START + 60 * SECOND, 1000, DELTA, type="cacheCreation"),
        point(COST_USAGE, START - 1000, START + 60 * SECOND, 0.01, DELTA),
    ]
    (turn,) = (price(turn, PRICES) for turn in assemble(minute).turns)
    assert (turn.client_cost_microusd, turn.cost_microusd) == (10_000, 6_250)


def test_agents_are_charged_apart_and_marked_as_such() -> None:
    (name,) = [key for key, names in SESSIONS.items() if "a05_subagent" in names]
    turns = assemble(METRICS[name]).turns
    assert sorted((turn.request_class, turn.agent_name, turn.agent_id) for turn in turns) == [
        ("main", "", ""),
        ("subagent", "Explore", "Explore"),
    ]


def test_metrics_come_through_the_collector_and_yield_to_logs_that_come_later(
    tmp_path: Path,
) -> None:
    name = "a05_subagent"
    session_id = expected()[name]["session_id"]
    with pipeline(tmp_path) as parts:
        for signal in ("metrics", "logs"):
            for body in all_bodies():
                if (body.session, body.signal) == (name, signal):
                    parts.journal.append_sync(body.signal, body.content_type, body.content)
            parts.drainer.drain_once()
            turns = parts.lake.turns_of([session_id])
            assert {turn.usage_source for turn in turns} == {
                METRIC_SOURCE if signal == "metrics" else "otlp-log"
            }
            usage = sum((turn.usage for turn in turns), TokenUsage())
            assert usage == replace(truth(session_id), cache_creation_1h_tokens=0)


def test_a_gateways_spans_tell_of_an_interval_too() -> None:
    """Metrics of a client and spans of the gateway before it, in one session."""
    sessions = by_session(recorded_events("litellm-genai"))
    assert any(turn.usage_source for found in sessions.values() for turn in
               assemble_session(found).turns)  # fmt: skip
    for session_id, events in sessions.items():
        told = assemble_session(events).turns
        ended = [turn.ended_at_us for turn in told if turn.usage_source]
        if not ended:
            continue
        minute = replace(
            point(TOKEN_USAGE, min(ended) - SECOND, max(ended) + SECOND, 999, DELTA, type="input"),
            session_id=session_id,
        )
        assert assemble_session([*events, minute]).turns == told
        before = replace(minute, at_us=min(ended) - 60 * SECOND)
        found = assemble_session([*events, before]).turns
        assert [turn.usage_source for turn in found if turn not in told] == [METRIC_SOURCE]
