"""SQL over the lake: DuckDB reads the Parquet files that a Delta version names.

No DuckDB extension is needed: local files are read by DuckDB's own Parquet reader, those on S3
through a pyarrow dataset. Each call works on a cursor of its own, so that threads don't meet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from loop.domain.errors import BadInput, Corrupt, Unavailable
from loop.lake.data_files import DataFile, settled_and_open
from loop.lake.delta_log import DeltaLog, Snapshot
from loop.lake.schemas import BOOL, FLOAT64, INT64, STRING, TIMESTAMP, TableSchema

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
_CONFIGURATION = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}

CURRENT: dict[str, str] = {
    "events": "SELECT DISTINCT ON (event_id) * FROM {rows} ORDER BY event_id, received_at_us",
    "scores": """
        SELECT * FROM {rows} QUALIFY row_number() OVER (
            PARTITION BY session_id, evaluator
            ORDER BY scored_at_us DESC, evaluator_version DESC, input_digest DESC, value DESC
        ) = 1""",
    "clusters": """
        SELECT * FROM {rows} QUALIFY clustered_at_us = max(clustered_at_us) OVER ()
        AND cluster_id <> ''""",
    # The earliest; collectors/event_identity.py has the same order for those that tie.
    "decisions": """
        SELECT DISTINCT ON (decision_id) * FROM {rows}
        ORDER BY decision_id, at_us, session_id, agent_id, serial, policy_version, policy_digest,
            arm, bucket, propensity, rule_id, requested_model, routed_model,
            upstream_status NULLS FIRST""",
    "estimates": "SELECT * FROM {rows}",
    "charges": "SELECT * FROM {rows}",
    "daily_charges": "SELECT * FROM {rows}",
}

MANY_ROWS = 200_000
_FEW_ROWS = 1_000
_SHORT = 200  # bytes: longer texts hardly repeat
_OWN = 'EXCLUDE ("commit", removed, supersedes_from_day, supersedes_to_day)'
CURRENT |= {
    # A turn is one row, its texts are several.
    name: f"""
        SELECT * {_OWN} FROM (
            SELECT * FROM {{rows}} QUALIFY {rank}() OVER (
                PARTITION BY session_id, turn_id ORDER BY revision DESC, "commit" DESC) = 1
        ) WHERE NOT removed"""  # noqa: S608
    for name, rank in (("turns", "row_number"), ("contents", "dense_rank"))
}
"""What a view shows of a table's rows: only what is current, each thing once."""
_NEWEST_OF_MANY = {
    # Few keys have several revisions. Finding these first, by hash (a collision costs a little
    # time, nothing else), and numbering only their rows takes half the time of numbering all; but
    # it reads the files three times, which many small files don't repay.
    "turns": f"""
        SELECT * {_OWN} FROM (
            SELECT * FROM {{rows}} WHERE hash(session_id, turn_id) NOT IN (
                SELECT hash(session_id, turn_id) AS key FROM {{rows}}
                GROUP BY key HAVING count(*) > 1)
            UNION ALL
            SELECT * FROM {{rows}} WHERE hash(session_id, turn_id) IN (
                SELECT hash(session_id, turn_id) AS key FROM {{rows}}
                GROUP BY key HAVING count(*) > 1)
            QUALIFY row_number() OVER (
                PARTITION BY session_id, turn_id ORDER BY revision DESC, "commit" DESC) = 1
        ) WHERE NOT removed""",  # noqa: S608
}
"""The same answer for more than ``MANY_ROWS``."""
_SETTLED = f"SELECT * {_OWN} FROM {{rows}}"  # noqa: S608
_NOT_SUPERSEDED = f"""
    SELECT * {_OWN} FROM {{rows}} AS settled WHERE NOT EXISTS (
        SELECT 1 FROM {{opened}} AS opened
        WHERE opened.session_id = settled.session_id AND opened.turn_id = settled.turn_id)"""  # noqa: S608
"""The settled rows of turns of which nothing was appended since."""


class LakeQueries:
    """Runs SQL over the views ``events``, ``turns``, ``contents``, ``scores``, ``clusters``,
    ``decisions``, ``estimates``, ``charges`` and ``daily_charges``; ``<name>_rows`` shows every
    stored row."""

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
    ) -> pa.Table:
        """The result as an Arrow table.

        ``files`` narrows a table to some of its files, ``sessions`` every table to the rows of
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
                    if wanted_views := named & {name, f"{name}_rows"}:
                        chosen = None if files is None else files.get(name)
                        self._open_views(cursor, log, chosen, wanted_views, sessions is not None)
                relation = cursor.sql(sql, params=list(parameters))
                return relation.to_arrow_table()
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
        wanted: Collection[str],
        narrowed: bool,
    ) -> None:
        """Opens those views of a table that are wanted: each takes some milliseconds to bind."""
        snapshot = log.snapshot()
        files = snapshot.files if chosen is None else chosen
        schema = log.schema
        where = ""
        if narrowed and "session_id" in schema.record_names():
            where = f"WHERE session_id IN (SELECT session_id FROM {_WANTED})"  # noqa: S608

        def view(name: str, part: Sequence[DataFile]) -> str:
            stored, are_alike = self._stored_columns(log, snapshot, part)
            source = _source(cursor, log, part, stored, are_alike, name)
            selected = ", ".join(_selected(schema, stored))
            cursor.execute(f"CREATE TEMP VIEW {name} AS SELECT {selected} FROM {source} {where}")  # noqa: S608
            return name

        name, rows = schema.name, f"{schema.name}_rows"
        straight, looked_through, opened = settled_and_open(files)
        is_all_open = len(opened) == len(files) or not schema.has_revisions
        if rows in wanted or is_all_open:
            view(rows, files)
        if name not in wanted:
            return
        newest = CURRENT[name]
        if name in _NEWEST_OF_MANY and sum(file.rows for file in opened) > self._many_rows:
            newest = _NEWEST_OF_MANY[name]
        if is_all_open:
            cursor.execute(f"CREATE TEMP VIEW {name} AS {newest.format(rows=rows)}")
            return
        parts = []
        if straight:
            parts.append(_SETTLED.format(rows=view(f"{name}_settled", straight)))
        if opened:
            newer = view(f"{name}_open", opened)
            parts.append(newest.format(rows=newer))
            if looked_through:
                older = view(f"{name}_looked_through", looked_through)
                parts.append(_NOT_SUPERSEDED.format(rows=older, opened=newer))
        together = " UNION ALL ".join(f"({part})" for part in parts)
        cursor.execute(f"CREATE TEMP VIEW {name} AS {together}")


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
