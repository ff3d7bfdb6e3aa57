"""Import of transcript files: broken lines, copies, repeats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from collectors.transcripts import import_transcripts
from loop.domain.errors import NotFound
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import DIRECTORY, check_totals, expected_sessions, transcript_files

A02 = "a02_fix_bug_failed_edit"
A02_SESSION = "cc586566-178c-4110-8e93-3eab1e05dc4e"


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    """A ``projects`` tree as the client keeps it."""
    folder = tmp_path / "projects" / "-srv-demo-shop"
    folder.mkdir(parents=True)
    for name in (A02, "a05_subagent"):
        shutil.copytree(DIRECTORY / name / "transcript", folder, dirs_exist_ok=True)
    return tmp_path / "projects"


def test_a_tree_a_file_and_a_pattern_import_the_same(tmp_path: Path, projects: Path) -> None:
    pattern = str(projects / "**" / "*.jsonl")
    for number, given in enumerate(([projects], [pattern], sorted(projects.rglob("*.jsonl")))):
        with pipeline(tmp_path / str(number)) as parts:
            seen: list[int] = []

            def show(done: int, total: int, _: Path, seen: list[int] = seen) -> None:
                seen.append(100 * done // total)

            report = import_transcripts(given, parts.journal, show)
            parts.drainer.drain_once()
            assert (report.files, seen[-1], report.problems) == (3, 100, [])
            truth = {name: expected_sessions()[name] for name in report.sessions}
            check_totals(parts.lake.turns_of(truth), truth)
            again = import_transcripts(given, parts.journal)
            assert parts.drainer.drain_once().stored == 0
            assert again.imported == report.imported


def test_a_broken_line_is_named_and_the_rest_imported(tmp_path: Path) -> None:
    (source,) = transcript_files(A02)
    lines = source.read_bytes().splitlines()
    broken = {
        1: b'{"type": "user", "message":',
        3: b"\xff\xfe",
        5: b"[1, 2]",
        7: b'{"no": "type"}',
        9: b'{"type": "assistant"}',
    }
    for number, content in sorted(broken.items()):
        lines.insert(number - 1, content)
    path = tmp_path / source.name
    path.write_bytes(b"\n".join(lines))
    with pipeline(tmp_path) as parts:
        report = import_transcripts([path], parts.journal)
        parts.drainer.drain_once()
        truth = {A02_SESSION: expected_sessions()[A02_SESSION]}
        check_totals(parts.lake.turns_of(truth), truth)
    assert [problem.line for problem in report.problems] == sorted(broken)
    assert str(report.problems[0]).startswith(f"{path}:1: no JSON")


def test_usage_counts_once_per_message_and_the_last_line_wins(tmp_path: Path) -> None:
    def line(number: int, output_tokens: int) -> str:
        return json.dumps(
            {
                "type": "assistant",
                "uuid": f"u{number}",
                "sessionId": "s",
                "timestamp": f"2026-11-01T10:00:0{number}Z",
                "message": {
                    "id": "msg_1",
                    "model": "claude-opus-4-7",
                    "content": [{"type": "text", "text": f"part {number}"}],
                    "usage": {"input_tokens": 7, "output_tokens": output_tokens},
                },
            }
        )

    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(line(number, tokens) for number, tokens in ((1, 1), (2, 9), (3, 40))))
    with pipeline(tmp_path) as parts:
        import_transcripts([path], parts.journal)
        parts.drainer.drain_once()
        (turn,) = parts.lake.turns_of(["s"])
        (trace,) = parts.lake.load_traces(["s"])
    assert (turn.turn_id, turn.usage.input_tokens, turn.usage.output_tokens) == ("msg_1", 7, 40)
    assert trace.turns[0].texts == ("part 1\npart 2\npart 3",)


def test_lines_copied_into_a_fork_count_once(tmp_path: Path) -> None:
    (source,) = transcript_files(A02)
    folder = tmp_path / "projects"
    folder.mkdir()
    shutil.copy(source, folder)
    copied = [{**json.loads(raw), "sessionId": "fork"} for raw in source.read_text().splitlines()]
    question = {
        "type": "user",
        "uuid": "new",
        "sessionId": "fork",
        "timestamp": "2026-12-01T00:00:00Z",
        "message": {"role": "user", "content": "And now?"},
    }
    (folder / "0-fork.jsonl").write_text("\n".join(map(json.dumps, [*copied, question])))
    with pipeline(tmp_path) as parts:
        report = import_transcripts([folder], parts.journal)
        parts.drainer.drain_once()
        truth = {A02_SESSION: expected_sessions()[A02_SESSION]}
        check_totals(parts.lake.turns_of([A02_SESSION, "fork"]), truth)
    assert report.duplicates > 0
    assert report.sessions == {A02_SESSION, "fork"}


def test_api_errors_are_error_turns_and_synthetic_lines_are_none(tmp_path: Path) -> None:
    def line(uuid: str, parent: str | None, **fields: object) -> str:
        base = {"uuid": uuid, "parentUuid": parent, "sessionId": "s"}
        return json.dumps({**base, "timestamp": f"2026-11-01T10:00:0{uuid}Z", **fields})

    synthetic = {"id": "x", "model": "<synthetic>", "role": "assistant", "usage": {}}
    retry = {"type": "system", "subtype": "api_error", "error": {"status": 529}}
    lines = [
        line("1", None, type="user", message={"role": "user", "content": "hello"}),
        line("2", "1", **retry, retryAttempt=1),
        line("3", "2", **retry, retryAttempt=2),
        line(
            "4",
            "3",
            type="assistant",
            isApiErrorMessage=True,
            apiErrorStatus=529,
            message={**synthetic, "content": [{"type": "text", "text": "API Error: 529"}]},
        ),
        line(
            "5",
            "4",
            type="assistant",
            message={**synthetic, "content": [{"type": "text", "text": "No response requested."}]},
        ),
    ]
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(lines))
    with pipeline(tmp_path) as parts:
        import_transcripts([path], parts.journal)
        parts.drainer.drain_once()
        (turn,) = parts.lake.turns_of(["s"])
    assert (turn.status, turn.error_status, turn.attempts) == ("error", 529, 3)
    assert turn.served_model == ""


def test_a_path_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts, pytest.raises(NotFound):
        import_transcripts([tmp_path / "nowhere"], parts.journal)


def test_requests_of_a_foreground_agent_inside_its_parents_progress_lines_count(
    tmp_path: Path,
) -> None:
    def wrapped(number: int, kind: str, message: dict[str, object], **more: object) -> str:
        inner = {"type": kind, "uuid": f"u{number}", "message": message, **more}
        return json.dumps(
            {
                "type": "progress",
                "uuid": f"outer{number}",
                "sessionId": "s",
                "isSidechain": False,
                "timestamp": f"2026-02-01T10:00:0{number}Z",
                "version": "2.1.44",
                "parentToolUseID": "toolu_agent",
                "data": {"type": "agent_progress", "agentId": "a2ff", "message": inner},
            }
        )

    call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "/x"}}
    answer = {
        "id": "msg_1",
        "model": "claude-haiku-4-5",
        "content": [call],
        "usage": {"input_tokens": 3, "output_tokens": 9},
    }
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "gone", "is_error": True}
    lines = [
        wrapped(1, "user", {"role": "user", "content": "Look around."}),
        wrapped(2, "assistant", answer, requestId="req_1"),
        wrapped(3, "user", {"role": "user", "content": [result]}),
        json.dumps({"type": "progress", "data": {"type": "hook_progress", "command": "x"}}),
        json.dumps({"type": "progress", "data": {"type": "agent_progress", "message": "?"}}),
    ]
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(lines))
    with pipeline(tmp_path) as parts:
        report = import_transcripts([path], parts.journal)
        parts.drainer.drain_once()
        (turn,) = parts.lake.turns_of(["s"])
        (trace,) = parts.lake.load_traces(["s"])
    assert (report.imported, report.ignored, report.problems) == (3, 2, [])
    assert (turn.turn_id, turn.agent_id, turn.request_class) == ("req_1", "a2ff", "subagent")
    assert (turn.usage.input_tokens, turn.usage.output_tokens) == (3, 9)
    assert [(call.name, call.success) for call in turn.tool_calls] == [("Read", False)]
    assert turn.client_version == "2.1.44"
    assert not [prompt for prompt in trace.prompts if prompt.from_human]
