"""Forked and resumed conversations: a request that stands in several sessions is charged once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.claude_code_turns import assemble
from collectors.copied_requests import without_copies
from collectors.transcripts import import_transcripts
from tests.collectors.pipeline import Pipeline, pipeline
from tests.collectors.recordings import (
    all_bodies,
    check_totals,
    expected_sessions,
    session_events,
    totals,
    transcript_events_of,
    transcript_files,
)

A02 = "a02_fix_bug_failed_edit"
ORIGINAL = "cc586566-178c-4110-8e93-3eab1e05dc4e"
FORK, SECOND_FORK = "0f0f0f0f-fork", "ffffffff-fork-of-fork"
CONTINUED_AT = {FORK: "2026-11-23T14:01:00Z", SECOND_FORK: "2026-11-23T14:02:00Z"}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in path.read_text().splitlines()]


def fork(
    lines: list[dict[str, Any]], session_id: str, *, renamed: bool = False, marked: bool = False
) -> list[dict[str, Any]]:
    """The file of a fork: the lines with their session id replaced, then one more exchange."""
    copied = []
    for number, line in enumerate(lines):
        copy = {**line, "sessionId": session_id}
        if renamed and "uuid" in line:
            copy["uuid"] = f"{session_id}-{number}"
        if marked:
            copy["forkedFrom"] = {"sessionId": line.get("sessionId"), "messageUuid": "m"}
        copied.append(copy)
    later = {"sessionId": session_id, "timestamp": CONTINUED_AT[session_id]}
    usage = {"input_tokens": 1, "output_tokens": 2, "service_tier": "standard"}
    message = {
        "id": f"msg-{session_id}",
        "model": "claude-sonnet-4-6",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "More."}],
        "usage": usage,
    }
    question = {"role": "user", "content": "And now?"}
    return [
        *copied,
        {**later, "type": "user", "uuid": f"q-{session_id}", "message": question},
        {**later, "type": "assistant", "uuid": f"a-{session_id}", "message": message,
         "requestId": f"req-{session_id}"},
    ]  # fmt: skip


def write(folder: Path, session_id: str, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{session_id}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def drain(parts: Pipeline, path: Path) -> None:
    import_transcripts([path], parts.journal)
    parts.drainer.drain_once()


def check_charged_once(parts: Pipeline, *forks: str) -> None:
    """The original has all of its requests, and each fork only its own."""
    turns = parts.lake.turns_of([ORIGINAL, *forks])
    check_totals(
        [turn for turn in turns if turn.session_id == ORIGINAL],
        {ORIGINAL: expected_sessions()[ORIGINAL]},
    )
    for name in forks:
        found = totals([turn for turn in turns if turn.session_id == name])
        assert found[name]["request_ids"] == [f"req-{name}"]
        (trace,) = parts.lake.load_traces([name])
        assert [prompt.text for prompt in trace.prompts] == ["And now?"]
        assert not [tool for turn in trace.turns for tool in turn.tools]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)], ids=str)
def test_forks_imported_one_by_one_count_copied_turns_once(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    (source,) = transcript_files(A02)
    first = fork(lines_of(source), FORK)
    paths = [
        shutil.copy(source, tmp_path),
        write(tmp_path, FORK, first),
        write(tmp_path, SECOND_FORK, fork(first, SECOND_FORK, renamed=True)),
    ]
    with pipeline(tmp_path / "data") as parts:
        for number in order:
            drain(parts, Path(paths[number]))
    with pipeline(tmp_path / "data") as parts:
        turns = parts.lake.turns_of([ORIGINAL, FORK, SECOND_FORK])
        counts = Counter(turn.request_id for turn in turns)
        assert set(counts.values()) == {1}
        check_charged_once(parts, FORK, SECOND_FORK)


@pytest.mark.parametrize("lost", [False, True])
def test_a_restart_or_a_lost_index_forgets_no_copy(tmp_path: Path, lost: bool) -> None:
    (source,) = transcript_files(A02)
    with pipeline(tmp_path / "data") as parts:
        drain(parts, write(tmp_path, FORK, fork(lines_of(source), FORK)))
    if lost:
        (tmp_path / "data" / "told_requests.sqlite").unlink()
    with pipeline(tmp_path / "data") as parts:
        drain(parts, source)
        check_charged_once(parts, FORK)


def test_an_index_that_is_no_database_is_made_again(tmp_path: Path) -> None:
    (source,) = transcript_files(A02)
    with pipeline(tmp_path / "data") as parts:
        drain(parts, write(tmp_path, FORK, fork(lines_of(source), FORK)))
    (tmp_path / "data" / "told_requests.sqlite").write_bytes(b"not a database " * 100)
    with pipeline(tmp_path / "data") as parts:
        drain(parts, source)
        check_charged_once(parts, FORK)


@pytest.mark.parametrize("telemetry_first", [False, True])
def test_a_request_belongs_to_the_session_whose_client_reported_it_live(
    tmp_path: Path, telemetry_first: bool
) -> None:
    """Also where the original's transcript never comes."""
    (source,) = transcript_files(A02)
    path = write(tmp_path, FORK, fork(lines_of(source), FORK))
    with pipeline(tmp_path / "data") as parts:
        if not telemetry_first:
            drain(parts, path)
        for body in all_bodies():
            if body.session == A02:
                parts.journal.append_sync(body.signal, body.content_type, body.content)
        parts.drainer.drain_once()
        if telemetry_first:
            drain(parts, path)
        check_charged_once(parts, FORK)


