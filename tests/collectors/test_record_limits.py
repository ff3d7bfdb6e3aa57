"""What is beyond a limit: the record is rejected by itself, the sender told, everything counted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from collectors.body_decoding import decode, validate
from collectors.content_rules import ContentModes
from collectors.journal import Journal, JournalLimits
from collectors.otlp_decoding import iso_time_us
from collectors.otlp_http import otlp_app
from collectors.record_limits import (
    INVALID_ID,
    MAX_ATTRIBUTE_BYTES,
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    TOO_DEEP,
    TOO_LARGE,
    TOO_MANY,
)
from collectors.segments import Record, RecordKind
from loop.control.intake_log import IntakeLog
from loop.control.store import open_control_store
from loop.service.intake_readings import sums_of
from tests.collectors.pipeline import grpc_collector, pipeline
from tests.collectors.recordings import Body, log_body
from tests.fakes.asgi_server import running_server

JSON = {"content-type": "application/json"}
NOW_US = 1_800_000_000_000_000


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"stringValue": "x"}
    for level in range(levels):
        kind = "arrayValue" if level % 2 else "kvlistValue"
        item: Any = value if level % 2 else {"key": "k", "value": value}
        value = {kind: {"values": [item]}}
    return value


def logs_with(*attributes: dict[str, Any]) -> bytes:
    """Two records: the second one has the attributes too."""
    document = orjson.loads(log_body("s", 2))
    records = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    records[1]["attributes"] += attributes
    return orjson.dumps(document)


MANY = [{"key": f"k{number}", "value": {"intValue": number}} for number in range(MAX_ATTRIBUTES)]
BEYOND = {
    TOO_DEEP: logs_with({"key": "deep", "value": nested(MAX_DEPTH + 1)}),
    TOO_MANY: logs_with(*MANY),
    TOO_LARGE: logs_with({"key": "k", "value": {"stringValue": "x" * (MAX_ATTRIBUTE_BYTES + 1)}}),
}


@pytest.mark.parametrize("content_type", ["json", "protobuf"])
@pytest.mark.parametrize("reason", BEYOND)
def test_a_record_beyond_a_limit_is_rejected_alone(reason: str, content_type: Any) -> None:
    body = Body("", "logs", "json", BEYOND[reason])
    content = body.as_json() if content_type == "json" else body.as_protobuf()
    decoded = decode(Record("logs", content_type, content, NOW_US))
    assert len(decoded.events) == 1
    assert decoded.rejected == {reason: 1}
    if content_type == "json" or reason == TOO_MANY:
        assert validate("logs", content_type, content) == {reason: 1}


@pytest.mark.parametrize("content_type", ["json", "protobuf"])
def test_what_is_just_within_the_limits_is_taken(content_type: Any) -> None:
    values = [nested(MAX_DEPTH), {"stringValue": "x" * 1_000_000}]
    attributes = [{"key": f"v{index}", "value": value} for index, value in enumerate(values)]
    body = Body("", "logs", "json", logs_with(*attributes, *MANY[: MAX_ATTRIBUTES - 20]))
    content = body.as_json() if content_type == "json" else body.as_protobuf()
    decoded = decode(Record("logs", content_type, content, NOW_US))
    assert (len(decoded.events), dict(decoded.rejected)) == (2, {})


IDS = {
    "no trace id": (b"", b"s" * 8),
    "a trace id of zeros": (bytes(16), b"s" * 8),
    "a span id of zeros": (b"t" * 16, bytes(8)),
    "a span id that is too long": (b"t" * 16, b"s" * 9),
}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("case", IDS)
def test_a_span_without_a_valid_id_is_rejected_in_part(
    tmp_path: Path, case: str, protocol: str
) -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    now_ns = time.time_ns()
    for trace_id, span_id in (IDS[case], (b"t" * 16, b"s" * 8)):
        spans.add(trace_id=trace_id, span_id=span_id, start_time_unix_nano=now_ns, name="n")
    content = request.SerializeToString()
    with pipeline(tmp_path) as parts:
        if protocol == "grpc":
            method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            with grpc_collector(parts.journal) as target, grpc.insecure_channel(target) as channel:
                answer = channel.unary_unary(method)(content, timeout=10)
        else:
            with running_server(otlp_app(parts.journal)) as url:
                headers = {"content-type": "application/x-protobuf"}
                answer = httpx.post(f"{url}/v1/traces", content=content, headers=headers).content
        success = ExportTraceServiceResponse.FromString(answer).partial_success
        assert success.rejected_spans == 1
        assert "valid trace id" in success.error_message
        report = parts.drainer.drain_once()
        assert (report.received, report.stored, report.beyond_limits) == (2, 1, 1)
        (entry,) = parts.drainer.quarantine.entries()
        assert "valid trace id" in entry.reason


def test_ids_of_zeros_on_a_log_mean_that_there_are_none() -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.trace_id, record.span_id = bytes(16), bytes(8)
    (event,) = decode(Record("logs", "protobuf", request.SerializeToString(), NOW_US)).events
    assert not {"otel.trace_id", "otel.span_id"} & event.attributes.keys()
    assert validate("traces", "protobuf", b"") == {}
    zeros = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%s"}]}]}]}' % (b"0" * 32)
    assert validate("traces", "json", zeros) == {INVALID_ID: 1}


def test_what_is_refused_at_the_door_is_counted_by_reason(tmp_path: Path) -> None:
    engine = open_control_store(f"sqlite:///{tmp_path / 'control.db'}")
    intake, good = IntakeLog(engine), log_body("s")
    tokens = {"": "", "secret": "payments"}
    with pipeline(tmp_path, intake=intake) as parts:
        modes = ContentModes("hashed", hash_key=b"k")  # counts are no content
        parts.journal.screen.modes = lambda: modes
        with (
            running_server(otlp_app(parts.journal, authorise=tokens.get)) as url,
            httpx.Client(base_url=url) as client,
        ):
            mine = {**JSON, "authorization": "Bearer secret"}
            statuses = [
                client.post("/v1/logs", content=content, headers=headers).status_code
                for content, headers in (
                    (good, mine),
                    (b"{", mine),
                    (b"{", mine),
                    (good, {**mine, "content-encoding": "zstd"}),
                    (good, {**JSON, "authorization": "Bearer wrong"}),
                    (b" " * 17 * 2**20, mine),
                )
            ]
            assert statuses == [200, 400, 400, 415, 401, 413]
        with (
            grpc_collector(parts.journal, authorise=tokens.get) as target,
            grpc.insecure_channel(target) as channel,
        ):
            export = channel.unary_unary(GRPC_LOGS)
            with pytest.raises(grpc.RpcError):
                export(b"\xff\xff", timeout=10)
        parts.drainer.drain_once()
        sums = sums_of(intake.rows())
        assert sums["bodies_refused"] == {
            "malformed": 3,
            "too_large": 1,
            "unauthorized": 1,
            "unsupported": 1,
        }
        assert (sums["received"], sums["stored"], sums["balanced"]) == (1, 1, True)
        refused = [row for row in intake.rows() if row["outcome"] == "bodies_refused"]
        malformed = [row for row in refused if row["reason"] == "malformed"]
        assert {(row["credential"], row["count"]) for row in malformed} == {
            ("payments", 2),
            ("", 1),
        }
    engine.dispose()


def test_a_full_quarantine_refuses_what_would_go_there_and_takes_the_rest(tmp_path: Path) -> None:
    limits = JournalLimits(min_free_bytes=0, max_used_percent=100.0, max_quarantine_bytes=1)
    kept = tmp_path / "quarantine" / "old.sealed"
    kept.parent.mkdir()
    kept.write_bytes(b"kept")
    with Journal(tmp_path / "journal", limits) as journal, running_server(otlp_app(journal)) as url:
        refused = httpx.post(f"{url}/v1/logs", content=BEYOND[TOO_MANY], headers=JSON)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "quarantine is full" in refused.json()["message"]
        taken = httpx.post(f"{url}/v1/logs", content=log_body("s"), headers=JSON)
        assert taken.status_code == 200
    assert kept.read_bytes() == b"kept"


def test_a_message_that_unfolds_over_grpc_is_refused_before_it_does(tmp_path: Path) -> None:
    client = f"""
