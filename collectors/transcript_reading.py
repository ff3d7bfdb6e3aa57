"""Session files line by line: what is broken is named, what holds no turn is left out, secrets are
taken out, and the rest comes in batches that say how far the file has been read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import orjson

from collectors.content_modes import Treatment
from collectors.redaction import may_hold_secrets
from collectors.screened_json import screen_document
from collectors.transcript_files import TranscriptFile
from collectors.transcript_lines import LINE_TYPES, agent_line
from collectors.transcript_positions import START, Position

BATCH_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 32 * 1024 * 1024
INCOMPLETE = "the last line is not complete yet; it is read again when the file has grown"


@dataclass(frozen=True, slots=True)
class LineProblem:
    """A line that was not taken in, and why."""

    path: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


@dataclass(slots=True)
class LineBatch:
    """Lines of one file with their numbers, and the position after them; and how many of the lines
    up to there were broken, or repeated one that was read before."""

    numbers: list[int] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    offset: int = 0
    line: int = 0
    ends_line: bool = True
    broken: int = 0
    duplicates: int = 0

    def as_text(self) -> tuple[int, bytes]:
        """The number of the first line, and the lines from there on: one that was left out is
        blank, so that each keeps its number."""
        first = self.numbers[0]
        filled = [b""] * (self.numbers[-1] - first + 1)
        for number, line in zip(self.numbers, self.lines, strict=True):
            filled[number - first] = line
        return first, b"\n".join(filled)


@dataclass(slots=True)
class TranscriptReader:
    """Reads files one after another and counts what it finds.

    ``lines`` = taken in + ``ignored`` (kinds that hold no turn: snapshots, queue operations) +
    ``duplicates`` (repeat a uuid that this reader has seen, as forks and resumes do) + ``broken``
    ones, which ``problems`` name beside incomplete last lines. With ``redacts`` lines leave without
    secrets, of which ``redacted`` counts those that had any; what goes into a journal loses them
    there.
    """

    redacts: bool = False
    lines: int = 0
    ignored: int = 0
    duplicates: int = 0
    broken: int = 0
    redacted: int = 0
    sessions: set[str] = field(default_factory=set)
    problems: list[LineProblem] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def read(
        self, source: TranscriptFile, stream: BinaryIO, start: Position = START
    ) -> Iterator[LineBatch]:
        """Batches of a file from a position on, the stream being there. The last batch may be
        empty: it then only says how far the file was read."""
        number, offset = start.line, start.offset
        ends_line = start.ends_line
        batch, before = LineBatch(), (self.broken, self.duplicates)
        for raw in iter(partial(stream.readline, MAX_LINE_BYTES + 1), b""):
            offset += len(raw)
            if not ends_line and not raw.strip():  # of the line that was read before it had its end
                ends_line = raw.endswith(b"\n")
                continue
            number += 1
            ends_line = raw.endswith(b"\n")
            if not ends_line and len(raw) > MAX_LINE_BYTES:
                offset += _skip_line(stream)
                ends_line = True
                self._complain(source, number, f"longer than {MAX_LINE_BYTES} bytes")
                continue
            line = raw.strip()
            if not line and ends_line:
                continue
            if not line:  # blanks that a line may still begin with
                offset, number, ends_line = offset - len(raw), number - 1, True
                break
            taken = self._take(source, number, line, is_whole=ends_line)
            if taken is None and not ends_line and self._is_incomplete():
                offset, number, ends_line = offset - len(raw), number - 1, True
                break
            if taken:
                batch.numbers.append(number)
                batch.lines.append(taken)
                batch.size_bytes += len(taken)
            if batch.size_bytes >= BATCH_BYTES:
                batch.offset, batch.line, batch.ends_line = offset, number, ends_line
                yield self._counted(batch, *before)
                batch, before = LineBatch(), (self.broken, self.duplicates)
        batch.offset, batch.line, batch.ends_line = offset, number, ends_line
        yield self._counted(batch, *before)

    def _counted(self, batch: LineBatch, broken: int, duplicates: int) -> LineBatch:
        batch.broken, batch.duplicates = self.broken - broken, self.duplicates - duplicates
        return batch

    def _take(
        self, source: TranscriptFile, number: int, raw: bytes, *, is_whole: bool
    ) -> bytes | None:
        """The line as it is kept; ``None`` when it is left out."""
        try:
            line: Any = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            if not is_whole:
                self.problems.append(LineProblem(source.name, number, INCOMPLETE))
                return None
            self._complain(source, number, f"no JSON: {error}")
            return None
        if problem := _shape_problem(line):
            self._complain(source, number, problem)
            return None
        self.lines += 1
        uuid = line.get("uuid")
        if line["type"] not in LINE_TYPES:
            wrapped = agent_line(line) if line["type"] == "progress" else None
            if wrapped is None:
                self.ignored += 1
                return None
            uuid = wrapped.get("uuid")
        if type(uuid) is str and uuid:
            if uuid in self._seen:
                self.duplicates += 1
                return None
            self._seen.add(uuid)
        session_id = line.get("sessionId")
        self.sessions.add(session_id if type(session_id) is str else source.session_id)
        if self.redacts and may_hold_secrets(raw):
            clean = screen_document(line, Treatment())
            if clean != line:
                self.redacted += 1
                return orjson.dumps(clean)
        return raw

    def _complain(self, source: TranscriptFile, number: int, why: str) -> None:
        self.lines += 1
        self.broken += 1
        self.problems.append(LineProblem(source.name, number, why))

    def _is_incomplete(self) -> bool:
        return bool(self.problems) and self.problems[-1].why is INCOMPLETE


def _skip_line(stream: BinaryIO) -> int:
    """Reads to the end of the line; how many bytes that was."""
    skipped = 0
    for part in iter(partial(stream.readline, 1024 * 1024), b""):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _shape_problem(line: Any) -> str:
    if type(line) is not dict:
        return "no JSON object"
    kind = line.get("type")
    if type(kind) is not str:
        return "it has no type"
    if kind in ("user", "assistant") and type(line.get("message")) is not dict:
        return f"a line of type {kind} without a message"
    if "session_id" in line and "sessionId" not in line:
        return "output of --output-format stream-json, which is no session file"
    return ""
