"""Bodies of any shape: refused clearly or decoded, within bounded time and memory."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.otlp_http import otlp_app
from collectors.segments import ContentType, RecordKind
from tests.collectors.fuzz_decoders import CORPUS, ENTRIES, check, entry_byte, seeds
from tests.collectors.pipeline import pipeline

ROOT = Path(__file__).parents[2]
SECONDS = os.environ.get("FUZZ_SECONDS", "4")
EXAMPLES = 5000 if "FUZZ_SECONDS" in os.environ else 200
SEEDS = list(seeds())

TEXTS = st.text(max_size=6) | st.sampled_from(["s", "0", "-1", "NaN", "1e999", "\x00", "\ud83d"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | TEXTS.filter(lambda text: text.isprintable())
)
KEYS = (
    "resourceLogs", "resourceSpans", "resourceMetrics", "resource", "attributes", "scope", "name",
    "scopeLogs", "scopeSpans", "scopeMetrics", "logRecords", "spans", "metrics", "sum", "gauge",
    "histogram", "dataPoints", "key", "value", "stringValue", "intValue", "doubleValue",
    "boolValue", "arrayValue", "kvlistValue", "bytesValue", "values", "body", "timeUnixNano",
    "startTimeUnixNano", "traceId", "spanId", "parentSpanId", "status", "code", "events",
    "asDouble", "asInt", "bucketCounts", "explicitBounds", "aggregationTemporality", "type",
    "message", "usage", "content", "uuid", "timestamp", "decision_id", "at_us", "session_id",
)  # fmt: skip
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=20,
)


def written(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        import json

        return json.dumps(document).encode()


@settings(max_examples=EXAMPLES)
@given(
    entry=st.sampled_from([entry for entry in ENTRIES if entry[1] == "json"]),
    document=DOCUMENTS,
)
def test_documents_of_any_shape(entry: tuple[RecordKind, ContentType], document: Any) -> None:
    check(entry_byte(*entry) + written(document))


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_recorded_bodies_with_their_values_exchanged(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from([seed for seed in SEEDS if seed[1:2] in (b"{", b"[")]))
    lines = seed[1:].split(b"\n")
    number = data.draw(st.integers(0, len(lines) - 1))
    try:
        document = orjson.loads(lines[number])
    except orjson.JSONDecodeError:
        return
    for _ in range(data.draw(st.integers(1, 3))):
        _exchange(document, data)
    lines[number] = written(document)
    check(seed[:1] + b"\n".join(lines))


def _exchange(node: Any, data: st.DataObject) -> None:
    """Puts something else into one place of a document, found by going down at random."""
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not places:
            return
        place = data.draw(st.sampled_from(places))
        inner = node[place]
        if not isinstance(inner, dict | list) or data.draw(st.integers(0, 5)) == 0:
            node[place] = data.draw(DOCUMENTS)
            return
        node = inner


@settings(max_examples=EXAMPLES)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_recorded_bodies_with_some_bytes_changed(seed: bytes, data: st.DataObject) -> None:
    changed = bytearray(seed)
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    for _ in range(data.draw(st.integers(1, 8))):
        position = rng.randrange(1, len(changed))
        changed[position] = rng.randrange(256)
    check(bytes(changed[: data.draw(st.integers(1, len(changed)))]))


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_was_found_stays_mended(path: Path) -> None:
    check(path.read_bytes())


def test_a_search_led_by_coverage_finds_nothing(tmp_path: Path) -> None:
    # No wheel, no search; the corpus and the shapes above are tried everywhere.
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("Atheris has wheels for CPython 3.11 on Linux only; it is not installed here")
    run = subprocess.run(
        [sys.executable, "-m", "tests.collectors.fuzz_search", SECONDS, str(tmp_path / "corpus")],
        cwd=ROOT,
        capture_output=True,
        timeout=60 + float(SECONDS),
    )
    found = [(path.name, path.read_bytes()) for path in (tmp_path / "corpus").glob("found-*")]
    assert (run.returncode, found) == (0, []), run.stderr.decode(errors="replace")[-3000:]


@settings(max_examples=60)
@given(
    body=st.sampled_from(SEEDS).map(lambda seed: seed[1:]) | st.binary(max_size=60),
    path=st.sampled_from(["/v1/logs", "/v1/metrics", "/v1/traces"]),
    media_type=st.sampled_from(["application/json", "application/x-protobuf", "text/plain", ""]),
    encoding=st.sampled_from(["", "identity", "gzip", "deflate", "br"]),
)
def test_the_door_answers_whatever_comes(
    door: Any, body: bytes, path: str, media_type: str, encoding: str
) -> None:
    status, answer = door(path, body, media_type, encoding)
    assert status in (200, 400, 413, 415)
    assert status == 200 or b"Traceback" not in answer
    assert answer or status == 200


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Posts to the application itself; returns its status and answer."""
    import asyncio

    with pipeline(tmp_path_factory.mktemp("door")) as parts, asyncio.Runner() as runner:
        app = otlp_app(parts.journal)

        async def post(path: str, body: bytes, media_type: str, encoding: str) -> tuple[int, bytes]:
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "http.request", "body": body, "more_body": False}

            async def send(message: Any) -> None:
                sent.append(message)

            headers = [(b"content-type", media_type.encode())]
            if encoding:
                headers.append((b"content-encoding", encoding.encode()))
            scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
            await app(scope, receive, send)
            return sent[0]["status"], sent[1]["body"]

        yield lambda *request: runner.run(post(*request))
