"""Frames from records, from columns and from the lake are one and the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from turn_strategies import logged_turns

from loop.domain.errors import BadInput
from loop.domain.turns import Turn
from loop.lake import Lake
from optimizers.turn_columns import TextColumn
from optimizers.turn_frame import COLUMNS, TOKEN_CLASSES, TurnFrame


def same(left: TurnFrame, right: TurnFrame) -> bool:
    for name in left.__dataclass_fields__:
        mine, theirs = getattr(left, name), getattr(right, name)
        if isinstance(mine, TextColumn):
            mine = [mine.at(row) for row in range(len(left))]
            theirs = [theirs.at(row) for row in range(len(right))]
        if isinstance(mine, np.ndarray):
            if not np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f"):
                return False
        elif mine != theirs:
            return False
    return True


@given(logged_turns())
def test_masked_columns_read_as_records_do(turns: list[Turn]) -> None:
    columns: dict[str, object] = {}
    for name in COLUMNS:
        values = [getattr(t.usage if name in TOKEN_CLASSES else t, name) for t in turns]
        if isinstance(values[0], str):
            columns[name] = np.array(values, object)
        else:
            filled = [0 if value is None else value for value in values]
            columns[name] = np.ma.masked_array(filled, [value is None for value in values])
    frame = TurnFrame.from_columns(columns)  # type: ignore[arg-type]
    assert same(frame, TurnFrame.from_turns(turns))


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(turns=logged_turns())
def test_the_lakes_columns_read_as_records_do(
    tmp_path_factory: pytest.TempPathFactory, turns: list[Turn]
) -> None:
    folder: Path = tmp_path_factory.mktemp("lake")
    lake = Lake.open(str(folder))
    lake.write_turns(turns, [], revision=1)
    assert same(TurnFrame.from_columns(lake.turn_columns(COLUMNS)), TurnFrame.from_turns(turns))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(BadInput, match="started_at_us"):
        TurnFrame.from_columns({"session_id": []})


def test_columns_of_different_lengths_are_refused() -> None:
    columns: dict[str, list[object]] = {name: [] for name in COLUMNS} | {"served_model": ["m"]}
    with pytest.raises(BadInput, match="served_model has 1 values, not 0"):
        TurnFrame.from_columns(columns)
