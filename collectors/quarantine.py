"""What could not be stored: set aside with the reason, never dropped, never in the way.

A quarantined record is a segment of its own beside a ``.json`` that says why. Replaying copies the
segment back into the journal under a name that says so; the drainer clears the entry once what is
in it is in the lake, and renews its reason where it fails again. A session that could not be
assembled has no segment: its events are in the lake, and replaying assembles it again.

Only the service's user can read the folder. It is bounded: where it is full, receivers refuse what
would have to be set aside, and the drainer waits rather than lose anything.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from collectors.redaction import redact
from collectors.segments import (
    MAGIC,
    SEALED,
    Record,
    SegmentContent,
    encode_record,
    encode_trailer,
    new_segment_name,
    read_segment,
    sync_directory,
)
from loop.domain.errors import BadInput, NotFound, Unavailable

DEFAULT_MAX_BYTES = 1024 * 1024 * 1024
_REPLAYED = ".replay"
_LOOK_AGAIN_SECONDS = 5.0
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """``kind`` is that of the record, ``segment`` or ``session``; ``bytes`` what is kept of it.

    ``credential`` sent the record, ``received_at_us`` says when; ``None`` for what is of many
    senders, and for what was set aside before notes said so.
    """

    name: str
    kind: str
    reason: str
    at_us: int
    bytes: int = 0
    session_id: str = ""
    credential: str | None = None
    received_at_us: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Quarantine:
    """One directory of poison records and damaged segments."""

    def __init__(self, directory: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._looked_at = -_LOOK_AGAIN_SECONDS
        self._size = 0
        self._sessions: set[str] | None = None  # entry names of sessions, for the drainer

    # -- setting aside -------------------------------------------------------------------------

    def put_record(self, name: str, record: Record, reason: str) -> None:
        """Keeps a record under ``name``; writing the same one again changes nothing. Raises
        :class:`Unavailable` when the quarantine is full."""
        content = MAGIC + encode_record(record) + encode_trailer(1)
        whose = {"credential": record.credential, "received_at_us": record.received_at_us}
        self._put(name, content, {"kind": record.kind, "reason": reason, **whose})

    def put_segment(self, path: Path, reason: str) -> None:
        """Keeps a copy of a damaged segment. Raises :class:`Unavailable`."""
        self._put(entry_name(path), path.read_bytes(), {"kind": "segment", "reason": reason})

    def put_session(self, session_id: str, reason: str) -> None:
        """Notes a session that could not be assembled; its events are in the lake."""
        name = _session_entry(session_id)
        self._put(name, None, {"kind": "session", "session_id": session_id, "reason": reason})
        if self._sessions is not None:
            self._sessions.add(name)

    def check_room(self) -> None:
        """Raises :class:`Unavailable` while nothing more should be set aside."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_AGAIN_SECONDS:
            self._size, self._looked_at = self.size_bytes(), now
        if self._size >= self.max_bytes:
            raise self._full()

    def size_bytes(self) -> int:
        if not self.directory.exists():
            return 0
        with os.scandir(self.directory) as files:
            return sum(file.stat().st_size for file in files if file.is_file())

    # -- looking -------------------------------------------------------------------------------

    def entries(self) -> list[QuarantineEntry]:
        """Everything set aside, oldest first."""
        found = [self._read(path) for path in self.directory.glob("*.json")]
        return sorted(found, key=lambda entry: (entry.at_us, entry.name))

    def entry(self, name: str) -> QuarantineEntry:
        """Raises :class:`NotFound`."""
        path = self.directory / f"{name}.json"
        if not _NAME.fullmatch(name) or not path.exists():
            raise not_quarantined(name)
        return self._read(path)

    def content(self, name: str) -> SegmentContent:
        """The records of an entry; none for a session. Raises :class:`NotFound`."""
        self.entry(name)
        path = self.directory / (name + SEALED)
        return read_segment(path) if path.exists() else SegmentContent(())

    # -- letting go ----------------------------------------------------------------------------

    def replay(self, names: Iterable[str], journal_directory: Path) -> None:
        """Hands entries back to the journal, from which the drainer takes them once more.

        Doing so twice changes nothing. Raises :class:`NotFound` before anything is handed back.
        """
        entries = [self.entry(name) for name in names]
        sessions = [entry.session_id for entry in entries if entry.kind == "session"]
        for entry in entries:
            source = self.directory / (entry.name + SEALED)
            if source.exists():
                _write_durably(
                    journal_directory / (entry.name + _REPLAYED + SEALED), source.read_bytes()
                )
        if sessions:
            now_us = time.time_ns() // 1000
            record = Record("reassembly", "json", orjson.dumps(sessions), now_us)
            content = MAGIC + encode_record(record) + encode_trailer(1)
            _write_durably(journal_directory / (new_segment_name() + SEALED), content)
        sync_directory(journal_directory)

    def drop(self, name: str) -> None:
        """Deletes an entry and what it keeps; one that is not there is no error."""
        for suffix in (SEALED, ".json"):  # the note last: it names what is still to be deleted
            (self.directory / (name + suffix)).unlink(missing_ok=True)
        self._looked_at = -_LOOK_AGAIN_SECONDS

    def clear_replayed(self, path: Path, failed: Iterable[str]) -> None:
        """Drops the entry that a drained segment replayed, unless it failed again."""
        if is_replay(path) and entry_name(path) not in failed:
            self.drop(entry_name(path))

    def clear_session(self, session_id: str) -> None:
        """Drops the entry of a session that has been assembled."""
        if self._sessions is None:
            self._sessions = {path.stem for path in self.directory.glob("session-*.json")}
        name = _session_entry(session_id)
        if name in self._sessions:
            self._sessions.discard(name)
            self.drop(name)

    def _put(self, name: str, content: bytes | None, note: dict[str, Any]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = self.directory / (name + SEALED)
        if content is not None and not target.exists():
            # A receiver that still let a body pass must not stop the drainer: hence some slack.
            if self.size_bytes() + len(content) > self.max_bytes + self.max_bytes // 4:
                raise self._full()
            _write_durably(target, content)
        note["reason"] = redact(note["reason"])  # an error may quote what it could not read
        entry = {
            "name": name,
            "at_us": time.time_ns() // 1000,
            "bytes": len(content or b""),
            **note,
        }
        _write_durably(self.directory / (name + ".json"), orjson.dumps(entry))
        sync_directory(self.directory)

    def _full(self) -> Unavailable:
        return Unavailable(
            "The quarantine is full.",
            why=f"{self.directory} holds its {self.max_bytes} bytes; nothing was dropped.",
            fix="Look at `turnwise quarantine list`; replay or drop what is there, or raise "
            "TURNWISE_MAX_QUARANTINE_BYTES.",
            retry_after_seconds=60,
        )

    def _read(self, path: Path) -> QuarantineEntry:
        try:
            note = orjson.loads(path.read_bytes())
            return QuarantineEntry(
                str(note["name"]),
                str(note["kind"]),
                str(note["reason"]),
                int(note["at_us"]),
                int(note.get("bytes", 0)),
                str(note.get("session_id", "")),
                note.get("credential"),
                note.get("received_at_us"),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{path} is no note of the quarantine.", why=repr(error)) from error


def not_quarantined(name: str) -> NotFound:
    return NotFound(
        f"Nothing is quarantined under {name!r}.", fix="`turnwise quarantine list` names all."
    )


def entry_name(segment: Path) -> str:
    """The entry that a segment belongs to: the one that it replays, else one of its own name."""
    return segment.stem.removesuffix(_REPLAYED)


def is_replay(segment: Path) -> bool:
    return segment.stem.endswith(_REPLAYED)


def record_entry_name(segment: Path, index: int) -> str:
    """The entry of a segment's record; a replayed record keeps the one that it had."""
    return entry_name(segment) if is_replay(segment) else f"{segment.stem}-{index}"


def _session_entry(session_id: str) -> str:
    name = "session-" + "".join(ch if ch.isalnum() or ch == "-" else "_" for ch in session_id)
    return name.encode("ascii", "replace").decode().replace("?", "_")[:120]


def _write_durably(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
