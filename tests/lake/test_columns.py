"""Columns come in the total order of turns, ties in time and sequence included."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from loop.lake.columns import ORDER, order_of, to_numpy

rows = st.tuples(
    st.sampled_from(["s1", "s2", "é", "z", "🦊", "\uffff"]),
    st.integers(0, 2),
    st.integers(0, 1),
    st.text(max_size=2),
)


@given(st.lists(rows, max_size=30, unique_by=lambda row: (row[0], row[3])))
def test_the_order_is_total_and_that_of_the_records(drawn: list[tuple[str, int, int, str]]) -> None:
    types = [pa.string(), pa.int64(), pa.int64(), pa.string()]
    arrays = [pa.array([row[i] for row in drawn], kind) for i, kind in enumerate(types)]
    table = pa.table(arrays, names=list(ORDER))
    order = order_of(table)
    columns = [to_numpy(table[name], order).tolist() for name in ORDER]
    assert list(zip(*columns, strict=True)) == sorted(drawn)
