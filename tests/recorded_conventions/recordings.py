"""The recorded payloads of real instrumentations, as journal records and as events by session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from collectors.body_decoding import decode
from collectors.segments import Record, RecordKind
from loop.domain.turns import Event

DIRECTORY = Path(__file__).parent
RECEIVED_AT_US = 1_800_000_000_000_000  # after all recordings


def index() -> dict[str, dict[str, Any]]:
    """What was recorded, by name: its convention, the versions that made it, its bodies."""
    found: dict[str, dict[str, Any]] = orjson.loads((DIRECTORY / "index.json").read_bytes())
    return found


def bodies(name: str) -> list[tuple[RecordKind, bytes]]:
    """Signal and protobuf body of each export, in the order in which they came."""
    found: list[tuple[RecordKind, bytes]] = []
    for file_name in index()[name]["bodies"]:
        signal: RecordKind = "logs" if ".logs." in file_name else "traces"
        found.append((signal, (DIRECTORY / name / file_name).read_bytes()))
    return found


def recorded_events(name: str) -> list[Event]:
    """All events of a recording, decoded as the drainer decodes them."""
    return [
        event
        for signal, body in bodies(name)
        for event in decode(Record(signal, "protobuf", body, RECEIVED_AT_US)).events
    ]


def by_session(events: list[Event]) -> dict[str, list[Event]]:
    grouped: dict[str, list[Event]] = {}
    for event in events:
        if event.session_id:
            grouped.setdefault(event.session_id, []).append(event)
    return grouped
