"""Changes whole days of turns by their columns, a file at a time, with nothing assembled again.

A day is settled first (``docs/decisions/0011``): from then on each of its files holds current rows
only and can be replaced by one with the same turns at a higher revision, in a commit of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from loop.lake.compaction import LakePolicy, settle
from loop.lake.data_files import DataFile
from loop.lake.delta_log import DeltaLog, store_errors
from loop.lake.queries import LakeQueries
from loop.lake.revised_rows import WATERMARK

Change = Callable[[pa.Table], pa.Table]
"""Gives the columns of turns that change, for the rows of a table and in their order."""


def files_for_day(files: Sequence[DataFile], day: str) -> list[DataFile]:
    """The files that tell what is current on a day: its own, and the open ones that may hold what
    supersedes its rows."""
    after = day + "\0"
    return [file for file in files if file.tells_of(day, after)]


def revise_file(
    log: DeltaLog,
    queries: LakeQueries,
    day: str,
    change: Change,
    *,
    charge_version: int,
    revision: int,
    policy: LakePolicy,
) -> int:
    """Rewrites one file of a day whose turns are of a lower charge version, and returns how many
    turns it has; 0 when there is none any more.

    ``change`` gets turns in the stored schema, without the day. All of a file's turns get the
    revision and the charge version. For the process that writes turns, with a revision above all
    that it wrote.
    Raises :class:`Conflict` when another process has rewritten the day; nothing has changed then.
    """
    with log.write_lock:
        files = files_for_day(log.snapshot().files, day)
        if not all(file.is_settled for file in files):
            # With what was moved to other days, so that no row here is superseded elsewhere.
            settle(log, queries, {file.day for file in files}, policy)
        for file in log.snapshot().of_days([day]):
            with _open(log, file) as source:
                if not _is_below(log, source, charge_version):
                    continue
                own = {
                    "revision": revision,
                    "commit": log.next_version(),
                    "charge_version": charge_version,
                }
                log.rewrite(
                    [file],
                    [(day, _changed(log, source, change, own), True)],
                    note="reprice",
                    transaction=_watermark(log, revision),
                )
            return file.rows
        return 0


@contextmanager
def _open(log: DeltaLog, file: DataFile) -> Iterator[pq.ParquetFile]:
    with (
        store_errors(log.schema.name),
        log.filesystem().open_input_file(file.path) as stream,
        pq.ParquetFile(stream) as source,
    ):
        yield source


def _is_below(log: DeltaLog, source: pq.ParquetFile, charge_version: int) -> bool:
    if "charge_version" not in source.schema_arrow.names:  # older than the column
        return bool(source.metadata.num_rows)
    column = source.read(["charge_version"])["charge_version"]
    lowest = pc.min(column.fill_null(0)).as_py()
    return lowest is not None and bool(lowest < charge_version)


def _changed(
    log: DeltaLog, source: pq.ParquetFile, change: Change, own: Mapping[str, int]
) -> Iterator[pa.Table]:
    fields = [field for field in log.schema.arrow() if field.name != "day"]
    for number in range(source.num_row_groups):
        rows = source.read_row_group(number, use_threads=False)
        for field in fields:
            if field.name not in rows.column_names:
                rows = rows.append_column(field, pa.nulls(len(rows), field.type))
        changed = change(rows)
        columns = {name: changed[name] for name in changed.column_names}
        columns |= {
            name: pa.repeat(pa.scalar(value, pa.int64()), len(rows)) for name, value in own.items()
        }
        # Whoever assembles one of these turns again can't know it to be the same: it is written
        # once more then, which costs less than a digest of every turn now.
        columns["digest"] = pa.repeat(pa.scalar(""), len(rows))
        yield pa.table(
            [
                columns[field.name] if field.name in columns else rows[field.name]
                for field in fields
            ],
            names=[field.name for field in fields],
        )


def _watermark(log: DeltaLog, revision: int) -> tuple[str, int] | None:
    before = log.transaction_number(WATERMARK)
    return (WATERMARK, revision) if before is None or revision > before else None
