"""The events of the sessions that were touched last, so that they need not be read back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from collectors.event_identity import conflict_id_of, identity_of
from loop.domain.turns import Event

if TYPE_CHECKING:
    from loop.lake import Lake


@dataclass(slots=True)
class _Session:
    events: dict[str, Event] = field(default_factory=dict)
    identities: set[int] = field(default_factory=set)  # hashes, for they are many

    def add(self, event: Event) -> None:
        self.events[event.event_id] = event
        self.identities.add(hash(identity_of(event)))

    def disagrees(self, event: Event) -> bool:
        """Whether a record of the event's identity is here (one that says something else, for the
        event itself is not)."""
        return hash(identity_of(event)) in self.identities


class RecentSessions:
    """Whole sessions leave, the oldest first, while more than ``max_events`` are held."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def load(self, session_ids: Iterable[str], lake: Lake) -> None:
        missing = [name for name in session_ids if name not in self._sessions]
        if missing:
            stored = lake.events_of(missing)
            for name in missing:
                session = self._sessions[name] = _Session()
                for event in stored.get(name, []):
                    session.add(event)
        for name in session_ids:
            self._sessions.move_to_end(name)

    def take_new(self, session_id: str, events: Iterable[Event]) -> list[Event]:
        """Adds the events that are not held yet; returns them, those in conflict marked."""
        session = self._sessions[session_id]
        new: list[Event] = []
        for event in events:
            if event.event_id in session.events:
                continue
            if session.disagrees(event):
                event = replace(event, conflict=conflict_id_of(event))
            session.add(event)
            new.append(event)
        return new

    def events_of(self, session_id: str) -> list[Event]:
        return list(self._sessions[session_id].events.values())

    def trim(self) -> None:
        held = sum(len(session.events) for session in self._sessions.values())
        while held > self._max_events and self._sessions:
            _, session = self._sessions.popitem(last=False)
            held -= len(session.events)

    def clear(self) -> None:
        self._sessions.clear()
