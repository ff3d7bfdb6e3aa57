"""The events of the sessions that were touched last, so that they need not be read back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from collectors.attribution import Attribution
from collectors.event_identity import conflict_id_of, identity_hash
from collectors.session_parts import SessionParts
from loop.domain.turns import Event

if TYPE_CHECKING:
    from loop.lake import Lake

_EVENT_BYTES = 1_500  # of an event beside what it says: the object, its dict, its place


class RecentSession:
    """One session. ``in_step`` says that the lake holds what ``parts`` has been asked for so far,
    so that only what changes need be written."""

    def __init__(self, attribution: Attribution) -> None:
        self.events: dict[str, Event] = {}
        self.parts = SessionParts(attribution)
        self.in_step = False
        self.size_bytes = 0
        self._identities: set[int] = set()  # hashes, for they are many

    def add(self, event: Event) -> None:
        self._add(event, identity_hash(event), _bytes_of_texts(event))

    def take(self, event: Event, written: bytes | None = None) -> Event | None:
        """Adds an event unless it is held; returns it, marked where it disagrees with another
        record of its identity. ``written`` is its attributes as JSON, where that is known."""
        if event.event_id in self.events:
            return None
        identity = identity_hash(event)
        if identity in self._identities:
            event = replace(event, conflict=conflict_id_of(event))
        self._add(event, identity, len(written) if written else _bytes_of_texts(event))
        return event

    def _add(self, event: Event, identity: int, size_bytes: int) -> None:
        self.events[event.event_id] = event
        self.parts.add(event, identity, is_distinct=identity not in self._identities)
        self._identities.add(identity)
        self.size_bytes += _EVENT_BYTES + size_bytes


def _bytes_of_texts(event: Event) -> int:
    return sum([len(value) for value in event.attributes.values() if type(value) is str])


class RecentSessions:
    """Whole sessions leave, the oldest first, while more than ``max_bytes`` are held."""

    def __init__(self, max_bytes: int, attribution: Attribution) -> None:
        self._max_bytes = max_bytes
        self.attribution = attribution
        self._sessions: OrderedDict[str, RecentSession] = OrderedDict()

    def attribute_by(self, attribution: Attribution) -> None:
        """Lets go of every session when another attribution is in force: what was assembled by
        the one before can't be compared with what is assembled now."""
        if attribution != self.attribution:
            self.attribution = attribution
            self.clear()

    def load(self, session_ids: Iterable[str], lake: Lake) -> None:
        missing = [name for name in session_ids if name not in self._sessions]
        if missing:
            stored = lake.events_of(missing)
            for name in missing:
                session = self._sessions[name] = RecentSession(self.attribution)
                for event in stored.get(name, []):
                    session.add(event)
        for name in session_ids:
            self._sessions.move_to_end(name)

    def __getitem__(self, session_id: str) -> RecentSession:
        return self._sessions[session_id]

    def take_new(
        self, session_id: str, events: Iterable[Event], written: Mapping[str, bytes]
    ) -> list[Event]:
        """Adds the events that are not held yet; returns them, those in conflict marked.
        ``written`` is their attributes as JSON, by event id, as far as that is known."""
        session = self._sessions[session_id]
        return [
            new
            for event in events
            if (new := session.take(event, written.get(event.event_id))) is not None
        ]

    def events_of(self, session_id: str) -> list[Event]:
        return list(self._sessions[session_id].events.values())

    def trim(self) -> None:
        held = sum(session.size_bytes for session in self._sessions.values())
        while held > self._max_bytes and self._sessions:
            _, session = self._sessions.popitem(last=False)
            held -= session.size_bytes

    def clear(self) -> None:
        self._sessions.clear()
