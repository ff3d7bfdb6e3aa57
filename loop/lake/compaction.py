"""Fewer, larger files, and an end to superseded revisions.

Small files of a day are joined, rows in order of session. In ``turns`` and ``contents`` a day is
*settled* once much of it is new, or once nothing was added to it for a while: written anew with its
current rows only, together with the days that its rows' predecessors lie under, all in one commit.
Old files stay until vacuum takes them (after a week), so that pinned versions and running
queries can be read.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from loop.domain.errors import Conflict
from loop.lake.data_files import DataFile
from loop.lake.delta_log import CHECKPOINT_COMMITS, DeltaLog
from loop.lake.queries import LakeQueries
from loop.lake.rows import to_stored


@dataclass(frozen=True, slots=True)
class LakePolicy:
    """How the tables are kept.

    ``settle_share``: a day is settled once that share of its rows lies in open files; all rewriting
    together then costs at most some four times what writing did. ``rest_seconds``: a day to which
    nothing was added for so long is settled, however little is open. ``target_bytes``: files up to
    half of it are joined. ``part_rows`` and ``part_bytes`` cut a day into files by session, and
    bound what settling holds in memory. ``vacuum_hours``: how long files that the newest
    version does not name stay, for pinned versions and running queries. ``checkpoint_commits``:
    commits between two checkpoints, so that opening a table reads few log files.
    """

    settle_share: float = 0.25
    rest_seconds: float = 3600.0
    target_bytes: int = 128 * 1024 * 1024
    part_rows: int = 1_000_000
    part_bytes: int = 128 * 1024 * 1024
    vacuum_hours: int = 168
    checkpoint_commits: int = CHECKPOINT_COMMITS


DEFAULT_POLICY = LakePolicy()

_LIVE = """
    WITH part AS (
        SELECT * FROM {rows} WHERE {within}
    ), newest AS (
        SELECT session_id, turn_id, max(struct_pack(r := revision, c := "commit")) AS pair
        FROM part GROUP BY session_id, turn_id
    )
    SELECT part.* FROM part JOIN newest USING (session_id, turn_id)
    WHERE pair = struct_pack(r := revision, c := "commit") AND NOT removed
    ORDER BY day, session_id, {time}, sequence, turn_id"""


def compact_table(log: DeltaLog, queries: LakeQueries, policy: LakePolicy = DEFAULT_POLICY) -> int:
    """Compacts one table and returns how many files fewer it has.

    It holds the table's write lock. It may be stopped at any point: every step is one commit. When
    another process compacts the table at the same time, this one leaves it to that.
    """
    with log.write_lock:
        before = len(log.snapshot().files)
        try:
            if log.schema.has_revisions:
                settle(log, queries, _days_to_settle(log.snapshot().files, policy), policy)
            _join(log, queries, policy)
        except Conflict:
            pass
        if before:
            hours = policy.vacuum_hours
            # delta-rs alone would refuse less than a week.
            log.change(
                lambda table: table.vacuum(hours, dry_run=False, enforce_retention_duration=False)
            )
        return before - len(log.snapshot().files)


def _days_to_settle(files: Sequence[DataFile], policy: LakePolicy) -> set[str]:
    opened: Counter[str] = Counter()
    count: Counter[str] = Counter()
    total: Counter[str] = Counter()
    newest: dict[str, int] = defaultdict(int)
    for file in files:
        total[file.day] += file.rows
        if not file.is_settled:
            opened[file.day] += file.rows
            count[file.day] += 1
            newest[file.day] = max(newest[file.day], file.modified_at_ms)
    rested_ms = time.time_ns() // 1_000_000 - policy.rest_seconds * 1000
    return {
        day
        for day, rows in opened.items()
        if newest[day] <= rested_ms or (count[day] > 1 and rows >= policy.settle_share * total[day])
    }


def closure(files: Sequence[DataFile], days: Collection[str]) -> set[str]:
    """The days with all days that their open rows' predecessors may lie under, and so on."""
    found, added = set(days), set(days)
    all_days = {file.day for file in files}
    while added:
        reached: set[str] = set()
        for file in files:
            if file.day not in added or file.is_settled:
                continue
            if file.supersedes is None:
                return all_days
            first, last = file.supersedes
            reached |= {day for day in all_days if first <= day <= last}
        added = reached - found
        found |= reached
    return found


