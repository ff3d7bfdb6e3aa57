"""Columns as they come from the lake or from records, read into plain NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.signedinteger[Any]]
"""Whole numbers in as few bytes as hold them."""

# Sums of a turn's token classes and products with small numbers must still fit 32 bits.
_NARROW_LIMIT = 1 << 27


@dataclass(frozen=True, slots=True, eq=False)
class TextColumn:
    """A dictionary-encoded text column: ``values[codes[row]]``."""

    codes: Integers
    values: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def at(self, row: int) -> str:
        return self.values[int(self.codes[row])]

    def equals(self, value: str) -> NDArray[np.bool_]:
        """Which rows hold the value, shape ``(n,)``."""
        if value not in self.values:
            return np.zeros(len(self.codes), bool)
        return np.equal(self.codes, self.values.index(value))


def encode_texts(values: Sequence[str], *, ordered: bool = False) -> TextColumn:
    """Encodes texts; with ``ordered``, codes compare as the texts do."""
    vocabulary = sorted(set(values)) if ordered else list(dict.fromkeys(values))
    code_of = {value: code for code, value in enumerate(vocabulary)}
    codes = np.fromiter(
        map(code_of.__getitem__, values), code_type(len(vocabulary)), count=len(values)
    )
    return TextColumn(codes, tuple(vocabulary))


def read_texts(
    column: ArrayLike | TextColumn | None, n: int, *, ordered: bool = False
) -> TextColumn:
    """A column of ``n`` texts; a missing column or value is ``""``."""
    if column is None:
        return TextColumn(np.zeros(n, np.int8), ("",) if n else ())
    if not isinstance(column, TextColumn):
        values: list[Any] = column.tolist() if isinstance(column, np.ndarray) else list(column)  # type: ignore[arg-type]
        texts = [value if isinstance(value, str) else "" for value in values]
        return encode_texts(texts, ordered=ordered)
    if not ordered:
        return column
    place = np.argsort(np.array(column.values, object), kind="stable")
    rank = np.empty(len(place), column.codes.dtype)
    rank[place] = np.arange(len(place))
    return TextColumn(rank.take(column.codes), tuple(column.values[at] for at in place))


def replace_texts(column: TextColumn, rows: Sequence[int], texts: Sequence[str]) -> TextColumn:
    """The column with other texts in some rows."""
    values = dict.fromkeys((*column.values, *texts))
    code_of = {value: code for code, value in enumerate(values)}
    codes = column.codes.astype(code_type(len(values)))
    codes[np.asarray(rows, np.int64)] = [code_of[text] for text in texts]
    return TextColumn(codes, tuple(values))


def fill_texts(column: TextColumn, other: TextColumn) -> TextColumn:
    """The column with the other's text wherever it holds ``""``."""
    if "" not in column.values:
        return column
    values = tuple(dict.fromkeys((*column.values, *other.values)))
    kind = code_type(len(values))
    of_other = np.array([values.index(value) for value in other.values], kind)
    own = column.codes.astype(kind)
    return TextColumn(np.where(column.equals(""), of_other.take(other.codes), own), values)


def code_type(count: int) -> np.dtype[Any]:
    """The smallest signed type for codes below ``count``, and for -1."""
    return np.min_scalar_type(-max(2, count))


def narrow(values: Integers) -> Integers:
    """In 32 bits where all values are far from its limits, else as they are."""
    if len(values) and max(-int(values.min()), int(values.max())) >= _NARROW_LIMIT:
        return values
    return values.astype(np.int32)


_FEW = 12


def recode(codes: Integers, table: Integers) -> Integers:
    """``table[codes]``; a sum of masks where the table is short, which no pattern of codes slows
    down (a choice by ``where`` costs ten times as much where the codes alternate)."""
    if len(table) > _FEW:
        return table.take(codes)
    recoded = np.full(len(codes), table[0])
    for code, value in enumerate(table.tolist()):
        if value != table[0]:
            recoded += (codes == code) * table.dtype.type(value - int(table[0]))
    return recoded


def blend(mask: NDArray[np.bool_], chosen: Integers | int, other: Integers) -> Integers:
    """``where(mask, chosen, other)`` of one type by arithmetic, which random masks do not slow."""
    difference = other.dtype.type(chosen) - other if isinstance(chosen, int) else chosen - other
    difference *= mask
    return other + difference


def read_integers(column: ArrayLike, missing: int = 0) -> NDArray[np.int64]:
    """Whole numbers; ``None``, NaN and masked values become ``missing``."""
    if isinstance(column, np.ma.MaskedArray):
        filled: NDArray[np.int64] = column.filled(missing).astype(np.int64)
        return filled
    array = np.asarray(column)
    if array.dtype == object:
        return np.array([missing if v is None or v != v else v for v in array], np.int64)
    if array.dtype.kind == "f":
        return np.where(np.isnan(array), missing, array).astype(np.int64)
    return array.astype(np.int64)


def read_booleans(column: ArrayLike) -> NDArray[np.bool_]:
    """Truth values; ``None`` and masked values are false."""
    if isinstance(column, np.ma.MaskedArray):
        return np.asarray(column.filled(False), bool)
    return np.asarray(column).astype(bool)
