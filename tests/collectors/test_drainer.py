"""Draining: everything acknowledged is stored once, through kills, replays and poison."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest

from collectors.claude_code_turns import NO_TOKENS_REASON
from collectors.drainer import Drainer, DrainLimits
from collectors.journal import Journal, sealed_segments
from collectors.segments import MAGIC, Record, encode_record, encode_trailer
from loop.domain.errors import Conflict
from loop.domain.turns import TokenUsage, Turn
from loop.lake import Lake
from loop.ledger.pricing import price
from tests.collectors.pipeline import PRICES, ROOMY, Pipeline, pipeline
from tests.collectors.recordings import (
    RECEIVED_AT_US,
    all_bodies,
    check_totals,
    expected_sessions,
    log_body,
)

ROOT = Path(__file__).parents[2]
JSON = {"content-type": "application/json"}


def send_all(parts: Pipeline) -> None:
    for body in all_bodies():
        parts.journal.append_sync(body.signal, body.content_type, body.content)


def stored_events(lake: Lake) -> int:
    return int(lake.query("SELECT count(*) AS n FROM events")[0]["n"])


def test_nothing_acknowledged_is_lost_when_the_collector_is_killed(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for round_number in range(3):
        acknowledged += _send_until_killed(tmp_path, f"kill-{round_number}", 40)
    with pipeline(tmp_path) as parts:
        parts.drainer.drain_once()
        assert parts.drainer.is_drained()
        sessions = set(acknowledged)
        turns = parts.lake.turns_of(sessions)
        events = parts.lake.events_of(sessions)
    assert len(acknowledged) >= 3 * 40
    assert {turn.session_id for turn in turns} == sessions
    assert all(len(found) == 5 for found in events.values())
    assert len(turns) == 5 * len(sessions)


def _send_until_killed(directory: Path, prefix: str, kill_after: int) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.collectors.collector_process", str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    acknowledged: list[str] = []
    enough = threading.Event()

    def send(worker: int, url: str) -> None:
        with httpx.Client(base_url=url) as client:
            for index in range(100_000):
                session_id = f"{prefix}-{worker}-{index}"
                try:
                    answer = client.post("/v1/logs", content=log_body(session_id, 5), headers=JSON)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    acknowledged.append(session_id)
                if len(acknowledged) >= kill_after:
                    enough.set()

    with process.stdin, process.stdout:
        url = process.stdout.readline().decode().strip()
        assert url.startswith("http://")
        threads = [threading.Thread(target=send, args=(worker, url)) for worker in range(4)]
        for thread in threads:
            thread.start()
        assert enough.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        for thread in threads:
            thread.join(20)
    return acknowledged


@pytest.mark.parametrize("lake_has_it", [True, False])
def test_a_crash_around_the_commit_stores_everything_once(
    tmp_path: Path, lake_has_it: bool
) -> None:
    with pipeline(tmp_path) as parts:
        send_all(parts)
        parts.journal.seal()
        before = {path.name: path.read_bytes() for path in sealed_segments(tmp_path / "journal")}
        parts.drainer.drain_once()
        count, revision = stored_events(parts.lake), parts.lake.max_revision()
    # What a crash leaves that came after the commit, or before it: segments bound to a position.
    journal = tmp_path / "journal"
    for name, content in before.items():
        (journal / name).write_bytes(content)
    state = {"position": revision, "pending": sorted(before)}
    (journal / "drain.json").write_bytes(orjson.dumps(state))
    if not lake_has_it:
        shutil.rmtree(tmp_path / "lake")
    with pipeline(tmp_path) as parts:
        report = parts.drainer.drain_once()
        assert report.stored == (0 if lake_has_it else count)
        assert stored_events(parts.lake) == count
        assert parts.drainer.is_drained()
        truth = expected_sessions()
        check_totals(parts.lake.turns_of(truth), truth)
        assert parts.lake.max_revision() == revision
        parts.journal.append_sync("logs", "json", log_body("later"))
        parts.drainer.drain_once()
        assert parts.lake.max_revision() > revision


def test_sessions_grow_over_many_drains(tmp_path: Path) -> None:
    limits = DrainLimits(cached_bytes=100_000, batch_bytes=1, commits_per_compaction=10**9)
    with pipeline(tmp_path, limits) as parts:
        for body in reversed(all_bodies()):
            parts.journal.append_sync(body.signal, body.content_type, body.content)
            parts.drainer.drain_once()
        truth = expected_sessions()
        check_totals(parts.lake.turns_of(truth), truth)


def test_poison_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts:
        parts.journal.append_sync("logs", "protobuf", b"\xff\xff")
        parts.journal.append_sync("logs", "json", log_body("good"))
        report = parts.drainer.drain_once()
        assert (report.rejected, report.stored) == (1, 1)
        (entry,) = parts.drainer.quarantine.entries()
        assert entry.kind == "logs"
        assert "no OTLP logs request" in entry.reason
        # It can be replayed: without a fix of the decoder, to the same end.
        parts.drainer.quarantine.replay([entry.name], tmp_path / "journal")
        assert parts.drainer.drain_once().rejected == 1
        assert [known.name for known in parts.drainer.quarantine.entries()] == [entry.name]


def test_a_damaged_segment_is_set_aside_whole_and_its_good_part_stored(tmp_path: Path) -> None:
    frames = [
        encode_record(Record("logs", "json", log_body(name), RECEIVED_AT_US)) for name in ("a", "b")
    ]
    content = bytearray(MAGIC + b"".join(frames) + encode_trailer(2))
    content[-40] ^= 0xFF
    with pipeline(tmp_path) as parts:
        (tmp_path / "journal" / "0.sealed").write_bytes(content)
        report = parts.drainer.drain_once()
        assert report.stored == 1
        assert [entry.kind for entry in parts.drainer.quarantine.entries()] == ["segment"]
        (kept,) = (tmp_path / "quarantine").glob("*.sealed")
        assert kept.read_bytes() == bytes(content)


def test_numbers_that_cannot_be_stored_stop_nothing(tmp_path: Path) -> None:
    huge = log_body("huge").replace(b'"intValue": 10', b'"intValue": 9223372036854775807')
    old = log_body("old", duration_ms="9e15")
    assert huge != log_body("huge")
    with pipeline(tmp_path) as parts:
        for body in (huge, old, log_body("good")):
            parts.journal.append_sync("logs", "json", body)
        report = parts.drainer.drain_once()
        assert parts.drainer.is_drained()
        assert report.stored == 3
        assert [turn.session_id for turn in parts.lake.turns_of(["good"])] == ["good"]
        kinds = {entry.session_id for entry in parts.drainer.quarantine.entries()}
        assert kinds == {"huge", "old"}


def test_a_segment_that_the_lake_cannot_hold_leaves_the_others_alone(tmp_path: Path) -> None:
    poison = Record("logs", "json", log_body("poison"), 2**64 - 1)
    with pipeline(tmp_path) as parts:
        (tmp_path / "journal" / "0.sealed").write_bytes(
            MAGIC + encode_record(poison) + encode_trailer(1)
        )
        parts.journal.append_sync("logs", "json", log_body("good"))
        report = parts.drainer.drain_once()
        assert parts.drainer.is_drained()
        assert (report.stored, report.turns) == (1, 1)
        assert len(parts.lake.turns_of(["good"])) == 1
        assert [entry.kind for entry in parts.drainer.quarantine.entries()] == ["segment"]


def test_only_one_process_drains(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts:
        parts.drainer.drain_once()
        with Drainer(parts.journal, parts.lake, PRICES) as second, pytest.raises(Conflict):
            second.drain_once()
        parts.drainer.close()
        with Drainer(parts.journal, parts.lake, PRICES) as second:
            second.drain_once()


def test_another_processs_sealed_segments_are_drained(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts:
        with Journal(tmp_path / "journal", ROOMY) as other:
            other.append_sync("logs", "json", log_body("elsewhere"))
            assert not parts.drainer.is_drained()
        assert parts.drainer.drain_once().stored == 1


def test_drained_segments_can_be_archived(tmp_path: Path) -> None:
    limits = DrainLimits(archive_directory=tmp_path / "archive")
    with pipeline(tmp_path, limits) as parts:
        parts.journal.append_sync("logs", "json", log_body("kept"))
        parts.drainer.drain_once()
        assert parts.drainer.is_drained()
    assert len(list((tmp_path / "archive").iterdir())) == 1


def test_records_without_a_session_are_kept_and_counted(tmp_path: Path) -> None:
    body = log_body("x").replace(b'"session.id"', b'"other.id"')
    spoofed = body.replace(
        b'"resource": {"attributes": []}',
        b'"resource": {"attributes": [{"key": "session.id", "value": {"stringValue": "s"}}]}',
    )
    with pipeline(tmp_path) as parts:
        parts.journal.append_sync("logs", "json", spoofed)
        report = parts.drainer.drain_once()
        assert (report.stored, report.without_session, report.turns) == (1, 1, 0)
        assert len(parts.lake.events_of([""])[""]) == 1


def test_turns_are_priced_and_unknown_models_shown_as_unpriced(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts:
        send_all(parts)
        parts.drainer.drain_once()
        turns = parts.lake.turns_of(expected_sessions())
    opus = [turn for turn in turns if turn.model == "claude-opus-4-7"]
    assert opus
    # At opus prices the client's own arithmetic is right to the micro-dollar's rounding.
    for turn in opus:
        assert turn.cost_microusd is not None
        assert turn.client_cost_microusd is not None
        assert abs(turn.cost_microusd - turn.client_cost_microusd) <= 1
    haiku = [turn for turn in turns if turn.model == "claude-haiku-4-5"]
    assert haiku
    assert all(turn.cost_microusd is None and turn.unpriced_reason for turn in haiku)


def test_a_turn_without_token_counts_is_unpriced_not_free() -> None:
    turn = Turn("t", "t", "s", 1, 2, 0, served_model="claude-opus-4-7")
    assert price(replace(turn, unpriced_reason=NO_TOKENS_REASON), PRICES).cost_microusd is None
    assert price(replace(turn, status="error"), PRICES).cost_microusd == 0
    assert price(replace(turn, usage=TokenUsage(1_000_000)), PRICES).cost_microusd is None  # 1970
