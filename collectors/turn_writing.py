"""Turns of the sessions that changed: assembled, priced and written.

Of a session that can be assembled part by part only what changed is written, the others whole; one
that can't be assembled goes into quarantine, and the others are written all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from collectors.conventions.trace_sessions import settle_traces
from collectors.copied_requests import without_copies
from collectors.drain_report import DrainReport
from collectors.quarantine import Quarantine
from collectors.recent_sessions import RecentSession, RecentSessions
from collectors.session_assembly import assemble_session
from collectors.session_parts import SessionChanges
from collectors.storable_numbers import check_storable
from loop.domain.turns import Charged, Content, Event, Turn
from loop.ledger.pricing import PricesNow, Pricing

if TYPE_CHECKING:
    from loop.lake import Lake

# What odd data could make pure code raise; anything else is a fault that must stop the cycle.
_ASSEMBLY_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
Charges = dict[tuple[str, str], Charged]  # by session id and turn id


@dataclass(slots=True)
class _Writing:
    """Turns and texts on their way to the lake: of whole sessions, and of those in ``listed`` what
    belongs to the turn ids there."""

    prices: PricesNow
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


class TurnWriting:
    """Writes the turns of recent sessions."""

    def __init__(
        self, lake: Lake, pricing: Pricing, recent: RecentSessions, quarantine: Quarantine
    ) -> None:
        self._lake = lake
        self._pricing = pricing
        self._recent = recent
        self._quarantine = quarantine

    def write(
        self,
        session_ids: Iterable[str],
        revision: int,
        report: DrainReport,
        ready: Callable[[], object] = lambda: None,
    ) -> None:
        """Writes what changed of the sessions that can be assembled part by part, and the others
        whole; nothing before ``ready`` returns, which may take as long as assembling does."""
        names = list(session_ids)
        changes: dict[str, SessionChanges] = {}
        for session_id in names:
            found = self._take_changes(session_id, self._recent[session_id])
            if found is not None:
                changes[session_id] = found
        charges: dict[str, Charges] = {name: {} for name in names}
        listed = {
            name: found.listed for name, found in changes.items() if self._recent[name].in_step
        }
        for (session_id, turn_id), charged in self._lake.charged_of(names, listed).items():
            charges[session_id][session_id, turn_id] = charged
        writing = _Writing(self._pricing.now())
        taken = [
            session_id
            for session_id, found in changes.items()
            if self._add_changes(session_id, found, charges[session_id], writing)
        ]
        written = set(taken)
        whole = [
            (name, self._recent[name].events.values()) for name in names if name not in written
        ]
        for name in listed.keys() - written:  # all of its turns are priced, not the listed ones
            charges[name] = self._lake.charged_of([name])
        self._assemble_whole(whole, charges, writing, report)
        ready()
        self._store(writing, revision, report)
        report.sessions += len(taken)
        for session_id in taken:
            self._recent[session_id].in_step = True

    def _take_changes(self, session_id: str, session: RecentSession) -> SessionChanges | None:
        """A session's changes; ``None`` for one that must be assembled whole."""
        if session.parts.whole:
            return None
        try:
            changes = session.parts.take_changes()
        except _ASSEMBLY_ERRORS:
            session.parts.become_whole()
            return None
        if not session.in_step:
            # What the lake has of it may come from another time or program: all is compared.
            everything = session.parts.everything()
            changes.turns, changes.contents = list(everything.turns), list(everything.contents)
        self._quarantine.clear_session(session_id)
        return changes

    def _add_changes(
        self, session_id: str, changes: SessionChanges, charged: Charges, writing: _Writing
    ) -> bool:
        """Adds a session's changes, priced; false for one that must be assembled whole."""
        session = self._recent[session_id]
        try:
            priced = writing.prices.price(changes.turns, charged)
            check_storable([*priced, *changes.contents])
        except _ASSEMBLY_ERRORS:
            session.parts.become_whole()
            return False
        if session.in_step:
            writing.listed[session_id] = changes.listed
        writing.add(session_id, priced, changes.contents)
        return True

    def write_related(
        self,
        circles: Mapping[str, set[str]],
        changed: Collection[str],
        revision: int,
        report: DrainReport,
    ) -> None:
        """Sessions that share requests or a trace are assembled together: a change of one may move
        a request from or to another."""
        for circle in {frozenset(circles[name]) for name in circles if name in changed}:
            events = {name: self._recent.events_of(name) for name in sorted(circle)}
            # A request may move between them, and its charge with it.
            charges = dict.fromkeys(circle, self._lake.charged_of(circle))
            writing = _Writing(self._pricing.now())
            self._assemble_whole(
                without_copies(settle_traces(events)).items(), charges, writing, report
            )
            self._store(writing, revision, report)

    def _assemble_whole(
        self,
        sessions: Iterable[tuple[str, Iterable[Event]]],
        charges: Mapping[str, Charges],
        writing: _Writing,
        report: DrainReport,
    ) -> None:
        for session_id, events in sessions:
            try:
                session = assemble_session(events, self._recent.attribution)
                priced = writing.prices.price(session.turns, charges[session_id])
                check_storable([*priced, *session.contents])
            except _ASSEMBLY_ERRORS as error:
                self._quarantine.put_session(session_id, repr(error))
                report.quarantined.append(f"session {session_id}: {error!r}")
                continue
            self._quarantine.clear_session(session_id)
            report.sessions += 1
            writing.add(session_id, priced, session.contents)

    def _store(self, writing: _Writing, revision: int, report: DrainReport) -> None:
        if writing.turns or writing.contents or writing.emptied or writing.listed:
            self._lake.write_turns(
                writing.turns,
                writing.contents,
                revision=revision,
                emptied=writing.emptied,
                listed=writing.listed,
            )
        report.turns += len(writing.turns)
        report.unpriced_turns += sum(turn.cost_microusd is None for turn in writing.turns)
