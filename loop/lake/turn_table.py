"""Turns and contents: assembled again whenever a session's events grow, never edited in place.

A *revision* is the journal position that a session was assembled at. A write holds whole sessions;
only what differs from what is stored is appended, and what the session no longer has is appended as
removed. Readers take the highest revision of each (session, turn). ``docs/decisions/0003`` has the
reasons.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loop.domain.turns import Charged, Content, Turn
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_columns, to_rows
from loop.lake.rows import day_of, to_arrow
from loop.lake.schemas import TURNS, TableSchema
from loop.lake.session_files import SessionFiles
from loop.lake.session_survey import SessionRows, survey
from loop.lake.turn_records import (
    content_order,
    content_row,
    read_contents,
    read_turns,
    turn_order,
    turn_row,
)

WATERMARK = "turnwise.revision"
"""The application whose transaction number is the highest revision written in full."""

KNOWN_SESSIONS = 20_000
"""Sessions whose stored digests are kept in memory; others are read again when they change."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one (session, turn): its newest revision, and from when to when."""

    revision: int
    digest: str
    from_us: int
    to_us: int
    removed: bool
    charged: Charged | None = None  # of a turn that is priced


Known = dict[str, Stored]  # by turn_id


class RevisedRows:
    """Appends the changes of one table whose rows belong to (session, turn)."""

    def __init__(
        self, log: DeltaLog, queries: LakeQueries, to_row: Callable[[Any], dict[str, Any]]
    ) -> None:
        self.log = log
        self._to_row = to_row
        self._queries = queries
        self._schema: TableSchema = log.schema
        self.session_files = SessionFiles(log)
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._version = -1

    def write(
        self,
        groups: Mapping[tuple[str, str], Sequence[Any]],
        session_ids: Collection[str],
        *,
        revision: int,
        watermark: bool = False,
        listed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Appends what differs between the groups and what is stored of the sessions.

        ``groups`` holds all records of each (session_id, turn_id); of a session in ``listed`` those
        of the turn ids there, and its other turns stay. A session that is stored at a higher
        revision is left as it is.
        """
        with self.log.held():
            commit = self.log.next_version()
            known = self._load_known(session_ids, commit)
            by_session: dict[str, dict[str, Sequence[Any]]] = defaultdict(dict)
            for (session_id, turn_id), records in groups.items():
                by_session[session_id][turn_id] = records
            appended: list[dict[str, Any]] = []
            updates: dict[str, Known] = {}
            for session_id in session_ids:
                stored = known[session_id]
                if any(entry.revision > revision for entry in stored.values()):
                    continue
                within = stored if listed is None else listed.get(session_id, stored)
                changed = self._differ(stored, by_session[session_id], session_id, revision, within)
                for turn_id, rows in changed.items():
                    appended += rows
                    first = rows[0]
                    times = [row[f"{self._schema.time_column}_us"] for row in rows]
                    self._note_days(rows, times, stored.get(turn_id))
                    entry = Stored(
                        revision,
                        first["digest"],
                        min(times),
                        max(times),
                        first["removed"],
                        _charged(first),
                    )
                    updates.setdefault(session_id, {})[turn_id] = entry
            for row in appended:
                row["commit"] = commit
            transaction = None
            if watermark:
                before = self.log.transaction_number(WATERMARK)
                if before is None or revision > before:
                    transaction = (WATERMARK, revision)
            if appended or transaction:
                self._version = self.log.append(
                    to_arrow(self._schema, appended), transaction=transaction, empty=True
                )
            for session_id, entries in updates.items():
                self._known[session_id].update(entries)

    def _differ(
        self,
        stored: Known,
        groups: Mapping[str, Sequence[Any]],
        session_id: str,
        revision: int,
        within: Collection[str],
    ) -> dict[str, list[dict[str, Any]]]:
        changed: dict[str, list[dict[str, Any]]] = {}
        for turn_id, records in groups.items():
            digest = _digest(records)
            entry = stored.get(turn_id)
            if entry is None or entry.removed or entry.digest != digest:
                own = {"revision": revision, "removed": False, "digest": digest}
                changed[turn_id] = rows = [self._to_row(record) for record in records]
                for row in rows:
                    row.update(own)
        for turn_id in within:
            entry = stored.get(turn_id)
            if turn_id in groups or entry is None or entry.removed:
                continue
            # Rows of the same revision come from an earlier part of the same write.
            if entry.revision < revision:
                changed[turn_id] = [self._removal(session_id, turn_id, entry, revision)]
        return changed

    def _note_days(
        self, rows: list[dict[str, Any]], times: list[int], before: Stored | None
    ) -> None:
        """Writes down where readers and compaction find what these rows supersede."""
        first, last = (before.from_us, before.to_us) if before else (min(times), max(times))
        days = {"supersedes_from_day": day_of(first), "supersedes_to_day": day_of(last)}
        for row in rows:
            row.update(days)

    def _removal(
        self, session_id: str, turn_id: str, entry: Stored, revision: int
    ) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(self._schema.record_names())
        return row | {
            "session_id": session_id,
            "turn_id": turn_id,
            f"{self._schema.time_column}_us": entry.from_us,
            "revision": revision,
            "removed": True,
            "digest": "",
        }

    def charged(self, session_ids: Collection[str]) -> dict[tuple[str, str], Charged]:
        """How the stored turns of the sessions were charged, by (session, turn)."""
        with self.log.write_lock:
            known = self._load_known(session_ids, self.log.next_version())
            return {
                (session_id, turn_id): entry.charged
                for session_id, entries in known.items()
                for turn_id, entry in entries.items()
                if entry.charged is not None
            }

    def _load_known(self, session_ids: Collection[str], commit: int) -> dict[str, Known]:
        if self._version != commit - 1:
            # Another process wrote (or this one has just started): what is in memory is stale.
            self._known.clear()
            self._version = commit - 1
        missing = {session_id for session_id in session_ids if session_id not in self._known}
        for session_id in missing:
            self._known[session_id] = {}
        files = self.session_files.holding(missing) if missing and commit else []
        if files:
            name = self._schema.name
            time_name = f"{self._schema.time_column}_us"
            more = ""
            if name == TURNS.name:  # a turn is one row
                more = "".join(
                    f", any_value({n}) AS {n}" for n in ("price_version", "charge_version")
                )
            table = self._queries.run(
                f"""SELECT session_id, turn_id, any_value(revision) AS revision,
                        any_value(digest) AS digest, any_value(removed) AS removed,
                        min({time_name}) AS from_us, max({time_name}) AS to_us{more}
                    FROM (SELECT * FROM {name}_rows QUALIFY dense_rank() OVER (
                        PARTITION BY session_id, turn_id
                        ORDER BY revision DESC, "commit" DESC) = 1)
                    GROUP BY session_id, turn_id""",  # noqa: S608
                files={name: files},
                sessions=missing,
            )
            for row in to_rows(table):
                self._known[row["session_id"]][row["turn_id"]] = Stored(
                    row["revision"],
                    row["digest"],
                    row["from_us"],
                    row["to_us"],
                    row["removed"],
                    _charged(row),
                )
        wanted = {}
        for session_id in session_ids:
            self._known.move_to_end(session_id)
            wanted[session_id] = self._known[session_id]
        while len(self._known) > max(KNOWN_SESSIONS, len(wanted)):
            self._known.popitem(last=False)
        return wanted


class TurnTable:
    """The only writer of ``turns`` and ``contents``."""

    def __init__(self, turns: DeltaLog, contents: DeltaLog, queries: LakeQueries) -> None:
        self._queries = queries
        self._turns = RevisedRows(turns, queries, turn_row)
        self._contents = RevisedRows(contents, queries, content_row)

    def write(
        self,
        turns: Sequence[Turn],
        contents: Sequence[Content],
        *,
        revision: int,
        emptied: Collection[str] = (),
        listed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Stores whole sessions as they are at a revision; ``emptied`` ones have nothing any more.

        Of a session in ``listed`` only the turn ids there (``""``: texts of no turn) are stored as
        they are, and its others stay.

        Writing the same again changes nothing. Raises :class:`BadInput` for a value that can't be
        stored and :class:`Unavailable`; after either, the same call may be made again.
        """
        session_ids = sorted(
            {turn.session_id for turn in turns}
            | {text.session_id for text in contents}
            | set(emptied)
            | set(listed or ())
        )
        turn_groups = {(turn.session_id, turn.turn_id): [turn] for turn in turns}
        content_groups: dict[tuple[str, str], list[Content]] = defaultdict(list)
        for content in contents:
            content_groups[content.session_id, content.turn_id].append(content)
        for group in content_groups.values():
            if len(group) > 1:
                group.sort(key=content_order)
        # Contents go first: the turns' commit carries the watermark, so whoever reads it
        # finds both.
        self._contents.write(content_groups, session_ids, revision=revision, listed=listed)
        self._turns.write(
            turn_groups, session_ids, revision=revision, watermark=True, listed=listed
        )

    def charged_of(self, session_ids: Collection[str]) -> dict[tuple[str, str], Charged]:
        """The price and charge version of each stored turn of the sessions that has one."""
        return self._turns.charged(session_ids)

    def turns_of(self, session_ids: Collection[str]) -> list[Turn]:
        """The current turns in order of (session, time, sequence, id)."""
        found = self._current_of(self._turns, session_ids)
        return sorted(read_turns(found), key=turn_order) if found else []

    def contents_of(self, session_ids: Collection[str]) -> list[Content]:
        """The current texts in order of (session, time, sequence)."""
        found = self._current_of(self._contents, session_ids)
        return read_contents(found) if found else []

    def max_revision(self) -> int:
        """The highest revision written in full; -1 when none is."""
        number = self._turns.log.transaction_number(WATERMARK)
        return -1 if number is None else number

    def sessions_changed_since(self, revision: int) -> list[str]:
        """The sessions with a turn or a text of a higher revision, in order of the first day on
        which they have one, then of id: so their files are read one after the other."""
        first_days: dict[str, str] = {}
        for table in (self._turns, self._contents):
            name = table.log.schema.name
            files = [
                file
                for file in table.log.snapshot().files
                if file.max_revision is None or file.max_revision > revision
            ]
            rows = self._queries.run(
                f"""SELECT session_id, min(day) AS day FROM {name}_rows WHERE revision > ?
                    GROUP BY session_id""",  # noqa: S608
                [revision],
                files={name: files},
            )
            found = to_columns(rows)
            for session_id, day in zip(found["session_id"], found["day"], strict=True):
                first_days[session_id] = min(day, first_days.get(session_id, day))
        return sorted(first_days, key=lambda session_id: (first_days[session_id], session_id))

    def survey(self, session_ids: Collection[str]) -> list[SessionRows]:
        """How large each of the sessions is and a digest of its rows, in the given order; of those
        that have any. Texts are not read."""
        files = {
            table.log.schema.name: table.session_files.holding(session_ids)
            for table in (self._turns, self._contents)
        }
        return survey(self._queries, session_ids, files)

    def _current_of(self, table: RevisedRows, session_ids: Collection[str]) -> dict[str, list[Any]]:
        if not session_ids:
            return {}
        name = table.log.schema.name
        files = table.session_files.holding(session_ids)
        rows = self._queries.run(
            f"SELECT * FROM {name}",  # noqa: S608
            files={name: files},
            sessions=session_ids,
        )
        return to_columns(rows)


def _charged(row: Mapping[str, Any]) -> Charged | None:
    version = row.get("price_version")
    return Charged(version, row.get("charge_version") or 0) if version else None


def _digest(records: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for record in records:
        digest.update(repr(record).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
