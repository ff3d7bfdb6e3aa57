"""What could not be decoded: set aside with the reason, never dropped, never in the way.

A quarantined record is a segment of its own beside a ``.json`` that says why; moving the segment
back into the journal's directory replays it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import orjson

from collectors.segments import MAGIC, SEALED, Record, encode_record, encode_trailer, sync_directory


class Quarantine:
    """One directory of poison records and damaged segments."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put_record(self, name: str, record: Record, reason: str) -> None:
        """Keeps a record under ``name``; writing the same one again changes nothing."""
        content = MAGIC + encode_record(record) + encode_trailer(1)
        self._put(name, content, {"kind": record.kind, "reason": reason})

    def put_segment(self, path: Path, reason: str) -> None:
        """Keeps a copy of a damaged segment."""
        self._put(path.stem, path.read_bytes(), {"kind": "segment", "reason": reason})

    def put_session(self, session_id: str, reason: str) -> None:
        """Notes a session that could not be assembled; its events are in the lake."""
        name = "session-" + "".join(ch if ch.isalnum() or ch == "-" else "_" for ch in session_id)
        self._put(name[:120], None, {"kind": "session", "session_id": session_id, "reason": reason})

    def entries(self) -> list[dict[str, Any]]:
        """Everything set aside, oldest first: ``name``, ``kind``, ``reason``, ``at_us``."""
        found = [orjson.loads(path.read_bytes()) for path in self.directory.glob("*.json")]
        return sorted(found, key=lambda entry: (entry["at_us"], entry["name"]))

    def _put(self, name: str, content: bytes | None, note: dict[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if content is not None:
            _write_durably(self.directory / (name + SEALED), content)
        entry = {"name": name, "at_us": time.time_ns() // 1000, **note}
        _write_durably(self.directory / (name + ".json"), orjson.dumps(entry))
        sync_directory(self.directory)


def _write_durably(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
