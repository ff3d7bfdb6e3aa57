"""Changes whole days of turns by their columns, a file at a time, with nothing assembled again.

A day is settled first (``docs/decisions/0011``): from then on each of its files holds current rows
only and can be replaced by one with the same turns at a higher revision, in a commit of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from loop.lake.compaction import LakePolicy, settle
from loop.lake.data_files import ROW_GROUP_ROWS, DataFile
from loop.lake.delta_log import DeltaLog, store_errors
from loop.lake.queries import LakeQueries
from loop.lake.turn_table import WATERMARK

Change = Callable[[pa.Table], pa.Table]
"""Gives the columns of turns that change, for the rows of a table and in their order."""


def files_for_day(files: Sequence[DataFile], day: str) -> list[DataFile]:
    """The files that tell what is current on a day: its own, and the open ones that may hold what
    supersedes its rows."""
    return [file for file in files if file.day == day or _supersedes_on(file, day)]


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

    ``change`` gets turns in the stored schema. All of a file's turns get the revision and the
    charge version. For the process that writes turns, with a revision above all that it wrote.
    Raises :class:`Conflict` when another process has rewritten the day; nothing has changed then.
    """
    with log.write_lock:
        files = log.snapshot().files
        if any(not file.is_settled for file in files_for_day(files, day)):
            # With what is moved to other days, so that no row here is superseded elsewhere.
            days = {file.day for file in files if file.day == day or _supersedes_on(file, day)}
            settle(log, queries, days, policy)
        for file in log.snapshot().of_days([day]):
            source = _dataset(log, file)
            if not _is_below(log, source, charge_version):
                continue
            rows = _changed(log, source, change, charge_version, revision, log.next_version())
            log.rewrite(
                [file],
                [(day, rows, True)],
                note="reprice",
                transaction=_watermark(log, revision),
            )
            return file.rows
        return 0


def _supersedes_on(file: DataFile, day: str) -> bool:
    if file.is_settled:
        return False
    return file.supersedes is None or file.supersedes[0] <= day <= file.supersedes[1]


def _dataset(log: DeltaLog, file: DataFile) -> pads.Dataset:
    """One file; columns that it is too old to have read as null."""
    return pads.dataset(
        [file.path],
        schema=log.schema.arrow(),
        format="parquet",
        filesystem=log.filesystem(),
        partitioning=pads.partitioning(pa.schema([("day", pa.string())]), flavor="hive"),
    )


def _is_below(log: DeltaLog, source: pads.Dataset, charge_version: int) -> bool:
    with store_errors(log.schema.name):
        column = source.to_table(columns=["charge_version"])["charge_version"]
    lowest = pc.min(column.fill_null(0)).as_py()
    return lowest is not None and lowest < charge_version


def _changed(
    log: DeltaLog,
    source: pads.Dataset,
    change: Change,
    charge_version: int,
    revision: int,
    commit: int,
) -> Iterator[pa.Table]:
    own = {"revision": revision, "commit": commit, "charge_version": charge_version}
    for batch in source.to_batches(
        batch_size=ROW_GROUP_ROWS, batch_readahead=1, fragment_readahead=1
    ):
        rows = pa.Table.from_batches([batch])
        changed = change(rows)
        columns = {name: changed[name] for name in changed.column_names}
        columns |= {
            name: pa.repeat(pa.scalar(value, pa.int64()), len(rows)) for name, value in own.items()
        }
        # Whoever assembles one of these turns again can't know it to be the same: it is written
        # once more then, which costs less than a digest of every turn now.
        columns["digest"] = pa.repeat(pa.scalar(""), len(rows))
        yield pa.table(
            [columns.get(field.name, rows[field.name]) for field in log.schema.arrow()],
            schema=log.schema.arrow(),
        )


def _watermark(log: DeltaLog, revision: int) -> tuple[str, int] | None:
    before = log.transaction_number(WATERMARK)
    return (WATERMARK, revision) if before is None or revision > before else None
