"""Import of the client's own transcript files (``~/.claude/projects/**/*.jsonl``) into the journal.

Every line is parsed before anything is kept; a broken one is reported with its file and line and
the rest is imported. Lines that a fork or an older client's resume copied into another file carry
the uuid of the original; the file whose conversation ended first is taken for the original.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from collectors.intake_counts import HOUR_US, CountRow, encode_counts
from collectors.journal import Journal
from collectors.transcript_files import (
    STDIN,
    TranscriptFile,
    archived_files,
    file_of,
    files_of_stdin,
    find_transcripts,
    is_archive,
)
from collectors.transcript_lines import encode_batch
from collectors.transcript_positions import START, Position, Positions
from collectors.transcript_reading import LineBatch, LineProblem, TranscriptReader

_TAIL_BYTES = 64 * 1024
BROKEN = "broken_line"
_IN_FLIGHT = 16  # batches and ends of files on their way to the disk while the next one is read

Progress = Callable[[int, int, str], None]
"""Gets the bytes read, the bytes in all (0: not known) and the name of the file being read."""


@dataclass(slots=True)
class ImportReport:
    """``imported`` lines are durable in the journal, this machine's or a server's. ``unchanged``
    files had nothing new since the last time; the rest is the reader's count."""

    files: int = 0
    unchanged: int = 0
    imported: int = 0
    reader: TranscriptReader = field(default_factory=TranscriptReader)

    @property
    def sessions(self) -> set[str]:
        return self.reader.sessions

    @property
    def problems(self) -> list[LineProblem]:
        return self.reader.problems

    @property
    def duplicates(self) -> int:
        return self.reader.duplicates

    @property
    def ignored(self) -> int:
        return self.reader.ignored

    def as_dict(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "unchanged": self.unchanged,
            "lines": self.reader.lines,
            "imported": self.imported,
            "ignored": self.ignored,
            "duplicates": self.duplicates,
            **({"redacted": self.reader.redacted} if self.reader.redacts else {}),
            "sessions": sorted(self.sessions),
            "problems": [
                {"path": problem.path, "line": problem.line, "why": problem.why}
                for problem in self.problems
            ],
        }


def import_transcripts(
    paths: Iterable[Path | str],
    journal: Journal,
    progress: Progress | None = None,
    *,
    credential: str = "",
    positions: Positions | None = None,
    stdin: BinaryIO | None = None,
) -> ImportReport:
    """Imports files, directory trees, glob patterns, tar archives and, for ``-``, ``stdin``;
    durable when it returns.

    With ``positions`` a file is read from where the last import of it ended. Importing a file
    again changes nothing anyhow: its lines have the same event ids.

    Raises:
        NotFound: a path names no file; nothing was imported.
        BadInput: an archive is broken; what came before that is imported.
        Unavailable: the journal can't take more; what was imported so far stays.
    """
    report = ImportReport()
    writer = _JournalWriter(journal, credential, positions)
    sources, total_bytes = _sources(paths, stdin, positions, report)
    done_bytes = 0
    try:
        for source in sources:
            with ExitStack() as opened:
                stream = opened.enter_context(source.open())
                start = START
                if positions is not None and source.path is not None:
                    start = positions.find(source.path, stream)
                done_bytes += start.offset
                for batch in report.reader.read(source, stream, start):
                    report.imported += len(batch.lines)
                    writer.write(source, stream, batch)
                    if progress is not None:
                        progress(done_bytes + batch.offset - start.offset, total_bytes, source.name)
                done_bytes += batch.offset - start.offset
                if source.path is not None:  # the position of its end is yet to be noted
                    writer.close_after(opened.pop_all())
            report.files += 1
        writer.finish()
    finally:
        writer.close()
    return report


def open_sources(
    paths: Iterable[Path | str], stdin: BinaryIO | None
) -> tuple[Iterator[TranscriptFile], int]:
    """Everything the paths name, as :func:`import_transcripts` reads it, and its size in bytes
    (0 where it is not known). Raises :class:`NotFound`."""
    return _sources(paths, stdin, None, ImportReport())


def import_lines(
    name: str, stream: BinaryIO, journal: Journal, *, first_line: int = 1, credential: str = ""
) -> ImportReport:
    """Imports lines of the one file of that name, of which the first has the given number.

    Raises:
        Unavailable: the journal can't take more; what was imported so far stays.
    """
    report = ImportReport(files=1)
    writer = _JournalWriter(journal, credential, None)
    source = TranscriptFile(name, 0, stream=stream)
    for batch in report.reader.read(source, stream, Position(line=first_line - 1)):
        report.imported += len(batch.lines)
        writer.write(source, stream, batch)
    writer.finish()
    return report