def settle(
    log: DeltaLog,
    queries: LakeQueries,
    days: Collection[str],
    policy: LakePolicy = DEFAULT_POLICY,
) -> None:
    """Writes days anew with their current rows only, in one commit.

    With them go the days that hold predecessors of their rows: so no row that stays elsewhere is
    older than one that is settled here, and a removal may go with the rows that it hides.
    """
    snapshot = log.snapshot()
    wanted = closure(snapshot.files, days)
    files = snapshot.of_days(wanted)
    if all(file.is_settled for file in files):
        return
    log.rewrite(files, _live_rows(log, queries, files, policy), note="settle")


def _live_rows(
    log: DeltaLog, queries: LakeQueries, files: Sequence[DataFile], policy: LakePolicy
) -> Iterator[tuple[str, pa.Table, bool]]:
    schema = log.schema
    for low, high in _session_ranges(log, queries, files, policy):
        within = "session_id >= ?" + ("" if high is None else " AND session_id < ?")
        live = queries.run(
            _LIVE.format(rows=f"{schema.name}_rows", within=within, time=schema.time_name),
            [low] if high is None else [low, high],
            files={schema.name: files},
        )
        yield from _by_day(to_stored(schema, live), is_settled=True)


def _session_ranges(
    log: DeltaLog, queries: LakeQueries, files: Sequence[DataFile], policy: LakePolicy
) -> list[tuple[str, str | None]]:
    """Ranges of session ids, each with rows that fit into memory; together they cover all."""
    rows, size = sum(file.rows for file in files), sum(file.size_bytes for file in files)
    days = len({file.day for file in files})
    parts = max(rows // (policy.part_rows * days), size // (policy.part_bytes * days), 0) + 1
    if parts == 1:
        return [("", None)]
    counted = queries.run(
        f"""SELECT session_id, CAST(sum(count(*)) OVER (ORDER BY session_id) AS BIGINT) AS upto
            FROM {log.schema.name}_rows GROUP BY session_id ORDER BY session_id""",  # noqa: S608
        files={log.schema.name: files},
    )
    bounds, sessions = [""], counted["session_id"].to_pylist()
    for place, upto in enumerate(counted["upto"].to_pylist()[:-1]):
        if upto * parts >= rows * len(bounds):
            bounds.append(sessions[place + 1])
    return list(zip(bounds, [*bounds[1:], None], strict=True))


def _by_day(rows: pa.Table, *, is_settled: bool) -> Iterator[tuple[str, pa.Table, bool]]:
    """The rows, which are in order of day, one day after the other."""
    start = 0
    for run in rows["day"].combine_chunks().value_counts() if rows.num_rows else ():
        count = run["counts"].as_py()
        yield run["values"].as_py(), rows.slice(start, count), is_settled
        start += count


def _join(log: DeltaLog, queries: LakeQueries, policy: LakePolicy) -> None:
    """Joins the small files of each day that has several. What is settled stays as it is."""
    groups = [group for group in _groups(log.snapshot().files, policy) if len(group) > 1]
    if groups:
        removed = [file for group in groups for file in group]
        log.rewrite(removed, _joined_rows(log, queries, groups), note="join")


def _groups(files: Sequence[DataFile], policy: LakePolicy) -> Iterator[list[DataFile]]:
    """The small files of a day, as many at a time as make a file of the wanted size."""
    by_day: dict[str, list[DataFile]] = defaultdict(list)
    for file in files:
        if not file.is_settled and file.size_bytes < policy.target_bytes // 2:
            by_day[file.day].append(file)
    for day in sorted(by_day):
        group: list[DataFile] = []
        for file in by_day[day]:
            group.append(file)
            if sum(file.size_bytes for file in group) >= policy.target_bytes:
                yield group
                group = []
        yield group


def _joined_rows(
    log: DeltaLog, queries: LakeQueries, groups: Sequence[Sequence[DataFile]]
) -> Iterator[tuple[str, pa.Table, bool]]:
    names = log.schema.record_names()
    order = [name for name in ("session_id", "developer", log.schema.time_name) if name in names]
    for group in groups:
        rows = queries.run(
            f"SELECT * FROM {log.schema.name}_rows ORDER BY {', '.join(order)}",  # noqa: S608
            files={log.schema.name: group},
        )
        yield group[0].day, to_stored(log.schema, rows), False
