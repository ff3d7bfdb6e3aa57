"""Nothing unredacted on any disk: secrets planted wherever a text can stand, and every byte of the
data folder searched for them, before the journal is drained and after."""

from __future__ import annotations

import base64
import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pyarrow.parquet as pq
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.redaction_corpus import MAKERS, NEEDS
from collectors.decision_intake import parse_decisions
from collectors.journal import Journal
from collectors.otlp_http import otlp_app
from collectors.redaction import doubtful_lines, may_hold_secrets, redact, redact_split
from collectors.screening import Screen
from collectors.transcripts import import_transcripts
from loop.domain.policies import Decision
from tests.collectors.pipeline import ROOMY, Pipeline, grpc_collector, pipeline
from tests.collectors.recordings import all_bodies, log_body
from tests.fakes.asgi_server import running_server

NOW_NS = 1_790_000_000_000_000_000
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
PATHS = {
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}


def secret_of(kind: str, seed: int = 0) -> tuple[str, str]:
    """A secret, and the line that it is told in."""
    rng = random.Random(f"{kind} {seed}")
    secret = MAKERS[kind](rng)
    return secret, (NEEDS[kind][0] if kind in NEEDS else "{}").format(secret)


def core_of(secret: str) -> str:
    """A part of the secret that must not be found, without what escapes would change."""
    return max(re.findall(r"[A-Za-z0-9]+", secret), key=len)[-24:]


def wrapped(line: str) -> Iterator[str]:
    """A line as it may stand inside of other texts."""
    yield line
    as_json = json.dumps({"type": "text", "text": f"say {line} now"})
    yield as_json
    yield json.dumps({"body": as_json})
    yield "".join(f"\\u{ord(char):04x}" if char.isalnum() else char for char in line)
    yield "".join(f"\\\\u{ord(char):04X}" if char.isalnum() else char for char in line)
    yield f"# settings\n{line}\n# end"


def is_shaped(kind: str) -> bool:
    return kind not in NEEDS


def all_texts(kind: str) -> list[str]:
    secret, line = secret_of(kind)
    texts = list(wrapped(line))
    if kind in ENCODED:
        texts += [base64.b64encode(b"x" * at + b" " + line.encode()).decode() for at in range(3)]
        texts.append(f"data: {base64.urlsafe_b64encode(secret.encode()).decode()} end")
    return texts


# Of shaped secrets whose beginning is always the same, the base64 is known too.
ENCODED = (
    "anthropic-key", "aws-access-key", "github-token", "google-api-key", "npm-token", "pypi-token",
    "private-key", "turnwise-token",
)  # fmt: skip


def request_of(signal: str, lines: list[str], texts: list[str] = ()) -> Any:  # type: ignore[assignment]
    """An OTLP request with each line in each place where a text can stand; the texts stand in
    attributes of records of their own."""
    if signal == "logs":
        request = ExportLogsServiceRequest()
        for line in lines:
            group = request.resource_logs.add()
            fill_resource(group, line)
            scoped = group.scope_logs.add()
            fill_scope(scoped, line)
            record = scoped.log_records.add(severity_text=line, event_name=f"x {line}")
            record.time_unix_nano = NOW_NS
            record.body.string_value = line
            fill_attributes(record.attributes, line)
            deep = scoped.log_records.add(time_unix_nano=NOW_NS).body.kvlist_value.values
            deep.add(key="deep").value.array_value.values.add(string_value=line)
        others = request.resource_logs.add().scope_logs.add().log_records
        for number, text in enumerate(texts):
            record = others.add(time_unix_nano=NOW_NS + number)
            record.attributes.add(key="session.id").value.string_value = "s"
            record.attributes.add(key="response").value.string_value = text
        return request
    if signal == "traces":
        traces = ExportTraceServiceRequest()
        for line in lines:
            spans = traces.resource_spans.add()
            fill_resource(spans, line)
            scope = spans.scope_spans.add()
            fill_scope(scope, line)
            span = scope.spans.add(
                name=line, trace_id=b"\1" * 16, span_id=b"\2" * 8, trace_state=line
            )
            span.start_time_unix_nano = NOW_NS
            span.status.message = line
            fill_attributes(span.attributes, line)
            fill_attributes(span.events.add(name=line).attributes, line)
            fill_attributes(span.links.add().attributes, line)
        return traces
    metrics = ExportMetricsServiceRequest()
    for line in lines:
        measured = metrics.resource_metrics.add()
        fill_resource(measured, line)
        within = measured.scope_metrics.add()
        fill_scope(within, line)
        metric = within.metrics.add(name=f"m {line}", description=line, unit=line)
        fill_attributes(metric.metadata, line)
        point = metric.sum.data_points.add(as_double=1.0, time_unix_nano=NOW_NS)
        fill_attributes(point.attributes, line)
        fill_attributes(point.exemplars.add().filtered_attributes, line)
    return metrics


