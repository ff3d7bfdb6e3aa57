"""The lake: the one door to the tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from loop.domain.clusters import SessionCluster, SessionProfile
from loop.domain.errors import BadInput
from loop.domain.estimates import PolicyEstimate
from loop.domain.policies import Decision
from loop.domain.scores import Score
from loop.domain.turns import Charged, Content, Event, SessionTrace, Turn
from loop.lake.charge_rollups import ChargeRollups
from loop.lake.cluster_table import ClusterTable
from loop.lake.columns import ORDER, order_of, to_numpy
from loop.lake.compaction import DEFAULT_POLICY, LakePolicy, compact_table
from loop.lake.decision_table import DecisionTable
from loop.lake.delta_log import DeltaLog
from loop.lake.estimate_table import EstimateTable
from loop.lake.event_table import EventTable
from loop.lake.object_store import ObjectStore, locate_store
from loop.lake.pinned_log import PinnedLog
from loop.lake.queries import LakeQueries, Order, to_rows
from loop.lake.schemas import TABLES, TURNS
from loop.lake.score_table import Judgement, ScoreTable
from loop.lake.session_survey import SessionRows
from loop.lake.trace_loading import build_traces
from loop.lake.turn_revision import Change, files_for_day, revise_file
from loop.lake.turn_table import TurnTable

PART_ROWS = 1_000_000
"""Turns that are held in memory at a time where a day is read by its columns."""


class Lake:
    """The tables of one store. Safe to use from several threads.

    Tables that no one has written yet read as empty. One process at a time writes a table; others
    may read it meanwhile. Any method may raise :class:`Unavailable` when the store does not answer
    and :class:`Corrupt` when a stored file fails its checks.
    """

    def __init__(self, logs: Mapping[str, DeltaLog], policy: LakePolicy = DEFAULT_POLICY) -> None:
        self.policy = policy
        self._logs = dict(logs)
        self._queries = LakeQueries(self._logs)
        self._events = EventTable(logs["events"], self._queries)
        self._turns = TurnTable(logs["turns"], logs["contents"], self._queries)
        self._scores = ScoreTable(logs["scores"], self._queries)
        self._clusters = ClusterTable(logs["clusters"], logs["profiles"], self._queries)
        self._decisions = DecisionTable(logs["decisions"], self._queries)
        self._estimates = EstimateTable(logs["estimates"], self._queries)
        self._charges = ChargeRollups(logs["charges"], logs["daily_charges"], self._queries)

    @classmethod
    def open(
        cls,
        store_uri: str,
        storage_options: Mapping[str, str] | None = None,
        policy: LakePolicy = DEFAULT_POLICY,
    ) -> Lake:
        """Opens the store at a folder or ``s3://bucket/prefix``; nothing is created yet.

        ``storage_options`` are delta-rs's; what they leave out is read from ``AWS_*`` and
        ``TURNWISE_S3_ENDPOINT``. Raises :class:`BadInput` for an address that names no store.
        """
        return cls.on(locate_store(store_uri, storage_options), policy)

    @classmethod
    def on(cls, store: ObjectStore, policy: LakePolicy = DEFAULT_POLICY) -> Lake:
        """Opens a store that is located already, such as another lake's in another process."""
        commits = policy.checkpoint_commits
        return cls({schema.name: DeltaLog(store, schema, commits) for schema in TABLES}, policy)

    def write_events(
        self,
        events: Sequence[Event],
        *,
        journal: str,
        position: int,
        written: Mapping[str, bytes] | None = None,
    ) -> None:
        """Appends events. A position of a journal that is in (or a later one) is a no-op.

        ``written`` is attributes of events as JSON with sorted keys, by event id, for those of
        which it was made already.
        """
        self._events.write(events, journal=journal, position=position, written=written or {})

    def events_of(self, session_ids: Collection[str]) -> dict[str, list[Event]]:
        """The events of each session (every one asked for has a key), each event once."""
        return self._events.of_sessions(session_ids)

    def stored_event_ids(self, session_id: str, events: Sequence[Event]) -> set[str]:
        """The ids of those events, all of one session, that are stored under their own day.

        Reads the ids alone: for sessions of any size, such as that of the events without one.
        """
        return self._events.stored_ids(session_id, events)

    def write_turns(
        self,
        turns: Sequence[Turn],
        contents: Sequence[Content],
        *,
        revision: int,
        emptied: Collection[str] = (),
        listed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Stores *whole* sessions as assembled at a revision.

        What a session had at a lower revision and is not in the call any more is removed;
        ``emptied`` names sessions that have neither turn nor text. Of a session in ``listed`` only
        the turn ids there are given (``""``: texts of no turn), and only these are stored or
        removed. A session already stored at a higher revision is left alone.
        """
        self._turns.write(turns, contents, revision=revision, emptied=emptied, listed=listed)

    def charge_anew(self, day: str, change: Change, *, charge_version: int, revision: int) -> int:
        """Changes the charges of turns of a UTC day that are of a lower charge version, a file
        (about a million turns at most) in each call; returns how many turns, 0 when all are done.

        ``change`` gives the columns that change for a table of turns in the stored schema. The
        turns get the charge version and the revision, which must be above all that were written.
        """
        return revise_file(
            self._logs["turns"],
            self._queries,
            day,
            change,
            charge_version=charge_version,
            revision=revision,
            policy=self.policy,
        )

    def turns_by_day(
        self, columns: Sequence[str], from_day: str, until_day: str
    ) -> Iterator[tuple[str, pa.Table]]:
        """Columns of the current turns of the UTC days from ``from_day`` until ``until_day``
        (exclusive), in no order: tables of about a million rows of one day, with that day."""
        files = self._logs["turns"].snapshot().files
        names = ", ".join(f'"{name}"' for name in columns)
        for day in sorted({file.day for file in files if from_day <= file.day < until_day}):
            chosen = files_for_day(files, day)
            parts = sum(file.rows for file in chosen) // PART_ROWS + 1
            for part in range(parts):
                within = "" if parts == 1 else f" AND hash(session_id) % {parts} = {part}"
                rows = self._queries.run(
                    f"SELECT {names} FROM turns WHERE day = ?{within}",  # noqa: S608
                    [day],
                    files={"turns": chosen},
                )
                if rows.num_rows:
                    yield day, rows

    def newest_revision(self, from_day: str, until_day: str) -> int | None:
        """The highest revision of a turn that lies, or lay, on the days of the span; -1 for none,
        ``None`` where a file does not say. Known without reading any."""
        files = self._logs["turns"].snapshot().files
        revisions = [file.max_revision for file in files if file.tells_of(from_day, until_day)]
        known = [revision for revision in revisions if revision is not None]
        return max(known, default=-1) if len(known) == len(revisions) else None

    def count_turns(self, from_day: str, until_day: str) -> int:
        """How many rows the days have, superseded ones too: known without reading any."""
        files = self._logs["turns"].snapshot().files
        return sum(file.rows for file in files if from_day <= file.day < until_day)

    def days_of_turns(self, from_day: str, until_day: str) -> list[str]:
        """The days of the span that have rows, known without reading any."""
        files = self._logs["turns"].snapshot().files
        return sorted({file.day for file in files if from_day <= file.day < until_day})

    def charged_of(
        self,
        session_ids: Collection[str],
        listed: Mapping[str, Collection[str]] | None = None,
    ) -> dict[tuple[str, str], Charged]:
        """How each stored turn of the sessions was charged, by (session id, turn id); turns that
        were never priced have no key. Of a session in ``listed`` only the turn ids there count."""
        return self._turns.charged_of(session_ids, listed or {})

    def turns_of(self, session_ids: Collection[str]) -> list[Turn]:
        """The current turns in total order: (session, started_at_us, sequence, turn_id)."""
        return self._turns.turns_of(session_ids)

    def contents_of(self, session_ids: Collection[str]) -> list[Content]:
        """The current texts in order of (session, at_us, sequence)."""
        return self._turns.contents_of(session_ids)

    def load_traces(
        self, session_ids: Collection[str], kinds: Collection[str] | None = None
    ) -> list[SessionTrace]:
        """The traces of those of the sessions that have turns or texts, in order of id; with texts
        of those ``kinds`` only, the others read as missing."""
        contents = self._turns.contents_of(session_ids, kinds)
        return build_traces(self.turns_of(session_ids), contents)

    def max_revision(self) -> int:
        """The highest revision whose turns and contents are both in; -1 when there is none."""
        return self._turns.max_revision()

    def sessions_changed_since(self, revision: int) -> list[str]:
        """The sessions of which something was stored at a higher revision, in order of the first
        day of it, then of id."""
        return self._turns.sessions_changed_since(revision)

    def survey(self, session_ids: Collection[str]) -> list[SessionRows]:
        """The size of each of the sessions that have turns or texts, and a digest of what an
        evaluator may read of it, in the given order. Reads no texts."""
        return self._turns.survey(session_ids)

    def write_scores(self, scores: Sequence[Score]) -> None:
        """Appends scores; the latest of each (session, evaluator) is current."""
        self._scores.write(scores)

    def scores_of(self, session_ids: Collection[str] | None = None) -> list[Score]:
        """The current scores of the sessions (of all by default), by session and evaluator."""
        return self._scores.current(session_ids)

    def judgements_of(self, session_ids: Collection[str]) -> dict[str, dict[str, Judgement]]:
        """The current scores of the sessions without their findings, by session and evaluator."""
        return self._scores.judgements(session_ids)

    def write_clusters(self, clusters: Sequence[SessionCluster]) -> None:
        """Stores one clustering, which supersedes the last (also when it found none)."""
        self._clusters.write(clusters)

    def latest_clusters(self) -> list[SessionCluster]:
        """The clusters of the latest clustering: those that lose the most first, outliers last."""
        return self._clusters.latest()

    def write_profiles(self, profiles: Sequence[SessionProfile]) -> None:
        """Appends profiles; the latest of each session is current."""
        self._clusters.write_profiles(profiles)

    def write_decisions(
        self, decisions: Sequence[Decision], *, journal: str, position: int
    ) -> None:
        """Appends decisions. A position that is in (or a later one) is a no-op."""
        self._decisions.write(decisions, journal=journal, position=position)

    def decisions_of(
        self, session_ids: Collection[str] | None = None, rollout_id: str | None = None
    ) -> list[Decision]:
        """The decisions by session and time, each once; of all sessions by default."""
        return self._decisions.select(session_ids, rollout_id)

    def write_estimate(self, run_id: str, estimate: PolicyEstimate) -> None:
        """Appends one estimate of a run."""
        self._estimates.write(run_id, estimate)

    def estimates_of(self, run_id: str) -> list[PolicyEstimate]:
        """The run's estimates in the order they were stored."""
        return self._estimates.of_run(run_id)

    def replace_charges(
        self,
        sql: str,
        parameters: Sequence[object],
        days: Collection[str],
        *,
        transaction: tuple[str, int] | None = None,
    ) -> int:
        """Replaces the charges of the days by the rows of a SELECT, in one commit, then the daily
        charges of these days, in another.

        The SELECT gives the columns of ``charges`` for those days only. Returns how many rows.
        """
        return self._charges.replace(sql, parameters, days, transaction)

    def has_daily_charges(self) -> bool:
        """Whether ``daily_charges`` are the sums of the current ``charges``."""
        return self._charges.are_in_step()

    def turn_columns(
        self,
        columns: Sequence[str],
        *,
        where_sessions: Collection[str] | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Columns of the current turns, all of shape ``(n,)``, in total order.

        Texts are object arrays of ``str``; numbers that may be missing are masked arrays.
        ``since_us`` is inclusive, ``until_us`` exclusive, both of ``started_at_us``. Raises
        :class:`BadInput` for an unknown column.
        """
        known = set(TURNS.record_names())
        if unknown := [name for name in columns if name not in known]:
            raise BadInput(f"turns has no column {unknown[0]!r}.")
        conditions, parameters = ["true"], []
        for bound, operator in ((since_us, ">="), (until_us, "<")):
            if bound is not None:
                conditions.append(f"started_at_us {operator} ?")
                parameters.append(bound)
        names = ", ".join(f'"{name}"' for name in dict.fromkeys([*columns, *ORDER]))
        table = self._queries.run(
            f"SELECT {names} FROM turns WHERE {' AND '.join(conditions)}",  # noqa: S608
            parameters,
            sessions=where_sessions,
        )
        order = order_of(table)
        return {name: to_numpy(table[name], order) for name in columns}

    def query(
        self, sql: str, parameters: Sequence[object] = (), *, order: Order = ()
    ) -> list[dict[str, Any]]:
        """Rows of a SELECT over the views ``events``, ``turns``, ``contents``, ``scores``,
        ``profiles``, ``clusters``, ``decisions``, ``estimates``, ``charges`` and
        ``daily_charges``, which show what is current; sorted by ``order``.

        Raises :class:`BadInput` for SQL that can't be run.
        """
        return to_rows(self._queries.run(sql, parameters, order=order))

    def compact(self, tables: Collection[str] | None = None) -> dict[str, int]:
        """Joins small files and drops superseded revisions; returns files saved by table.

        For the process that writes those tables (all by default), about every 100 commits. Readers
        may go on meanwhile, and versions stay readable for a week.
        """
        saved = {
            name: compact_table(log, self._queries, self.policy)
            for name, log in self._logs.items()
            if tables is None or name in tables
        }
        self._queries.forget_files()
        return saved

    def at(self, versions: Mapping[str, int]) -> Lake:
        """The lake as it was at those versions of its tables, read only; tables that are not named
        read as empty.

        Reading raises :class:`NotFound` once a version's files are gone, and says whether an
        erasure took them.
        """
        return Lake(
            {
                name: PinnedLog(log.store, log.schema, versions.get(name, -1))
                for name, log in self._logs.items()
            },
            self.policy,
        )

    @property
    def store(self) -> ObjectStore:
        return self._logs["turns"].store

    @property
    def tables(self) -> Mapping[str, DeltaLog]:
        """The tables' logs, for those who keep them: status, verification, erasure."""
        return self._logs

    @property
    def queries(self) -> LakeQueries:
        return self._queries

    def versions(self) -> dict[str, int]:
        """The version of each table that exists."""
        found = {name: log.snapshot().version for name, log in self._logs.items()}
        return {name: version for name, version in found.items() if version >= 0}
