"""The shipped adapters on what real instrumentations export (tests/recorded_conventions)."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from collectors.body_decoding import decode
from collectors.content_rules import ContentModes
from collectors.conventions.convention import Convention, ToldSession
from collectors.conventions.registry import known_conventions, load_conventions
from collectors.conventions.token_counts import CACHE_UNTOLD
from collectors.drainer import DrainLimits
from collectors.otlp_protobuf import parse
from collectors.screened_protobuf import screen_request
from collectors.segments import Record
from collectors.session_assembly import assemble_session
from evaluators.tool_schemas import schema_violation
from loop.domain.turns import Event, TokenUsage, Turn
from loop.lake.trace_loading import build_traces
from tests.collectors.conventions.portkey import portkey_events
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import session_events
from tests.contracts.convention import ConventionContract, RecordedSessions
from tests.recorded_conventions.recordings import (
    RECEIVED_AT_US,
    bodies,
    by_session,
    index,
    recorded_events,
)

SESSIONS = "SELECT DISTINCT session_id FROM events"
FIRST = TokenUsage(12, 40, 1000, 150, 50)
SECOND = TokenUsage(7, 11, 1200, 60, 0)
FIRST_UNSPLIT = TokenUsage(12, 40, 1000, 200, 0)


def convention(name: str) -> Convention:
    return next(found for found in known_conventions().conventions if found.name == name)


def sessions_of(name: str, events: list[Event] | None = None) -> RecordedSessions:
    """A recording's sessions, as far as one convention tells of them."""
    adapter = convention(index()[name]["convention"] if events is None else name)
    registry = load_conventions([])
    registry.conventions = (adapter,)
    found = RecordedSessions()
    for session in by_session(recorded_events(name) if events is None else events).values():
        own = [
            event
            for event in session
            if registry.recognise(str(event.attributes["otel.scope"]), event.name, event.attributes)
        ]
        if adapter.read(own).calls:
            found.append(own)
    return found


def turns_of(name: str) -> list[Turn]:
    sessions = by_session(recorded_events(name)).values()
    turns = [turn for events in sessions for turn in assemble_session(events).turns]
    return sorted(turns, key=lambda turn: turn.started_at_us)


class TestOtelGenAi(ConventionContract):
    @pytest.fixture
    def convention(self) -> Convention:
        return convention("otel-genai")

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        names = ("otel-genai", "otel-genai-without-content", "otel-genai-events")
        return RecordedSessions(events for name in names for events in sessions_of(name))


class TestOpenInference(ConventionContract):
    @pytest.fixture
    def convention(self) -> Convention:
        return convention("openinference")

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        return sessions_of("openinference")


class TestOpenLlmetry(ConventionContract):
    @pytest.fixture
    def convention(self) -> Convention:
        return convention("openllmetry")

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        return sessions_of("openllmetry")


class TestTraceAi(ConventionContract):
    @pytest.fixture
    def convention(self) -> Convention:
        return convention("traceai")

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        return sessions_of("traceai")


class TestLiteLlm(ConventionContract):
    @pytest.fixture
    def convention(self) -> Convention:
        return convention("litellm")

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        names = [name for name, entry in index().items() if entry["convention"] == "litellm"]
        return RecordedSessions(events for name in names for events in sessions_of(name))


class TestPortkey(ConventionContract):
    @pytest.fixture
    def convention(self) -> Convention:
        return convention("portkey")

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        return sessions_of("portkey", portkey_events())


class TestMlFlow(ConventionContract):
    @pytest.fixture
    def convention(self) -> Convention:
        return convention("mlflow")

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        return sessions_of("mlflow")


class TestLangfuse(ConventionContract):
    @pytest.fixture
    def convention(self) -> Convention:
        return convention("langfuse")

    @pytest.fixture
    def sessions(self) -> RecordedSessions:
        return sessions_of("langfuse")


