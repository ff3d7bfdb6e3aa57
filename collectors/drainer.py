"""From the journal to the lake: decode, store, assemble, price, and only then let go.

Each cycle binds a set of segments to a position and writes that down (``drain.json``) before the
lake is touched. After a crash anywhere in between, the next cycle takes the same segments under
the same position: the lake ignores the position that it has already, the turns are written once
more with the same content, and the segments are deleted. So what was acknowledged is stored once.

One process drains: the lock is held until :meth:`Drainer.close`, which also lets the recent
sessions' events be kept in memory instead of being read back from the lake.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from collectors.attribution import Attribution
from collectors.body_decoding import decode
from collectors.claude_code_turns import assemble
from collectors.copied_requests import without_copies
from collectors.decision_intake import decision_of
from collectors.journal import Journal, has_records, recover, sealed_segments
from collectors.quarantine import Quarantine
from collectors.segments import read_segment, sync_directory
from collectors.told_requests import ToldRequests
from loop.domain.errors import BadInput, Conflict
from loop.domain.money import PriceBook
from loop.domain.turns import Content, Event, Turn

if TYPE_CHECKING:
    from loop.lake import Lake

JOURNAL_NAME = "collectors"
WRITTEN_TABLES = ("events", "turns", "contents", "decisions")
"""The tables that the drainer writes, and so compacts."""
_LIMIT = 2**63
_YEAR_10000_US = 253_402_300_800_000_000
# What odd data could make pure code raise; anything else is a fault that must stop the cycle.
_ASSEMBLY_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """``batch_bytes`` of segments per commit, events of recent sessions kept in memory, commits
    between compactions, and where drained segments go (``None``: they are deleted)."""

    batch_bytes: int = 32 * 1024 * 1024
    cached_events: int = 200_000
    commits_per_compaction: int = 100
    archive_directory: Path | None = None


@dataclass(slots=True)
class DrainReport:
    """``received`` = ``stored`` + ``duplicates`` over events; ``rejected`` counts bodies that
    could not be decoded, ``ahead`` records more than a day ahead of the clock: the bodies of both
    lie in quarantine."""

    segments: int = 0
    received: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    ahead: int = 0
    without_session: int = 0
    sessions: int = 0
    turns: int = 0
    unpriced_turns: int = 0
    decisions: int = 0
    quarantined: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Batch:
    """The decoded events of a set of segments, each id once."""

    events: dict[str, Event] = field(default_factory=dict)

    def by_session(self) -> dict[str, list[Event]]:
        grouped: dict[str, list[Event]] = {}
        for event in self.events.values():
            if event.session_id:
                grouped.setdefault(event.session_id, []).append(event)
        return grouped


class Drainer:
    """Drains one journal directory into a lake.

    ``journal`` is this process's own; other processes' sealed segments and those of dead ones are
    drained too.
    """

    def __init__(
        self,
        journal: Journal,
        lake: Lake,
        price_book: PriceBook,
        attribution: Attribution | None = None,
        limits: DrainLimits | None = None,
    ) -> None:
        self.journal = journal
        self.lake = lake
        self.price_book = price_book
        self.attribution = attribution or Attribution()
        self.limits = limits or DrainLimits()
        self.quarantine = Quarantine(journal.directory.parent / "quarantine")
        self._state_path = journal.directory / "drain.json"
        self._mutex = threading.Lock()
        self._lock_file: IO[bytes] | None = None
        self._position = 0
        self._pending: list[str] = []
        self._sessions = _RecentSessions(self.limits.cached_events)
        self._told = ToldRequests(journal.directory.parent / "told_requests.sqlite", lake)
        self._commits = 0

    def drain_once(self) -> DrainReport:
        """Drains everything that is in the journal now.

        Raises:
            Conflict: another process drains this journal.
            Unavailable: the lake can't be written; nothing is lost, the next call tries again.
        """
        with self._mutex:
            self._take_lock()
            self.journal.seal()
            recover(self.journal.directory)
            report = DrainReport()
            if self._pending:
                known = [self.journal.directory / name for name in self._pending]
                self._drain_or_part(known, report, again=True)
            for paths in _in_batches(
                sealed_segments(self.journal.directory), self.limits.batch_bytes
            ):
                self._bind(paths)
                self._drain_or_part(paths, report, again=False)
            return report

    def is_drained(self) -> bool:
        """Whether everything acknowledged so far can be queried."""
        return not has_records(self.journal.directory)

    def close(self) -> None:
        """Gives the lock back; another process may drain from then on."""
        with self._mutex:
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None
            self._sessions.clear()
            self._told.close()

    def __enter__(self) -> Drainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_lock(self) -> None:
        if self._lock_file is not None:
            return
        path = self.journal.directory / "drain.lock"
        file = open(path, "ab")  # noqa: SIM115 - held until close()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise Conflict(
                "Another process drains this journal.",
                why=f"{path} is locked.",
                fix="Let the running service do it, or stop it first.",
            ) from error
        self._lock_file = file
        self._load_state()

    def _load_state(self) -> None:
        self._position, self._pending = self.lake.max_revision(), []
        if self._state_path.exists():
            state = orjson.loads(self._state_path.read_bytes())
            self._position = max(self._position, state["position"])
            directory = self.journal.directory
            self._pending = [name for name in state["pending"] if (directory / name).exists()]
            if self._pending:
                self._position = state["position"]

    def _bind(self, paths: list[Path]) -> None:
        """Binds segments to the next position, durably."""
        self._position = max(self._position + 1, time.time_ns() // 1000)
        self._save_state([path.name for path in paths])

    def _save_state(self, pending: list[str]) -> None:
        temporary = self._state_path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            file.write(orjson.dumps({"position": self._position, "pending": pending}))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._state_path)
        sync_directory(self.journal.directory)
        self._pending = pending

    def _drain_or_part(self, paths: list[Path], report: DrainReport, *, again: bool) -> None:
        """Drains a batch; one that the lake can't hold goes segment by segment, and the segment
        that is at fault into quarantine."""
        try:
            self._drain(paths, report, again=again)
        except BadInput as error:
            if len(paths) == 1:
                self.quarantine.put_segment(paths[0], str(error))
                report.quarantined.append(f"{paths[0].name}: {error}")
                self._let_go(paths)
                return
            for path in paths:
                self._bind([path, *(other for other in paths if other > path)])
                self._drain_or_part([path], report, again=True)

    def _drain(self, paths: list[Path], report: DrainReport, *, again: bool) -> None:
        batch = self._read(paths, report)
        touched = {
            session_id: events
            for session_id, events in batch.by_session().items()
            if any(event.kind != "metric" for event in events)
        }
        circles = self._told.circles_of(batch.events.values())
        relatives = set().union(*circles.values())
        committed = False
        try:
            self._sessions.load(touched.keys() | relatives, self.lake)
            new = [event for event in batch.events.values() if not self._sessions.has(event)]
            changed = touched.keys() if again else {event.session_id for event in new}
            if new:
                self.lake.write_events(new, journal=JOURNAL_NAME, position=self._position)
            self._sessions.add(new)
            self._write_turns(
                [name for name in touched if name in changed and name not in relatives], report
            )
            self._write_related_turns(circles, changed, report)
            decisions = [decision_of(event) for event in new if event.kind == "decision"]
            if again:
                decisions = [
                    decision_of(event)
                    for event in batch.events.values()
                    if event.kind == "decision"
                ]
            if decisions:
                self.lake.write_decisions(decisions, journal=JOURNAL_NAME, position=self._position)
            committed = True
        finally:
            if not committed:
                self._sessions.clear()  # what they hold may not be in the lake
        report.segments += len(paths)
        report.stored += len(new)
        report.duplicates += len(batch.events) - len(new)
        report.decisions += len(decisions)
        self._let_go(paths)
        self._sessions.trim()
        self._commits += 1
        if self._commits % self.limits.commits_per_compaction == 0:
            self.lake.compact(WRITTEN_TABLES)

    def _read(self, paths: list[Path], report: DrainReport) -> _Batch:
        batch = _Batch()
        for path in paths:
            content = read_segment(path)
            if content.damage:
                self.quarantine.put_segment(path, content.damage)
                report.quarantined.append(f"{path.name}: {content.damage}")
            for index, record in enumerate(content.records):
                try:
                    decoded = decode(record)
                except BadInput as error:
                    self.quarantine.put_record(f"{path.stem}-{index}", record, str(error))
                    report.rejected += 1
                    report.quarantined.append(f"{path.name} record {index}: {error}")
                    continue
                if decoded.ahead:
                    reason = f"{decoded.ahead} of its records are more than 24 hours ahead of now"
                    self.quarantine.put_record(f"{path.stem}-{index}", record, reason)
                    report.ahead += decoded.ahead
                    report.quarantined.append(f"{path.name} record {index}: {reason}")
                report.received += len(decoded.events)
                report.without_session += decoded.without_session
                for event in decoded.events:
                    if batch.events.setdefault(event.event_id, event) is not event:
                        report.duplicates += 1
        return batch

    def _write_turns(self, session_ids: Iterable[str], report: DrainReport) -> None:
        self._write_assembled(
            ((name, self._sessions.events_of(name)) for name in session_ids), report
        )

    def _write_related_turns(
        self, circles: Mapping[str, set[str]], changed: Collection[str], report: DrainReport
    ) -> None:
        """Sessions that share requests are assembled together: a change of one may move a request
        from or to another."""
        for circle in {frozenset(circles[name]) for name in circles if name in changed}:
            events = {name: self._sessions.events_of(name) for name in sorted(circle)}
            self._write_assembled(without_copies(events).items(), report)

    def _write_assembled(
        self, sessions: Iterable[tuple[str, Iterable[Event]]], report: DrainReport
    ) -> None:
        turns: list[Turn] = []
        contents: list[Content] = []
        emptied: list[str] = []
        for session_id, events in sessions:
            try:
                session = assemble(events, self.attribution)
                priced = [price(turn, self.price_book) for turn in session.turns]
                check_storable([*priced, *session.contents])
            except _ASSEMBLY_ERRORS as error:
                self.quarantine.put_session(session_id, repr(error))
                report.quarantined.append(f"session {session_id}: {error!r}")
                continue
            report.sessions += 1
            turns += priced
            contents += session.contents
            if not priced and not session.contents:
                emptied.append(session_id)
        if turns or contents or emptied:
            self.lake.write_turns(turns, contents, revision=self._position, emptied=emptied)
        report.turns += len(turns)
        report.unpriced_turns += sum(turn.cost_microusd is None for turn in turns)

    def _let_go(self, paths: list[Path]) -> None:
        archive = self.limits.archive_directory
        for path in paths:
            if archive is None:
                path.unlink(missing_ok=True)
            elif path.exists():
                archive.mkdir(parents=True, exist_ok=True)
                path.rename(archive / path.name)
        let_go = {path.name for path in paths}
        self._save_state([name for name in self._pending if name not in let_go])


class _RecentSessions:
    """Events of the sessions that were touched last; whole sessions leave, the oldest first."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._events: OrderedDict[str, dict[str, Event]] = OrderedDict()

    def load(self, session_ids: Iterable[str], lake: Lake) -> None:
        missing = [name for name in session_ids if name not in self._events]
        if missing:
            stored = lake.events_of(missing)
            for name in missing:
                self._events[name] = {event.event_id: event for event in stored.get(name, [])}
        for name in session_ids:
            self._events.move_to_end(name)

    def has(self, event: Event) -> bool:
        return event.event_id in self._events.get(event.session_id, {})

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.session_id in self._events:
                self._events[event.session_id][event.event_id] = event

    def events_of(self, session_id: str) -> list[Event]:
        return list(self._events[session_id].values())

    def trim(self) -> None:
        held = sum(len(events) for events in self._events.values())
        while held > self._max_events and self._events:
            _, events = self._events.popitem(last=False)
            held -= len(events)

    def clear(self) -> None:
        self._events.clear()


