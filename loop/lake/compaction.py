"""Fewer, larger files, and an end to superseded revisions.

Delta's own compaction joins small files of a day. Where a day of ``turns`` or ``contents`` holds
many superseded rows, the day is written anew without them, in one commit. Old files stay until the
table's retention has passed (a week), so that pinned versions and running queries can be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from loop.lake.delta_log import WRITER, DataFile, DeltaLog
from loop.lake.queries import LakeQueries
from loop.lake.rows import to_stored
from loop.lake.session_files import SessionFiles

TARGET_BYTES = 128 * 1024 * 1024
SUPERSEDED_SHARE = 0.2
"""A day is written anew once so large a share of its rows is superseded: all rewriting together
then costs at most some five times what writing did."""

_NEWEST = """
    WITH newest AS (
        SELECT session_id, turn_id, max(struct_pack(r := revision, c := "commit")) AS pair
        FROM {rows} GROUP BY session_id, turn_id
    ), marked AS (
        SELECT {rows}.*, pair <> struct_pack(r := revision, c := "commit") AS is_superseded
        FROM {rows} JOIN newest USING (session_id, turn_id)
    )"""
_SUPERSEDED_DAYS = """
    SELECT day FROM marked GROUP BY day
    HAVING count(*) FILTER (is_superseded OR removed) >= ? * count(*)"""
_LIVE_ROWS = """
    SELECT * EXCLUDE (is_superseded) FROM marked
    WHERE day = ? AND NOT is_superseded
        AND (NOT removed OR (session_id, turn_id) IN (SELECT (session_id, turn_id) FROM needed))
    ORDER BY session_id, {time}, sequence, turn_id"""


def compact_table(log: DeltaLog, queries: LakeQueries) -> int:
    """Compacts one table and returns how many files fewer it has.

    It holds the table's write lock. It may be stopped at any point: every step is one commit.
    """
    with log.write_lock:
        before = len(log.snapshot().files)
        crowded = _crowded_days(log.snapshot().files)
        if not crowded:
            return 0
        if "revision" in log.schema.record_names():
            _collapse(log, queries, crowded)
            crowded = _crowded_days(log.snapshot().files)
        if crowded:
            log.change(
                lambda table: table.optimize.compact(
                    partition_filters=[("day", "in", sorted(crowded))],
                    target_size=TARGET_BYTES,
                    writer_properties=WRITER,
                )
            )
        log.change(lambda table: table.vacuum(dry_run=False))
        return before - len(log.snapshot().files)


def _crowded_days(files: Sequence[DataFile]) -> set[str]:
    """The days with several files that are worth joining."""
    small = Counter(file.day for file in files if file.size_bytes < TARGET_BYTES // 2)
    return {day for day, count in small.items() if count > 1}


def _collapse(log: DeltaLog, queries: LakeQueries, days: Collection[str]) -> None:
    """Writes days anew without their superseded rows.

    Only days that were written to are looked at. A row that is superseded from another day may
    stay for a while: readers pass over it as before.
    """
    rows = f"{log.schema.name}_rows"
    marked = _NEWEST.format(rows=rows)
    looked_at = {log.schema.name: log.snapshot().of_days(days)}
    found = queries.run(marked + _SUPERSEDED_DAYS, [SUPERSEDED_SHARE], files=looked_at)
    for day in sorted(found["day"].to_pylist()):
        live = queries.run(
            marked + _LIVE_ROWS.format(time=f"{log.schema.time_column}_us"),
            [day],
            files={log.schema.name: log.snapshot().of_days(days)},
            tables={"needed": _needed_removals(log, queries, day)},
        )
        log.replace_days(to_stored(log.schema, live), [day])


def _needed_removals(log: DeltaLog, queries: LakeQueries, day: str) -> pa.Table:
    """The removals of a day that still hide a row kept under another day."""
    name = log.schema.name
    select = f"SELECT DISTINCT session_id, turn_id FROM {name}_rows WHERE"  # noqa: S608
    files = log.snapshot().of_days([day])
    removed = queries.run(f"{select} removed", files={name: files})
    session_ids = removed["session_id"].to_pylist()
    if not session_ids:
        return removed
    elsewhere = queries.run(
        f"{select} day <> ?",
        [day],
        files={name: SessionFiles(log).holding(session_ids)},
        sessions=session_ids,
    )
    keys = set(map(_key, elsewhere.to_pylist()))
    return pa.Table.from_pylist(
        [row for row in removed.to_pylist() if _key(row) in keys], schema=removed.schema
    )


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["session_id"], row["turn_id"]
