"""Session traces of the shipped recordings, assembled by the real collectors."""

from __future__ import annotations

import gzip
from pathlib import Path

from collectors.body_decoding import decode
from collectors.claude_code_turns import assemble
from collectors.segments import ContentType, Record, RecordKind
from collectors.transcript_lines import encode_batch
from loop.domain.turns import Event, SessionTrace
from loop.lake.trace_loading import build_traces

RECORDINGS = Path(__file__).parents[2] / "examples" / "recordings"
RECEIVED_AT_US = 1_795_438_968_000_000


def otlp_events(session: Path) -> list[Event]:
    events: list[Event] = []
    for path in sorted((session / "otlp").iterdir()):
        signal = path.name.split("_")[1] if "_" in path.name else ""
        if signal not in ("logs", "metrics", "traces"):
            continue
        body = path.read_bytes()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        content_type: ContentType = "json" if path.suffix == ".json" else "protobuf"
        kind: RecordKind = signal  # type: ignore[assignment]
        events += decode(Record(kind, content_type, body, RECEIVED_AT_US)).events
    return events


def transcript_events(path: Path, session_id: str = "") -> list[Event]:
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    body = encode_batch(session_id or path.stem, "", list(range(1, len(lines) + 1)), lines)
    return list(decode(Record("transcript", "json", body, RECEIVED_AT_US)).events)


def load_trace(name: str, *, otlp: bool = True, transcript: bool = True) -> SessionTrace:
    """The trace of recording ``name`` from the sources asked for."""
    session = RECORDINGS / name
    events = otlp_events(session) if otlp else []
    if transcript:
        for path in sorted((session / "transcript").rglob("*.jsonl")):
            events += transcript_events(path)
    session_id = next(event.session_id for event in events if event.session_id)
    assembled = assemble([event for event in events if event.session_id == session_id])
    (trace,) = build_traces(assembled.turns, assembled.contents)
    return trace


def recording_names() -> list[str]:
    return sorted(path.parent.name for path in RECORDINGS.glob("*/otlp"))
