"""Segments of the journal as one batch of events: decoded, each once, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collectors.intake_counts import IntakeCounts, Outcome, Source, source_of, source_of_segment
from collectors.quarantine import Quarantine, entry_name, is_replay, record_entry_name
from collectors.record_limits import describe_rejections
from collectors.segment_decoding import DecodedRecord, DecodedSegment, decode_segment
from collectors.segments import decode_session_ids, read_segment
from loop.domain.errors import BadInput
from loop.domain.turns import Event

# Why a body was quarantined.
UNDECODABLE, UNSTORABLE, DAMAGED = "undecodable", "unstorable", "damaged"


@dataclass(slots=True)
class DrainBatch:
    """The decoded events of a set of segments, each id once, where each came from, and what was
    counted while reading."""

    events: dict[str, Event] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    written: dict[str, bytes] = field(default_factory=dict)  # attributes as JSON, by event id
    counts: IntakeCounts = field(default_factory=IntakeCounts)
    without_session: int = 0
    failed: set[str] = field(default_factory=set)  # entries of the quarantine
    reassembled: set[str] = field(default_factory=set)  # sessions to assemble though nothing came
    quarantined: list[str] = field(default_factory=list)  # what and why

    def by_session(self) -> dict[str, list[Event]]:
        grouped: dict[str, list[Event]] = {}
        for event in self.events.values():
            grouped.setdefault(event.session_id, []).append(event)
        return grouped

    def add(self, item: DecodedRecord, name: str, quarantine: Quarantine) -> None:
        """Adds one record of the journal. Raises :class:`BadInput` for one that can't be read."""
        record, decoded = item.record, item.decoded
        if record.kind == "refusals":
            self.counts.add_told(record)
            return
        if record.kind == "reassembly":
            self.reassembled.update(decode_session_ids(record))
            return
        source = source_of(record)
        self.counts.add(source, "bodies")
        if decoded is None:
            raise BadInput(item.problem)
        if decoded.rejected:
            reason = describe_rejections(decoded.rejected)
            quarantine.put_record(name, record, reason)
            self.failed.add(name)
            for why, count in decoded.rejected.items():
                self.counts.add(source, "rejected", why, count)
            self.quarantined.append(f"{name}: {reason}")
        received = len(decoded.events) + sum(decoded.rejected.values())
        self.counts.add(source, "received", count=received)
        self.without_session += decoded.without_session
        self.written |= decoded.written
        duplicates = 0
        for event in decoded.events:
            if self.events.setdefault(event.event_id, event) is event:
                self.sources[event.event_id] = source
            else:
                duplicates += 1
        self.counts.add(source, "duplicate", count=duplicates)


def read_batch(
    paths: Iterable[Path],
    position: int,
    quarantine: Quarantine,
    ahead: Callable[[Path], DecodedSegment | None] = lambda _: None,
) -> DrainBatch:
    """Decodes segments, those that were not decoded ``ahead``; what can't be read or is beyond the
    limits goes into quarantine."""
    batch = DrainBatch()
    for path in paths:
        # What was ahead of the clock need not be any more: a replay is judged by its own
        # time, which the position tells, so that it is judged alike after a crash.
        content = ahead(path) or decode_segment(path, position if is_replay(path) else None)
        if content.damage:
            quarantine.put_segment(path, content.damage)
            batch.failed.add(entry_name(path))
            batch.quarantined.append(f"{path.name}: {content.damage}")
            source = source_of_segment(path)
            batch.counts.add(source, "bodies", count=content.lost)
            batch.counts.add(source, "bodies_quarantined", DAMAGED, content.lost)
        for index, item in enumerate(content.records):
            name, record = record_entry_name(path, index), item.record
            try:
                batch.add(item, name, quarantine)
            except BadInput as error:
                quarantine.put_record(name, record, str(error))
                batch.failed.add(name)
                batch.counts.add(source_of(record), "bodies_quarantined", UNDECODABLE)
                batch.quarantined.append(f"{path.name} record {index}: {error}")
    return batch


def with_outcomes(batch: DrainBatch, new: list[Event]) -> IntakeCounts:
    """The batch's counts with what became of each event that was not rejected."""
    counts = IntakeCounts(batch.counts.rows())
    outcomes: Counter[tuple[Source, Outcome]] = Counter(
        (batch.sources[event.event_id], "conflict" if event.conflict else "stored") for event in new
    )
    if len(new) < len(batch.events):
        for event_id in batch.events.keys() - {event.event_id for event in new}:
            outcomes[batch.sources[event_id], "duplicate"] += 1
    for (source, outcome), count in outcomes.items():
        counts.add(source, outcome, count=count)
    return counts


def all_quarantined(path: Path) -> IntakeCounts:
    counts = IntakeCounts()
    for record in read_segment(path).records:
        counts.add(source_of(record), "bodies")
        counts.add(source_of(record), "bodies_quarantined", UNSTORABLE)
    return counts


def first_batch(paths: Sequence[Path], batch_bytes: int) -> tuple[list[Path], bool]:
    """As many of the segments, from the first on, as make a batch, and whether it is full."""
    size = 0
    for count, path in enumerate(paths, 1):
        size += path.stat().st_size
        if size >= batch_bytes:
            return list(paths[:count]), True
    return list(paths), False
