"""SQL over the lake: DuckDB reads the Parquet files that a Delta version names.

No DuckDB extension is needed: local files are read by DuckDB's own Parquet reader, those on S3
through a pyarrow dataset. Each call works on a cursor of its own, so that threads don't meet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from loop.domain.errors import BadInput, Corrupt, Unavailable
from loop.lake.charge_keys import CHARGE_KEY
from loop.lake.current_rows import MANY_ROWS, PARTS, parts_of
from loop.lake.data_files import DataFile
from loop.lake.delta_log import DeltaLog, Snapshot
from loop.lake.schemas import BOOL, FLOAT64, INT64, STRING, TIMESTAMP, TableSchema

Order = Sequence[tuple[str, Literal["ascending", "descending"]]]
"""Columns of a result and the direction of each, the first one first."""

_WANTED = "wanted_sessions"
_SQL_TYPES = {
    STRING: "VARCHAR",
    INT64: "BIGINT",
    TIMESTAMP: "BIGINT",
    FLOAT64: "DOUBLE",
    BOOL: "BOOLEAN",
}
_WORD = re.compile(r"(?<![.\w])(?<!\bas )\w+")
"""What may name a table: not what follows a dot or AS, such as the column ``charges.turns``."""
_GLOB = re.compile(r"[*?\[\]{}]")
_FEW_ROWS = 1_000
_TAKING = 2  # threads
_SHORT = 200  # bytes: longer texts hardly repeat
_CONFIGURATION = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class LakeQueries:
    """Runs SQL over the views ``events``, ``turns``, ``contents``, ``scores``, ``profiles``,
    ``clusters``, ``decisions``, ``estimates``, ``charges`` and ``daily_charges``; ``<name>_rows``
    shows every stored row, and :data:`~loop.lake.current_rows.PARTS` are parts of what ``turns``
    shows."""

    def __init__(self, logs: Mapping[str, DeltaLog], *, many_rows: int = MANY_ROWS) -> None:
        self._logs = logs
        self._many_rows = many_rows
        self._connection = _connect()
        self._file_columns: dict[str, frozenset[str]] = {}
        self._known_columns: dict[frozenset[str], frozenset[str]] = {}

    def forget_files(self) -> None:
        """Lets go of what is cached about files, most of which are gone after a compaction.

        Queries that run meanwhile keep the old connection until they end.
        """
        self._connection = _connect()
        self._file_columns = {}

    def run(
        self,
        sql: str,
        parameters: Sequence[object] = (),
        *,
        files: Mapping[str, Sequence[DataFile]] | None = None,
        sessions: Collection[str] | None = None,
        tables: Mapping[str, pa.Table] | None = None,
        order: Order = (),
    ) -> pa.Table:
        """The result as an Arrow table.

        ``order`` sorts it, nulls last: many rows in half the time of SQL's own. ``files``
        narrows a table to some of its files, ``sessions`` every table to the rows of
        those sessions; ``tables`` are further tables that the SQL may name. Raises
        :class:`BadInput` for SQL that can't be run, :class:`Corrupt` for files that can't be
        read, :class:`Unavailable` when the store does not answer.
        """
        with self._connection.cursor() as cursor:
            if sessions is not None:
                wanted = pa.table({"session_id": pa.array(sorted(set(sessions)), pa.string())})
                cursor.register(_WANTED, wanted)
            for name, table in (tables or {}).items():
                cursor.register(name, table)
            try:
                named = set(_WORD.findall(sql.lower()))
                for name, log in self._logs.items():
                    if wanted_views := named & {name, *(f"{name}_{part}" for part in PARTS)}:
                        chosen = None if files is None else files.get(name)
                        self._open_views(cursor, log, chosen, wanted_views, sessions is not None)
                relation = cursor.sql(sql, params=list(parameters))
                return _sorted(relation.to_arrow_table(), order)
            except (
                duckdb.InvalidInputException,
                duckdb.InternalException,
                pa.ArrowInvalid,
            ) as error:
                raise Corrupt("A file of the lake can't be read.", why=str(error)) from error
            except (duckdb.IOException, OSError) as error:
                raise Unavailable("The lake does not answer.", why=str(error)) from error
            except duckdb.Error as error:
                raise BadInput("The query can't be run.", why=str(error)) from error

    def _stored_columns(
        self, log: DeltaLog, snapshot: Snapshot, files: Sequence[DataFile]
    ) -> tuple[pa.Schema, bool]:
        """The columns that any of the files has, and whether all files have all of them.

        Where they have, DuckDB need not compare the files' schemas before each query, which takes
        as long as many a query does.
        """
        schema = log.schema.arrow()
        if not files or not _is_read_by_duckdb(log):
            is_new = not snapshot.columns
            return pa.schema([f for f in schema if is_new or f.name in snapshot.columns]), False
        each = {self._columns_of(file) for file in files}
        there = frozenset().union(*each)
        return pa.schema([field for field in schema if field.name in there]), len(each) == 1

    def _columns_of(self, file: DataFile) -> frozenset[str]:
        found = self._file_columns.get(file.uri)
        if found is None:
            found = frozenset([*pq.read_schema(file.uri).names, "day"])
            self._file_columns[file.uri] = found = self._known_columns.setdefault(found, found)
        return found

    def _open_views(
        self,
        cursor: duckdb.DuckDBPyConnection,
        log: DeltaLog,
        chosen: Sequence[DataFile] | None,
        wanted: Set[str],
        narrowed: bool,
    ) -> None:
        """Opens those views of a table that are wanted: each takes some milliseconds to bind."""
        snapshot = log.snapshot()
        files = snapshot.files if chosen is None else chosen
        schema = log.schema
        where = ""
        if narrowed and "session_id" in schema.record_names():
            where = f"WHERE session_id IN (SELECT session_id FROM {_WANTED})"  # noqa: S608

        opened_views: set[str] = set()

        def view(name: str, part: Sequence[DataFile]) -> str:
            if name in opened_views:
                return name
            opened_views.add(name)
            stored, are_alike = self._stored_columns(log, snapshot, part)
            source = _source(cursor, log, part, stored, are_alike, name)
            selected = ", ".join(_selected(schema, stored))
            cursor.execute(f"CREATE TEMP VIEW {name} AS SELECT {selected} FROM {source} {where}")  # noqa: S608
            return name

        shown = wanted - {f"{schema.name}_rows"}
        if len(shown) < len(wanted):
            view(f"{schema.name}_rows", files)
        if not shown:
            return
        parts = parts_of(schema, files, lambda file: self._has_key(log, file))
        is_many = sum(file.rows for file in parts.opened) > self._many_rows
        for name in shown:
            sql = parts.sql_of(name, view, is_many=is_many)
            cursor.execute(f"CREATE TEMP VIEW {name} AS {sql}")

    def _has_key(self, log: DeltaLog, file: DataFile) -> bool:
        """Whether each row of a settled file has a charge key."""
        return _is_read_by_duckdb(log) and CHARGE_KEY in self._columns_of(file)


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config=dict(_CONFIGURATION))
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    return connection


def _source(
    cursor: duckdb.DuckDBPyConnection,
    log: DeltaLog,
    files: Sequence[DataFile],
    stored: pa.Schema,
    are_alike: bool,
    view: str,
) -> str:
    """What to select from: ``stored`` are the columns that any of the files has."""
    name = f"{view}_stored"
    if not files:
        cursor.register(name, stored.empty_table())
        return name
    if _is_read_by_duckdb(log):
        listed = ", ".join("'" + file.uri.replace("'", "''") + "'" for file in files)
        return (
            f"read_parquet([{listed}], hive_partitioning = true, hive_types = {{'day': VARCHAR}}, "
            f"union_by_name = {'false' if are_alike else 'true'})"
        )
    dataset = pads.dataset(
        [file.path for file in files],
        schema=stored,
        format="parquet",
        filesystem=log.filesystem(),
        partitioning=pads.partitioning(pa.schema([("day", pa.string())]), flavor="hive"),
    )
    cursor.register(name, dataset)
    return name


def _is_read_by_duckdb(log: DeltaLog) -> bool:
    return log.store.is_local and not _GLOB.search(log.uri)


def _selected(schema: TableSchema, stored: pa.Schema) -> Iterable[str]:
    names = set(stored.names)
    for column in schema.columns:
        if column.name not in names:
            # The files are older than the column: their rows read as null.
            kind = _SQL_TYPES.get(column.type)
            yield f'NULL{f"::{kind}" if kind else ""} AS "{column.record_name}"'
        elif column.type == TIMESTAMP:
            yield f'epoch_us("{column.name}") AS "{column.record_name}"'
        else:
            yield f'"{column.name}"'


def _sorted(table: pa.Table, order: Order) -> pa.Table:
    if not order or table.num_rows < 2:
        return table
    # One chunk: taking rows from several is slower.
    table = table.combine_chunks()
    places = pc.sort_indices(table, sort_keys=list(order))
    if table.num_rows < _FEW_ROWS:
        return table.take(places)
    with ThreadPoolExecutor(_TAKING) as pool:  # Arrow takes one column after the other
        columns = pool.map(lambda column: column.take(places), table.columns)
        return pa.table(list(columns), schema=table.schema)


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts. DuckDB sums integers as 128-bit numbers: those come out as ``int``."""
    columns = to_columns(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def to_columns(table: pa.Table) -> dict[str, list[Any]]:
    """Columns as lists: cheaper than rows where records are made of them."""
    return {name: _values(table[name]) for name in table.column_names}


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column's values. Most texts repeat: those are made once."""
    kind = column.type
    if pa.types.is_decimal(kind) and kind.scale == 0:
        try:
            return _values(column.cast(pa.int64()))
        except pa.ArrowInvalid:  # beyond 64 bits
            return [None if value is None else int(value) for value in column.to_pylist()]
    if column.null_count == 0 and kind in (INT64, FLOAT64):
        numbers: list[Any] = column.to_numpy().tolist()
        return numbers
    if kind == STRING and len(column) > _FEW_ROWS and column.nbytes < _SHORT * len(column):
        encoded = column.combine_chunks().dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        if encoded.null_count == 0:
            return [texts[place] for place in encoded.indices.to_numpy().tolist()]
    values: list[Any] = column.to_pylist()
    return values
