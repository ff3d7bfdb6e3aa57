"""Where session files come from, and how a file that grows is read once."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.transcript_files import TranscriptFile, file_of
from collectors.transcript_positions import Positions
from collectors.transcript_reading import INCOMPLETE, MAX_LINE_BYTES, TranscriptReader
from collectors.transcripts import ImportReport, import_transcripts
from loop.domain.errors import BadInput, Conflict, Corrupt, NotFound
from loop.domain.turns import Turn
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import DIRECTORY, expected_sessions

NAMES = ("a02_fix_bug_failed_edit", "a05_subagent")


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    folder = tmp_path / "projects" / "-srv-demo-shop"
    folder.mkdir(parents=True)
    for name in NAMES:
        shutil.copytree(DIRECTORY / name / "transcript", folder, dirs_exist_ok=True)
    return tmp_path / "projects"


def archive_of(projects: Path, mode: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        archive.add(projects, arcname="projects")
    return packed.getvalue()


def turns_after(
    directory: Path, path: Path | str, stdin: BinaryIO | None = None
) -> tuple[ImportReport, list[Turn]]:
    with pipeline(directory) as parts:
        report = import_transcripts([path], parts.journal, stdin=stdin)
        parts.drainer.drain_once()
        return report, parts.lake.turns_of(report.sessions)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_an_archive_holds_what_its_tree_held(tmp_path: Path, projects: Path, suffix: str) -> None:
    kind = {"tar": "w:", "tgz": "w:gz"}.get(suffix, f"w:{suffix.rpartition('.')[2]}")
    archive = tmp_path / f"sessions.{suffix}"
    archive.write_bytes(archive_of(projects, kind))
    _, truth = turns_after(tmp_path / "tree", projects)
    report, turns = turns_after(tmp_path / "archive", archive)
    assert turns == truth
    assert (report.files, report.problems) == (3, [])
    assert any(turn.agent_id for turn in turns)  # told by the path alone in older clients


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
def test_stdin_may_be_an_archive(tmp_path: Path, projects: Path, mode: str) -> None:
    _, truth = turns_after(tmp_path / "tree", projects)
    stdin = io.BytesIO(archive_of(projects, mode))
    report, turns = turns_after(tmp_path / "stdin", "-", stdin)
    assert (turns, report.files) == (truth, 3)


def test_stdin_may_be_lines(tmp_path: Path) -> None:
    (file,) = (DIRECTORY / NAMES[0] / "transcript").glob("*.jsonl")
    _, truth = turns_after(tmp_path / "file", file)
    report, turns = turns_after(tmp_path / "stdin", "-", io.BytesIO(file.read_bytes()))
    assert (turns, report.files) == (truth, 1)
    assert report.sessions <= expected_sessions().keys()


def test_a_torn_archive_is_said_and_what_came_before_is_kept(
    tmp_path: Path, projects: Path
) -> None:
    whole = archive_of(projects, "w:")
    archive = tmp_path / "torn.tar"
    archive.write_bytes(whole[: len(whole) // 2])
    with pipeline(tmp_path) as parts:
        with pytest.raises(BadInput, match=r"torn\.tar.* can't be read to its end"):
            import_transcripts([archive], parts.journal)
        assert parts.drainer.drain_once().stored > 0


def test_an_archive_without_session_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    archive = tmp_path / "notes.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(tmp_path / "notes.txt", arcname="notes.txt")
    with pipeline(tmp_path) as parts, pytest.raises(NotFound, match="No transcript in"):
        import_transcripts([archive], parts.journal)


def user_line(number: int) -> bytes:
    message = {"role": "user", "content": "x" * number}
    return json.dumps({"type": "user", "uuid": f"u{number}", "message": message}).encode()


LINES = st.lists(
    st.one_of(
        st.integers(0, 99).map(user_line),
        st.sampled_from([b"", b"  ", b"{broken", b'{"type": "summary"}', b"[1]", b"\xff"]),
    ),
    max_size=12,
)


@given(LINES, st.booleans(), st.lists(st.integers(0, 2000), max_size=6))
def test_a_file_that_grows_by_any_bytes_is_read_as_it_is_read_whole(
    lines: list[bytes], ends_line: bool, cuts: list[int]
) -> None:
    content = b"\n".join(lines) + (b"\n" if ends_line else b"")
    ends = [*sorted(cut for cut in cuts if cut < len(content)), len(content)]

    def read_in_steps(ends: list[int], state: Path) -> tuple[dict[int, bytes], list[int], int]:
        path = state.with_suffix(".jsonl")
        taken: dict[int, bytes] = {}
        broken: list[int] = []
        offset = 0
        for end in ends:
            path.write_bytes(content[:end])
            reader = TranscriptReader()
            with Positions.open(state) as positions, open(path, "rb") as stream:
                start = positions.find(path, stream)
                for batch in reader.read(file_of(path), stream, start):
                    for number, line in zip(batch.numbers, batch.lines, strict=True):
                        assert taken.setdefault(number, line) is line  # no line twice
                    positions.move(
                        path, stream, batch.offset, batch.line, ends_line=batch.ends_line
                    )
                offset = batch.offset
                positions.save()
            broken += [problem.line for problem in reader.problems if problem.why != INCOMPLETE]
        path.unlink()
        return taken, broken, offset

    with tempfile.TemporaryDirectory() as folder:
        by_steps = read_in_steps(ends, Path(folder, "steps"))
        at_once = read_in_steps(ends[-1:], Path(folder, "once"))
    # A uuid that repeats is dropped within one reading only; what is dropped is dropped by its id.
    first: dict[bytes, int] = {}
    for number, line in sorted(by_steps[0].items()):
        first.setdefault(line, number)
    assert {number: line for line, number in first.items()} == at_once[0]
    assert by_steps[1:] == at_once[1:]


def test_an_import_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(user_line(1) + b"\n" + user_line(2)[:20])
    state = tmp_path / "positions.json"

    def take() -> ImportReport:
        with pipeline(tmp_path) as parts, Positions.open(state) as positions:
            report = import_transcripts([path], parts.journal, positions=positions)
            parts.drainer.drain_once()
            return report

    first = take()
    assert first.imported == 1
    assert [(problem.line, problem.why) for problem in first.problems] == [(2, INCOMPLETE)]
    path.write_bytes(path.read_bytes() + user_line(2)[20:] + b"\n")
    assert (grown := take()).imported == 1
    assert grown.problems == []
    assert (same := take()).unchanged == 1
    assert same.imported == 0
    path.write_bytes(user_line(3) + b"\n" + user_line(4) + b"\n" + user_line(5) + b"\n")
    assert take().imported == 3  # another file under the same name
    with pipeline(tmp_path) as parts:
        numbers = parts.lake.query("SELECT sequence FROM events ORDER BY sequence")
    assert [row["sequence"] for row in numbers] == [1, 1, 2, 2, 3]


def test_positions_are_kept_to_one_process_and_say_when_they_are_broken(tmp_path: Path) -> None:
    state = tmp_path / "positions.json"
    with (
        Positions.open(state),
        pytest.raises(Conflict, match="Another import"),
        Positions.open(state),
    ):
        pass
    state.write_text("{half")
    with pytest.raises(Corrupt, match="can't be read"), Positions.open(state):
        pass


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    class Endless(io.RawIOBase):
        left = MAX_LINE_BYTES + 5_000_000

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            count = min(self.left, len(buffer))
            buffer[:count] = b"x" * count
            self.left -= count
            return count

    reader = TranscriptReader()
    stream = io.BufferedReader(Endless())
    (batch,) = reader.read(TranscriptFile("s.jsonl", 0, stream=stream), stream)
    assert (batch.numbers, batch.offset) == ([], MAX_LINE_BYTES + 5_000_000)
    assert "longer than" in reader.problems[0].why


def test_a_secret_is_gone_before_a_line_reaches_the_disk(tmp_path: Path) -> None:
    secret = "sk-ant-" + "a1B2" * 10
    message = {"role": "user", "content": f"the key is {secret}"}
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"type": "user", "uuid": "u", "message": message}))
    with pipeline(tmp_path / "data") as parts:
        import_transcripts([path], parts.journal)
        journal = b"".join(
            file.read_bytes() for file in parts.journal.directory.iterdir() if file.is_file()
        )
    assert b"[REDACTED:anthropic-key]" in journal
    assert secret.encode() not in journal
