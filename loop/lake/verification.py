"""Does the store hold what the tables' logs say? Each problem is named; none is mended here."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loop.domain.errors import TurnwiseError
from loop.lake.data_files import DataFile
from loop.lake.delta_log import DeltaLog
from loop.lake.pinned_log import list_files
from loop.lake.queries import LakeQueries
from loop.lake.revised_rows import WATERMARK


@dataclass(frozen=True, slots=True)
class Problem:
    table: str
    what: str
    file: str = ""

    def as_row(self) -> dict[str, str]:
        return {"table": self.table, "what": self.what, "file": self.file}


def verify_table(log: DeltaLog) -> Iterator[Problem]:
    """Every file that the newest version names: is it there, of that size, readable in all of its
    pages, with the rows and the extremes that the log states?"""
    name = log.schema.name
    sizes = {info.path: info.size for info in list_files(log)}
    for file in log.snapshot().files:
        if file.path not in sizes:
            yield Problem(name, "a file that the table names is missing", file.path)
        elif sizes[file.path] != file.size_bytes:
            what = f"{sizes[file.path]} bytes long, {file.size_bytes} by the log"
            yield Problem(name, what, file.path)
        else:
            yield from (Problem(name, what, file.path) for what in _faults_of(log, file))


def _faults_of(log: DeltaLog, file: DataFile) -> Iterator[str]:
    rows, highest = 0, None
    try:
        with log.filesystem().open_input_file(file.path) as source:
            parquet = pq.ParquetFile(source, page_checksum_verification=True)
            for batch in parquet.iter_batches(65_536):
                rows += batch.num_rows
                if "revision" in batch.schema.names and batch.num_rows:
                    found = pc.max(batch["revision"]).as_py()
                    highest = found if highest is None else max(found, highest)
    except (pa.ArrowException, OSError, zlib.error) as error:
        yield f"can't be read: {error}"
        return
    if rows != file.rows:
        yield f"{rows} rows, {file.rows} by the log"
    if file.max_revision is not None and highest != file.max_revision:
        yield f"highest revision {highest}, {file.max_revision} by the log"


def orphans(log: DeltaLog) -> list[str]:
    """Files that no version in the table's history names: left over from what was cut off."""
    table = log.open_table()
    if table is None:
        return []
    named: set[str] = set()
    for commit in table.history():
        try:
            table.load_as_version(commit["version"])
        except Exception:  # noqa: BLE001 - the log does not go back so far
            break
        named.update(pa.table(table.get_add_actions(flatten=True))["path"].to_pylist())
    return sorted(info.path for info in list_files(log) if info.path not in named)


def verify_contents(logs: Mapping[str, DeltaLog], queries: LakeQueries) -> Iterator[Problem]:
    """What the tables say of each other and of themselves."""
    for name in ("turns", "contents"):
        for key in _ask(queries, _SETTLED_TWICE.format(name=name), _settled_and_open(logs, name)):
            yield Problem(name, f"settled in two revisions: {key['turn_id']}")
    watermark = logs["turns"].transaction_number(WATERMARK)
    highest = max((file.max_revision or 0 for file in logs["turns"].snapshot().files), default=0)
    if watermark is not None and watermark < highest:
        yield Problem("turns", f"revision {highest} is stored, but {watermark} is noted as written")
    for row in _ask(queries, _WITHOUT_EVENTS):
        yield Problem("turns", f"{row['n']} sessions of {row['day']} have no events")


def _ask(
    queries: LakeQueries, sql: str, files: Mapping[str, list[DataFile]] | None = None
) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = queries.run(sql, files=files).to_pylist()
    except TurnwiseError:
        return []  # a file can't be read: that is named already
    return found


def _settled_and_open(logs: Mapping[str, DeltaLog], name: str) -> dict[str, list[DataFile]]:
    return {name: [file for file in logs[name].snapshot().files if file.is_settled]}


_SETTLED_TWICE = """
    SELECT turn_id FROM {name}_rows GROUP BY session_id, turn_id
    HAVING count(DISTINCT (revision, "commit")) > 1 OR bool_or(removed) LIMIT 20"""
_WITHOUT_EVENTS = """
    SELECT day, count(DISTINCT session_id) AS n FROM turns
    WHERE session_id NOT IN (SELECT session_id FROM events_rows)
        AND day > (SELECT coalesce(min(day), '9999') FROM events_rows)
    GROUP BY day ORDER BY day"""
