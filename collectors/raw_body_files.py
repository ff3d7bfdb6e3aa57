"""Raw API bodies that the client kept on its own disk (``OTEL_LOG_RAW_API_BODIES=file:DIR``).

Such a folder holds each request and response whole, and ``index.jsonl``, whose rows name the
session, the request and the two files. They become the log records that the client sends when
bodies are logged inline, as OTLP, so everything behind the journal reads both alike.

Each request repeats the conversation so far. Only the tool results that no earlier row had are kept
of it: what else it holds is told by other sources, or is the vendor's prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from collectors.event_fields import text
from collectors.journal import Journal
from collectors.otlp_decoding import iso_time_us
from collectors.raw_bodies import BODY_FILE
from loop.domain.errors import NotFound

INDEX = "index.jsonl"
_BATCH_BYTES = 4 * 1024 * 1024
_SCOPE = "com.anthropic.claude_code.events"
_COPIED = {
    "session_id": "session.id",
    "request_id": "request_id",
    "message_id": "message.id",
    "message_uuid": "message.uuid",
    "query_source": "query_source",
    "model": "model",
}

Progress = Callable[[int, int, str], None]  # bytes of the index read, bytes in all, the folder


@dataclass(frozen=True, slots=True)
class BodyProblem:
    """A row, or one of the files that it names, that was not imported, and why."""

    path: str
    line: int
    why: str


@dataclass(slots=True)
class BodyReport:
    """``requests`` counts the index's rows that were imported, ``responses`` and ``tool_results``
    what was read of their files."""

    requests: int = 0
    responses: int = 0
    tool_results: int = 0
    sessions: set[str] = field(default_factory=set)
    problems: list[BodyProblem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "responses": self.responses,
            "tool_results": self.tool_results,
            "sessions": sorted(self.sessions),
            "problems": [
                {"path": problem.path, "line": problem.line, "why": problem.why}
                for problem in self.problems
            ],
        }


def import_bodies(
    folders: list[Path], journal: Journal, progress: Progress | None = None, *, credential: str = ""
) -> BodyReport:
    """Imports folders; durable when it returns. Importing one again changes nothing.

    Raises:
        NotFound: a folder has no index; nothing was imported.
        Unavailable: the journal can't take more; what was imported so far stays.
    """
    report = BodyReport()
    for body in read_bodies(folders, report, progress):
        journal.append_sync("logs", "json", body, credential=credential)
    return report


def read_bodies(
    folders: list[Path], report: BodyReport, progress: Progress | None = None
) -> Iterator[bytes]:
    """The folders as OTLP/JSON bodies of log records; fills in the report on the way.

    Raises:
        NotFound: a folder has no index; nothing was read.
    """
    for folder in folders:
        if not (folder / INDEX).is_file():
            raise NotFound(
                f"{folder} holds no raw API bodies.",
                why=f"There is no {INDEX} in it.",
                fix="Name the folder of OTEL_LOG_RAW_API_BODIES=file:DIR.",
            )
    for folder in folders:
        yield from _read_folder(folder, report, progress)


def _read_folder(folder: Path, report: BodyReport, progress: Progress | None) -> Iterator[bytes]:
    index = folder / INDEX
    total, done = index.stat().st_size, 0
    seen: set[tuple[str, str]] = set()  # sessions and tool results, or lists, of earlier rows
    records: list[dict[str, Any]] = []
    size = 0
    with open(index, "rb") as rows:
        for number, raw in enumerate(rows, start=1):
            done += len(raw)
            for record in _records(folder, number, raw, seen, report):
                records.append(record)
                size += len(record["attributes"][0]["value"]["stringValue"])
            if size >= _BATCH_BYTES:
                yield _otlp(records)
                records, size = [], 0
            if progress is not None:
                progress(done, total, str(folder))
    if records:
        yield _otlp(records)


def _records(
    folder: Path, number: int, raw: bytes, seen: set[tuple[str, str]], report: BodyReport
) -> Iterator[dict[str, Any]]:
    """The log records of one row of the index."""

    def complain(path: Path, why: str) -> None:
        report.problems.append(BodyProblem(str(path), number, why))

    if not raw.strip():
        return
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        complain(folder / INDEX, f"no JSON: {error}")
        return
    at_us = iso_time_us(row.get("timestamp")) if isinstance(row, dict) else 0
    if not at_us or not text(row, "session_id"):
        complain(folder / INDEX, "a row without timestamp and session_id")
        return
    report.requests += 1
    report.sessions.add(text(row, "session_id"))
    for name, file_name in (
        ("api_request_body", text(row, "request_file")),
        ("api_response_body", text(row, "response_file")),
    ):
        if not file_name:
            continue
        if Path(file_name).name != file_name:
            complain(folder / INDEX, f"{file_name!r} is no file of this folder")
            continue
        try:
            content = (folder / file_name).read_bytes()
            body = orjson.loads(content)
        except OSError as error:
            complain(folder / file_name, error.strerror or str(error))
            continue
        except orjson.JSONDecodeError as error:
            complain(folder / file_name, f"no JSON: {error}")
            continue
        if not isinstance(body, dict):
            complain(folder / file_name, "no JSON object")
            continue
        if name == "api_request_body":
            results = [
                block
                for block in _tool_results(body)
                if (text(row, "session_id"), text(block, "tool_use_id")) not in seen
            ]
            seen |= {(text(row, "session_id"), text(block, "tool_use_id")) for block in results}
            report.tool_results += len(results)
            body = {
                "model": body.get("model"),
                "messages": [{"role": "user", "content": results}],
                **_new_tools(body, text(row, "session_id"), seen),
            }
        else:
            report.responses += 1
        yield _record(row, name, at_us, body, len(content), file_name)


def _new_tools(
    request: Mapping[str, Any], session_id: str, seen: set[tuple[str, str]]
) -> dict[str, Any]:
    """The names and schemas of the tools on offer, once for each list of a session."""
    stated = request.get("tools")
    tools = [
        {"name": tool["name"], "input_schema": tool["input_schema"]}
        for tool in (stated if isinstance(stated, list) else [])
        if isinstance(tool, Mapping) and {"name", "input_schema"} <= tool.keys()
    ]
    key = (session_id, hashlib.blake2b(orjson.dumps(tools), digest_size=16).hexdigest())
    if not tools or key in seen:
        return {}
    seen.add(key)
    return {"tools": tools}


def _tool_results(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = request.get("messages")
    blocks = [
        block
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for block in message["content"]
        if isinstance(block, Mapping) and block.get("type") == "tool_result"
    ]
    # The type first: that is how results are found in bodies that were cut.
    return [{"type": "tool_result", **block} for block in blocks if text(block, "tool_use_id")]


def _record(
    row: Mapping[str, Any],
    name: str,
    at_us: int,
    body: Mapping[str, Any],
    length: int,
    file_name: str,
) -> dict[str, Any]:
    attributes = {
        "body": orjson.dumps(body).decode(),
        "event.name": name,
        "body_length": str(length),
        "request_body_id": text(row, "request_file").partition(".")[0],
        BODY_FILE: file_name,
    }
    for key, attribute in _COPIED.items():
        if text(row, key):
            attributes[attribute] = text(row, key)
    if name == "api_request_body":
        # Of the request itself only what it asked for is known: the answer's ids are not its own.
        attributes = {
            key: value
            for key, value in attributes.items()
            if key not in ("request_id", "message.id", "message.uuid")
        } | {"model": text(body, "model") or text(row, "model")}
    return {
        "timeUnixNano": str(at_us * 1000),
        "body": {"stringValue": f"claude_code.{name}"},
        "attributes": [
            {"key": key, "value": {"stringValue": value}} for key, value in attributes.items()
        ],
    }


def _otlp(records: list[dict[str, Any]]) -> bytes:
    scope = {"scope": {"name": _SCOPE}, "logRecords": records}
    resource: dict[str, Any] = {"attributes": []}
    return orjson.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})