@pytest.mark.parametrize(
    ("name", "usages"),
    [
        ("langfuse", [FIRST, SECOND]),
        ("litellm", [FIRST, SECOND]),
        ("litellm-genai", [FIRST, SECOND]),
        ("litellm-proxy", [FIRST, SECOND]),
        ("litellm-proxy-v2", [FIRST_UNSPLIT, SECOND]),
        ("openllmetry", [FIRST, SECOND]),
    ],
)
def test_tokens_are_the_apis(name: str, usages: list[TokenUsage]) -> None:
    """What the scripted API answered, each class, whoever told of it and however often."""
    turns = turns_of(name)
    assert [turn.usage for turn in turns if turn.status == "ok"] == usages
    assert not any(turn.unpriced_reason for turn in turns)
    (failed,) = [turn for turn in turns if turn.status == "error"]
    assert failed.usage == TokenUsage()
    assert not failed.served_model


def test_the_sdk_and_an_instrumentation_tell_of_one_request() -> None:
    first, second, failed = turns_of("openllmetry")
    assert first.turn_id == first.request_id == "req_01conventionfirst00000001"
    assert first.message_id == "msg_01conventionfirst00000001"
    assert first.sources == second.sources == failed.sources == ("openllmetry", "otel-genai")
    # The instrumentation counts one output token too many of a stream; the SDK has the API's.
    assert second.usage == SECOND
    assert second.usage_source == "otel-genai"
    assert failed.error_status == 529


def test_cached_tokens_that_are_not_told_leave_a_turn_unpriced() -> None:
    for name in ("mlflow-genai", "otel-genai-events", "traceai"):
        unpriced = [turn for turn in turns_of(name) if turn.unpriced_reason]
        assert CACHE_UNTOLD in {turn.unpriced_reason for turn in unpriced}, name


def test_messages_tools_and_agents_are_read() -> None:
    for name in ("langfuse", "openllmetry", "openinference", "traceai", "otel-genai"):
        session_id = "sess-conventions-0001"
        session = assemble_session(by_session(recorded_events(name))[session_id])
        texts = {(text.kind, text.text) for text in session.contents}
        assert ("prompt", "What do gold customers get?") in texts, name
        assert ("assistant_text", "Gold customers get 10 %.") in texts, name
        output = "def discount(tier): return 10 if tier == 'gold' else 0"
        assert ("tool_output", output) in texts, name
        (call,) = session.turns[0].tool_calls
        assert (call.tool_use_id, call.name) == ("toolu_01Convention0000000001", "read_file")
        assert session.turns[0].stop_reason == "tool_use" or name == "traceai"
        assert {turn.developer for turn in session.turns} == {"dana@example.com"}, name
        first, second = session.turns[:2]
        assert first.prompt_id == second.prompt_id
        assert (first.starts_prompt, second.starts_prompt) == (True, False)


def test_the_tools_on_offer_are_read_with_their_schemas() -> None:
    for name in ("otel-genai", "otel-genai-without-content"):
        session = assemble_session(by_session(recorded_events(name))["sess-conventions-0001"])
        (trace,) = build_traces(session.turns, session.contents)
        assert [tool.name for tool in trace.tools] == ["read_file"] * (name == "otel-genai")
        for tool in trace.tools:
            assert schema_violation(tool, '{"path": "a"}') is None
            assert schema_violation(tool, '{"path": 1}') == "path is not of type string"


def test_messages_of_log_events_belong_to_their_span() -> None:
    (session,) = by_session(recorded_events("otel-genai-events")).values()
    assembled = assemble_session(session)
    assert [text.kind for text in assembled.contents] == [
        "prompt",
        "assistant_text",
        "tool_input",
        "tool_output",
        "assistant_text",
    ]


def test_a_gateways_session_is_the_one_that_claude_code_stated() -> None:
    for name in ("litellm-proxy", "litellm-proxy-v2"):
        assert {turn.session_id for turn in turns_of(name)} == {
            "00000000-c0de-4000-8000-000000000001"
        }


def test_a_span_without_a_session_is_a_session_of_its_trace() -> None:
    (turn, *_) = turns_of("mlflow")
    assert turn.session_id == f"trace:{turn.prompt_id}"


