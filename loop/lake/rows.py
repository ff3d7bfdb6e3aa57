"""Rows between records and Arrow: one generic way in, so that every table treats texts, numbers
and times alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any

import pyarrow as pa

from loop.domain.errors import BadInput
from loop.lake.schemas import TableSchema

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_FIRST_DAY_US = int((datetime(1, 1, 2, tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000
_LAST_DAY_US = int((datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000


def day_of(at_us: int) -> str:
    """The UTC day as ISO text; times beyond the years 1 to 9999 fall on the nearest day."""
    clipped = min(max(at_us, _FIRST_DAY_US), _LAST_DAY_US)
    return _iso_day(clipped // _DAY_US)


@lru_cache(maxsize=4096)
def _iso_day(days: int) -> str:
    return date.fromordinal(_EPOCH.toordinal() + days).isoformat()


def day_start_us(day: str) -> int:
    """Midnight at the start of an ISO day. Raises :class:`BadInput`."""
    try:
        midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    except ValueError as error:
        raise BadInput(f"{day!r} is no day.", fix="Write YYYY-MM-DD.") from error
    return (midnight - _EPOCH) // timedelta(microseconds=1)


def to_arrow(schema: TableSchema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table in the stored schema from rows under the record's names.

    ``day`` is taken from the time column unless the rows have it. Texts that are no valid
    Unicode (half a surrogate pair) lose only the half character. Raises :class:`BadInput` naming
    the column for a value that does not fit, such as a number beyond 64 bits.
    """
    names = list(schema.record_names())
    if schema.time_column != "day":
        names.remove("day")
    return columns_to_arrow(schema, {name: [row[name] for row in rows] for name in names})


def columns_to_arrow(schema: TableSchema, columns: Mapping[str, list[Any]]) -> pa.Table:
    """:func:`to_arrow` from lists by the record's names: cheaper where rows need not be made."""
    arrays = []
    count = len(next(iter(columns.values())))
    for column in schema.columns:
        name = column.record_name
        if column.only_settled:
            arrays.append(pa.nulls(count, column.type))
            continue
        if name == "day" and name not in columns:
            values = list(map(day_of, columns[f"{schema.time_column}_us"]))
        else:
            values = columns[name]
        arrays.append(_to_array(schema.name, name, values, column.type))
    return pa.Table.from_arrays(arrays, schema=schema.arrow())


def _to_array(table: str, name: str, values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        try:
            return pa.array(values, kind)
        except UnicodeEncodeError:
            return pa.array([_mend(value) for value in values], kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise BadInput(
            f"A value does not fit the column {name} of {table}.", why=str(error)
        ) from error


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {key: _mend(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mend(item) for item in value]
    if isinstance(value, tuple):  # the fields of a struct
        return tuple(map(_mend, value))
    return value


def to_stored(schema: TableSchema, rows: pa.Table) -> pa.Table:
    """A query's result under the record's names as a table in the stored schema."""
    columns = [rows[column.record_name].cast(column.type) for column in schema.columns]
    return pa.Table.from_arrays(columns, schema=schema.arrow())


def plain(record: Any, names: Sequence[str]) -> dict[str, Any]:
    """The named fields (two or more) of a record as a row."""
    return dict(zip(names, values_of(tuple(names))(record), strict=True))


def columns_of(records: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    """The named fields (two or more) of many records, a list of each: a third of the time that
    rows take."""
    if not records:
        return {name: [] for name in names}
    columns = zip(*map(values_of(tuple(names)), records), strict=True)
    return dict(zip(names, map(list, columns), strict=True))


@lru_cache(maxsize=64)
def values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Reads the named fields (two or more) of a record."""
    return attrgetter(*names)