def fill_resource(group: Any, line: str) -> None:
    fill_attributes(group.resource.attributes, line)
    group.schema_url = line


def fill_scope(scoped: Any, line: str) -> None:
    scoped.scope.name = f"lib {line}"
    scoped.scope.version = line
    scoped.scope.attributes.add(key="of scope").value.string_value = line


def fill_attributes(attributes: Any, line: str) -> None:
    attributes.add(key="session.id").value.string_value = "s"
    attributes.add(key="response").value.string_value = line
    attributes.add(key=f"k {line}").value.int_value = 1
    array = attributes.add(key="many").value.array_value
    array.values.add(string_value="plain")
    array.values.add(string_value=line)
    nested = attributes.add(key="nested").value.kvlist_value.values.add(key=f"n {line}")
    nested.value.kvlist_value.values.add(key="deep").value.string_value = line
    attributes.add(key="raw").value.bytes_value = line.encode()


def as_otlp_json(request: Any) -> bytes:
    document = json_format.MessageToDict(request)
    text = orjson.dumps(document).decode()
    for name, size in (("traceId", 16), ("spanId", 8)):
        text = re.sub(rf'"{name}":"[^"]*"', f'"{name}":"{"ab" * size}"', text)
    # Fields that this version knows nothing of are kept, so they are searched too.
    marked = orjson.loads(text)
    (first, *_) = (groups for groups in document.values())
    marked["unknownField"] = {"anything": first}
    return orjson.dumps(marked)