def test_spans_without_a_session_join_the_one_that_their_trace_names(tmp_path: Path) -> None:
    """The SDK's own spans come under their trace, the instrumentation's under the session that it
    names: whatever comes first, each request is one turn."""
    sent = bodies("openinference")
    orders = [sent, sent[::-1], random.Random(7).sample(sent, len(sent))]
    stored = []
    for number, order in enumerate(orders):
        folder = tmp_path / str(number)
        limits = DrainLimits(commits_per_compaction=10**9)
        with pipeline(folder, limits) as parts:
            for place, (signal, body) in enumerate(order, start=1):
                parts.journal.append_sync(signal, "protobuf", body)
                if place % 3 and place < len(order):
                    continue
                parts.drainer.drain_once()
                if number == 2:
                    parts.drainer.close()
                    (folder / "told_requests.sqlite").unlink()  # it is made again
            sessions = [row["session_id"] for row in parts.lake.query(SESSIONS)]
            stored.append((parts.lake.turns_of(sessions), parts.lake.contents_of(sessions)))
    assert stored[0] == stored[1] == stored[2]
    turns = sorted(stored[0][0], key=lambda turn: turn.started_at_us)
    assert [turn.usage for turn in turns] == [FIRST, SECOND, TokenUsage()]
    assert [turn.request_id for turn in turns] == [
        "req_01conventionfirst00000001",
        "req_01conventionsecond0000002",
        "req_01conventionfailed000003",
    ]
    assert {turn.session_id for turn in turns[:2]} == {"sess-conventions-0001"}
    assert all(turn.cost_microusd is not None for turn in turns)


