"""Segment files of the journal: their layout, their names, and reading them back.

A segment is ``TWJ1`` and then records: ``length, crc32`` (little-endian u32 each) over a small
header and the body. A cleanly sealed segment ends in a trailer, so that a torn tail (a write that
a crash cut off, never acknowledged) can be told from damage to what was acknowledged.

Names sort in order of creation: ``<microseconds>-<pid>-<counter>`` with ``.open`` while a process
writes it (and holds a lock on it) and ``.sealed`` afterwards.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, get_args

import orjson

from loop.domain.errors import BadInput

RecordKind = Literal[
    "logs", "metrics", "traces", "transcript", "decisions", "refusals", "reassembly"
]
ContentType = Literal["protobuf", "json"]

MAGIC = b"TWJ1"
TRAILER_MAGIC = b"TWJEND!!"
CREATING, OPEN, SEALED = ".creating", ".open", ".sealed"
_KINDS: tuple[RecordKind, ...] = get_args(RecordKind)
_CONTENT_TYPES: tuple[ContentType, ...] = get_args(ContentType)
_FRAME = struct.Struct("<II")  # length, crc32
_HEADER = struct.Struct("<BBHQ")  # kind, content type, length of credential, received at
_TRAILER = struct.Struct("<8sII")  # magic, records, crc32 of both
_counter = count()


@dataclass(frozen=True, slots=True)
class Record:
    """One request body as it was received, decompressed. ``credential`` names who sent it."""

    kind: RecordKind
    content_type: ContentType
    body: bytes
    received_at_us: int
    credential: str = ""


@dataclass(frozen=True, slots=True)
class SegmentContent:
    """``damage`` is "" unless acknowledged records can't be read; a torn tail is no damage.

    ``lost`` says how many records are known to be unreadable.
    """

    records: tuple[Record, ...]
    damage: str = ""
    lost: int = 0


def new_segment_name() -> str:
    return f"{time.time_ns() // 1000:016d}-{os.getpid():07d}-{next(_counter):06d}"


def created_at_us(path: Path) -> int:
    """When a segment was begun, by its name; 0 for a name of another form."""
    stated = path.name.partition("-")[0]
    return int(stated) if stated.isdecimal() and len(stated) == 16 else 0


def decode_session_ids(record: Record) -> list[str]:
    """The sessions that a record of kind ``reassembly`` names. Raises :class:`BadInput`."""
    try:
        return [str(session_id) for session_id in orjson.loads(record.body)]
    except (orjson.JSONDecodeError, TypeError) as error:
        raise BadInput("The list of sessions can't be read.", why=repr(error)) from error


def encode_record(record: Record) -> bytes:
    """The bytes of one record, frame included."""
    credential = record.credential.encode()[:1024]
    header = _HEADER.pack(
        _KINDS.index(record.kind),
        _CONTENT_TYPES.index(record.content_type),
        len(credential),
        record.received_at_us,
    )
    crc = zlib.crc32(record.body, zlib.crc32(credential, zlib.crc32(header)))
    length = len(header) + len(credential) + len(record.body)
    return b"".join((_FRAME.pack(length, crc), header, credential, record.body))


def encode_trailer(records: int) -> bytes:
    return _TRAILER.pack(TRAILER_MAGIC, records, zlib.crc32(struct.pack("<I", records)))


def read_segment(path: Path) -> SegmentContent:
    """Every record of a sealed segment up to the first that fails its checksum."""
    data = path.read_bytes()
    if data[: len(MAGIC)] != MAGIC:
        # A file torn before its first byte was synced can't hold anything acknowledged.
        return SegmentContent((), "" if len(data) < len(MAGIC) else "it is no journal segment")
    expected = _expected_records(data)
    records = tuple(_iterate(data, len(data) - (_TRAILER.size if expected is not None else 0)))
    if expected is not None and len(records) != expected:
        damage = f"record {len(records) + 1} of {expected} fails its checksum"
        return SegmentContent(records, damage, expected - len(records))
    return SegmentContent(records)


def _expected_records(data: bytes) -> int | None:
    """How many records a clean trailer promises; ``None`` without one."""
    if len(data) < len(MAGIC) + _TRAILER.size:
        return None
    magic, records, crc = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    if magic != TRAILER_MAGIC or crc != zlib.crc32(struct.pack("<I", records)):
        return None
    return int(records)


def _iterate(data: bytes, end: int) -> Iterator[Record]:
    offset = len(MAGIC)
    view = memoryview(data)
    while offset + _FRAME.size <= end:
        length, crc = _FRAME.unpack_from(data, offset)
        start = offset + _FRAME.size
        offset = start + length
        if length < _HEADER.size or offset > end or zlib.crc32(view[start:offset]) != crc:
            return
        kind, content_type, credential_length, received_at_us = _HEADER.unpack_from(data, start)
        body_start = start + _HEADER.size + credential_length
        yield Record(
            _KINDS[kind],
            _CONTENT_TYPES[content_type],
            data[body_start:offset],
            received_at_us,
            data[start + _HEADER.size : body_start].decode(),
        )


def sync_directory(directory: Path) -> None:
    """Makes a creation, renaming or deletion inside ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