import grpc, sys
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
request = ExportLogsServiceRequest()
record = request.resource_logs.add().scope_logs.add().log_records.add()
record.body.string_value = "a" * 70_000_000
with grpc.insecure_channel(sys.argv[1], options=[("grpc.max_send_message_length", -1)]) as channel:
    call = channel.unary_unary("{GRPC_LOGS}")
    try:
        call(request.SerializeToString(), compression=grpc.Compression.Gzip, timeout=30)
    except grpc.RpcError as error:
        print(error.code().name)
"""
    with Journal(tmp_path / "journal") as journal, grpc_collector(journal) as target:
        before = _resident_bytes()
        run = subprocess.run(
            [sys.executable, "-c", client, target], capture_output=True, text=True, timeout=60
        )
        assert run.stdout.strip() == "RESOURCE_EXHAUSTED", run.stderr
        assert _resident_bytes() - before < 60_000_000


GRPC_LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("days", [-2, -1, 0, 0.9, 2])
@pytest.mark.parametrize("kind", ["logs", "decisions"])
def test_clocks_off_by_days(kind: RecordKind, days: float) -> None:
    at_us = NOW_US + int(days * 86_400_000_000)
    if kind == "logs":
        body = log_body("s").replace(b"1790000000000000000", str(at_us * 1000).encode())
    else:
        from tests.collectors.test_decision_intake import decision

        body = orjson.dumps([decision(at_us=at_us)])
    decoded = decode(Record(kind, "json", body, NOW_US))
    assert len(decoded.events) == (0 if days == 2 else 1)
    for event in decoded.events:  # when it happened and when it came are two things
        assert (event.at_us, event.received_at_us) == (at_us, NOW_US)


def test_times_around_a_change_of_the_clocks_and_a_leap_second() -> None:
    before = iso_time_us("2026-10-25T02:59:59+02:00")
    after = iso_time_us("2026-10-25T02:00:00+01:00")
    assert after - before == 1_000_000
    assert iso_time_us("2026-03-29T03:00:00+02:00") - iso_time_us("2026-03-29T01:59:59+01:00") == (
        1_000_000
    )
    assert iso_time_us("2016-12-31T23:59:60Z") == 0  # unknown: the time of receipt stands in
