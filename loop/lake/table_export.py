"""A table's newest version as a Delta table of its own, elsewhere: data files byte for byte under a
new log of one commit, so nothing in it points back to where it came from."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction

from loop.domain.errors import Conflict
from loop.lake.data_files import DataFile
from loop.lake.delta_log import ROLLED_UP, DeltaLog, store_errors
from loop.lake.revised_rows import WATERMARK

_KEPT_NUMBERS = (ROLLED_UP, WATERMARK)
"""What the log says of the rows, and readers of ours ask for."""
_CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """``version`` is the one that was copied, ``rows`` counts every stored row."""

    table: str
    version: int
    files: int
    rows: int
    bytes: int


def export_table(log: DeltaLog, folder: Path) -> ExportedTable | None:
    """Copies the table into a new folder; ``None`` for a table that does not exist yet.

    Raises:
        Conflict: files went meanwhile (an erasure, retention); the folder is incomplete.
        Unavailable: the store does not answer.
    """
    numbers = {name: log.transaction_number(name) for name in _KEPT_NUMBERS}
    snapshot = log.snapshot()
    if snapshot.version < 0:
        return None
    with store_errors(log.schema.name):
        filesystem = log.filesystem()
        for file in snapshot.files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with filesystem.open_input_stream(file.path) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK_BYTES)
            except FileNotFoundError as error:
                raise Conflict(
                    f"A file of {log.schema.name} was removed while it was copied.",
                    why="Rows were erased meanwhile.",
                    fix="Export again, into an empty folder.",
                ) from error
        table = DeltaTable.create(str(folder), log.schema.arrow(), partition_by=["day"])
        table.create_write_transaction(
            [_add(file) for file in snapshot.files],
            mode="append",
            schema=table.schema(),
            partition_by=["day"],
            commit_properties=CommitProperties(
                app_transactions=[
                    Transaction(name, number)
                    for name, number in numbers.items()
                    if number is not None
                ]
            ),
        )
    return ExportedTable(
        log.schema.name,
        snapshot.version,
        len(snapshot.files),
        sum(file.rows for file in snapshot.files),
        sum(file.size_bytes for file in snapshot.files),
    )


def _add(file: DataFile) -> AddAction:
    low: dict[str, object] = {}
    high: dict[str, object] = {}
    nulls: dict[str, int] = {}
    if file.max_revision is not None:
        high["revision"] = file.max_revision
    if file.supersedes is not None:
        low["supersedes_from_day"], high["supersedes_to_day"] = file.supersedes
        nulls["supersedes_from_day"] = 0
    statistics = {
        "numRecords": file.rows,
        "minValues": low,
        "maxValues": high,
        "nullCount": nulls,
    }
    return AddAction(
        file.path,
        file.size_bytes,
        {"day": file.day},
        file.modified_at_ms,
        True,
        json.dumps(statistics),
    )
