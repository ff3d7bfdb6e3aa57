"""Segments that another process decodes are what this one would decode."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from collectors import reading_ahead
from collectors.journal import sealed_segments
from collectors.reading_ahead import ReadingAhead
from collectors.segment_decoding import DecodedSegment, decode_packed, decode_segment, unpack
from collectors.segments import MAGIC, Record, encode_record, encode_trailer
from collectors.transcript_lines import encode_batch
from loop.domain.policies import Decision
from loop.domain.turns import Event
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import (
    RECEIVED_AT_US,
    all_bodies,
    check_totals,
    expected_sessions,
    log_body,
)

DECISION = Decision("req_x", 1, "s", "", 1, 1, "sha256:0", "stable", 5, 1.0, "r", "a", "b")


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_ahead, "SMALLEST_BYTES", 0)


def write_segments(directory: Path, *segments: list[Record]) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    for number, records in enumerate(segments):
        data = MAGIC + b"".join(map(encode_record, records)) + encode_trailer(len(records))
        (directory / f"{number:016d}-0-0.sealed").write_bytes(data)
    return sealed_segments(directory)


def recorded() -> list[Record]:
    return [
        Record(body.signal, body.content_type, body.content, RECEIVED_AT_US, "someone")
        for body in all_bodies()
    ]


def other_kinds() -> list[Record]:
    """Everything that a segment holds besides recorded bodies, and what can't be decoded."""
    line = b'{"type": "user", "uuid": "u", "message": {"content": [1.5, true, null, 10]}}'
    return [
        Record("transcript", "json", encode_batch("s", "", [7], [line]), RECEIVED_AT_US),
        Record("decisions", "json", orjson.dumps([asdict(DECISION)]), RECEIVED_AT_US),
        Record("reassembly", "json", b'["s"]', RECEIVED_AT_US),
        Record("refusals", "json", b"[]", RECEIVED_AT_US),
        Record("logs", "protobuf", b"\xff\xff", RECEIVED_AT_US),
        Record("logs", "json", log_body("ahead"), 1),  # received before it happened
    ]


def events_of(segment: DecodedSegment) -> list[list[Event]]:
    return [item.decoded.events for item in segment.records if item.decoded is not None]


def test_a_packed_segment_is_the_segment(tmp_path: Path) -> None:
    for path in write_segments(tmp_path, recorded(), other_kinds()):
        decoded = decode_segment(path)
        unpacked = unpack(decode_packed(path))
        assert unpacked == decoded
        assert repr(events_of(unpacked)) == repr(events_of(decoded))  # 1, 1.0 and True are equal


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Notes of each segment whether it had been decoded ahead."""
    taken: list[bool] = []
    take = ReadingAhead.take

    def noted(self: ReadingAhead, path: Path) -> Any:
        found = take(self, path)
        taken.append(found is not None)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ReadingAhead, "take", noted)
        yield taken


def test_a_drainer_stores_the_same_with_and_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = recorded()
    write_segments(tmp_path / "journal", records[:9], records[9:30], records[30:], other_kinds())
    with counted(monkeypatch) as taken, pipeline(tmp_path) as parts:
        report = parts.drainer.drain_once()
        assert parts.drainer.is_drained()
        truth = expected_sessions()
        check_totals(parts.lake.turns_of(truth), truth)
        assert len(parts.drainer.quarantine.entries()) == 2
        assert (report.decisions, report.beyond_limits) == (1, 1)
    assert taken == [False, True, True, True]


def test_draining_goes_on_when_the_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = recorded()
    write_segments(tmp_path / "journal", records[:9], records[9:30], records[30:])
    ask = ReadingAhead.ask

    def killed(self: ReadingAhead, paths: Any) -> None:
        ask(self, paths)
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(ReadingAhead, "ask", killed)
    with counted(monkeypatch) as taken, pipeline(tmp_path) as parts:
        parts.drainer.drain_once()
        truth = expected_sessions()
        check_totals(parts.lake.turns_of(truth), truth)
    assert taken == [False] * 3


def test_the_process_ends_with_its_drainer(tmp_path: Path) -> None:
    (path,) = write_segments(tmp_path, recorded())
    ahead = ReadingAhead()
    ahead.ask([path])
    pid = ahead.pid
    assert pid is not None
    assert ahead.take(path) == decode_segment(path)
    assert ahead.take(path) is None  # once
    ahead.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
