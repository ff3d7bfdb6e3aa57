"""The simulated client's telemetry has the shapes of the recorded real client's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from loop.domain.money import cost_microusd
from loop.domain.turns import TokenUsage
from loop.service.simulation import Fleet, FleetParameters, FleetReport, ModelApi
from loop.service.simulation.client_records import CLIENT_PRICES
from loop.service.simulation.parameters import HAIKU, OPUS
from tests.fakes.asgi_server import running_server
from tests.service.simulated_collector import (
    REQUESTS,
    CollectingServer,
    Record,
    records_of,
    repeated_attributes,
)

RECORDINGS = Path(__file__).parents[2] / "examples" / "recordings"
NOW_US = 1_795_000_000_000_000
HOUR_US = 3_600_000_000
# What recordings carry because of their users' settings; the simulated fleet has its own.
USERS_OWN = {"department", "team.id", "cost_center", "enduser.id", "turnwise.simulated"}


def recorded() -> list[Record]:
    """Every record of the protobuf recordings (the JSON ones hold the same)."""
    found = []
    for path in sorted(RECORDINGS.glob("*/otlp/*.pb")):
        found += records_of(path.name.split("_")[1], path.read_bytes())
    return found


@pytest.fixture(scope="module")
def run() -> tuple[FleetReport, CollectingServer]:
    """Forty sessions with every kind of mishap, collected."""
    collector = CollectingServer()
    parameters = FleetParameters(
        overload_share=0.05, failed_edit_share=0.3, requested_model=OPUS, drift={OPUS: -0.4}
    )
    with running_server(ModelApi(parameters)) as api, running_server(collector) as otlp:
        fleet = Fleet(parameters, api, otlp, seed=3)
        report = asyncio.run(fleet.run_sessions(40, NOW_US - HOUR_US, NOW_US, 8))
    return report, collector


def by_name(records: list[Record]) -> dict[tuple[str, str], list[Record]]:
    grouped: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        grouped.setdefault((record.kind, record.name), []).append(record)
    return grouped


def test_each_record_is_one_that_the_real_client_sends(
    run: tuple[FleetReport, CollectingServer],
) -> None:
    """Same names and types; the repository labels, which one recording has switched on, may be
    on any record."""
    real = by_name(recorded())
    simulated = by_name(list(run[1].records()))
    assert set(simulated) <= set(real)
    labels = {
        name: kind
        for records in real.values()
        for record in records
        for name, kind in record.types.items()
        if name.startswith("vcs.repository.") or name in ("vcs.owner.name", "vcs.provider.name")
    }
    assert len(labels) == 4
    for key, records in simulated.items():
        types = labels | {name: kind for record in real[key] for name, kind in record.types.items()}
        always = set.intersection(*(set(record.types) for record in real[key])) - USERS_OWN
        scopes = {record.scope for record in real[key]}
        for record in records:
            assert record.scope in scopes
            for name, kind in record.types.items():
                if name not in USERS_OWN:
                    assert types.get(name) == kind, (key, name)
            assert always <= set(record.types), (key, always - set(record.types))


def test_the_records_cover_what_a_session_goes_through(
    run: tuple[FleetReport, CollectingServer],
) -> None:
    names = {name.split("|")[0] for _, name in by_name(list(run[1].records()))}
    assert names >= {
        "claude_code.user_prompt",
        "claude_code.api_request",
        "claude_code.assistant_response",
        "claude_code.tool_decision",
        "claude_code.tool_result",
        "claude_code.subagent_completed",
        "claude_code.interaction",
        "claude_code.llm_request",
        "claude_code.llm_request/gen_ai.request.attempt",
        "claude_code.tool",
        "claude_code.tool/tool.output",
        "claude_code.tool.execution",
        "claude_code.tool.blocked_on_user",
        "claude_code.token.usage",
        "claude_code.cost.usage",
    }


def test_everything_says_that_it_is_simulated(run: tuple[FleetReport, CollectingServer]) -> None:
    for record in run[1].records():
        assert record.resource["turnwise.simulated"] == "true"
        if record.kind != "span event":
            assert record.attributes["department"] == "simulated"
            assert record.attributes["enduser.id"].startswith("sim-dev-")


def test_no_attribute_is_sent_twice(run: tuple[FleetReport, CollectingServer]) -> None:
    for signal, body in run[1].accepted:
        if signal == "logs":
            request = REQUESTS[signal].FromString(body)
            for part in request.resource_logs:
                assert repeated_attributes(part.resource.attributes) == []
                for log in part.scope_logs[0].log_records:
                    assert repeated_attributes(log.attributes) == []


def test_turns_join_to_tools_and_spans_by_request_id(
    run: tuple[FleetReport, CollectingServer],
) -> None:
    grouped = by_name(list(run[1].records()))
    served = {r.attributes["request_id"] for r in grouped["event", "claude_code.api_request"]}
    assert len(served) == run[0].turns - run[0].failures
    spans = {r.attributes["request_id"] for r in grouped["span", "claude_code.llm_request"]}
    assert spans == served
    results = {r.attributes["request_id"] for r in grouped["event", "claude_code.tool_result"]}
    assert results < served


def test_a_refused_edit_leaves_no_trace(run: tuple[FleetReport, CollectingServer]) -> None:
    """As with the real client: the request stopped for a tool that no event names."""
    grouped = by_name(list(run[1].records()))
    asked = {
        record.attributes["request_id"]
        for record in grouped["span", "claude_code.llm_request"]
        if record.attributes["stop_reason"] == "tool_use"
    }
    named = {r.attributes["request_id"] for r in grouped["event", "claude_code.tool_decision"]}
    assert asked - named


def test_a_failed_test_run_is_seen_without_its_output(
    run: tuple[FleetReport, CollectingServer],
) -> None:
    failed = [
        record.attributes
        for record in by_name(list(run[1].records()))["event", "claude_code.tool_result"]
        if record.attributes["success"] == "false"
    ]
    assert failed
    for attributes in failed:
        assert attributes["error"] == "Shell command failed"
        assert "python -m pytest" in attributes["tool_input"]
        assert "tool_result_size_bytes" not in attributes


def test_metrics_equal_the_sum_of_the_events(run: tuple[FleetReport, CollectingServer]) -> None:
    records = list(run[1].records())
    points = [r for r in records if r.name.startswith("claude_code.token.usage")]
    events = by_name(records)["event", "claude_code.api_request"]
    fields = {
        "input": "input_tokens",
        "output": "output_tokens",
        "cacheRead": "cache_read_tokens",
        "cacheCreation": "cache_creation_tokens",
    }
    for kind, name in fields.items():
        counted = sum(p.attributes["value"] for p in points if p.attributes["type"] == kind)
        assert counted == sum(event.attributes[name] for event in events)


def test_no_main_loop_turn_is_small_in_total(run: tuple[FleetReport, CollectingServer]) -> None:
    for record in by_name(list(run[1].records()))["event", "claude_code.api_request"]:
        attributes = record.attributes
        names = ("input_tokens", "cache_read_tokens", "cache_creation_tokens")
        assert sum(attributes[name] for name in names) > 10_000


def test_nothing_lies_outside_the_window(run: tuple[FleetReport, CollectingServer]) -> None:
    for record in run[1].records():
        assert NOW_US - HOUR_US <= record.at_us <= NOW_US


def test_a_rewritten_model_is_named_as_served_and_priced_as_requested() -> None:
    """The real client's trap: its cost knows nothing of what the gateway served."""
    collector = CollectingServer()
    parameters = FleetParameters()
    with (
        running_server(rewriting(ModelApi(parameters))) as gateway,
        running_server(collector) as otlp,
    ):
        fleet = Fleet(replace(parameters, overload_share=0.0), gateway, otlp)
        report = asyncio.run(fleet.run_sessions(3, NOW_US - HOUR_US, NOW_US, 1))
    assert set(report.solved_by_model) == {HAIKU}
    grouped = by_name(list(collector.records()))
    for record in grouped["event", "claude_code.api_request"]:
        found = record.attributes
        assert found["model"] == HAIKU
        usage = TokenUsage(
            input_tokens=found["input_tokens"],
            output_tokens=found["output_tokens"],
            cache_read_tokens=found["cache_read_tokens"],
            cache_creation_5m_tokens=found["cache_creation_5m_tokens"],
        )
        assert found["cost_usd_micros"] == cost_microusd(usage, CLIENT_PRICES[OPUS])
    for record in grouped["span", "claude_code.llm_request"]:
        assert record.attributes["gen_ai.request.model"] == OPUS


def rewriting(app: ModelApi) -> object:
    """A gateway in front of the API that sends everything to haiku, repaired."""

    async def gateway(scope: dict, receive: object, send: object) -> None:
        async def rewritten() -> dict:
            message = await receive()  # type: ignore[operator]
            if message["type"] == "http.request":
                body = message["body"]
                body = body.replace(b'{"model":"claude-opus-4-7"', b'{"model":"claude-haiku-4-5"')
                body = body.replace(b',"output_config":{"effort":"xhigh"}', b"")
                body = body.replace(b'{"type":"adaptive",', b'{"type":"disabled",')
                message = {**message, "body": body}
            return message

        await app(scope, rewritten, send)  # type: ignore[arg-type]

    return gateway


def test_the_recordings_are_read_at_all() -> None:
    assert len(recorded()) > 200
    with pytest.raises(DecodeError):
        list(records_of("logs", b"\xff\xff"))
