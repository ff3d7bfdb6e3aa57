"""Watches a lake being written, from a process of its own: what is queryable when, and what the
collector's processes use.

``python -m bench.ingest_watch LAKE PID …`` prints one JSON object about every 50 ms until its
standard input ends. A record is queryable once its event is stored and the turns of the same pass
are: the events of a pass are committed first, and both commits carry the pass's position.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

INTERVAL_SECONDS = 0.05
USAGE_EVERY = 10
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Table:
    def __init__(self, uri: Path) -> None:
        self._uri = uri
        self._table: DeltaTable | None = None
        self._version = -1
        self.rows = 0

    def position(self, application: str) -> int | None:
        """The position of the newest commit; ``rows`` is what the table holds then."""
        if self._table is None:
            if not (self._uri / "_delta_log").exists():
                return None
            self._table = DeltaTable(str(self._uri))
        else:
            self._table.update_incremental()
        if self._table.version() != self._version:
            self._version = self._table.version()
            actions = pa.table(self._table.get_add_actions(flatten=True))
            self.rows = sum(actions["num_records"].to_pylist()) if actions.num_rows else 0
        return self._table.transaction_version(application)


def usage_of(pid: int) -> dict[str, float]:
    """Resident bytes and processor seconds so far, of a process and its children, and the seconds
    of its children alone; empty for one that is gone."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        children = " ".join(
            path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")
        )
    except (FileNotFoundError, ProcessLookupError):
        return {}
    own, ended_children = (sum(map(int, fields[at : at + 2])) / _TICKS for at in (11, 13))
    usage = {"rss": resident, "cpu": own + ended_children, "children_cpu": ended_children}
    for child in filter(None, map(usage_of, map(int, children.split()))):
        usage["rss"] += child["rss"]
        usage["cpu"] += child["cpu"]
        usage["children_cpu"] += child["cpu"]
    return usage


def main(lake: Path, pids: list[int]) -> None:
    events, turns = _Table(lake / "events"), _Table(lake / "turns")
    rows_at: dict[int, int] = {}
    number = 0
    while not select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0]:
        position = events.position("collectors")
        if position is not None:
            rows_at[position] = events.rows
        assembled = turns.position("turnwise.revision")
        # A pass without turns leaves the watermark behind; its events are told with the next one.
        done = [rows for at, rows in rows_at.items() if assembled is not None and at <= assembled]
        line: dict[str, Any] = {"at": time.monotonic(), "queryable": max(done, default=0)}
        if number % USAGE_EVERY == 0:
            line["usage"] = {str(pid): usage_of(pid) for pid in pids}
        number += 1
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(pid) for pid in sys.argv[2:]])
