"""Events: the raw truth, appended once per journal position and never changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from loop.domain.turns import Event
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_rows
from loop.lake.rows import columns_of, columns_to_arrow, day_of
from loop.lake.schemas import EVENTS
from loop.lake.session_files import SessionFiles

_FIELDS = (
    "event_id",
    "kind",
    "name",
    "session_id",
    "at_us",
    "sequence",
    "received_at_us",
    "credential",
    "conflict",
)


class EventTable:
    """The only writer of ``events``."""

    def __init__(self, log: DeltaLog, queries: LakeQueries) -> None:
        self._log = log
        self._queries = queries
        self._session_files = SessionFiles(log)

    def write(
        self,
        events: Sequence[Event],
        *,
        journal: str,
        position: int,
        written: Mapping[str, bytes],
    ) -> None:
        """Appends events, unless that position of the journal is already in."""
        with self._log.held():
            done = self._log.transaction_number(journal)
            if done is not None and done >= position:
                return
            # The events of one body share one resource: it is written out once.
            resources = {id(event.resource): event.resource for event in events}
            texts = {key: write_json(resource) for key, resource in resources.items()}
            columns = columns_of(events, _FIELDS)
            # Null where there is none, so that files without any are passed over.
            columns["conflict"] = [event.conflict or None for event in events]
            columns["attributes"] = [
                written.get(event.event_id) or write_json(event.attributes) for event in events
            ]
            columns["resource"] = [texts[id(event.resource)] for event in events]
            rows = columns_to_arrow(EVENTS, columns)
            self._log.append(rows, transaction=(journal, position), empty=True)

    def of_sessions(self, session_ids: Collection[str]) -> dict[str, list[Event]]:
        """The events of each session in order of (time, sequence, id), each once."""
        wanted = set(session_ids)
        found: dict[str, list[Event]] = {session_id: [] for session_id in sorted(wanted)}
        if not wanted:
            return found
        files = self._session_files.holding(wanted)
        table = self._queries.run(
            "SELECT * FROM events_rows", files={"events": files}, sessions=wanted
        )
        rows = to_rows(table)
        rows.sort(key=lambda row: (row["at_us"], row["sequence"], row["event_id"]))
        # Copies of one event differ at most in when and by whom they were received: the first
        # arrival stands for all.
        first: dict[str, dict[str, Any]] = {}
        for row in rows:
            seen = first.get(row["event_id"])
            if seen is None or _arrival(row) < _arrival(seen):
                first[row["event_id"]] = row
        for event_id in dict.fromkeys(row["event_id"] for row in rows):
            event = _to_event(first[event_id])
            found[event.session_id].append(event)
        return found

    def stored_ids(self, session_id: str, events: Sequence[Event]) -> set[str]:
        """The ids of those of a session's events that are stored, found by their days."""
        days = {day_of(event.at_us) for event in events}
        files = [file for file in self._session_files.holding({session_id}) if file.day in days]
        if not files:
            return set()
        wanted = pa.table({"event_id": [event.event_id for event in events]})
        rows = self._queries.run(
            "SELECT DISTINCT event_id FROM events_rows SEMI JOIN wanted_events USING (event_id)",
            files={"events": files},
            sessions={session_id},
            tables={"wanted_events": wanted},
        )
        return set(rows["event_id"].to_pylist())


def _arrival(row: dict[str, Any]) -> tuple[int, str]:
    return row["received_at_us"], row["credential"]


def _to_event(row: dict[str, Any]) -> Event:
    row["conflict"] = row["conflict"] or ""
    return Event(
        **{name: row[name] for name in _FIELDS},
        attributes=json.loads(row["attributes"]),
        resource=json.loads(row["resource"]),
    )


def write_json(document: object) -> str:
    """JSON text with sorted keys; bytes become base64 text, as in OTLP's own JSON form.

    What JSON has no word for (NaN, the infinities) becomes null.
    """
    try:
        return orjson.dumps(document, default=_write_other, option=_OPTIONS).decode()
    except orjson.JSONEncodeError:
        # An integer beyond 64 bits or half a surrogate pair: rare, and kept as it is.
        return json.dumps(document, sort_keys=True, separators=(",", ":"), default=_write_other)


_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


def _write_other(value: object) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
