"""From the journal to the lake: decode, store, assemble, price, and only then let go.

Each cycle binds a set of segments to a position and writes that down (``drain.json``), with what
was counted in them, before the lake is touched. After a crash anywhere in between, the next cycle
takes the same segments under the same position: the lake ignores the position that it has already,
the turns are written once more with the same content, the counts are those written down, and the
segments are deleted. So what was acknowledged is stored once and counted once.

One process drains: the lock is held until :meth:`Drainer.close`, which also lets the recent
sessions' events be kept in memory instead of being read back from the lake.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from collectors.attribution import Attribution, client_labels
from collectors.body_decoding import decode
from collectors.claude_code_turns import makes_turns
from collectors.conventions.trace_sessions import settle_traces
from collectors.copied_requests import without_copies
from collectors.decision_intake import decision_of
from collectors.drain_state import DrainState
from collectors.intake_counts import (
    IntakeCounts,
    IntakeSink,
    Outcome,
    Source,
    source_of,
    source_of_segment,
)
from collectors.journal import Journal, has_records, recover, sealed_segments
from collectors.quarantine import entry_name, is_replay, record_entry_name
from collectors.recent_sessions import RecentSession, RecentSessions
from collectors.record_limits import describe_rejections
from collectors.segments import Record, decode_session_ids, read_segment
from collectors.session_assembly import assemble_session
from collectors.told_requests import ToldRequests
from loop.domain.errors import BadInput, Conflict, Unavailable
from loop.domain.money import PriceBook
from loop.domain.turns import Charged, Content, Event, Turn
from loop.ledger.pricing import Pricing

if TYPE_CHECKING:
    from loop.lake import Lake

logger = logging.getLogger("turnwise")
JOURNAL_NAME = "collectors"
WRITTEN_TABLES = ("events", "turns", "contents", "decisions")
"""The tables that the drainer writes, and so compacts."""
# Why a body was quarantined.
UNDECODABLE, UNSTORABLE, DAMAGED = "undecodable", "unstorable", "damaged"
_LIMIT = 2**63
_YEAR_10000_US = 253_402_300_800_000_000
# What odd data could make pure code raise; anything else is a fault that must stop the cycle.
_ASSEMBLY_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """``batch_bytes`` of segments per commit, bytes of recent sessions kept in memory, commits
    between compactions, and where drained segments go (``None``: they are deleted)."""

    batch_bytes: int = 16 * 1024 * 1024
    cached_bytes: int = 384 * 1024 * 1024
    commits_per_compaction: int = 100
    archive_directory: Path | None = None


@dataclass(slots=True)
class DrainReport:
    """``received`` = ``stored`` + ``duplicates`` + ``conflicts`` + ``beyond_limits`` over records;
    ``conflicts`` are stored too. ``rejected`` counts bodies that could not be decoded,
    ``beyond_limits`` records that are ahead of the clock or otherwise beyond a limit
    (``record_limits``): the bodies of both lie in quarantine."""

    segments: int = 0
    received: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    beyond_limits: int = 0
    without_session: int = 0
    sessions: int = 0
    turns: int = 0
    unpriced_turns: int = 0
    decisions: int = 0
    quarantined: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def add(self, counts: IntakeCounts) -> None:
        self.received += counts.total("received")
        self.stored += counts.total("stored")
        self.duplicates += counts.total("duplicate")
        self.conflicts += counts.total("conflict")
        self.rejected += counts.total("bodies_quarantined", UNDECODABLE)
        self.beyond_limits += counts.total("rejected")


@dataclass(slots=True)
class _Batch:
    """The decoded events of a set of segments, each id once, where each came from, and what was
    counted while reading."""

    events: dict[str, Event] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    counts: IntakeCounts = field(default_factory=IntakeCounts)
    without_session: int = 0
    failed: set[str] = field(default_factory=set)  # entries of the quarantine
    reassembled: set[str] = field(default_factory=set)  # sessions to assemble though nothing came

    def by_session(self) -> dict[str, list[Event]]:
        grouped: dict[str, list[Event]] = {}
        for event in self.events.values():
            grouped.setdefault(event.session_id, []).append(event)
        return grouped


Charges = dict[tuple[str, str], Charged]  # by session id and turn id


@dataclass(slots=True)
class _Writing:
    """Turns and texts on their way to the lake: of whole sessions, and of those in ``listed`` what
    belongs to the turn ids there."""

    turns: list[Turn] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    listed: dict[str, set[str]] = field(default_factory=dict)

    def add(self, session_id: str, turns: Iterable[Turn], contents: Iterable[Content]) -> None:
        before = len(self.turns) + len(self.contents)
        self.turns += turns
        self.contents += contents
        if before == len(self.turns) + len(self.contents) and session_id not in self.listed:
            self.emptied.append(session_id)


class Drainer:
    """Drains one journal directory into a lake.

    ``journal`` is this process's own; other processes' sealed segments and those of dead ones are
    drained too. ``attribution`` is asked at each pass for what is in force; the same while it is.
    """

    def __init__(
        self,
        journal: Journal,
        lake: Lake,
        prices: PriceBook | Pricing,
        attribution: Callable[[], Attribution] = client_labels,
        limits: DrainLimits | None = None,
        intake: IntakeSink | None = None,
    ) -> None:
        self.journal = journal
        self.lake = lake
        self.pricing = prices if isinstance(prices, Pricing) else Pricing.by(prices)
        self._attribution = attribution
        self.limits = limits or DrainLimits()
        self.quarantine = journal.quarantine
        self.intake = intake
        self._mutex = threading.Lock()
        self._lock_file: IO[bytes] | None = None
        self._state: DrainState | None = None
        self._sessions = RecentSessions(self.limits.cached_bytes, client_labels())
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
            self._sessions.attribute_by(self._attribution())
            report = DrainReport()
            state = self._open_state()
            if state.pending:
                bound = [self.journal.directory / name for name in state.pending]
                self._drain_or_part(bound, state, report, bound=True)
            for paths in _in_batches(
                sealed_segments(self.journal.directory), self.limits.batch_bytes
            ):
                self._drain_or_part(paths, state, report)
            self._tell(state)
            return report

    def is_drained(self) -> bool:
        """Whether everything acknowledged so far can be queried."""
        return not has_records(self.journal.directory)

    @contextmanager
    def revising(self) -> Iterator[int]:
        """Holds draining up and gives a revision for turns that are written otherwise than by
        assembly.

        Raises :class:`Conflict` when another process drains this journal, and
        :class:`Unavailable` while a batch that was cut off waits to be drained first.
        """
        with self._mutex:
            drains = self._lock_file is not None
            self._take_lock()
            try:
                state = self._open_state()
                if state.pending:
                    raise Unavailable("A batch of records that was cut off must be drained first.")
                state.position = state.next_position()
                yield state.position
            finally:
                if not drains:
                    self._release()

    def close(self) -> None:
        """Gives the lock back; another process may drain from then on."""
        with self._mutex:
            self._release()

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

    def _release(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None
        self._state = None
        self._sessions.clear()
        self._told.close()

    def _open_state(self) -> DrainState:
        if self._state is None:
            self._state = DrainState(self.journal.directory, self.lake.max_revision())
        return self._state

    def _drain_or_part(
        self,
        paths: list[Path],
        state: DrainState,
        report: DrainReport,
        *,
        bound: bool = False,
        rewrite: bool = False,
    ) -> None:
        """Drains a batch; one that the lake can't hold goes segment by segment, and the segment
        that is at fault into quarantine."""
        try:
            self._drain(paths, state, report, bound=bound, rewrite=bound or rewrite)
        except BadInput as error:
            if len(paths) == 1:
                self.quarantine.put_segment(paths[0], str(error))
                report.quarantined.append(f"{paths[0].name}: {error}")
                counts = _all_quarantined(paths[0])
                state.bind(state.next_position(), [paths[0].name], counts)
                report.add(counts)
                self._let_go(paths, state)
                return
            for path in paths:
                self._drain_or_part([path], state, report, rewrite=True)

    def _drain(
        self,
        paths: list[Path],
        state: DrainState,
        report: DrainReport,
        *,
        bound: bool,
        rewrite: bool,
    ) -> None:
        """``bound``: the paths are bound to the position already. ``rewrite``: what follows from
        events that are stored may be missing, so it is written again."""
        position = state.position if bound else state.next_position()
        batch = self._read(paths, position, report)
        by_session = batch.by_session()
        circles = self._told.circles_of(batch.events.values())
        relatives = set().union(*circles.values())
        committed = False
        try:
            named = by_session.keys() - {""} | batch.reassembled
            self._sessions.load(named | relatives, self.lake)
            new = self._store_events(batch, by_session, paths, position, state)
            counted = state.counts or IntakeCounts()
            changed = by_session.keys() if rewrite else {event.session_id for event in new}
            changed |= batch.reassembled
            for name in batch.reassembled:
                self._sessions[name].in_step = False
            self._write_turns(
                [
                    name
                    for name in changed - relatives - {""}
                    if name in batch.reassembled
                    or any(makes_turns(event) for event in by_session[name])
                ],
                state.position,
                report,
            )
            self._write_related_turns(circles, changed, state.position, report)
            decisions = [
                decision_of(event)
                for event in (batch.events.values() if rewrite else new)
                if event.kind == "decision"
            ]
            if decisions:
                self.lake.write_decisions(decisions, journal=JOURNAL_NAME, position=state.position)
            committed = True
        finally:
            if not committed:
                self._sessions.clear()  # what they hold may not be in the lake
        report.segments += len(paths)
        report.decisions += len(decisions)
        report.without_session += batch.without_session
        report.add(counted)
        for path in paths:
            self.quarantine.clear_replayed(path, batch.failed)
        self._let_go(paths, state)
        self._sessions.trim()
        self._commits += 1
        if self._commits % self.limits.commits_per_compaction == 0:
            self.lake.compact(WRITTEN_TABLES)

    def _store_events(
        self,
        batch: _Batch,
        by_session: dict[str, list[Event]],
        paths: list[Path],
        position: int,
        state: DrainState,
    ) -> list[Event]:
        """Stores what the lake does not have yet, and returns it; binds the paths before."""
        named = (name for name in by_session if name)
        new = [event for name in named for event in self._sessions.take_new(name, by_session[name])]
        if nameless := by_session.get(""):
            # There may be any number of these over time: they are looked up, never kept.
            stored = self.lake.stored_event_ids("", nameless)
            new += [event for event in nameless if event.event_id not in stored]
        if position != state.position or state.counts is None:
            state.bind(position, [path.name for path in paths], _with_outcomes(batch, new))
        if new:
            self.lake.write_events(new, journal=JOURNAL_NAME, position=state.position)
        return new

    def _read(self, paths: list[Path], position: int, report: DrainReport) -> _Batch:
        batch = _Batch()
        for path in paths:
            content = read_segment(path)
            if content.damage:
                self.quarantine.put_segment(path, content.damage)
                batch.failed.add(entry_name(path))
                report.quarantined.append(f"{path.name}: {content.damage}")
                source = source_of_segment(path)
                batch.counts.add(source, "bodies", count=content.lost)
                batch.counts.add(source, "bodies_quarantined", DAMAGED, content.lost)
            for index, record in enumerate(content.records):
                name = record_entry_name(path, index)
                # What was ahead of the clock need not be any more: a replay is judged by its own
                # time, which the position tells, so that it is judged alike after a crash.
                judged_at_us = position if is_replay(path) else record.received_at_us
                try:
                    self._read_record(record, name, judged_at_us, batch, report)
                except BadInput as error:
                    self.quarantine.put_record(name, record, str(error))
                    batch.failed.add(name)
                    batch.counts.add(source_of(record), "bodies_quarantined", UNDECODABLE)
                    report.quarantined.append(f"{path.name} record {index}: {error}")
        return batch

    def _read_record(
        self, record: Record, name: str, judged_at_us: int, batch: _Batch, report: DrainReport
    ) -> None:
        if record.kind == "refusals":
            batch.counts.add_refusals(record)
            return
        if record.kind == "reassembly":
            batch.reassembled.update(decode_session_ids(record))
            return
        source = source_of(record)
        batch.counts.add(source, "bodies")
        decoded = decode(record, judged_at_us)
        if decoded.rejected:
            reason = describe_rejections(decoded.rejected)
            self.quarantine.put_record(name, record, reason)
            batch.failed.add(name)
            for why, count in decoded.rejected.items():
                batch.counts.add(source, "rejected", why, count)
            report.quarantined.append(f"{name}: {reason}")
        received = len(decoded.events) + sum(decoded.rejected.values())
        batch.counts.add(source, "received", count=received)
        batch.without_session += decoded.without_session
        for event in decoded.events:
            if batch.events.setdefault(event.event_id, event) is event:
                batch.sources[event.event_id] = source
            else:
                batch.counts.add(source, "duplicate")

    def _write_turns(self, session_ids: Iterable[str], revision: int, report: DrainReport) -> None:
        """Writes what changed of the sessions that can be assembled part by part, and the others
        whole."""
        whole: list[tuple[str, Iterable[Event]]] = []
        writing = _Writing()
        taken: list[RecentSession] = []
        names = list(session_ids)
        charges: dict[str, Charges] = {name: {} for name in names}
        for (session_id, turn_id), charged in self.lake.charged_of(names).items():
            charges[session_id][session_id, turn_id] = charged
        for session_id in names:
            session = self._sessions[session_id]
            if session.parts.whole or not self._take_changes(
                session_id, session, charges[session_id], writing
            ):
                whole.append((session_id, session.events.values()))
            else:
                taken.append(session)
        self._assemble_whole(whole, charges, writing, report)
        self._write(writing, revision, report)
        report.sessions += len(taken)
        for session in taken:
            session.in_step = True

    def _take_changes(
        self,
        session_id: str,
        session: RecentSession,
        charged: Charges,
        writing: _Writing,
    ) -> bool:
        """Adds a session's changes; false for one that must be assembled whole."""
        try:
            changes = session.parts.take_changes()
            self.quarantine.clear_session(session_id)
            turns, contents = changes.turns, changes.contents
            if not session.in_step:
                # What the lake has of it may come from another time or program: all is compared.
                everything = session.parts.everything()
                turns, contents = list(everything.turns), list(everything.contents)
            priced = self.pricing.price(turns, charged)
            check_storable([*priced, *contents])
        except _ASSEMBLY_ERRORS:
            session.parts.become_whole()
            return False
        if session.in_step:
            writing.listed[session_id] = changes.listed
        writing.add(session_id, priced, contents)
        return True

    def _write_related_turns(
        self,
        circles: Mapping[str, set[str]],
        changed: Collection[str],
        revision: int,
        report: DrainReport,
    ) -> None:
        """Sessions that share requests or a trace are assembled together: a change of one may move
        a request from or to another."""
        for circle in {frozenset(circles[name]) for name in circles if name in changed}:
            events = {name: self._sessions.events_of(name) for name in sorted(circle)}
            # A request may move between them, and its charge with it.
            charges = dict.fromkeys(circle, self.lake.charged_of(circle))
            writing = _Writing()
            self._assemble_whole(
                without_copies(settle_traces(events)).items(), charges, writing, report
            )
            self._write(writing, revision, report)

    def _assemble_whole(
        self,
        sessions: Iterable[tuple[str, Iterable[Event]]],
        charges: Mapping[str, Charges],
        writing: _Writing,
        report: DrainReport,
    ) -> None:
        for session_id, events in sessions:
            try:
                session = assemble_session(events, self._sessions.attribution)
                priced = self.pricing.price(session.turns, charges[session_id])
                check_storable([*priced, *session.contents])
            except _ASSEMBLY_ERRORS as error:
                self.quarantine.put_session(session_id, repr(error))
                report.quarantined.append(f"session {session_id}: {error!r}")
                continue
            self.quarantine.clear_session(session_id)
            report.sessions += 1
            writing.add(session_id, priced, session.contents)

    def _write(self, writing: _Writing, revision: int, report: DrainReport) -> None:
        if writing.turns or writing.contents or writing.emptied or writing.listed:
            self.lake.write_turns(
                writing.turns,
                writing.contents,
                revision=revision,
                emptied=writing.emptied,
                listed=writing.listed,
            )
        report.turns += len(writing.turns)
        report.unpriced_turns += sum(turn.cost_microusd is None for turn in writing.turns)

    def _let_go(self, paths: list[Path], state: DrainState) -> None:
        archive = self.limits.archive_directory
        for path in paths:
            if archive is None:
                path.unlink(missing_ok=True)
            elif path.exists():
                archive.mkdir(parents=True, exist_ok=True)
                path.rename(archive / path.name)
        state.let_go()

    def _tell(self, state: DrainState) -> None:
        try:
            state.tell(self.intake, JOURNAL_NAME)
        except Unavailable as error:
            logger.warning("counts of what was received wait for the control store: %s", error)


def _with_outcomes(batch: _Batch, new: list[Event]) -> IntakeCounts:
    """The batch's counts with what became of each event that was not rejected."""
    counts = IntakeCounts(batch.counts.rows())
    for event in new:
        outcome: Outcome = "conflict" if event.conflict else "stored"
        counts.add(batch.sources[event.event_id], outcome)
    for event_id in batch.events.keys() - {event.event_id for event in new}:
        counts.add(batch.sources[event_id], "duplicate")
    return counts


def _all_quarantined(path: Path) -> IntakeCounts:
    counts = IntakeCounts()
    for record in read_segment(path).records:
        counts.add(source_of(record), "bodies")
        counts.add(source_of(record), "bodies_quarantined", UNSTORABLE)
    return counts


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
