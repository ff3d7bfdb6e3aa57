"""Which files hold rows of which sessions.

Session ids are random, so a file's smallest and largest id exclude almost nothing. Data files
never change: the ids in each are read once and kept, and later look-ups open only the files that
matter. Files of very many rows are always opened; their row groups have statistics of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

import pyarrow.parquet as pq

from loop.lake.data_files import DataFile
from loop.lake.delta_log import DeltaLog, store_errors

MAX_INDEXED_ROWS = 200_000
"""A file with more rows is not indexed: that bounds what the index holds in memory."""


class SessionFiles:
    """The index of one table, filled as files are seen. Safe to use from several threads."""

    def __init__(self, log: DeltaLog) -> None:
        self._log = log
        self._sessions: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()

    def holding(self, session_ids: Collection[str]) -> list[DataFile]:
        """The files of the newest version that may hold rows of those sessions."""
        wanted = frozenset(session_ids)
        files = self._log.snapshot().files
        with self._lock:
            live = {file.path for file in files}
            for path in [path for path in self._sessions if path not in live]:
                del self._sessions[path]
            self._index([f for f in files if f.path not in self._sessions])
            return [
                file
                for file in files
                if file.path not in self._sessions
                or not wanted.isdisjoint(self._sessions[file.path])
            ]

    def _index(self, files: list[DataFile]) -> None:
        small = [file for file in files if file.rows <= MAX_INDEXED_ROWS]
        if not small:
            return
        filesystem = self._log.filesystem()
        with store_errors(self._log.schema.name):
            for file in small:
                with filesystem.open_input_file(file.path) as source:
                    column = pq.read_table(source, columns=["session_id"])["session_id"]
                self._sessions[file.path] = frozenset(column.unique().to_pylist())
