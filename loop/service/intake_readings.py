"""What came in, what disagrees and what was set aside: read, and handed back to the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from collectors.event_identity import EventConflict, conflicts_among, tokens_of
from collectors.intake_counts import HOUR_US
from collectors.quarantine import QuarantineEntry, not_quarantined
from loop.access.view import ALL_SENDERS, SenderView
from loop.domain.errors import BadInput, NotFound
from loop.domain.turns import Event
from loop.lake.rows import day_of, day_start_us
from loop.service.assemble import Parts

RECENT_DAYS = 30
DAY_US = 86_400_000_000
REPLAY_SECONDS = 20.0
MAX_ROWS = 500
_LONGEST_VALUE = 200
_BY: Mapping[str, Callable[[Mapping[str, Any]], tuple[Any, ...]]] = {
    "hour": lambda row: (row["hour_us"],),
    "day": lambda row: (day_of(row["hour_us"]),),
    "source": lambda row: (row["kind"], row["content_type"], row["credential"]),
    "hour,source": lambda row: (
        row["hour_us"],
        row["kind"],
        row["content_type"],
        row["credential"],
    ),
}
_COLUMNS = {
    "hour": ("hour_us",),
    "day": ("day",),
    "source": ("kind", "content_type", "credential"),
    "hour,source": ("hour_us", "kind", "content_type", "credential"),
}
_PLAIN = {
    "received": "received",
    "stored": "stored",
    "duplicate": "duplicates",
    "conflict": "conflicts",
    "bodies": "bodies",
}
_BY_REASON = ("rejected", "bodies_quarantined", "bodies_refused")


class IntakeReadings:
    """Reads of the assembled parts; :meth:`replay` and :meth:`drop` are what changes something.

    ``sees`` says whose records the caller of the moment may know of: what others sent is neither
    shown, counted, handed back nor dropped.
    """

    def __init__(self, parts: Parts, sees: Callable[[], SenderView] = lambda: ALL_SENDERS) -> None:
        self._parts = parts
        self._sees = sees

    # -- counts --------------------------------------------------------------------------------

    def intake(
        self, *, by: str = "source", since: str | None = None, until: str | None = None
    ) -> dict[str, Any]:
        """Counts of records and bodies with their sum; ``since`` and ``until`` are days, the
        latter exclusive."""
        if by not in _BY:
            raise BadInput(f"by={by!r} is no grouping.", fix=f"One of {'; '.join(_BY)}.")
        seen = self._sees()
        counts = [
            row
            for row in self._parts.intake_log.rows(
                since_us=day_start_us(since) if since else None,
                until_us=day_start_us(until) if until else None,
            )
            if seen.admits(row["credential"], row["hour_us"])
        ]
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in counts:
            groups.setdefault(_BY[by](row), []).append(row)
        rows = [
            dict(zip(_COLUMNS[by], key, strict=True)) | sums_of(group)
            for key, group in sorted(groups.items())
        ]
        return {"rows": rows, "next": None, "total": sums_of(counts)}

    # -- conflicts -----------------------------------------------------------------------------

    def list_conflicts(self, *, since: str | None = None) -> dict[str, Any]:
        """Conflicts noticed since a day (the last 30 days by default), the latest first."""
        since_us = day_start_us(since) if since else recent_us()
        found = self._parts.lake.query(
            """SELECT session_id, conflict AS conflict_id, max(received_at_us) AS noticed_at_us
            FROM events_rows WHERE conflict IS NOT NULL AND received_at_us >= ?
            GROUP BY ALL ORDER BY noticed_at_us DESC, conflict_id LIMIT ?""",
            [since_us, MAX_ROWS],
        )
        known = self._conflicts_of([row["session_id"] for row in found])
        rows = []
        for row in found:
            conflict = known.get((row["session_id"], row["conflict_id"]))
            if conflict is not None:
                rows.append(_summary(conflict) | {"noticed_at_us": row["noticed_at_us"]})
        return {"rows": rows, "next": None}

    def show_conflict(self, conflict_id: str) -> dict[str, Any]:
        """One conflict: what its records say differently, the one that rules first.

        Raises:
            NotFound: no conflict has that id.
        """
        sessions = self._parts.lake.query(
            "SELECT DISTINCT session_id FROM events_rows WHERE conflict = ?", [conflict_id]
        )
        known = self._conflicts_of([row["session_id"] for row in sessions])
        for (_, found), conflict in known.items():
            if found == conflict_id:
                return _summary(conflict) | {"records": _records(conflict)}
        raise NotFound(f"No conflict {conflict_id!r}.", fix="`turnwise conflict list` names them.")

    def _conflicts_of(self, session_ids: Sequence[str]) -> dict[tuple[str, str], EventConflict]:
        """Those of which the caller may know every record."""
        seen = self._sees()
        return {
            (session_id, conflict.conflict_id): conflict
            for session_id, events in self._parts.lake.events_of(session_ids).items()
            for conflict in conflicts_among(events)
            if all(seen.admits(event.credential, event.received_at_us) for event in conflict.events)
        }

    # -- quarantine ----------------------------------------------------------------------------

    def list_quarantine(self) -> dict[str, Any]:
        """What is set aside, the oldest first. ``max_bytes`` is a limit of all together: a part of
        the organization is not told it."""
        entries = [entry.as_dict() for entry in self._entries()]
        return {
            "rows": entries,
            "next": None,
            "bytes": sum(entry["bytes"] for entry in entries),
            "max_bytes": self._parts.quarantine.max_bytes if self._sees().sees_all else None,
        }

    def show_quarantined(self, name: str) -> dict[str, Any]:
        """One entry and what its records are; never their bodies, which may hold secrets."""
        quarantine, entry = self._parts.quarantine, self._entry(name)
        content = quarantine.content(name)
        return entry.as_dict() | {
            "damage": content.damage,
            "path": str(quarantine.directory / f"{name}.sealed")
            if entry.bytes and self._sees().sees_all
            else "",
            "records": [
                {
                    "kind": record.kind,
                    "content_type": record.content_type,
                    "credential": record.credential,
                    "received_at_us": record.received_at_us,
                    "bytes": len(record.body),
                }
                for record in content.records
            ],
        }

    def replay(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Hands entries back to the journal and waits until they were drained once more."""
        quarantine = self._parts.quarantine
        names = self._names(document)
        quarantine.replay(names, self._parts.journal_dir)
        is_drained = self._parts.catch_up(REPLAY_SECONDS)
        left = {entry.name: entry for entry in quarantine.entries()}
        rows = [
            {
                "name": name,
                "outcome": ("quarantined" if name in left else "stored")
                if is_drained
                else "waiting",
                "reason": left[name].reason if name in left and is_drained else "",
            }
            for name in names
        ]
        return {"rows": rows, "next": None}

    def drop(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Deletes entries for good."""
        quarantine = self._parts.quarantine
        names = self._names(document)
        for name in names:
            quarantine.drop(name)
        return {"rows": [{"name": name} for name in names], "next": None}

    def _names(self, document: Mapping[str, Any]) -> list[str]:
        names, everything = document.get("names"), document.get("all")
        if everything is True and names is None:
            return [entry.name for entry in self._entries()]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadInput("Say which entries.", fix='Send "names": [...] or "all": true.')
        return [self._entry(name).name for name in dict.fromkeys(names)]

    def _entry(self, name: str) -> QuarantineEntry:
        """Raises :class:`NotFound`, also for one that is no concern of the caller's."""
        entry = self._parts.quarantine.entry(name)
        if not self._seen_of([entry]):
            raise not_quarantined(name)
        return entry

    def _entries(self) -> list[QuarantineEntry]:
        return self._seen_of(self._parts.quarantine.entries())

    def _seen_of(self, entries: list[QuarantineEntry]) -> list[QuarantineEntry]:
        """The entries of records, and of sessions all of whose records, the caller may know."""
        seen = self._sees()
        if seen.sees_all:
            return entries
        senders = self._senders_of([entry.session_id for entry in entries if entry.session_id])
        admitted = []
        for entry in entries:
            sent_by = senders.get(entry.session_id, [])
            if entry.received_at_us is not None:
                sent_by = [(entry.credential or "", entry.received_at_us)]
            if sent_by and all(seen.admits(*sent) for sent in sent_by):
                admitted.append(entry)
        return admitted

    def _senders_of(self, session_ids: list[str]) -> dict[str, list[tuple[str, int]]]:
        """Of each session the credentials of its events, and when they came."""
        senders: dict[str, list[tuple[str, int]]] = {}
        rows = self._parts.lake.query(
            """SELECT DISTINCT session_id, credential, received_at_us FROM events_rows
            WHERE session_id IN (SELECT unnest(?::VARCHAR[]))""",
            [session_ids],
        )
        for row in rows:
            sent = row["credential"], row["received_at_us"]
            senders.setdefault(row["session_id"], []).append(sent)
        return senders


def sums_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums of count rows, and whether what was received equals what became of it."""
    sums: dict[str, Any] = dict.fromkeys(_PLAIN.values(), 0)
    sums |= {name: {} for name in _BY_REASON}
    for row in rows:
        outcome, reason, count = row["outcome"], row["reason"], int(row["count"])
        if outcome in _PLAIN:
            sums[_PLAIN[outcome]] += count
        elif outcome in _BY_REASON:
            sums[outcome][reason] = sums[outcome].get(reason, 0) + count
    accounted = sums["stored"] + sums["duplicates"] + sums["conflicts"]
    sums["balanced"] = sums["received"] == accounted + sum(sums["rejected"].values())
    return sums


def recent_us() -> int:
    """The time ``RECENT_DAYS`` ago."""
    return time.time_ns() // 1000 - RECENT_DAYS * DAY_US


def recent_hours_us() -> int:
    """The start of the hour a day ago."""
    now_us = time.time_ns() // 1000
    return now_us - DAY_US - now_us % HOUR_US


def _summary(conflict: EventConflict) -> dict[str, Any]:
    ruling = conflict.events[0]
    return {
        "conflict_id": conflict.conflict_id,
        "session_id": ruling.session_id,
        "kind": ruling.kind,
        "name": ruling.name,
        "at_us": ruling.at_us,
        "versions": len(conflict.events),
        "tokens": [tokens_of(event) for event in conflict.events],
        "differs_in": _differences(conflict.events),
    }


def _differences(events: Sequence[Event]) -> list[str]:
    names = {name for event in events for name in event.attributes}
    differing = [
        name
        for name in sorted(names)
        if any(event.attributes.get(name) != events[0].attributes.get(name) for event in events)
    ]
    if any(event.resource != events[0].resource for event in events):
        differing.append("(resource)")
    if len({event.at_us for event in events}) > 1:
        differing.append("(time)")
    return differing


def _records(conflict: EventConflict) -> list[dict[str, Any]]:
    names = [name for name in _differences(conflict.events) if not name.startswith("(")]
    return [
        {
            "event_id": event.event_id,
            "rules": position == 0,
            "at_us": event.at_us,
            "received_at_us": event.received_at_us,
            "credential": event.credential,
            "tokens": tokens_of(event),
            "attributes": {name: _shown(event.attributes.get(name)) for name in names},
        }
        for position, event in enumerate(conflict.events)
    ]


def _shown(value: object) -> object:
    """Numbers and names as they are; of anything longer only its length, for it may be a text of
    the conversation."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"({len(text)} characters)"