def test_a_session_that_is_a_mere_copy_has_no_turns_left(tmp_path: Path) -> None:
    (source,) = transcript_files(A02)
    copy = [{**line, "sessionId": "z-copy"} for line in lines_of(source)]
    with pipeline(tmp_path / "data") as parts:
        drain(parts, write(tmp_path, "z-copy", copy))
        assert parts.lake.turns_of(["z-copy"])
        drain(parts, source)
        assert not parts.lake.turns_of(["z-copy"])
        check_charged_once(parts)


def test_a_marked_copy_yields_although_its_session_ended_first() -> None:
    (source,) = transcript_files(A02)
    lines = lines_of(source)
    copy = fork(lines, FORK, marked=True)[: len(lines)]
    both = {ORIGINAL: transcript_events_of(lines, ORIGINAL), FORK: transcript_events_of(copy, FORK)}
    cleaned = without_copies(both)
    assert not assemble(cleaned[FORK]).turns
    assert cleaned[ORIGINAL] == both[ORIGINAL]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_was_received_each_request_is_charged_in_one_session(data: st.DataObject) -> None:
    (source,) = transcript_files(A02)
    lines = lines_of(source)
    cut = data.draw(st.integers(0, len(lines)))
    forked = fork(lines[:cut], FORK, renamed=data.draw(st.booleans()))
    sessions = {
        ORIGINAL: [*transcript_events_of(lines, ORIGINAL), *session_events(A02)],
        FORK: transcript_events_of(forked, FORK),
        SECOND_FORK: transcript_events_of(fork(forked, SECOND_FORK), SECOND_FORK),
    }
    received = {
        name: data.draw(st.lists(st.sampled_from(found), unique_by=lambda e: e.event_id))
        for name, found in sessions.items()
    }
    turns = [turn for found in without_copies(received).values() for turn in assemble(found).turns]
    told = {turn.request_id for turn in turns if turn.request_id}
    assert len(told) == sum(bool(turn.request_id) for turn in turns)
    alone = [turn for found in received.values() for turn in assemble(found).turns]
    assert told == {turn.request_id for turn in alone if turn.request_id}
    shuffled = {
        name: data.draw(st.permutations(received[name]))
        for name in data.draw(st.permutations(sorted(received)))
    }
    again = without_copies(shuffled)
    assert {turn for found in again.values() for turn in assemble(found).turns} == set(turns)
