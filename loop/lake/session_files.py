"""Which files hold rows of which sessions.

Session ids are random, so a file's smallest and largest id exclude almost nothing. Data files
never change: the ids in each are read once, and later look-ups open only the files that matter. Of
each id eight bytes are kept, its hash: where two ids share one, a file is opened in vain.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loop.lake.data_files import ROW_GROUP_ROWS, DataFile
from loop.lake.delta_log import DeltaLog, store_errors

Hashes = NDArray[np.int64]


class SessionFiles:
    """The index of one table, filled as files are seen. Safe to use from several threads."""

    def __init__(self, log: DeltaLog) -> None:
        self._log = log
        self._sessions: dict[str, Hashes] = {}  # sorted, by path
        self._lock = threading.Lock()

    def holding(self, session_ids: Collection[str]) -> list[DataFile]:
        """The files of the newest version that may hold rows of those sessions; none that does is
        left out."""
        wanted = _hashes(set(session_ids))
        files = self._log.snapshot().files
        with self._lock:
            live = {file.path for file in files}
            for path in [path for path in self._sessions if path not in live]:
                del self._sessions[path]
            self._index([f for f in files if f.path not in self._sessions])
            return [file for file in files if _has_any(self._sessions[file.path], wanted)]

    def _index(self, files: list[DataFile]) -> None:
        if not files:
            return
        filesystem = self._log.filesystem()
        with store_errors(self._log.schema.name):
            for file in files:
                with filesystem.open_input_file(file.path) as source:
                    self._sessions[file.path] = _read_hashes(source)


def _read_hashes(source: object) -> Hashes:
    """Of the ids in a file, a row group's worth at a time, however many rows it has."""
    parquet = pq.ParquetFile(source, read_dictionary=["session_id"])
    parts = [
        _hashes(batch["session_id"].unique().to_pylist())
        for batch in parquet.iter_batches(ROW_GROUP_ROWS, columns=["session_id"])
    ]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def _hashes(session_ids: Collection[str | None]) -> Hashes:
    return np.sort(np.fromiter(map(hash, session_ids), np.int64, len(session_ids)))


def _has_any(present: Hashes, wanted: Hashes) -> bool:
    if not len(present):
        return False
    places = np.searchsorted(present, wanted)
    places[places == len(present)] = 0
    return bool((present[places] == wanted).any())
