"""What every adapter of a convention promises. A plug-in's tests subclass this and give
``convention`` and ``sessions``: decoded events of its convention, one list for each session."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.claude_code_turns import AssembledSession
from collectors.conventions.convention import SCOPE, Convention
from collectors.conventions.registry import ConventionRegistry
from collectors.session_assembly import assemble_session
from collectors.storable_numbers import check_storable
from loop.domain.turns import Event, TokenUsage, Turn

# Each subclass runs the inherited tests on an adapter of its own, which keeps no state.
CHECKED = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)
ODD: tuple[Any, ...] = (None, "", "x", "[{", "{}", "[]", '[{"role":[]}]', -1, 0, 2**63, 0.5, True)
ODD += ([], [1, None], {}, {"a": {"b": []}}, [[["a"]]], float("nan"), "9" * 30, "{'a': 1}")


class RecordedSessions(list[list[Event]]):
    """Sessions with a short name in the reports of failures."""

    def __repr__(self) -> str:
        return f"<{len(self)} sessions>"


class ConventionContract:
    """Pure, total, and silent where the telemetry is."""

    @pytest.fixture
    def convention(self) -> Convention:
        raise NotImplementedError

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        raise NotImplementedError

    @pytest.fixture
    def assemble(self, convention: Convention) -> Any:
        registry = ConventionRegistry([convention])

        def assemble(events: Sequence[Event]) -> AssembledSession:
            session = assemble_session(events, registry=registry)
            assert not registry.problems
            return session

        return assemble

    def test_it_tells_of_model_calls(self, sessions: RecordedSessions, assemble: Any) -> None:
        turns = [turn for events in sessions for turn in assemble(events).turns]
        assert any(turn.usage.output_tokens for turn in turns)
        assert all(turn.requested_model for turn in turns)

    def test_turns_name_it_as_their_source(
        self, convention: Convention, sessions: RecordedSessions, assemble: Any
    ) -> None:
        assert convention.name == convention.name.lower() != ""
        for events in sessions:
            for turn in assemble(events).turns:
                assert turn.sources == (convention.name,)

    def test_claude_codes_records_are_not_its_own(self, convention: Convention) -> None:
        for scope in ("com.anthropic.claude_code.events", "com.anthropic.claude_code.tracing"):
            assert not convention.recognises(scope, "claude_code.tool", {"session.id": "s"})
        assert not convention.recognises("", "", {})

    @CHECKED
    @given(seed=st.integers(0, 2**32))
    def test_order_and_copies_make_no_difference(
        self, sessions: RecordedSessions, assemble: Any, seed: int
    ) -> None:
        for events in sessions:
            shuffled = [*events, *events[:3]]
            random.Random(seed).shuffle(shuffled)
            assert assemble(shuffled) == assemble(events)

    @CHECKED
    @given(seed=st.integers(0, 2**32), share=st.floats(0.02, 1))
    def test_every_attribute_is_optional(
        self, sessions: RecordedSessions, assemble: Any, seed: int, share: float
    ) -> None:
        chance = random.Random(seed)
        for events in sessions:
            thinned = [
                replace(
                    event,
                    attributes={
                        name: value
                        for name, value in event.attributes.items()
                        if name == SCOPE or chance.random() > share
                    },
                )
                for event in events
            ]
            check_session(assemble(thinned))

    @CHECKED
    @given(seed=st.integers(0, 2**32), share=st.floats(0.02, 0.6))
    def test_values_of_any_type_are_taken(
        self, sessions: RecordedSessions, assemble: Any, seed: int, share: float
    ) -> None:
        chance = random.Random(seed)
        for events in sessions:
            odd = [
                replace(
                    event,
                    attributes={
                        name: chance.choice(ODD)
                        if name != SCOPE and chance.random() < share
                        else value
                        for name, value in event.attributes.items()
                    },
                )
                for event in events
            ]
            session = assemble(odd)
            check_session(session)
            assert assemble(list(reversed(odd))) == session

    @CHECKED
    @given(seed=st.integers(0, 2**32))
    def test_any_part_of_a_session_is_a_session(
        self, sessions: RecordedSessions, assemble: Any, seed: int
    ) -> None:
        chance = random.Random(seed)
        for events in sessions:
            part = [event for event in events if chance.random() > 0.4]
            check_session(assemble(part))

    def test_nothing_is_invented(self, sessions: RecordedSessions, assemble: Any) -> None:
        for events in sessions:
            session = assemble(events)
            said = said_in(events)
            for turn in session.turns:
                for name in (
                    "request_id",
                    "message_id",
                    "requested_model",
                    "served_model",
                    "agent_name",
                    "client_version",
                    "service_tier",
                    "inference_geo",
                ):
                    assert getattr(turn, name) in said
                assert turn.stop_reason in (said, "tool_use") or turn.stop_reason in said
                for owner in (turn.developer, turn.org_path, turn.repository):
                    assert owner == "unattributed" or owner in said
                assert all(call.name in said for call in turn.tool_calls)
            for content in session.contents:
                assert all(line in said for line in content.text.split("\n"))

    def test_without_counts_there_is_no_price(
        self, sessions: RecordedSessions, assemble: Any
    ) -> None:
        """A span that says no more than what it is has no tokens, and says why it has no cost."""
        for events in sessions:
            bare = [
                replace(
                    event,
                    attributes={
                        name: value
                        for name, value in event.attributes.items()
                        if not any(
                            word in name.lower() for word in ("token", "usage", "output", "hidden")
                        )
                    },
                )
                for event in events
            ]
            for turn in assemble(bare).turns:
                assert turn.usage == TokenUsage()
                assert turn.status == "error" or turn.unpriced_reason

    def test_a_request_that_claude_code_tells_of_is_one_turn(
        self, sessions: RecordedSessions, assemble: Any
    ) -> None:
        for events in sessions:
            alone = assemble(events)
            served = [turn for turn in alone.turns if turn.status == "ok" and turn.usage_source]
            if not served:
                continue
            both = assemble([*events, *(claude_code_event(turn) for turn in served)])
            check_session(both)
            assert len(both.turns) == len(alone.turns)
            joined = [turn for turn in both.turns if "otlp-log" in turn.sources]
            assert len(joined) == len(served)
            for turn in joined:
                assert turn.sources == ("otlp-log", *served[0].sources)
                assert turn.usage_source == "otlp-log"


def check_session(session: AssembledSession) -> None:
    """What holds of every session, whatever it was assembled from."""
    check_storable([*session.turns, *session.contents])
    order = [(turn.started_at_us, turn.sequence, turn.turn_id) for turn in session.turns]
    assert order == sorted(set(order))
    assert len({turn.turn_id for turn in session.turns}) == len(order)
    for turn in session.turns:
        assert turn.turn_id
        assert turn.ended_at_us >= turn.started_at_us
        assert turn.client_cost_microusd is None or turn.client_cost_microusd >= 0
        if turn.usage == TokenUsage() and turn.status != "error" and not turn.usage_source:
            assert turn.unpriced_reason
    known = {turn.turn_id for turn in session.turns} | {""}
    for content in session.contents:
        assert content.turn_id in known
        assert content.state in ("present", "truncated", "redacted", "missing")
        assert content.text == "" or content.state in ("present", "truncated")
        assert content.chars >= len(content.text)


def said_in(events: Sequence[Event]) -> str:
    """All that the events say, with the quoting of JSON in JSON undone."""
    said = orjson.dumps([[e.name, dict(e.attributes), dict(e.resource)] for e in events]).decode()
    for _ in range(4):
        said += said.replace("\\\\", "\\").replace('\\"', '"').replace("\\n", "\n")
        said = said if len(said) < 2_000_000 else said[:2_000_000]
    return said + said.replace('": ', '":').replace(', "', ',"')


def claude_code_event(turn: Turn) -> Event:
    """The log event that Claude Code sends of the same request."""
    usage = turn.usage
    attributes = {
        "session.id": turn.session_id,
        "request_id": turn.request_id or f"req_{turn.turn_id}",
        "model": turn.served_model or turn.requested_model,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_creation_tokens": usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens,
        "cache_creation_5m_tokens": usage.cache_creation_5m_tokens,
        "cache_creation_1h_tokens": usage.cache_creation_1h_tokens,
        "duration_ms": turn.duration_ms or 1,
    }
    return Event(
        f"claude-{turn.turn_id}",
        "log",
        "claude_code.api_request",
        turn.session_id,
        turn.ended_at_us + 20_000,
        1,
        attributes,
        {},
        turn.ended_at_us + 1_000_000,
    )
