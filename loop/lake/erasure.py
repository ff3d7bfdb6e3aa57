"""Erasure of one person: no byte of their rows stays, in any version of any table.

Live files are written anew without the person's rows. Files of old versions that hold any are
deleted, and with them what those versions can be read for; other old files stay. Where other rows
quote an id, the id is replaced. The table's log names no person (its statistics are of revisions
and days); a log from before that rule is cut off at a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from loop.domain.errors import Corrupt
from loop.lake.data_files import DataFile
from loop.lake.delta_log import DeltaLog, store_errors
from loop.lake.pinned_log import ERASED, list_files

REPLACEMENT = "[erased]"
BATCH_ROWS = 32_768
_IDS_PER_PATTERN = 400
_MEMBERS = ("session_ids", "exemplars")  # lists of sessions: those of the person leave them
_TEXT = (pa.string(), pa.large_string(), pa.string_view())
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ErasedRows:
    """What was erased from one table, or would be. ``version`` is the first without the rows."""

    table: str
    rows: int = 0
    quotations: int = 0
    files_rewritten: int = 0
    old_files_deleted: int = 0
    version: int | None = None


class PersonalRows:
    """Finds and drops the rows of one developer and of their sessions.

    ``sessions`` are dropped whole. Ids in other rows' texts are replaced if they can't be taken
    for anything else: session ids of 16 characters or more, and developer ids that hold an ``@``.
    """

    def __init__(self, developer: str, sessions: Collection[str]) -> None:
        self.developer = developer
        self.sessions = frozenset(sessions) - {""}
        self._sessions = pa.array(sorted(self.sessions), pa.string())
        ids = sorted(session for session in self.sessions if len(session) >= 16)
        if "@" in developer:
            ids.append(developer)
        self.quotable = tuple(ids)
        self._patterns = [
            "|".join(re.escape(word) for word in ids[start : start + _IDS_PER_PATTERN])
            for start in range(0, len(ids), _IDS_PER_PATTERN)
        ]

    def scrub(self, table: pa.Table) -> tuple[pa.Table, int, int]:
        """The table without the person's rows, how many these were, and rows with quotations."""
        kept = table.filter(pc.invert(self._is_of_person(table)))
        dropped = table.num_rows - kept.num_rows
        quoting = 0
        for place, field in enumerate(kept.schema):
            column, count = self._without_quotations(kept.column(place), field)
            if count:
                kept = kept.set_column(place, field, column)
                quoting += count
        return kept, dropped, quoting

    def _is_of_person(self, table: pa.Table) -> Any:
        names = table.column_names
        mask: Any = pa.array([False] * table.num_rows, pa.bool_())
        if "session_id" in names:
            mask = pc.or_(mask, pc.is_in(_text(table["session_id"]), self._sessions))
        if "developer" in names:
            mask = pc.or_(mask, _equals(table["developer"], self.developer))
        if "resource" in names:  # events: what the client says of itself
            for name in ("resource", "attributes"):
                quoted = f'"{self.developer}"'
                found = pc.match_substring(_text(table[name]), quoted)
                mask = pc.or_(mask, pc.fill_null(found, False))
        return mask

    def _without_quotations(self, column: pa.ChunkedArray, field: pa.Field) -> tuple[Any, int]:
        if field.name in _MEMBERS:
            lists = column.to_pylist()
            kept = [[m for m in names or () if m not in self.sessions] for names in lists]
            count = sum(before != after for before, after in zip(lists, kept, strict=True))
            return (pa.chunked_array([pa.array(kept, field.type)]) if count else column), count
        if not self._patterns or column.null_count == len(column):
            return column, 0
        if field.type in _TEXT:
            text, count = _text(column), 0
            for pattern in self._patterns:
                found = pc.sum(pc.match_substring_regex(text, pattern)).as_py() or 0
                if found:
                    count += found
                    text = pc.replace_substring_regex(text, pattern, REPLACEMENT)
            return text.cast(field.type), count
        if not pa.types.is_nested(field.type):
            return column, 0
        values = column.to_pylist()
        replaced = [self._replace_in(value) for value in values]
        count = sum(before != after for before, after in zip(values, replaced, strict=True))
        return (pa.chunked_array([pa.array(replaced, field.type)]) if count else column), count

    def _replace_in(self, value: Any) -> Any:
        if isinstance(value, str):
            for pattern in self._patterns:
                value = re.sub(pattern, REPLACEMENT, value)
            return value
        if isinstance(value, dict):
            return {name: self._replace_in(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self._replace_in(part) for part in value]
        return value


def sessions_of(logs: Mapping[str, DeltaLog], developer: str) -> set[str]:
    """The sessions of a developer in any file that lies in the store, whatever version names it."""
    found: set[str] = set()
    for name in ("turns", "charges", "events"):
        log = logs[name]
        for info in list_files(log):
            for part in read_parts(
                log, info.path, ("session_id", "developer", "resource", "attributes")
            ):
                rows = part.filter(PersonalRows(developer, ())._is_of_person(part))
                found.update(rows["session_id"].unique().to_pylist())
    return {session for session in found if session}


def erase_rows(
    log: DeltaLog,
    person: PersonalRows,
    erasure_id: str,
    *,
    dry_run: bool,
    progress: Progress = lambda _: None,
) -> ErasedRows:
    """Erases the person from one table, for good. Running it again finishes what was cut off.

    Raises :class:`Conflict` when another process rewrites the table meanwhile and
    :class:`Corrupt` when an id can't be got out of the table's log.
    """
    result = ErasedRows(log.schema.name)
    with log.write_lock:
        live = {file.path: file for file in log.snapshot().files}
        for place, info in enumerate(infos := list_files(log)):
            progress(f"{log.schema.name}: file {place + 1} of {len(infos)}")
            dropped, quoting = _count(log, info.path, person)
            if not dropped and not quoting:
                continue
            file = live.get(info.path)
            if file is not None:
                result = replace(
                    result,
                    rows=result.rows + dropped,
                    quotations=result.quotations + quoting,
                    files_rewritten=result.files_rewritten + 1,
                )
                if not dry_run:
                    version = log.rewrite(
                        [file],
                        [(file.day, _scrubbed(log, file, person), file.is_settled)],
                        note="erase",
                        metadata={ERASED: erasure_id},
                    )
                    result = replace(result, version=version)
            if file is None:
                result = replace(result, old_files_deleted=result.old_files_deleted + 1)
            if not dry_run:
                with store_errors(log.schema.name):
                    log.filesystem().delete_file(info.path)
        if not dry_run and log.exists():
            _clean_log(log, person)
    return result


def _count(log: DeltaLog, path: str, person: PersonalRows) -> tuple[int, int]:
    dropped = quoting = 0
    for part in read_parts(log, path):
        _, some, more = person.scrub(part)
        dropped, quoting = dropped + some, quoting + more
    return dropped, quoting


def _scrubbed(log: DeltaLog, file: DataFile, person: PersonalRows) -> Iterator[pa.RecordBatch]:
    for part in read_parts(log, file.path):
        kept, _, _ = person.scrub(part)
        yield from to_stored_batches(log, kept)


def to_stored_batches(log: DeltaLog, rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Rows of a file in the stored schema; columns that the file is too old for are null."""
    stored = pa.schema([field for field in log.schema.arrow() if field.name != "day"])
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in stored
    ]
    yield from pa.Table.from_arrays(columns, schema=stored).to_batches()


def read_parts(
    log: DeltaLog, path: str, names: Collection[str] | None = None
) -> Iterator[pa.Table]:
    """A file's rows, some at a time; only the columns of those names, if given."""
    with store_errors(log.schema.name), log.filesystem().open_input_file(path) as source:
        file = pq.ParquetFile(source)
        columns = None if names is None else [n for n in file.schema_arrow.names if n in names]
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield pa.Table.from_batches([batch])


def _clean_log(log: DeltaLog, person: PersonalRows) -> None:
    """Cuts the log off where an old entry names the person: statistics of an early version did."""
    needles = [word.encode() for word in {person.developer, *person.sessions} if len(word) > 3]
    if not _log_files_with(log, needles):
        return
    log.change(lambda table: table.create_checkpoint())
    newest = log.snapshot().version
    filesystem = log.filesystem()
    for path in _log_files_with(log, needles):
        version = path.rsplit("/", 1)[-1].split(".", 1)[0]
        if version.isdigit() and int(version) == newest and path.endswith(".checkpoint.parquet"):
            raise Corrupt(f"The newest checkpoint of {log.schema.name} names the person.")
        with store_errors(log.schema.name):
            filesystem.delete_file(path)


def _log_files_with(log: DeltaLog, needles: list[bytes]) -> list[str]:
    filesystem = log.filesystem()
    found = []
    for info in filesystem.get_file_info(pafs.FileSelector("_delta_log", recursive=True)):
        if not info.is_file:
            continue
        with filesystem.open_input_file(info.path) as source:
            if info.path.endswith(".parquet"):
                content = str(pq.read_table(source).to_pylist()).encode()
            else:
                content = source.read()
        if any(needle in content for needle in needles):
            found.append(info.path)
    return found


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if column.type != pa.string() else column


def _equals(column: pa.ChunkedArray, value: str) -> Any:
    return pc.fill_null(pc.equal(_text(column), value), False)
