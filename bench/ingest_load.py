"""The load of the ingest benchmark: many Claude Code sessions that grow while they are watched.

Every session is played from the recordings in ``examples/recordings``, one *round* (a recorded
conversation from prompt to answer, with its log events, its spans and its metric points) after
another, each with ids and times of its own. Sessions go in cohorts: one request body holds one
round's records of one signal of all sessions of a cohort, as a collector beside the developers'
machines would batch them. The cohorts take turns, so a session's rounds lie seconds apart and its
turns are assembled again and again.

Ids are patched into serialised templates (same length, so no length prefix changes), which costs
microseconds a body: the sender must not be what is measured.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

RECORDINGS = Path(__file__).parents[1] / "examples" / "recordings"
NAMES = (
    "a02_fix_bug_failed_edit",
    "a05_subagent",
    "a14_mcp_and_hooks",
    "a11_two_prompts",
    "a01_read_answer",
)
"""Recordings in protobuf that make a session; one cohort has a session of each."""

REQUESTS: dict[str, Any] = {
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
_IDS = ("request_id", "tool_use_id", "prompt.id", "message.uuid", "agent_id", "gen_ai.response.id")
_ROUND_MARK = b"\x01RND0\x01"  # six bytes that occur in no recording
_SESSION_MARK = b"\x01SES%d\x01"
_TOOL_USE_ID = re.compile(r"toolu_[0-9A-Za-z]{24}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
ROUND_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Body:
    """``records`` are log records, spans or metric points."""

    signal: str
    content: bytes
    records: int


@dataclass(frozen=True, slots=True)
class _Template:
    signal: str
    content: bytes
    records: int
    times: tuple[int, ...]  # offsets of the eight-byte times
    values: tuple[int, ...]


def make_bodies(
    records: int, *, cohorts: int = 80, rounds: int = 10, start_ns: int, signals: tuple[str, ...]
) -> Iterator[Body]:
    """At least so many records; ``cohorts`` of sessions live at a time, each for ``rounds``."""
    seen: dict[bytes, int] = {}  # of all signals, for they name the same requests and calls
    templates = [_template(signal, seen) for signal in signals]
    made = generation = 0
    while made < records:
        for number in range(rounds):
            for cohort in range(cohorts):
                session = (generation * cohorts + cohort) * len(NAMES)
                for template in filter(None, templates):
                    yield _play(template, session, number, start_ns + cohort * 1_000_000)
                    made += template.records
            if made >= records:
                return
        generation += 1
        start_ns += 1_000_000_000


def as_json(body: Body) -> bytes:
    """The same body as the client would write it in OTLP/JSON."""
    document = json_format.MessageToDict(
        REQUESTS[body.signal].FromString(body.content), use_integers_for_enums=True
    )
    return orjson.dumps(_hex_ids(document))


def _hex_ids(node: Any) -> Any:
    import base64

    if isinstance(node, dict):
        return {
            key: base64.b64decode(value).hex()
            if key in ("traceId", "spanId", "parentSpanId") and value
            else _hex_ids(value)
            for key, value in node.items()
        }
    return [_hex_ids(item) for item in node] if isinstance(node, list) else node


def _play(template: _Template, session: int, number: int, start_ns: int) -> Body:
    content = bytearray(template.content)
    shift = start_ns + number * ROUND_NS
    for offset, value in zip(template.times, template.values, strict=True):
        struct.pack_into("<Q", content, offset, value + shift)
    for index in range(len(NAMES)):
        content = content.replace(_SESSION_MARK % index, _six(session + index))
    content = content.replace(_ROUND_MARK, _six(session * 100 + number))
    return Body(template.signal, bytes(content), template.records)


def _six(number: int) -> bytes:
    digits = []
    for _ in range(6):
        number, rest = divmod(number, 36)
        digits.append(_DIGITS[rest])
    return "".join(digits).encode()


def _template(signal: str, seen: dict[bytes, int]) -> _Template | None:
    """All cohort's records of one signal and round in one request, with marks for ids."""
    request = REQUESTS[signal]()
    times: set[int] = set()
    records = 0
    for index, name in enumerate(NAMES):
        for path in sorted((RECORDINGS / name / "otlp").glob(f"*_{signal}_*.pb")):
            recorded = REQUESTS[signal].FromString(path.read_bytes())
            for group in getattr(
                recorded, "resource_spans" if signal == "traces" else f"resource_{signal}"
            ):
                records += _mark(group, index, times, seen)
                request_groups = getattr(
                    request, "resource_spans" if signal == "traces" else f"resource_{signal}"
                )
                request_groups.append(group)
    if not records:
        return None
    first = min(times)
    content = request.SerializeToString()
    offsets = []
    for moment in sorted(times):
        raw = struct.pack("<Q", moment)
        at = content.find(raw)
        while at >= 0:
            offsets.append((at, moment - first))
            at = content.find(raw, at + 8)
    offsets.sort()
    return _Template(
        signal,
        content,
        records,
        tuple(offset for offset, _ in offsets),
        tuple(value for _, value in offsets),
    )


def _mark(group: Any, index: int, times: set[int], seen: dict[bytes, int]) -> int:
    """Puts marks in place of ids, in place; returns how many records the group holds."""
    records = 0
    scopes = next(
        getattr(group, name)
        for name in ("scope_logs", "scope_spans", "scope_metrics")
        if hasattr(group, name)
    )
    for scoped in scopes:
        for item in _items(scoped):
            records += 1
            for pair in item.attributes:
                _mark_attribute(pair, index, seen)
            for name in ("trace_id", "span_id", "parent_span_id"):
                if getattr(item, name, b""):
                    setattr(item, name, _marked_id(getattr(item, name), index, seen))
            for name in (
                *("time_unix_nano", "observed_time_unix_nano"),
                *("start_time_unix_nano", "end_time_unix_nano"),
            ):
                if getattr(item, name, 0):
                    times.add(getattr(item, name))
            for event in getattr(item, "events", ()):
                times.add(event.time_unix_nano)
    return records


def _items(scoped: Any) -> Iterator[Any]:
    if hasattr(scoped, "log_records"):
        yield from scoped.log_records
    elif hasattr(scoped, "spans"):
        yield from scoped.spans
    else:
        for metric in scoped.metrics:
            yield from getattr(metric, metric.WhichOneof("data")).data_points


def _mark_attribute(pair: Any, index: int, seen: dict[bytes, int]) -> None:
    value = pair.value.string_value
    if pair.key == "session.id":
        pair.value.string_value = (_SESSION_MARK % index).decode() + value[6:]
    elif pair.key in _IDS and len(value) > 12:
        pair.value.string_value = _marked_text(value, index, seen)
    elif "toolu_" in value:  # texts name the calls whose results they hold
        pair.value.string_value = _TOOL_USE_ID.sub(
            lambda found: _marked_text(found.group(), index, seen), value
        )


def _marked_text(value: str, index: int, seen: dict[bytes, int]) -> str:
    number = seen.setdefault(f"{index}:{value}".encode(), len(seen))
    return value[:-10] + _ROUND_MARK.decode() + f"{number:04x}"


def _marked_id(value: bytes, index: int, seen: dict[bytes, int]) -> bytes:
    number = seen.setdefault(b"%d:" % index + value, len(seen))
    return value[:-8] + _ROUND_MARK + struct.pack(">H", number)
