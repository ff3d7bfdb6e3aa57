"""Records of a client whose clock is days ahead: told of, set aside whole, never in the tables."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import httpx
import orjson
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from collectors.body_decoding import decode, validate
from collectors.otlp_http import otlp_app
from collectors.partial_success import PartialRejection
from collectors.record_limits import AHEAD
from collectors.segments import MAGIC, read_segment
from tests.collectors.pipeline import grpc_collector, pipeline
from tests.collectors.recordings import log_body
from tests.fakes.asgi_server import running_server

HOUR_NS = 3_600_000_000_000


def body_at(*hours_ahead: float) -> bytes:
    """A JSON body of one API request per time given, in hours from now."""
    document = orjson.loads(log_body("s", len(hours_ahead)))
    now_ns = time.time_ns()
    records = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    for record, hours in zip(records, hours_ahead, strict=True):
        record["timeUnixNano"] = str(now_ns + int(hours * HOUR_NS))
    return orjson.dumps(document)


def as_protobuf(body: bytes) -> bytes:
    return json_format.Parse(body, ExportLogsServiceRequest()).SerializeToString()


@pytest.mark.parametrize("protocol", ["json", "protobuf", "grpc"])
def test_records_far_ahead_are_rejected_in_part_and_kept_aside(
    tmp_path: Path, protocol: str
) -> None:
    body = body_at(-1, 23, 25, 24 * 365 * 40)
    with pipeline(tmp_path) as parts:
        if protocol == "grpc":
            with grpc_collector(parts.journal) as target, grpc.insecure_channel(target) as channel:
                method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
                answer = channel.unary_unary(method)(as_protobuf(body), timeout=10)
        else:
            content = body if protocol == "json" else as_protobuf(body)
            kind = "application/json" if protocol == "json" else "application/x-protobuf"
            with running_server(otlp_app(parts.journal)) as url:
                sent = httpx.post(f"{url}/v1/logs", content=content, headers={"content-type": kind})
            assert sent.status_code == 200
            answer = sent.content
        if protocol == "json":
            partial = orjson.loads(answer)["partialSuccess"]
            assert partial["rejectedLogRecords"] == "2"
            assert "24 hours" in partial["errorMessage"]
        else:
            success = ExportLogsServiceResponse.FromString(answer).partial_success
            assert success.rejected_log_records == 2
            assert "24 hours" in success.error_message
        report = parts.drainer.drain_once()
        assert (report.received, report.stored, report.beyond_limits, report.rejected) == (
            4,
            2,
            2,
            0,
        )
        tomorrow_us = time.time_ns() // 1000 + 24 * 3_600_000_000
        assert len(parts.lake.turns_of(["s"])) == 2
        latest = parts.lake.query("SELECT max(at_us) AS at_us FROM events")[0]["at_us"]
        assert latest <= tomorrow_us
        (entry,) = parts.drainer.quarantine.entries()
        assert "2 of its records are more than 24 hours ahead" in entry.reason
    (kept,) = (tmp_path / "quarantine").glob("*.sealed")
    assert kept.read_bytes().startswith(MAGIC)
    (record,) = read_segment(kept).records
    assert len(decode(record).events) == 2


def test_nothing_ahead_is_answered_with_the_default_response(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts, running_server(otlp_app(parts.journal)) as url:
        for content, kind in (
            (body_at(0, 23), "application/json"),
            (as_protobuf(body_at(0, 23)), "application/x-protobuf"),
        ):
            answer = httpx.post(f"{url}/v1/logs", content=content, headers={"content-type": kind})
            assert answer.content == (b"{}" if kind == "application/json" else b"")


def test_spans_and_points_are_counted_by_their_own_times() -> None:
    ahead_ns, now_ns = time.time_ns() + 48 * HOUR_NS, time.time_ns()
    traces = ExportTraceServiceRequest()
    spans = traces.resource_spans.add().scope_spans.add().spans
    for at_ns in (now_ns, ahead_ns):
        ids = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
        spans.add(start_time_unix_nano=at_ns, end_time_unix_nano=at_ns, **ids)
    assert validate("traces", "protobuf", traces.SerializeToString()) == {AHEAD: 1}
    metrics = ExportMetricsServiceRequest()
    listed = metrics.resource_metrics.add().scope_metrics.add().metrics
    listed.add(name="empty")
    points = listed.add(name="cost").sum.data_points
    for at_ns in (now_ns, ahead_ns, ahead_ns):
        points.add(time_unix_nano=at_ns, as_double=1.0)
    assert validate("metrics", "protobuf", metrics.SerializeToString()) == {AHEAD: 2}


@pytest.mark.parametrize(
    ("signal", "response_type", "field"),
    [
        ("metrics", ExportMetricsServiceResponse, "rejected_data_points"),
        ("traces", ExportTraceServiceResponse, "rejected_spans"),
    ],
)
def test_each_signal_has_its_own_count(signal: str, response_type: type, field: str) -> None:
    rejection = PartialRejection(signal, {AHEAD: 3})
    from_binary = response_type.FromString(rejection.as_protobuf())
    assert getattr(from_binary.partial_success, field) == 3
    assert json_format.Parse(rejection.as_json(), response_type()) == from_binary
