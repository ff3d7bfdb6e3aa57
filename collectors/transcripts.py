"""Import of the client's own transcript files (``~/.claude/projects/**/*.jsonl``).

Every line is parsed before anything is kept; a broken one is reported with its file and line and
the rest is imported. Lines that a fork or an older client's resume copied into another file carry
the uuid of the original; the file whose conversation ended first is taken for the original.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from collectors.journal import Journal
from collectors.transcript_lines import LINE_TYPES, agent_line
from loop.domain.errors import NotFound

_BATCH_LINES = 500
_BATCH_BYTES = 4 * 1024 * 1024
_MAX_LINE_BYTES = 32 * 1024 * 1024
_TAIL_BYTES = 256 * 1024

Progress = Callable[[int, int, Path], None]  # files done, files in all, the file just done


@dataclass(frozen=True, slots=True)
class LineProblem:
    """A line that was not imported, and why."""

    path: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


@dataclass(slots=True)
class ImportReport:
    """``imported`` lines are durable in the journal; ``ignored`` ones are of kinds that hold no
    turn (snapshots, queue operations); ``duplicates`` repeat a uuid of this import."""

    files: int = 0
    lines: int = 0
    imported: int = 0
    ignored: int = 0
    duplicates: int = 0
    sessions: set[str] = field(default_factory=set)
    problems: list[LineProblem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "lines": self.lines,
            "imported": self.imported,
            "ignored": self.ignored,
            "duplicates": self.duplicates,
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
) -> ImportReport:
    """Imports files, directory trees and glob patterns; durable when it returns.

    Importing a file again changes nothing: its lines have the same event ids.

    Raises:
        NotFound: a path names no file; nothing was imported.
        Unavailable: the journal can't take more; what was imported so far stays.
    """
    files = sorted(find_transcripts(paths), key=lambda path: (_last_timestamp(path), str(path)))
    report = ImportReport()
    seen: set[str] = set()
    for path in files:
        for batch in _batches(path, report, seen):
            body = orjson.dumps({"session_id": _session_id(path), "lines": batch})
            journal.append_sync("transcript", "json", body, credential=credential)
            report.imported += len(batch)
        report.files += 1
        if progress is not None:
            progress(report.files, len(files), path)
    return report


def find_transcripts(paths: Iterable[Path | str]) -> list[Path]:
    """The ``.jsonl`` files that paths, trees and patterns name, each once.

    Raises:
        NotFound: one of them names no file.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser()
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = sorted(path.rglob("*.jsonl"))
        else:
            matches = [
                item
                for name in sorted(glob.glob(str(path), recursive=True))
                for item in _files_below(Path(name))
            ]
        if not matches:
            raise NotFound(
                f"No transcript at {given}.",
                why="No .jsonl file is there.",
                fix="Name a file, a directory such as ~/.claude/projects, or a pattern.",
            )
        found.update(dict.fromkeys(match.resolve() for match in matches))
    return list(found)


def _files_below(path: Path) -> list[Path]:
    return sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]


def _batches(
    path: Path, report: ImportReport, seen: set[str]
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    batch: list[tuple[int, dict[str, Any]]] = []
    size = 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            line = _read_line(path, number, raw, report, seen)
            if line is None:
                continue
            batch.append((number, line))
            size += len(raw)
            if len(batch) >= _BATCH_LINES or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _read_line(
    path: Path, number: int, raw: bytes, report: ImportReport, seen: set[str]
) -> dict[str, Any] | None:
    if not raw.strip():
        return None
    report.lines += 1
    problem = ""
    line: Any = None
    if len(raw) > _MAX_LINE_BYTES:
        problem = f"longer than {_MAX_LINE_BYTES} bytes"
    else:
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            problem = f"no JSON: {error}"
    if not problem:
        problem = _shape_problem(line)
    if problem:
        report.problems.append(LineProblem(str(path), number, problem))
        return None
    line = agent_line(line) or line
    if line.get("type") not in LINE_TYPES:
        report.ignored += 1
        return None
    uuid = line.get("uuid")
    if isinstance(uuid, str) and uuid:
        if uuid in seen:
            report.duplicates += 1
            return None
        seen.add(uuid)
    if path.parent.name == "subagents":
        line.setdefault("agentId", path.stem.removeprefix("agent-"))
    session_id = line.get("sessionId")
    report.sessions.add(session_id if isinstance(session_id, str) else _session_id(path))
    return dict(line)


def _shape_problem(line: Any) -> str:
    if not isinstance(line, dict):
        return "no JSON object"
    if not isinstance(line.get("type"), str):
        return "it has no type"
    if line["type"] in ("user", "assistant") and not isinstance(line.get("message"), dict):
        return f"a line of type {line['type']} without a message"
    if "session_id" in line and "sessionId" not in line:
        return "output of --output-format stream-json, which is no session file"
    return ""


def _session_id(path: Path) -> str:
    return path.parent.parent.name if path.parent.name == "subagents" else path.stem


def _last_timestamp(path: Path) -> str:
    """When the conversation in a file ended (ISO text, which sorts), "" if no line says."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        tail = file.read().splitlines()
    for raw in reversed(tail):
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue
        timestamp = line.get("timestamp") if isinstance(line, dict) else None
        if isinstance(timestamp, str):
            return timestamp
    return ""
