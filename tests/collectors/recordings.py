"""The shipped recordings, their ground truth, and their bodies in any of the three protocols."""

from __future__ import annotations

import base64
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collectors.body_decoding import decode
from collectors.segments import ContentType, Record, RecordKind
from collectors.transcript_lines import encode_batch
from loop.domain.turns import Event, Turn

DIRECTORY = Path(__file__).parents[2] / "examples" / "recordings"
REQUESTS: dict[str, type[Message]] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
RECEIVED_AT_US = 1_800_000_000_000_000  # after all recordings
_IDS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True, slots=True)
class Body:
    """One recorded request body, as sent."""

    session: str
    signal: RecordKind
    content_type: ContentType
    content: bytes

    def message(self) -> Message:
        if self.content_type == "protobuf":
            return REQUESTS[self.signal].FromString(self.content)
        document = _map_ids(orjson.loads(self.content), _hex_to_base64)
        return json_format.ParseDict(document, REQUESTS[self.signal]())

    def as_protobuf(self) -> bytes:
        return self.message().SerializeToString()

    def as_json(self) -> bytes:
        """In the client's own form: integers as numbers, ids in hex, enums as numbers."""
        if self.content_type == "json":
            return self.content
        document = json_format.MessageToDict(self.message(), use_integers_for_enums=True)
        return orjson.dumps(_numbers(_map_ids(document, _base64_to_hex)))

    def events(self) -> list[Event]:
        return decode(Record(self.signal, self.content_type, self.content, RECEIVED_AT_US)).events


def all_bodies() -> list[Body]:
    return [
        Body(
            entry["session"],
            entry["signal"],
            "json" if entry["path"].endswith(".json") else "protobuf",
            (DIRECTORY / entry["path"]).read_bytes(),
        )
        for entry in orjson.loads((DIRECTORY / "index.json").read_bytes())
    ]


def expected() -> dict[str, dict[str, Any]]:
    """Ground truth by recording name."""
    entries = orjson.loads((DIRECTORY / "expected.json").read_bytes())
    return {entry["name"]: entry for entry in entries}


def expected_sessions() -> dict[str, dict[str, Any]]:
    """Ground truth by session id: a resumed session is one session in two recordings."""
    sessions: dict[str, dict[str, Any]] = {}
    for entry in expected().values():
        api = entry["api"]
        known = sessions.setdefault(
            entry["session_id"], {"tokens": {}, "request_ids": [], "tools": Counter(), "errors": 0}
        )
        for model, tokens in api["tokens_by_model"].items():
            add_up(known["tokens"].setdefault(model, Counter()), tokens)
        known["request_ids"] += api["request_ids_ok"]
        known["tools"].update(call["name"] for call in api["tool_calls"])
        known["errors"] += len(api["errors"])
    for known in sessions.values():
        known["request_ids"].sort()
    return sessions


def add_up(total: Counter[str], tokens: dict[str, int]) -> None:
    total.update(tokens)


def totals(turns: Iterable[Turn]) -> dict[str, dict[str, Any]]:
    """What the turns say, in the shape of :func:`expected_sessions`.

    An inferred call is counted under "": the telemetry does not name it.
    """
    sessions: dict[str, dict[str, Any]] = {}
    for turn in turns:
        known = sessions.setdefault(
            turn.session_id, {"tokens": {}, "request_ids": [], "tools": Counter(), "errors": 0}
        )
        known["errors"] += turn.failed_attempts
        known["tools"].update(call.name for call in turn.tool_calls)
        if turn.status == "error":
            continue
        known["request_ids"].append(turn.request_id)
        usage = turn.usage
        known["tokens"].setdefault(turn.served_model, Counter()).update(
            {
                "requests": 1,
                "input": usage.input_tokens,
                "output": usage.output_tokens,
                "cacheRead": usage.cache_read_tokens,
                "cacheCreation": usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens,
            }
        )
    for known in sessions.values():
        known["request_ids"].sort()
    return sessions


