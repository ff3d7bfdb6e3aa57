"""Data files: what the table's log says of each, and how compaction writes them.

A *settled* file (its name says so) holds current rows only, as of the version that added it: of
each (session, turn) the rows of one revision, and of no turn that another settled file of the same
version holds too. What was appended later lies in *open* files, and each of their rows names the
days of its predecessor. So readers take settled files as they are, but for the few days that open
files name. ``docs/decisions/0011`` has the reasons and the proof.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from loop.lake.charge_keys import CHARGE_KEY, with_charge_key
from loop.lake.schemas import BOOL, INT64, TIMESTAMP, TableSchema

SETTLED = "settled-"
JOINED = "joined-"
ROW_GROUP_ROWS = 122_880
"""Rows that one thread of a reader takes at a time."""
COMPRESSION_LEVEL = 3
_DISTINCT_TEXTS = frozenset(
    ("turn_id", "request_id", "digest", "event_id", "decision_id", "text", "attributes")
)  # a dictionary of these would hold every row


@dataclass(frozen=True, slots=True)
class DataFile:
    """One immutable Parquet file. What the table's log does not say of it is ``None``.

    ``supersedes``: the first and the last day that may hold rows which its rows supersede.
    """

    uri: str
    path: str  # inside the table
    day: str
    rows: int
    size_bytes: int
    max_revision: int | None = None
    supersedes: tuple[str, str] | None = None
    modified_at_ms: int = 0

    @property
    def is_settled(self) -> bool:
        return self.path.rsplit("/", 1)[-1].startswith(SETTLED)

    def tells_of(self, from_day: str, until_day: str) -> bool:
        """Whether it has rows of the days of a span, or may have what supersedes some."""
        if from_day <= self.day < until_day:
            return True
        if self.is_settled:
            return False
        return self.supersedes is None or (
            self.supersedes[0] < until_day and self.supersedes[1] >= from_day
        )

    def removal(self) -> RemoveAction:
        now_ms = time.time_ns() // 1_000_000
        return RemoveAction(self.path, False, now_ms, self.size_bytes, {"day": self.day})


def files_of(actions: pa.Table, uri: str) -> tuple[DataFile, ...]:
    """The files that a table version names, from its flattened add actions."""

    def column(name: str) -> list[Any]:
        if name not in actions.column_names:
            return [None] * actions.num_rows
        values: list[Any] = actions[name].to_pylist()
        return values

    files = []
    for path, day, rows, size, revision, first, last, unknown, modified in zip(
        column("path"),
        column("partition.day"),
        column("num_records"),
        column("size_bytes"),
        column("max.revision"),
        column("min.supersedes_from_day"),
        column("max.supersedes_to_day"),
        column("null_count.supersedes_from_day"),
        column("modification_time"),
        strict=True,
    ):
        is_known = first is not None and last is not None and unknown == 0
        files.append(
            DataFile(
                uri=f"{uri}/{path}",
                path=str(path),
                day=str(day),
                rows=int(rows or 0),
                size_bytes=int(size or 0),
                max_revision=revision,
                supersedes=(first, last) if is_known else None,
                modified_at_ms=_milliseconds(modified),
            )
        )
    return tuple(files)


def _milliseconds(moment: object) -> int:
    if isinstance(moment, datetime):
        return int(moment.timestamp() * 1000)
    return int(moment) if isinstance(moment, int) else 0


def write_data_file(
    filesystem: pafs.FileSystem,
    schema: TableSchema,
    day: str,
    rows: pa.Table | Iterable[pa.Table | pa.RecordBatch],
    prefix: str,
) -> tuple[AddAction, int]:
    """Writes one file of a day and returns the action that adds it, and its number of rows.

    ``rows`` are in the stored schema; the columns that only settled files have are worked out here.
    Integers are packed by their differences, which halves what a reader pays for sums of them;
    pages carry checksums.
    """
    path = f"day={day}/{prefix}{uuid.uuid4()}.parquet"
    stored = pa.schema([field for field in schema.arrow() if field.name != "day"])
    filesystem.create_dir(f"day={day}", recursive=True)
    statistics = _Statistics(schema)
    with (
        filesystem.open_output_stream(path) as sink,
        pq.ParquetWriter(
            sink,
            stored,
            write_page_checksum=True,
            **_encodings(stored),
        ) as writer,
    ):
        parts = [rows] if isinstance(rows, pa.Table) else rows
        for part in parts:
            table = part if isinstance(part, pa.Table) else pa.Table.from_batches([part])
            if prefix == SETTLED and CHARGE_KEY in stored.names:
                table = with_charge_key(table, day)
            table = table.select(stored.names).cast(stored)
            statistics.add(table)
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    size = filesystem.get_file_info(path).size
    now_ms = time.time_ns() // 1_000_000
    action = AddAction(path, size, {"day": day}, now_ms, False, statistics.to_json())
    return action, statistics.rows


def _encodings(stored: pa.Schema) -> dict[str, Any]:
    packed = {f.name: "DELTA_BINARY_PACKED" for f in stored if f.type in (INT64, TIMESTAMP)}
    with_dictionary = [
        field.name
        for field in stored
        if field.name not in packed
        and field.name not in _DISTINCT_TEXTS
        and field.type != BOOL
        and not pa.types.is_nested(field.type)
    ]
    # What is packed already hardly shrinks any more, and would be slower to read.
    compression = {f.name: "none" if f.name in packed else "zstd" for f in stored}
    levels = {name: COMPRESSION_LEVEL for name, codec in compression.items() if codec == "zstd"}
    return {
        "use_dictionary": with_dictionary,
        "column_encoding": packed,
        "compression": compression,
        "compression_level": levels,
    }


class _Statistics:
    """What Delta's log keeps of a file."""

    def __init__(self, schema: TableSchema) -> None:
        self._names = schema.statistics_columns()
        self._low: dict[str, Any] = {}
        self._high: dict[str, Any] = {}
        self._nulls: dict[str, int] = dict.fromkeys(self._names, 0)
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        for name in self._names:
            self._nulls[name] += table[name].null_count
            found = pc.min_max(table[name]).as_py()
            if found["min"] is not None:
                self._low[name] = min(found["min"], self._low.get(name, found["min"]))
                self._high[name] = max(found["max"], self._high.get(name, found["max"]))

    def to_json(self) -> str:
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": self._low,
                "maxValues": self._high,
                "nullCount": self._nulls,
            }
        )


def settled_and_open(
    files: Sequence[DataFile],
) -> tuple[list[DataFile], list[DataFile], list[DataFile]]:
    """Files to take as they are, settled ones to look through for predecessors, and open ones."""
    opened = [file for file in files if not file.is_settled]
    settled = [file for file in files if file.is_settled]
    if any(file.supersedes is None for file in opened):
        return [], settled, opened
    spans = {file.supersedes for file in opened if file.supersedes is not None}
    straight: list[DataFile] = []
    looked_through: list[DataFile] = []
    for file in settled:
        is_named = any(first <= file.day <= last for first, last in spans)
        (looked_through if is_named else straight).append(file)
    return straight, looked_through, opened