def price(turn: Turn, price_book: PriceBook) -> Turn:
    """The turn with its cost on the UTC day that it began; unpriced where that can't be known."""
    if turn.unpriced_reason:
        return turn
    day = datetime.fromtimestamp(turn.started_at_us // 1_000_000, UTC).date().isoformat()
    cost = price_book.cost(turn.model, day, turn.usage)
    return replace(
        turn,
        cost_microusd=cost.microusd,
        price_version=cost.price_version,
        unpriced_reason=cost.unpriced_reason,
    )


_INTEGERS = {
    record: tuple(field.name for field in fields(record) if str(field.type).startswith("int"))
    for record in (Turn, Content)
}


def check_storable(records: Iterable[Turn | Content]) -> None:
    """Raises ValueError for a number beyond 64 bits or a time outside years 1970 to 9999."""
    for record in records:
        for name in _INTEGERS[type(record)]:
            value = getattr(record, name)
            if value is not None and not -_LIMIT <= value < _LIMIT:
                raise ValueError(f"{name} is {value}, beyond 64 bits")
            if name.endswith("_at_us") and not 0 <= value < _YEAR_10000_US:
                raise ValueError(f"{name} is {value}, no time before the year 10000")
        if isinstance(record, Turn):
            usage = record.usage
            if not all(0 <= getattr(usage, name) < _LIMIT for name in usage.__slots__):
                raise ValueError(f"the token counts {usage} can't be")


def _in_batches(paths: list[Path], batch_bytes: int) -> Iterable[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in paths:
        batch.append(path)
        size += path.stat().st_size
        if size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
