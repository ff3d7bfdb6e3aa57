"""From the journal to the lake: decode, store, assemble, price, and only then let go.

Each cycle binds a set of segments to a position and writes that down (``drain.json``), with what
was counted in them, before the lake is touched. After a crash anywhere in between, the next cycle
takes the same segments under the same position: the lake ignores the position that it has already,
the turns are written once more with the same content, the counts are those written down, and the
segments are deleted. So what was acknowledged is stored once and counted once.

One process drains: the lock is held until :meth:`Drainer.close`, which also lets the recent
sessions' events be kept in memory instead of being read back from the lake. Under load a child of
it decodes what is next (``docs/decisions/0018``).
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from collectors.attribution import Attribution, client_labels
from collectors.claude_code_turns import makes_turns
from collectors.decision_intake import decision_of
from collectors.drain_batch import (
    DrainBatch,
    all_quarantined,
    first_batch,
    read_batch,
    with_outcomes,
)
from collectors.drain_report import DrainReport
from collectors.drain_state import DrainState
from collectors.intake_counts import IntakeCounts, IntakeSink
from collectors.journal import Journal, has_records, recover, sealed_segments
from collectors.reading_ahead import ReadingAhead
from collectors.recent_sessions import RecentSessions
from collectors.told_requests import ToldRequests
from collectors.turn_writing import TurnWriting
from loop.domain.errors import BadInput, Conflict, Unavailable
from loop.domain.money import PriceBook
from loop.domain.turns import Event
from loop.ledger.pricing import Pricing

if TYPE_CHECKING:
    from loop.lake import Lake

logger = logging.getLogger("turnwise")
JOURNAL_NAME = "collectors"
WRITTEN_TABLES = ("events", "turns", "contents", "decisions")
"""The tables that the drainer writes, and so compacts."""
LONGEST_PASS_SECONDS = 5.0
"""After this a pass takes no more segments than it has begun with, so that it comes to its end."""


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """``batch_bytes`` of segments per commit, bytes of recent sessions kept in memory, commits
    between compactions, and where drained segments go (``None``: they are deleted)."""

    batch_bytes: int = 16 * 1024 * 1024
    cached_bytes: int = 384 * 1024 * 1024
    commits_per_compaction: int = 100
    archive_directory: Path | None = None


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
        self._turns = TurnWriting(lake, self.pricing, self._sessions, self.quarantine)
        self._ahead = ReadingAhead()
        self._storing = ThreadPoolExecutor(1, "events")
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
            self._drain_sealed(state, report)
            self._tell(state)
            return report

    def _drain_sealed(self, state: DrainState, report: DrainReport) -> None:
        """Drains the segments that are sealed now; while batches are full also those that are
        sealed meanwhile, so that the next batch is decoded beside the one that is stored."""
        until = time.monotonic() + LONGEST_PASS_SECONDS
        waiting = sealed_segments(self.journal.directory)
        while waiting:
            paths, is_full = first_batch(waiting, self.limits.batch_bytes)
            if is_full and time.monotonic() < until:
                waiting = sealed_segments(self.journal.directory)
            waiting = [path for path in waiting if path not in paths]
            following, _ = first_batch(waiting, self.limits.batch_bytes)
            self._ahead.ask([*paths[1:], *following])
            self._drain_or_part(paths, state, report)

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
        self._ahead.close()

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
                counts = all_quarantined(paths[0])
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
        batch = read_batch(paths, position, self.quarantine, self._ahead.take)
        report.quarantined += batch.quarantined
        by_session = batch.by_session()
        circles = self._told.circles_of(batch.events.values())
        relatives = set().union(*circles.values())
        committed = False
        stored: Future[None] | None = None
        try:
            named = by_session.keys() - {""} | batch.reassembled
            self._sessions.load(named | relatives, self.lake)
            new = self._take_new(batch, by_session)
            self._bind(batch, new, paths, position, state)
            # The store is written to while turns are assembled; they follow their events.
            stored = self._storing.submit(self._store_events, new, batch, state.position)
            counted = state.counts or IntakeCounts()
            changed = by_session.keys() if rewrite else {event.session_id for event in new}
            changed |= batch.reassembled
            for name in batch.reassembled:
                self._sessions[name].in_step = False
            self._turns.write(
                [
                    name
                    for name in changed - relatives - {""}
                    if name in batch.reassembled
                    or any(makes_turns(event) for event in by_session[name])
                ],
                state.position,
                report,
                ready=stored.result,
            )
            self._turns.write_related(circles, changed, state.position, report)
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
                if stored is not None:
                    wait([stored])
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

    def _take_new(self, batch: DrainBatch, by_session: dict[str, list[Event]]) -> list[Event]:
        """The events that the lake does not have yet."""
        new = [
            event
            for name in by_session
            if name
            for event in self._sessions.take_new(name, by_session[name], batch.written)
        ]
        if nameless := by_session.get(""):
            # There may be any number of these over time: they are looked up, never kept.
            stored = self.lake.stored_event_ids("", nameless)
            new += [event for event in nameless if event.event_id not in stored]
        return new

    @staticmethod
    def _bind(
        batch: DrainBatch,
        new: list[Event],
        paths: list[Path],
        position: int,
        state: DrainState,
    ) -> None:
        if position != state.position or state.counts is None:
            state.bind(position, [path.name for path in paths], with_outcomes(batch, new))

    def _store_events(self, new: list[Event], batch: DrainBatch, position: int) -> None:
        if new:
            self.lake.write_events(
                new, journal=JOURNAL_NAME, position=position, written=batch.written
            )

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
