"""Segments of the journal, decoded: a pure function of a file, so that another process can do it.

:func:`decode_packed` and :func:`unpack` carry a decoded segment between two processes of one
program.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from operator import attrgetter
from pathlib import Path
from typing import Any

from collectors.body_decoding import decode
from collectors.otlp_decoding import DecodedBody
from collectors.segments import Record, read_segment
from loop.domain.errors import BadInput
from loop.domain.turns import Event

_WITHOUT_EVENTS = frozenset(("refusals", "reassembly"))
_FIELDS = ("event_id", "kind", "name", "session_id", "at_us", "sequence", "attributes")
_FIELD_VALUES = attrgetter(*_FIELDS)


@dataclass(frozen=True, slots=True)
class DecodedRecord:
    """One record of a segment. ``decoded`` is ``None`` for one that holds no events, or that
    can't be decoded: then ``problem`` says why. ``record.body`` is empty once it has been decoded
    whole."""

    record: Record
    decoded: DecodedBody | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DecodedSegment:
    """``damage`` and ``lost`` as :class:`collectors.segments.SegmentContent` has them."""

    records: tuple[DecodedRecord, ...]
    damage: str = ""
    lost: int = 0


def decode_segment(path: Path, judged_at_us: int | None = None) -> DecodedSegment:
    """Every record of a sealed segment.

    ``judged_at_us``: the moment by which times ahead of the clock are judged; that at which each
    record was received by default.
    """
    content = read_segment(path)
    records = tuple([_decode_record(record, judged_at_us) for record in content.records])
    return DecodedSegment(records, content.damage, content.lost)


def _decode_record(record: Record, judged_at_us: int | None) -> DecodedRecord:
    if record.kind in _WITHOUT_EVENTS:
        return DecodedRecord(record, None)
    try:
        decoded = decode(record, judged_at_us)
    except BadInput as error:
        return DecodedRecord(record, None, str(error))
    return DecodedRecord(record if decoded.rejected else replace(record, body=b""), decoded)


def decode_packed(path: Path) -> bytes:
    """:func:`decode_segment`, in bytes for :func:`unpack` in another process of this program.

    Records are packed one by one: a segment's events all at once are some twenty megabytes, which
    no cache holds. Raises ValueError for values that no decoder makes.
    """
    content = read_segment(path)
    records = [_packed_record(_decode_record(record, None)) for record in content.records]
    return marshal.dumps((records, content.damage, content.lost))


def unpack(data: bytes | bytearray) -> DecodedSegment:
    """What :func:`decode_packed` packed."""
    records, damage, lost = marshal.loads(data)  # noqa: S302 - from a child of this program
    unpacked = [_unpacked(*marshal.loads(record)) for record in records]  # noqa: S302
    return DecodedSegment(tuple(unpacked), damage, lost)


def _packed_record(item: DecodedRecord) -> bytes:
    decoded = None if item.decoded is None else _packed(item.decoded)
    return marshal.dumps((*_of_record(item.record), item.problem, decoded))


_of_record: Callable[[Record], tuple[Any, ...]] = attrgetter(
    "kind", "content_type", "body", "received_at_us", "credential"
)


def _packed(decoded: DecodedBody) -> tuple[Any, ...]:
    resources: dict[int, int] = {}
    documents: list[Mapping[str, object]] = []
    numbers = []
    for event in decoded.events:
        number = resources.get(id(event.resource))
        if number is None:
            number = resources[id(event.resource)] = len(documents)
            documents.append(dict(event.resource))
        numbers.append(number)
    columns = list(zip(*map(_FIELD_VALUES, decoded.events), strict=True))
    return (
        columns,
        documents,
        numbers,
        decoded.without_session,
        dict(decoded.rejected),
        dict(decoded.written),
    )


def _unpacked(
    kind: Any,
    content_type: Any,
    body: bytes,
    received_at_us: int,
    credential: str,
    problem: str,
    packed: tuple[Any, ...] | None,
) -> DecodedRecord:
    record = Record(kind, content_type, body, received_at_us, credential)
    if packed is None:
        return DecodedRecord(record, None, problem)
    columns, documents, numbers, without_session, rejected, written = packed
    resources = map(documents.__getitem__, numbers)
    events = list(
        map(Event, *columns, resources, repeat(received_at_us), repeat(credential))
        if columns
        else ()
    )
    return DecodedRecord(record, DecodedBody(events, without_session, rejected, written))
