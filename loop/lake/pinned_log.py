"""One version of a table, read only: what a run has read can be read again."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from loop.domain.errors import NotFound, Refused
from loop.lake.data_files import files_of
from loop.lake.delta_log import EMPTY, DeltaLog, Snapshot, store_errors
from loop.lake.object_store import ObjectStore
from loop.lake.schemas import TableSchema

ERASED = "turnwise.erasure"
"""In the table's history, with the erasure's id: rows were erased in that commit."""


class PinnedLog(DeltaLog):
    """A table as it was at a version; -1 is before it was made. It can't be written."""

    def __init__(self, store: ObjectStore, schema: TableSchema, version: int) -> None:
        super().__init__(store, schema)
        self._version = version

    def snapshot(self) -> Snapshot:
        """Raises :class:`NotFound` when the version, or a file of it, is gone."""
        with self._read_lock:
            if self._version >= 0 and self._snapshot is EMPTY:
                self._snapshot = self._load()
            return self._snapshot

    def _load(self) -> Snapshot:
        name = self.schema.name
        try:
            table = DeltaTable(self.uri, version=self._version, storage_options=self._options)
            files = files_of(pa.table(table.get_add_actions(flatten=True)), self.uri)
        except DeltaError as error:
            raise NotFound(
                f"The table {name} has no version {self._version} that can be read.",
                why=str(error),
                fix="`turnwise lake status` shows the versions that there are.",
            ) from error
        with store_errors(name):
            there = {info.path for info in list_files(self)}
        missing = [file.path for file in files if file.path not in there]
        if missing:
            raise NotFound(
                f"Version {self._version} of {name} can't be read any more: {len(missing)} of its "
                f"{len(files)} files are gone.",
                why=self._why_gone(),
            )
        columns = frozenset(field.name for field in table.schema().fields)
        return Snapshot(self._version, files, columns)

    def _why_gone(self) -> str:
        erasures = [
            commit[ERASED]
            for commit in DeltaTable(self.uri, storage_options=self._options).history()
            if ERASED in commit and commit["version"] > self._version
        ]
        if erasures:
            return f"Rows of it were erased for good by {', '.join(sorted(set(erasures)))}."
        return "They were superseded, and removed after the time that old versions are kept."

    def _open_writer(self) -> DeltaTable:
        raise Refused(f"{self.schema.name} is opened at a version: it can't be written.")

    _find_writer = _open_writer


def list_files(log: DeltaLog) -> list[pafs.FileInfo]:
    """All data files that lie in the table's folder, whether a version names them or not."""
    if not log.exists():
        return []
    selector = pafs.FileSelector("", recursive=True)
    return [
        info
        for info in log.filesystem().get_file_info(selector)
        if info.is_file
        and info.path.endswith(".parquet")
        and not info.path.startswith("_delta_log")
    ]
