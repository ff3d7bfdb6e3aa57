"""The three protocols, end to end: acknowledged bodies become exact turns in a real lake."""

from __future__ import annotations

import gzip
import random
import zlib
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from collectors.journal import Journal, JournalLimits
from collectors.otlp_http import BodyLimits, otlp_app
from loop.domain.errors import Refused
from tests.collectors.pipeline import ROOMY, Pipeline, grpc_collector, pipeline
from tests.collectors.recordings import (
    DIRECTORY,
    all_bodies,
    check_totals,
    expected_sessions,
    log_body,
)
from tests.fakes.asgi_server import running_server

GRPC_METHODS = {
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


def check_lake(parts: Pipeline) -> None:
    truth = expected_sessions()
    check_totals(parts.lake.turns_of(truth), truth)


@pytest.mark.parametrize("transcripts", [False, True], ids=["otlp", "otlp-and-transcripts"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_totals_are_exact_over_http(tmp_path: Path, protocol: str, transcripts: bool) -> None:
    bodies = all_bodies() * 2
    random.Random(7).shuffle(bodies)
    with pipeline(tmp_path) as parts:
        with (
            running_server(otlp_app(parts.journal)) as url,
            httpx.Client(base_url=url) as client,
        ):
            for index, body in enumerate(bodies):
                content = body.as_json() if protocol == "http/json" else body.as_protobuf()
                headers = dict(JSON if protocol == "http/json" else PROTOBUF)
                if index % 3 == 1:
                    content, headers["content-encoding"] = gzip.compress(content), "gzip"
                elif index % 3 == 2:
                    content, headers["content-encoding"] = zlib.compress(content), "deflate"
                answer = client.post(f"/v1/{body.signal}", content=content, headers=headers)
                assert answer.status_code == 200
                assert answer.headers["content-type"] == headers["content-type"]
                if index == len(bodies) // 2:
                    parts.drainer.drain_once()
        if transcripts:
            from collectors.transcripts import import_transcripts

            import_transcripts([DIRECTORY], parts.journal)
        report = parts.drainer.drain_once()
        assert report.rejected == 0
        assert parts.drainer.is_drained()
        check_lake(parts)


def test_totals_are_exact_over_grpc(tmp_path: Path) -> None:
    bodies = all_bodies() * 2
    random.Random(8).shuffle(bodies)
    with pipeline(tmp_path) as parts:
        with grpc_collector(parts.journal) as target, grpc.insecure_channel(target) as channel:
            for index, body in enumerate(bodies):
                compression = grpc.Compression.Gzip if index % 2 else None
                call = channel.unary_unary(GRPC_METHODS[body.signal])
                assert call(body.as_protobuf(), compression=compression, timeout=10) == b""
        report = parts.drainer.drain_once()
        assert report.received == report.stored + report.duplicates
        check_lake(parts)


def test_a_record_has_one_id_whichever_protocol_carried_it(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts:
        for body in all_bodies():
            parts.journal.append_sync(body.signal, "json", body.as_json())
        stored = parts.drainer.drain_once().stored
        for body in all_bodies():
            parts.journal.append_sync(body.signal, "protobuf", body.as_protobuf())
        again = parts.drainer.drain_once()
    assert stored > 400
    assert (again.stored, again.duplicates) == (0, again.received)


GOOD = log_body("s")
SMALL = BodyLimits(compressed_bytes=10_000, inflated_bytes=50_000)
BOMB = gzip.compress(b'{"resourceLogs":[' + b" " * 5_000_000 + b"]}")
BAD_INPUT = {
    "malformed protobuf": (b"\xff\xff\xff", PROTOBUF, 400),
    "truncated protobuf": (all_bodies()[0].as_protobuf()[:-3], PROTOBUF, 400),
    "malformed JSON": (b'{"resourceLogs":[', JSON, 400),
    "JSON that is no object": (b"[]", JSON, 400),
    "JSON of the wrong shape": (b'{"resourceLogs":{"a":1}}', JSON, 400),
    "invalid UTF-8": (b'{"resourceLogs":[{"schemaUrl":"\xff"}]}', JSON, 400),
    "nested beyond any parser": (b'{"a":' + b"[" * 4000 + b"]" * 4000 + b"}", JSON, 400),
    "an id that is no hex": (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}',
        JSON,
        400,
    ),
    "broken gzip": (b"no gzip", {**JSON, "content-encoding": "gzip"}, 400),
    "cut gzip": (gzip.compress(GOOD)[:-9], {**JSON, "content-encoding": "gzip"}, 400),
    "gzip with a tail": (gzip.compress(GOOD) + b"xx", {**JSON, "content-encoding": "gzip"}, 400),
    "no content type": (GOOD, {}, 415),
    "unknown content type": (GOOD, {"content-type": "text/plain"}, 415),
    "unknown encoding": (GOOD, {**JSON, "content-encoding": "zstd"}, 415),
    "oversized": (log_body("s", 100), JSON, 413),
    "exploding": (BOMB, {**JSON, "content-encoding": "gzip"}, 413),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_a_clear_answer_and_nothing_is_kept(tmp_path: Path, case: str) -> None:
    content, headers, status = BAD_INPUT[case]
    signal = "traces" if b"resourceSpans" in content else "logs"
    with pipeline(tmp_path) as parts:
        with running_server(otlp_app(parts.journal, SMALL)) as url:
            answer = httpx.post(f"{url}/v1/{signal}", content=content, headers=headers)
            assert answer.status_code == status
            if headers.get("content-type") == "application/x-protobuf":
                error = Status.FromString(answer.content)
                assert error.code == {400: 3}[status]
                assert error.message
            else:
                assert answer.json()["message"]
                assert answer.json()["code"] in (3, 8)
            assert httpx.post(f"{url}/v1/logs", content=GOOD, headers=JSON).status_code == 200
        report = parts.drainer.drain_once()
    assert (report.received, report.stored) == (1, 1)


def test_an_exploding_body_is_refused_before_it_unfolds(tmp_path: Path) -> None:
    inflated = 400_000_000
    compressor = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    bomb = b"".join(compressor.compress(b" " * 1_000_000) for _ in range(inflated // 1_000_000))
    bomb += compressor.flush()
    with pipeline(tmp_path) as parts, running_server(otlp_app(parts.journal)) as url:
        answer = httpx.post(
            f"{url}/v1/logs", content=bomb, headers={**JSON, "content-encoding": "gzip"}
        )
    assert answer.status_code == 413


def test_methods_and_paths_that_do_not_exist(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts, running_server(otlp_app(parts.journal)) as url:
        refused = httpx.get(f"{url}/v1/logs")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert httpx.post(f"{url}/v1/profiles", content=b"").status_code == 404


def test_a_token_is_asked_for_and_names_the_credential(tmp_path: Path) -> None:
    tokens = {"secret-of-payments": "payments"}
    with pipeline(tmp_path) as parts:
        with running_server(otlp_app(parts.journal, authorise=tokens.get)) as url:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}):
                answer = httpx.post(f"{url}/v1/logs", content=GOOD, headers={**JSON, **headers})
                assert answer.status_code == 401
                assert "www-authenticate" in answer.headers
            headers = {**JSON, "authorization": "Bearer secret-of-payments"}
            assert httpx.post(f"{url}/v1/logs", content=GOOD, headers=headers).status_code == 200
        with grpc_collector(parts.journal, authorise=tokens.get) as target:
            code, _ = _grpc_error(target, b"")
            assert code is grpc.StatusCode.UNAUTHENTICATED
        parts.drainer.drain_once()
        (events,) = parts.lake.events_of(["s"]).values()
    assert [event.credential for event in events] == ["payments"]


def test_a_credential_that_may_not_send_is_told_so(tmp_path: Path) -> None:
    def refuse(_token: str) -> str | None:
        raise Refused("The credential 'reader' may not ingest.")

    with pipeline(tmp_path) as parts:
        with running_server(otlp_app(parts.journal, authorise=refuse)) as url:
            answer = httpx.post(f"{url}/v1/logs", content=GOOD, headers=JSON)
            assert answer.status_code == 403
            assert "may not ingest" in answer.json()["message"]
        with grpc_collector(parts.journal, authorise=refuse) as target:
            code, _ = _grpc_error(target, b"")
            assert code is grpc.StatusCode.PERMISSION_DENIED


def test_a_full_disk_is_answered_with_503_and_when_to_try_again(tmp_path: Path) -> None:
    full = JournalLimits(min_free_bytes=2**60)
    with Journal(tmp_path / "journal", full) as journal:
        with running_server(otlp_app(journal)) as url:
            answer = httpx.post(f"{url}/v1/logs", content=GOOD, headers=JSON)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
        with grpc_collector(journal) as target:
            code, trailers = _grpc_error(target, all_bodies()[0].as_protobuf())
            assert code is grpc.StatusCode.UNAVAILABLE
            status = Status.FromString(trailers["grpc-status-details-bin"])
            retry = RetryInfo()
            assert status.details[0].Unpack(retry)
            assert retry.retry_delay.seconds > 0
    assert not list((tmp_path / "journal").iterdir())


def test_grpc_maps_bad_input(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", ROOMY) as journal, grpc_collector(journal, SMALL) as target:
        assert _grpc_error(target, b"\xff\xff")[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert _grpc_error(target, b"\x00" * 20_000)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def _grpc_error(target: str, body: bytes) -> tuple[grpc.StatusCode, dict[str, Any]]:
    with grpc.insecure_channel(target) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(GRPC_METHODS["logs"])(body, timeout=10)
        error: Any = caught.value
        return error.code(), dict(error.trailing_metadata() or ())
