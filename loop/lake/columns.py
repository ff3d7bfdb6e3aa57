"""Columns of turns as NumPy arrays in total order, a million turns in about a second.

Sorting wide rows of texts is what takes a database long. Here only a few integers are sorted, and
each column is then gathered once in that order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loop.lake.schemas import BOOL, FLOAT64, INT64, STRING

ORDER = ("session_id", "started_at_us", "sequence", "turn_id")
_SAMPLE = 10_000  # rows that tell whether a column of texts repeats itself
_FILL = {INT64: 0, FLOAT64: 0.0, BOOL: False}


def order_of(table: pa.Table) -> NDArray[np.int64]:
    """The rows in order of :data:`ORDER`; ids compare as UTF-8, as they do in the database."""
    sessions = _ranks(table["session_id"].combine_chunks())
    started = table["started_at_us"].to_numpy()
    sequence = table["sequence"].to_numpy()
    order = np.lexsort((sequence, started, sessions))
    ties = np.ones(max(len(order) - 1, 0), bool)
    for key in (sessions, started, sequence):
        ordered = key[order]
        ties &= ordered[1:] == ordered[:-1]
    if ties.any():
        turn_ids = _ranks(table["turn_id"].combine_chunks())
        order = np.lexsort((turn_ids, sequence, started, sessions))
    return order


def to_numpy(column: pa.ChunkedArray, order: NDArray[np.int64]) -> NDArray[Any]:
    """A column in the given order: texts as objects, numbers masked where some are null."""
    chunk = column.combine_chunks()
    if chunk.type == STRING and chunk.null_count == 0:
        return _texts_to_numpy(chunk, order)
    if chunk.null_count == 0 or chunk.type not in _FILL:
        values: NDArray[Any] = chunk.to_numpy(zero_copy_only=False)
        return values[order]
    return np.ma.MaskedArray(
        chunk.fill_null(_FILL[chunk.type]).to_numpy(zero_copy_only=False)[order],
        mask=chunk.is_null().to_numpy(zero_copy_only=False)[order],
    )


def _ranks(texts: pa.Array) -> NDArray[np.int64]:
    """Numbers that compare as the texts do."""
    encoded = texts.dictionary_encode()
    positions = pc.array_sort_indices(encoded.dictionary).to_numpy()
    ranks = np.empty(len(positions), np.int64)
    ranks[positions] = np.arange(len(positions))
    gathered: NDArray[np.int64] = ranks[encoded.indices.to_numpy()]
    return gathered


def _texts_to_numpy(texts: pa.Array, order: NDArray[np.int64]) -> NDArray[Any]:
    """Rows that say the same share one ``str``: making a million of them is what takes time."""
    sample = texts[:_SAMPLE]
    if len(sample.unique()) > len(sample) // 2:
        distinct: NDArray[Any] = texts.to_numpy(zero_copy_only=False)
        return distinct[order]
    encoded = texts.dictionary_encode()
    values: NDArray[Any] = encoded.dictionary.to_numpy(zero_copy_only=False)
    shared: NDArray[Any] = values[encoded.indices.to_numpy()[order]]
    return shared