class _JournalWriter:
    """Hands batches to the journal without waiting for each; moves the positions once durable."""

    def __init__(self, journal: Journal, credential: str, positions: Positions | None) -> None:
        self._journal = journal
        self._credential = credential
        self._positions = positions
        self._waiting: deque[tuple[list[Future[None]], Callable[[], None]]] = deque()
        self._opened: deque[ExitStack] = deque()

    def write(self, source: TranscriptFile, stream: BinaryIO, batch: LineBatch) -> None:
        futures = []
        if batch.broken or batch.duplicates:
            counts = encode_counts(self._counts_of(batch))
            futures.append(self._journal.append_later("refusals", "json", counts))
        if batch.lines:
            body = encode_batch(source.session_id, source.agent_id, batch.numbers, batch.lines)
            futures.append(
                self._journal.append_later("transcript", "json", body, credential=self._credential)
            )
        self._waiting.append((futures, lambda: self._move(source, stream, batch)))
        while len(self._waiting) > _IN_FLIGHT:
            self._settle()

    def close_after(self, opened: ExitStack) -> None:
        """Closes a file once what was read of it is durable and its position has moved."""
        self._opened.append(opened)
        self._waiting.append(([], lambda: self._opened.popleft().close()))

    def finish(self) -> None:
        """Waits until everything written is durable."""
        while self._waiting:
            self._settle()

    def close(self) -> None:
        """Closes what is open and saves the positions of what is durable."""
        while self._opened:
            self._opened.popleft().close()
        if self._positions is not None:
            self._positions.save()

    def _settle(self) -> None:
        futures, move = self._waiting.popleft()
        for future in futures:
            future.result()
        move()

    def _counts_of(self, batch: LineBatch) -> list[CountRow]:
        """Of the lines that were left out here and would have been records."""
        now_us = time.time_ns() // 1000
        source = (now_us - now_us % HOUR_US, "transcript", "json", self._credential)
        return [
            (*source, "received", "", batch.broken + batch.duplicates),
            (*source, "rejected", BROKEN, batch.broken),
            (*source, "duplicate", "", batch.duplicates),
        ]

    def _move(self, source: TranscriptFile, stream: BinaryIO, batch: LineBatch) -> None:
        if self._positions is not None and source.path is not None:
            self._positions.move(
                source.path, stream, batch.offset, batch.line, ends_line=batch.ends_line
            )


def _sources(
    paths: Iterable[Path | str],
    stdin: BinaryIO | None,
    positions: Positions | None,
    report: ImportReport,
) -> tuple[Iterator[TranscriptFile], int]:
    given = [str(path) for path in paths]
    found = find_transcripts(path for path in given if path != STDIN)
    plain = [path for path in found if not is_archive(path)]
    if positions is not None:
        changed = [path for path in plain if _has_grown(path, positions)]
        report.unchanged = len(plain) - len(changed)
        report.files += report.unchanged
        plain = changed
    plain.sort(key=lambda path: (_last_timestamp(path), str(path)))
    files = [file_of(path) for path in plain]
    archives = [path for path in found if is_archive(path)]
    is_known = not archives and STDIN not in given
    total = sum(file.size_bytes for file in files) if is_known else 0
    return _in_turn(files, archives, stdin if STDIN in given else None), total


def _in_turn(
    files: Sequence[TranscriptFile], archives: Sequence[Path], stdin: BinaryIO | None
) -> Iterator[TranscriptFile]:
    yield from files
    for archive in archives:
        yield from archived_files(archive)
    if stdin is not None:
        yield from files_of_stdin(stdin)


def _has_grown(path: Path, positions: Positions) -> bool:
    with open(path, "rb") as file:
        position = positions.find(path, file)
        return position == START or path.stat().st_size != position.offset


def _last_timestamp(path: Path) -> str:
    """When the conversation in a file ended (ISO text, which sorts), "" if no line says."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        tail = file.read()
    while tail:
        tail, _, raw = tail.rstrip(b"\n").rpartition(b"\n")
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue
        timestamp = line.get("timestamp") if isinstance(line, dict) else None
        if isinstance(timestamp, str):
            return timestamp
    return ""
