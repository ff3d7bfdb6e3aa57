"""What there is: each table's version, files, rows, and what would make it smaller."""

from __future__ import annotations

from typing import Any

from loop.lake.compaction import LakePolicy
from loop.lake.delta_log import DeltaLog
from loop.lake.pinned_log import list_files

ACTION = "turnwise.action"


def table_status(log: DeltaLog, policy: LakePolicy) -> dict[str, Any] | None:
    """``None`` while the table does not exist. Times are UTC microseconds.

    ``old_bytes`` lie in files that the newest version does not name: kept for older versions, or
    left over. ``open_rows`` are those of which readers have to look for newer revisions.
    """
    table = log.open_table()
    if table is None:
        return None
    files = log.snapshot().files
    live = {file.path for file in files}
    old = [info for info in list_files(log) if info.path not in live]
    history = table.history()
    protocol = table.protocol()
    days = sorted(file.day for file in files)
    return {
        "table": log.schema.name,
        "version": table.version(),
        "schema_version": log.schema.version,
        "files": len(files),
        "rows": sum(file.rows for file in files),
        "bytes": sum(file.size_bytes for file in files),
        "small_files": sum(
            file.size_bytes < policy.target_bytes // 2 and not file.is_settled for file in files
        ),
        "open_rows": sum(file.rows for file in files if not file.is_settled)
        if log.schema.has_revisions
        else 0,
        "old_files": len(old),
        "old_bytes": sum(info.size for info in old),
        "oldest_day": days[0] if days else None,
        "newest_day": days[-1] if days else None,
        "oldest_version": min((commit["version"] for commit in history), default=None),
        "last_commit_at_us": _at_us(history[:1]),
        "last_compaction_at_us": _at_us(
            [c for c in history if c.get(ACTION) in ("join", "settle")]
        ),
        "last_vacuum_at_us": _at_us([c for c in history if c["operation"].startswith("VACUUM")]),
        "min_reader_version": protocol.min_reader_version,
        "min_writer_version": protocol.min_writer_version,
        "features": sorted({*(protocol.reader_features or ()), *(protocol.writer_features or ())}),
    }


def _at_us(commits: list[dict[str, Any]]) -> int | None:
    return max((int(commit["timestamp"]) * 1000 for commit in commits), default=None)