def check_totals(turns: Sequence[Turn], truth: dict[str, dict[str, Any]]) -> None:
    """Asserts that turns and truth agree; a tool call without an event may lack its name."""
    found = totals(turns)
    assert found.keys() == truth.keys()
    for session_id, known in truth.items():
        told = found[session_id]
        assert told["tokens"] == known["tokens"], session_id
        assert told["request_ids"] == known["request_ids"], session_id
        assert told["errors"] == known["errors"], session_id
        nameless = told["tools"].pop("", 0)
        missing = known["tools"] - told["tools"]
        assert not told["tools"] - known["tools"], session_id
        assert nameless == missing.total(), session_id


def session_events(
    *names: str, signals: Sequence[str] = ("logs", "metrics", "traces")
) -> list[Event]:
    """The events of recordings, in the order in which they were sent."""
    return [
        event
        for body in all_bodies()
        if body.session in names and body.signal in signals
        for event in body.events()
    ]


def transcript_files(name: str) -> list[Path]:
    return sorted((DIRECTORY / name / "transcript").rglob("*.jsonl"))


def transcript_events(name: str) -> list[Event]:
    events = []
    for path in transcript_files(name):
        lines = [orjson.loads(raw) for raw in path.read_bytes().splitlines()]
        is_agent = path.parent.name == "subagents"
        agent_id = path.stem.removeprefix("agent-") if is_agent else ""
        events += transcript_events_of(lines, path.stem, agent_id)
    return events


def transcript_events_of(
    lines: Sequence[dict[str, Any]], session_id: str, agent_id: str = ""
) -> list[Event]:
    """The events of a transcript's lines; those of kinds that hold no turn are left out."""
    numbered = {
        number: orjson.dumps(line)
        for number, line in enumerate(lines, start=1)
        if line["type"] in ("user", "assistant", "system")
    }
    body = encode_batch(session_id, agent_id, list(numbered), list(numbered.values()))
    return decode(Record("transcript", "json", body, RECEIVED_AT_US)).events


def _map_ids(node: Any, convert: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: convert(value) if key in _IDS and value else _map_ids(value, convert)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_map_ids(item, convert) for item in node]
    return node


def _numbers(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: int(value) if key == "intValue" else _numbers(value) for key, value in node.items()
        }
    if isinstance(node, list):
        return [_numbers(item) for item in node]
    return node


def _hex_to_base64(value: str) -> str:
    return base64.b64encode(bytes.fromhex(value)).decode()


def _base64_to_hex(value: str) -> str:
    return base64.b64decode(value).hex()


def log_body(session_id: str, count: int = 1, **attributes: str) -> bytes:
    """An OTLP/JSON logs body of ``count`` distinct API requests of a session."""
    records = [
        {
            "timeUnixNano": str(1_790_000_000_000_000_000 + index * 1_000_000),
            "body": {"stringValue": "claude_code.api_request"},
            "attributes": [
                {"key": "session.id", "value": {"stringValue": session_id}},
                {"key": "event.name", "value": {"stringValue": "api_request"}},
                {"key": "event.sequence", "value": {"intValue": index}},
                {"key": "request_id", "value": {"stringValue": f"req_{uuid.uuid4().hex}"}},
                {"key": "model", "value": {"stringValue": "claude-opus-4-7"}},
                {"key": "input_tokens", "value": {"intValue": 10}},
                {"key": "output_tokens", "value": {"intValue": 5}},
                *(
                    {"key": key, "value": {"stringValue": value}}
                    for key, value in attributes.items()
                ),
            ],
        }
        for index in range(count)
    ]
    return json.dumps(
        {
            "resourceLogs": [
                {
                    "resource": {"attributes": []},
                    "scopeLogs": [
                        {
                            "scope": {"name": "com.anthropic.claude_code.events"},
                            "logRecords": records,
                        }
                    ],
                }
            ]
        }
    ).encode()
