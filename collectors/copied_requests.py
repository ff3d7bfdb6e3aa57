"""Requests that several sessions' transcripts tell of: a fork copies the lines of the session that
it branches from, and resumes of older clients did so too. Each request belongs to one session.

The session that a request belongs to is, of those that tell of it,

1. one whose client reported it live, by a log event or a span,
2. then one whose line is not marked as copied (``forkedFrom``, written by newer clients),
3. then the one whose transcript begins first,
4. then the one whose transcript ends first: as a rule the original rests while its fork goes on,
5. then the one with the lower id.

All of it follows from the set of the sessions' events, so neither the order of imports nor a
restart makes a difference. In the others the copied lines are left out: these sessions begin where
they were forked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from collectors.conventions.convention import SCOPE
from collectors.event_fields import text
from loop.domain.turns import Event

ASSISTANT_LINE = "transcript.assistant"
FORKED_FROM = "forkedFrom"
_OWN_PREFIX = "claude_code."


@dataclass(slots=True)
class _Telling:
    """What a session's events say of its requests."""

    session_id: str
    began_at_us: int = 2**63
    ended_at_us: int = -1
    live: set[str] = field(default_factory=set)
    told: dict[str, bool] = field(default_factory=dict)  # request key -> marked as a copy

    def rank(self, key: str) -> tuple[bool, bool, int, int, str]:
        marked = self.told.get(key, False)
        return key not in self.live, marked, self.began_at_us, self.ended_at_us, self.session_id


def request_keys(event: Event) -> list[str]:
    """The ids of the request that a transcript's line of an answer tells of; else none."""
    if event.name != ASSISTANT_LINE or event.kind != "transcript":
        return []
    message = event.attributes.get("message")
    message_id = text(message, "id") if isinstance(message, Mapping) else ""
    return [key for key in (text(event, "requestId"), message_id) if key]


def live_request(event: Event) -> str:
    """The request that a record of the client's own telemetry names; "" on other records."""
    if event.kind not in ("log", "span") or not event.name.startswith(_OWN_PREFIX):
        return ""
    return text(event, "request_id", "gen_ai.response.id")


def without_copies(by_session: Mapping[str, Iterable[Event]]) -> dict[str, list[Event]]:
    """The events of sessions that share requests, each request left in one of them."""
    events = {session_id: list(found) for session_id, found in by_session.items()}
    tellings = [_read(session_id, found) for session_id, found in events.items()]
    owner: dict[str, _Telling] = {}
    for telling in tellings:
        for key in telling.told:
            known = owner.get(key)
            if known is None or telling.rank(key) < known.rank(key):
                owner[key] = telling
    # A session that reported a request live and has no transcript owns it too.
    for telling in tellings:
        for key in telling.live & owner.keys():
            if telling.rank(key) < owner[key].rank(key):
                owner[key] = telling
    uuids = {
        session_id: {text(event, "uuid") for event in found if event.kind == "transcript"} - {""}
        for session_id, found in events.items()
    }
    cleaned = {}
    for telling in tellings:
        foreign = {key: owner[key] for key in telling.told if owner[key] is not telling}
        owners = {other.session_id for other in foreign.values()}
        elsewhere = set().union(*(uuids[session_id] for session_id in owners))
        found = events[telling.session_id]
        cleaned[telling.session_id] = _own(found, foreign.keys(), elsewhere) if foreign else found
    return cleaned


def _read(session_id: str, events: Iterable[Event]) -> _Telling:
    telling = _Telling(session_id)
    for event in events:
        if SCOPE in event.attributes:
            continue  # another tool's record of a request does not make a session its owner
        if request_id := live_request(event):
            telling.live.add(request_id)
        elif event.kind == "transcript":
            telling.began_at_us = min(telling.began_at_us, event.at_us)
            telling.ended_at_us = max(telling.ended_at_us, event.at_us)
            keys = request_keys(event)
            is_marked = isinstance(event.attributes.get(FORKED_FROM), Mapping)
            for key in keys:
                telling.told[key] = telling.told.get(key, True) and is_marked
    for event in events:
        # A message is live where its request is.
        keys = request_keys(event)
        if telling.live.intersection(keys):
            telling.live.update(keys)
    return telling


def _own(events: list[Event], foreign: Iterable[str], elsewhere: set[str]) -> list[Event]:
    """The events without the lines that were copied: the answers of foreign requests, all other
    lines up to the last of them, those that another session has too, and the results of tools that
    foreign requests called."""
    foreign = set(foreign)
    copied_at_us, calls = -1, set()
    for event in events:
        keys = request_keys(event)
        if keys and foreign.intersection(keys):
            copied_at_us = max(copied_at_us, event.at_us)
            calls |= {text(block, "id") for block in _blocks(event)} - {""}

    def is_own(event: Event) -> bool:
        if event.kind != "transcript":
            return True
        keys = request_keys(event)
        if keys:
            return not foreign.intersection(keys)
        if event.at_us <= copied_at_us or text(event, "uuid") in elsewhere:
            return False
        results = {text(block, "tool_use_id") for block in _blocks(event)} - {""}
        return not results or not results <= calls

    return [event for event in events if is_own(event)]


def _blocks(event: Event) -> list[Mapping[str, Any]]:
    message = event.attributes.get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    return [b for b in content if isinstance(b, Mapping)] if isinstance(content, list) else []
