"""Rows that are written in revisions: of each (session, turn) the newest counts.

What differs from what is stored is appended, with the days of what it supersedes.
``docs/decisions/0003`` and ``0011`` have the reasons.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import orjson
import pyarrow as pa

from loop.domain.quick_records import quickly_made
from loop.domain.turns import Charged, Turn
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_rows
from loop.lake.rows import columns_to_arrow, day_of, to_arrow
from loop.lake.schemas import TURNS, TableSchema
from loop.lake.session_files import SessionFiles

WATERMARK = "turnwise.revision"
"""The application whose transaction number is the highest revision written in full."""

KNOWN_SESSIONS = 20_000
"""Sessions whose stored digests are kept in memory; others are read again when they change."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one (session, turn): its newest revision, and from when to when."""

    revision: int
    digest: str
    from_us: int
    to_us: int
    removed: bool
    charged: Charged | None = None  # of a turn that is priced


class Known(dict[str, Stored]):
    """What is stored of one session, by turn id, and the highest of its revisions."""

    highest = -1

    def put(self, turn_id: str, stored: Stored) -> None:
        self[turn_id] = stored
        self.highest = max(self.highest, stored.revision)


@dataclass(slots=True)
class _Appended:
    """Rows on their way into the table: records as they are, and removals as rows."""

    records: list[Any] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    supersedes: list[tuple[str, str]] = field(default_factory=list)
    removals: list[dict[str, Any]] = field(default_factory=list)

    def to_arrow(
        self,
        schema: TableSchema,
        columns: dict[str, list[Any]],
        own: dict[str, Any],
    ) -> pa.Table:
        """``columns`` are those of the records, ``own`` what is the same in every row."""
        count = len(self.records)
        columns |= {name: [value] * count for name, value in own.items()}
        columns["removed"] = [False] * count
        columns["digest"] = self.digests
        columns["supersedes_from_day"] = [first for first, _ in self.supersedes]
        columns["supersedes_to_day"] = [last for _, last in self.supersedes]
        rows = columns_to_arrow(schema, columns)
        if not self.removals:
            return rows
        return pa.concat_tables([rows, to_arrow(schema, [row | own for row in self.removals])])


class RevisedRows:
    """Appends the changes of one table whose rows belong to (session, turn)."""

    def __init__(
        self,
        log: DeltaLog,
        queries: LakeQueries,
        to_columns: Callable[[Sequence[Any]], dict[str, list[Any]]],
        all_values: Callable[[Any], tuple[Any, ...]],
    ) -> None:
        self.log = log
        self._to_columns = to_columns
        self._all_values = all_values
        self._time_of = attrgetter(log.schema.time_name)
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
            appended = _Appended()
            updates: dict[str, dict[str, Stored]] = {}
            for session_id in session_ids:
                stored = known[session_id]
                if stored.highest > revision:
                    continue
                within = stored if listed is None else listed.get(session_id, stored)
                changed = self._take_changed(
                    stored, by_session[session_id], session_id, revision, within, appended
                )
                if changed:
                    updates[session_id] = changed
            transaction = None
            if watermark:
                before = self.log.transaction_number(WATERMARK)
                if before is None or revision > before:
                    transaction = (WATERMARK, revision)
            if updates or transaction:
                rows = appended.to_arrow(
                    self._schema,
                    self._to_columns(appended.records),
                    {"revision": revision, "commit": commit},
                )
                self._version = self.log.append(rows, transaction=transaction, empty=True)
            for session_id, entries in updates.items():
                for turn_id, entry in entries.items():
                    self._known[session_id].put(turn_id, entry)

    def _take_changed(
        self,
        stored: Known,
        groups: Mapping[str, Sequence[Any]],
        session_id: str,
        revision: int,
        within: Collection[str],
        appended: _Appended,
    ) -> dict[str, Stored]:
        """Appends what differs of one session, and returns what is stored of it then. With each
        row goes where readers and compaction find what it supersedes."""
        changed: dict[str, Stored] = {}
        for turn_id, records in groups.items():
            digest = self._digest(records)
            entry = stored.get(turn_id)
            if entry is not None and not entry.removed and entry.digest == digest:
                continue
            times = list(map(self._time_of, records))
            found = Stored(revision, digest, min(times), max(times), False, _charged_as(records[0]))
            before = found if entry is None else entry
            days = day_of(before.from_us), day_of(before.to_us)
            appended.records += records
            appended.digests += [digest] * len(records)
            appended.supersedes += [days] * len(records)
            changed[turn_id] = found
        for turn_id in within:
            entry = stored.get(turn_id)
            if turn_id in groups or entry is None or entry.removed:
                continue
            # Rows of the same revision come from an earlier part of the same write.
            if entry.revision < revision:
                appended.removals.append(self._removal(session_id, turn_id, entry))
                changed[turn_id] = Stored(revision, "", entry.from_us, entry.from_us, True)
        return changed

    def _digest(self, records: Sequence[Any]) -> str:
        """Differs where anything in the records does."""
        try:
            said = orjson.dumps(list(map(self._all_values, records)))
        except orjson.JSONEncodeError:  # half a surrogate pair
            said = "".join(map(repr, records)).encode("utf-8", "backslashreplace")
        return hashlib.blake2b(said, digest_size=12).hexdigest()

    def _removal(self, session_id: str, turn_id: str, entry: Stored) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(self._schema.record_names())
        return row | {
            "session_id": session_id,
            "turn_id": turn_id,
            self._schema.time_name: entry.from_us,
            "removed": True,
            "digest": "",
            "supersedes_from_day": day_of(entry.from_us),
            "supersedes_to_day": day_of(entry.to_us),
        }

    def charged(
        self, session_ids: Collection[str], listed: Mapping[str, Collection[str]]
    ) -> dict[tuple[str, str], Charged]:
        """How the stored turns of the sessions were charged, by (session, turn); of a session in
        ``listed`` those of the turn ids there."""
        with self.log.write_lock:
            known = self._load_known(session_ids, self.log.next_version())
            return {
                (session_id, turn_id): entry.charged
                for session_id, entries in known.items()
                for turn_id in listed.get(session_id, entries)
                if (entry := entries.get(turn_id)) is not None and entry.charged is not None
            }

    def _load_known(self, session_ids: Collection[str], commit: int) -> dict[str, Known]:
        if self._version != commit - 1:
            # Another process wrote (or this one has just started): what is in memory is stale.
            self._known.clear()
            self._version = commit - 1
        missing = {session_id for session_id in session_ids if session_id not in self._known}
        for session_id in missing:
            self._known[session_id] = Known()
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
                stored = Stored(
                    row["revision"],
                    row["digest"],
                    row["from_us"],
                    row["to_us"],
                    row["removed"],
                    _charged(row),
                )
                self._known[row["session_id"]].put(row["turn_id"], stored)
        wanted = {}
        for session_id in session_ids:
            self._known.move_to_end(session_id)
            wanted[session_id] = self._known[session_id]
        while len(self._known) > max(KNOWN_SESSIONS, len(wanted)):
            self._known.popitem(last=False)
        return wanted


def _charged_as(record: Any) -> Charged | None:
    if type(record) is not Turn or not record.price_version:
        return None
    return Charged(record.price_version, record.charge_version)


def _charged(row: Mapping[str, Any]) -> Charged | None:
    version = row.get("price_version")
    return Charged(version, row.get("charge_version") or 0) if version else None
