"""Which sessions' transcripts tell of which requests, and which sessions share a trace of another
convention's: how copies in other sessions and spans without a session are found.

A cache on local disk (SQLite) of what the lake's events say. It grows with transcripts and with
other tools' traces only; where it is missing it is made again from the lake. Only the draining
process has it open.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from collectors.conventions.convention import SCOPE
from collectors.conventions.trace_sessions import trace_key
from collectors.copied_requests import live_request, request_keys
from collectors.otlp_decoding import TRACE_SESSION
from loop.domain.turns import Event
from loop.lake.rows import day_of

if TYPE_CHECKING:
    from loop.lake import Lake

logger = logging.getLogger("turnwise")
FORMAT = 2
_TABLES = f"""
CREATE TABLE told (key TEXT NOT NULL, session_id TEXT NOT NULL, PRIMARY KEY (key, session_id))
    WITHOUT ROWID;
CREATE TABLE shares (session_id TEXT NOT NULL, other TEXT NOT NULL,
    PRIMARY KEY (session_id, other)) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
"""
_STORED = """
SELECT session_id, json_extract_string(attributes, '$.requestId') AS request_id,
    json_extract_string(attributes, '$.message.id') AS message_id
FROM events_rows WHERE kind = 'transcript' AND name = 'transcript.assistant' AND day = ?
"""
_STORED_TRACES = """
SELECT DISTINCT session_id, json_extract_string(attributes, '$."otel.trace_id"') AS trace_id
FROM events_rows
WHERE kind IN ('log', 'span') AND day = ? AND contains(attributes, '"otel.scope"')
"""
_IDS_PER_QUERY = 500
_LONGEST_US = 12 * 3_600_000_000  # how long before its answer a request may have begun

Pair = tuple[str, str]


class ToldRequests:
    """The index of one drainer."""

    def __init__(self, path: Path, lake: Lake) -> None:
        self._path = path
        self._lake = lake
        self._connection: sqlite3.Connection | None = None

    def circles_of(self, events: Collection[Event]) -> dict[str, set[str]]:
        """Learns what the events tell, and returns for each of their sessions that shares requests
        with others all sessions of that circle, itself among them.

        Raises:
            Unavailable: the lake, where live reports of the requests may lie, does not answer.
        """
        connection = self._open()
        told: dict[Pair, int] = {}
        live: set[Pair] = set()
        traces: set[Pair] = set()
        sessions: set[str] = set()
        telling = [event for event in events if event.kind == "transcript"]
        scoped = [event for event in events if SCOPE in event.attributes]
        if not telling and not scoped and not _tells_any(connection):
            return {}
        for event in scoped:
            if event.session_id and (key := trace_key(event)):
                traces.add((key, event.session_id))
        for event in telling:
            if event.session_id:
                told.update(((key, event.session_id), event.at_us) for key in request_keys(event))
        for event in events:
            if not event.session_id:
                continue
            sessions.add(event.session_id)
            if request_id := live_request(event):
                live.add((request_id, event.session_id))
        unknown = {pair: at_us for pair, at_us in told.items() if not _knows(connection, pair)}
        reported = self._reported_live(unknown, live)
        with connection:
            _learn(connection, unknown)
            _learn(connection, {pair for pair in traces if not _knows(connection, pair)})
            _relate(connection, live)
            _share(connection, unknown, reported)
            return _circles(connection, sessions)

    def _reported_live(self, told: Mapping[Pair, int], live: set[Pair]) -> dict[str, set[str]]:
        """The sessions in the lake that have a turn of a request, where a transcript is all that
        its own session has of it so far."""
        wanted = {pair[0]: at_us for pair, at_us in told.items() if pair not in live}
        if not wanted:
            return {}
        days = {day_of(at_us - before) for at_us in wanted.values() for before in (0, _LONGEST_US)}
        listed = ", ".join(f"'{day}'" for day in sorted(days))
        rows = self._lake.query(
            f"""SELECT DISTINCT request_id, message_id, session_id FROM turns_rows
            WHERE day IN ({listed}) AND (request_id IN (SELECT unnest($1::VARCHAR[]))
                OR message_id IN (SELECT unnest($1::VARCHAR[])))""",  # noqa: S608
            [sorted(wanted)],
        )
        found: dict[str, set[str]] = {}
        for row in rows:
            for key in (row["request_id"], row["message_id"]):
                if key:
                    found.setdefault(key, set()).add(row["session_id"])
        return found

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open_file() or self._make()
        return self._connection

    def _open_file(self) -> sqlite3.Connection | None:
        """``None`` where there is no index, or none that can be read."""
        if not self._path.exists():
            return None
        connection = _connect(self._path)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == FORMAT:
                return connection
        except sqlite3.DatabaseError as error:
            logger.warning("%s can't be read and is made again: %s", self._path, error)
        connection.close()
        return None

    def _make(self) -> sqlite3.Connection:
        """A new index of what the lake holds; in place only when it is complete."""
        unfinished = self._path.with_suffix(".new")
        for path in (unfinished, *_companions(unfinished), *_companions(self._path)):
            path.unlink(missing_ok=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        connection = _connect(unfinished)
        connection.executescript(_TABLES)
        for row in self._lake.query("SELECT DISTINCT day FROM events_rows"):
            stored = self._lake.query(_STORED, [row["day"]])
            with connection:
                _learn(
                    connection,
                    {
                        (key, found["session_id"])
                        for found in stored
                        for key in (found["request_id"], found["message_id"])
                        if key and found["session_id"]
                    },
                )
            traced = self._lake.query(_STORED_TRACES, [row["day"]])
            with connection:
                _learn(
                    connection,
                    {
                        (f"{TRACE_SESSION}{found['trace_id']}", found["session_id"])
                        for found in traced
                        if found["trace_id"] and found["session_id"]
                    },
                )
        connection.close()
        unfinished.replace(self._path)
        return _connect(self._path)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False)  # the drainer's lock guards it


def _companions(path: Path) -> list[Path]:
    return [Path(f"{path}{ending}") for ending in ("-journal", "-wal", "-shm")]


def _tells_any(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM told LIMIT 1").fetchone() is not None


def _knows(connection: sqlite3.Connection, pair: Pair) -> bool:
    found = connection.execute("SELECT 1 FROM told WHERE key = ? AND session_id = ?", pair)
    return found.fetchone() is not None


def _learn(connection: sqlite3.Connection, told: Collection[Pair]) -> None:
    connection.executemany("INSERT OR IGNORE INTO told VALUES (?, ?)", sorted(told))
    _relate(connection, told)


def _relate(connection: sqlite3.Connection, pairs: Collection[Pair]) -> None:
    """Remembers which sessions of the pairs share a request with one that tells of it."""
    tellers: dict[str, set[str]] = {}
    for chunk in _chunks(sorted({key for key, _ in pairs})):
        marks = ", ".join("?" * len(chunk))
        for key, session_id in connection.execute(
            f"SELECT key, session_id FROM told WHERE key IN ({marks})",  # noqa: S608
            chunk,
        ):
            tellers.setdefault(key, set()).add(session_id)
    _share(connection, pairs, tellers)


def _share(
    connection: sqlite3.Connection, pairs: Collection[Pair], sessions: Mapping[str, set[str]]
) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO shares VALUES (?, ?)",
        sorted(
            pair
            for key, session_id in pairs
            for other in sessions.get(key, ())
            if other != session_id
            for pair in ((session_id, other), (other, session_id))
        ),
    )


def _circles(connection: sqlite3.Connection, sessions: set[str]) -> dict[str, set[str]]:
    circles: dict[str, set[str]] = {}
    if connection.execute("SELECT 1 FROM shares LIMIT 1").fetchone() is None:
        return circles
    for session_id in sorted(sessions):
        if session_id in circles:
            continue
        circle = {session_id}
        waiting = [session_id]
        while waiting:
            for (other,) in connection.execute(
                "SELECT other FROM shares WHERE session_id = ?", (waiting.pop(),)
            ):
                if other not in circle:
                    circle.add(other)
                    waiting.append(other)
        if len(circle) > 1:
            circles.update(dict.fromkeys(circle & sessions, circle))
    return circles


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _IDS_PER_QUERY):
        yield keys[start : start + _IDS_PER_QUERY]