def every_byte(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files as they are, and what is in the compressed ones."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()
            if path.suffix == ".parquet":
                table = pq.read_table(path)  # type: ignore[no-untyped-call]
                yield f"{path} (read)", repr(table.to_pylist()).encode()


def check_absent(folder: Path, cores: dict[str, str]) -> int:
    """Asserts that no file holds a secret, in any of the forms it was planted in."""
    files = 0
    for name, content in every_byte(folder):
        files += 1
        for kind, core in cores.items():
            forms = [core.encode(), core.encode().hex().encode()]
            forms += [base64.b64encode(b"\0" * at + core.encode())[2 + at : -4] for at in range(3)]
            forms.append("".join(f"\\u{ord(char):04x}" for char in core).encode())
            for form in forms:
                assert form not in content, f"{kind} is in {name}"
    return files


def transcript_of(texts: list[str]) -> str:
    lines = []
    for number, text in enumerate(texts):
        blocks = [
            {"type": "text", "text": text},
            {"type": "thinking", "thinking": text},
            {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {text: [text]}},
        ]
        lines += [
            {
                "type": "assistant", "uuid": f"a{number}", "sessionId": "t", "requestId": "req_1",
                "timestamp": "2026-02-01T10:00:00Z", "cwd": text, "toolUseResult": {"out": text},
                "message": {"id": "m", "model": "claude-opus-4-7", "content": blocks},
            },
            {
                "type": "user", "uuid": f"u{number}", "sessionId": "t", "promptId": "p",
                "timestamp": "2026-02-01T10:00:01Z", "message": {"role": "user", "content": text},
            },
        ]  # fmt: skip
    return "\n".join(json.dumps(line) for line in lines)


DECISION = asdict(Decision("d", NOW_NS // 1000, "s", "", 1, 1, "", "stable", 5, 1.0, "", "", ""))


def decisions_of(texts: list[str]) -> bytes:
    return orjson.dumps(
        [
            {
                **DECISION, "decision_id": f"d{number}", "routed_model": text, "rule_id": text,
                "unknown": {text: text},
            }
            for number, text in enumerate(texts)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("way", ["http/protobuf", "http/json", "grpc", "transcript", "decisions"])
def test_no_byte_of_a_secret_is_on_the_disk(tmp_path: Path, way: str) -> None:
    cores = {kind: core_of(secret_of(kind)[0]) for kind in MAKERS}
    lines = [secret_of(kind)[1] for kind in MAKERS]
    texts = [text for kind in MAKERS for text in all_texts(kind)]
    data = tmp_path / "data"
    with pipeline(data) as parts:
        _send(parts, way, lines, texts, tmp_path)
        assert check_absent(data, cores) >= 1  # the open segment of the journal
        parts.drainer.drain_once()
        assert parts.drainer.is_drained()
        assert check_absent(data, cores) > 4  # the lake
        assert parts.lake.query("SELECT count(*) AS n FROM events")[0]["n"] > 0


def _send(parts: Pipeline, way: str, lines: list[str], texts: list[str], outside: Path) -> None:
    if way == "transcript":
        (outside / "t.jsonl").write_text(transcript_of(texts))
        assert not import_transcripts([outside / "t.jsonl"], parts.journal).problems
        return
    if way == "decisions":
        body = decisions_of(lines)
        assert len(parse_decisions(body)) == len(lines)
        parts.journal.append_sync("decisions", "json", body)
        return
    if way == "grpc":
        with grpc_collector(parts.journal) as target, grpc.insecure_channel(target) as channel:
            for signal, path in PATHS.items():
                body = request_of(signal, lines, texts).SerializeToString()
                assert channel.unary_unary(path)(body, timeout=20) == b""
        return
    with running_server(otlp_app(parts.journal)) as url, httpx.Client(base_url=url) as client:
        for signal in PATHS:
            request = request_of(signal, lines, texts)
            is_json = way == "http/json"
            content = as_otlp_json(request) if is_json else request.SerializeToString()
            answer = client.post(
                f"/v1/{signal}", content=content, headers=JSON if is_json else PROTOBUF, timeout=20
            )
            assert answer.status_code == 200, answer.text


def test_what_cannot_be_read_is_refused_and_leaves_no_byte(tmp_path: Path) -> None:
    secret, line = secret_of("github-token")
    broken = request_of("logs", [line]).SerializeToString()[:-3]
    with pipeline(tmp_path) as parts:
        with running_server(otlp_app(parts.journal)) as url:
            for content, headers in ((broken, PROTOBUF), (line.encode(), JSON)):
                answer = httpx.post(f"{url}/v1/logs", content=content, headers=headers)
                assert answer.status_code == 400
        # What only this process could have put there is cleaned as bytes, and quarantined so.
        parts.journal.append_sync("logs", "protobuf", broken)
        parts.journal.append_sync("logs", "json", b'{"a": ' + line.encode())
        check_absent(tmp_path, {"github-token": core_of(secret)})
        assert parts.drainer.drain_once().rejected == 2
        assert len(parts.drainer.quarantine.entries()) == 2
        check_absent(tmp_path, {"github-token": core_of(secret)})


def test_a_field_that_nobody_knows_is_not_kept_beside_a_secret(tmp_path: Path) -> None:
    secret, line = secret_of("github-token")
    field = b"\xfa\x7f" + bytes([len(line)]) + line.encode()  # number 2047, of a type of length
    body = ExportLogsServiceRequest.FromString(field).SerializeToString()
    assert line.encode() in body  # the library would keep it
    with Journal(tmp_path, ROOMY) as journal:
        journal.append_sync("logs", "protobuf", body)
    check_absent(tmp_path, {"github-token": core_of(secret)})


def test_a_body_without_a_secret_passes_byte_for_byte() -> None:
    screen = Screen()
    for body in all_bodies():
        for content_type, content in (("json", body.as_json()), ("protobuf", body.as_protobuf())):
            assert screen.screen(body.signal, content_type, content) is content  # type: ignore[arg-type]


def test_unknown_fields_and_numbers_of_json_are_kept_beside_a_secret() -> None:
    document = orjson.loads(log_body("s", prompt=secret_of("github-token")[1]))
    document["newThing"] = {"list": [1, 2.5, None, True, "text"]}
    screened = orjson.loads(Screen().screen("logs", "json", orjson.dumps(document)))
    assert screened["newThing"] == document["newThing"]
    pairs = screened["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"]
    expected = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"]
    for pair, before in zip(pairs, expected, strict=True):
        if pair["key"] == "prompt":
            assert pair["value"] == {"stringValue": "[REDACTED:github-token]"}
        else:
            assert pair == before


TEXTS = st.text(alphabet="abc XYZ 019 \n\"'(){}[]=:,;/\\-_.äß→😀", max_size=40)


@given(
    kind=st.sampled_from(sorted(MAKERS)),
    seed=st.integers(0, 10_000),
    before=TEXTS,
    after=TEXTS,
    levels=st.integers(0, 4),
)
@settings(max_examples=120, deadline=None)
def test_no_secret_survives_what_is_around_it(
    kind: str, seed: int, before: str, after: str, levels: int
) -> None:
    secret, line = secret_of(kind, seed)
    text = f"{before} {line} {after}"
    for _ in range(levels):
        text = json.dumps({"text": text})
    redacted = redact(text)
    assert core_of(secret) not in redacted
    assert redact(redacted) == redacted


@given(
    kind=st.sampled_from(sorted(kind for kind in MAKERS if is_shaped(kind))),
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    before=TEXTS,
    after=TEXTS,
)
@settings(max_examples=80, deadline=None)
def test_no_shaped_secret_survives_being_split(
    kind: str, seed: int, cuts: list[float], before: str, after: str
) -> None:
    secret = secret_of(kind, seed)[0]
    places = sorted({0, len(secret), *(round(cut * len(secret)) for cut in cuts)})
    parts = [secret[start:end] for start, end in itertools.pairwise(places)]
    texts = [*parts]
    texts[0] = f"{before} {texts[0]}"
    texts[-1] = f"{texts[-1]} {after}"
    redacted = redact_split(texts)
    assert len(redacted) == len(texts)
    assert core_of(secret) not in "".join(redacted)


@given(text=st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(
    words=st.lists(st.text(alphabet="abcdefghijklmnop", min_size=1, max_size=9), max_size=6),
    kind=st.sampled_from(sorted(MAKERS)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_a_screened_request_is_the_same_but_for_the_replaced_texts(
    words: list[str], kind: str, seed: int
) -> None:
    plain = request_of("logs", [" ".join(words) or "x", f"{seed} is a number"])
    planted = ExportLogsServiceRequest.FromString(plain.SerializeToString())
    line = secret_of(kind, seed)[1]
    record = planted.resource_logs[0].scope_logs[0].log_records[0]
    record.attributes[1].value.string_value = line
    screened = Screen().screen("logs", "protobuf", planted.SerializeToString())
    found = ExportLogsServiceRequest.FromString(screened)
    kept = found.resource_logs[0].scope_logs[0].log_records[0].attributes[1].value
    assert kept.string_value == redact(line) != line
    kept.string_value = line
    assert found == planted


@settings(max_examples=150)
@given(
    pieces=st.lists(
        st.sampled_from(
            ["plain words", "\n", "", "password", ": ", "hunter22", "ghp_", "\\u0067", "Bearer ",
             "https://a:b", "@host", "\r", "é", '"', *(secret_of(kind)[1] for kind in MAKERS)]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_one_pass_over_a_body_finds_the_lines_that_a_look_at_each_finds(pieces: list[str]) -> None:
    body = "".join(pieces).encode()
    found = [body[begin:end] for begin, end in doubtful_lines(body)]
    assert found == [line for line in body.split(b"\n") if may_hold_secrets(line)]