def test_wrappers_of_several_calls_are_no_calls() -> None:
    def span(number: int, parent: int, **attributes: Any) -> Event:
        named = {
            "otel.scope": "x",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "otel.trace_id": "t",
            "otel.span_id": str(number),
            "otel.parent_span_id": str(parent),
            "otel.ended_at_us": 100 - number,
            **attributes,
        }
        return Event(str(number), "span", "chat m", "s", number, 0, named, {}, 200)

    tokens = {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 1}
    outer = span(1, 0, **{"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2})
    two = assemble_session([outer, span(2, 1, **tokens), span(3, 1, **tokens)])
    assert [turn.usage.output_tokens for turn in two.turns] == [1, 1]
    one = assemble_session([outer, span(2, 1)])
    assert [turn.usage.output_tokens for turn in one.turns] == [2]


def test_no_text_is_stored_where_none_may_be_and_no_price_is_wrong() -> None:
    modes = ContentModes("none")
    for name in ("traceai", "openinference", "litellm", "litellm-proxy", "openllmetry"):
        events = []
        for signal, body in bodies(name):
            request: Any = parse(signal, body)
            screen_request(signal, request, modes, "")
            record = Record(signal, "protobuf", request.SerializeToString(), RECEIVED_AT_US)
            events += decode(record).events
        said = repr([event.attributes for event in events])
        for text in ("gold customers", "def discount", "shop's code", "I will read"):
            assert text not in said, (name, text)
        for session in by_session(events).values():
            for turn in assemble_session(session).turns:
                assert turn.unpriced_reason or turn.usage in (
                    *(FIRST, FIRST_UNSPLIT, SECOND, TokenUsage()),
                )


def test_agents_inside_agents_are_subagents() -> None:
    def span(number: int, parent: int, kind: str, **attributes: Any) -> Event:
        named = {
            "otel.scope": "x",
            "openinference.span.kind": kind,
            "otel.trace_id": "t",
            "otel.span_id": str(number),
            "otel.parent_span_id": str(parent) if parent else "",
            "otel.ended_at_us": 1000 - number,
            **attributes,
        }
        return Event(str(number), "span", f"span {number}", "s", number, 0, named, {}, 2000)

    call = {"llm.model_name": "m", "llm.token_count.prompt": 1, "llm.token_count.completion": 1}
    session = assemble_session(
        [
            span(1, 0, "AGENT", **{"agent.name": "lead"}),
            span(2, 1, "LLM", **call),
            span(3, 1, "TOOL", **{"tool.name": "ask"}),
            span(4, 3, "AGENT", **{"agent.name": "reader"}),
            span(5, 4, "LLM", **call),
        ]
    )
    lead, reader = session.turns
    assert (lead.agent_id, lead.request_class, lead.query_source) == ("", "main", "lead")
    assert (reader.agent_id, reader.agent_name) == ("4", "reader")
    assert reader.request_class == "subagent"


def test_a_gateways_spans_join_a_recorded_claude_code_session() -> None:
    """LiteLLM tells of the same requests without an id that the client's events have, and of the
    attempts that the client made good by itself."""
    client = session_events("a04_overload_retry_unfaithful")
    session_id = client[0].session_id
    alone = assemble_session(client)
    spans = []
    for number, turn in enumerate(alone.turns):
        usage = turn.usage
        creation = usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
        told = {
            "otel.scope": "litellm",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": turn.requested_model,
            "gen_ai.response.model": turn.served_model,
            "gen_ai.response.id": f"msg_{number}",
            "gen_ai.usage.input_tokens": usage.total_input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
            "gen_ai.usage.cache_creation.input_tokens": creation,
            "otel.trace_id": f"g{number}",
            "otel.span_id": f"g{number}",
            "otel.ended_at_us": turn.ended_at_us - 3000,
        }
        start = turn.ended_at_us - 9000
        spans.append(Event(f"g{number}", "span", "chat", session_id, start, 0, told, {}, start))
        for attempt in range(turn.failed_attempts):
            failed = {
                "otel.scope": "litellm",
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": turn.requested_model,
                "otel.status_code": 2,
                "otel.trace_id": f"f{number}.{attempt}",
                "otel.span_id": f"f{number}.{attempt}",
                "otel.ended_at_us": turn.started_at_us + 2000 * attempt + 1000,
            }
            at = turn.started_at_us + 2000 * attempt
            name = f"f{number}.{attempt}"
            spans.append(Event(name, "span", "chat", session_id, at, 0, failed, {}, at))
    assert any(turn.failed_attempts for turn in alone.turns)
    both = assemble_session([*client, *spans])
    assert [turn.turn_id for turn in both.turns] == [turn.turn_id for turn in alone.turns]
    assert [turn.usage for turn in both.turns] == [turn.usage for turn in alone.turns]
    assert all("litellm" in turn.sources for turn in both.turns)
    assert [turn.message_id for turn in both.turns] == [f"msg_{n}" for n in range(len(both.turns))]
    assert assemble_session([*reversed(spans), *reversed(client)]) == both


def test_plug_ins_that_fail_are_reported_and_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = __name__
    registry = load_conventions(
        [
            EntryPoint("gone", "no_such_module:Convention", "turnwise.conventions"),
            EntryPoint("nameless", f"{here}:Nameless", "turnwise.conventions"),
            EntryPoint("raising", f"{here}:Raising", "turnwise.conventions"),
            EntryPoint("own", f"{here}:Own", "turnwise.conventions"),
        ]
    )
    assert [found.name for found in registry.conventions] == ["own", "raising"]
    assert len(registry.problems) == 2
    events = [replace(event, session_id="s") for event in recorded_events("openinference")]
    session = assemble_session(events, registry=registry)
    assert session.turns == ()
    assert any("raising" in problem for problem in registry.problems)
    assert "raising" in caplog.text


def test_every_shipped_adapter_is_found_by_its_entry_point() -> None:
    assert not known_conventions().problems
    assert {found.name for found in known_conventions().conventions} >= {
        "langfuse",
        "litellm",
        "mlflow",
        "openinference",
        "openllmetry",
        "otel-genai",
        "portkey",
        "traceai",
    }


class Nameless:
    rank = 1


class Own:
    name = "own"
    rank = 5

    def recognises(self, scope: str, name: str, attributes: Any) -> bool:
        return scope == "own"

    def session_of(self, attributes: Any) -> str:
        return ""

    def read(self, events: Any) -> ToldSession:
        return ToldSession()


class Raising(Own):
    name = "raising"

    def recognises(self, scope: str, name: str, attributes: Any) -> bool:
        raise RuntimeError("broken")
