"""Records that are made quickly are frozen dataclasses like any other."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest

from loop.domain import turns
from loop.domain.quick_records import quickly_made

QUICK = [turns.Event, turns.Turn, turns.Content, turns.ToolCall, turns.TokenUsage]


@dataclass(frozen=True, slots=True)
class Plain:
    """As :class:`Quick`."""

    name: str
    count: int = 3


@quickly_made
@dataclass(frozen=True, slots=True)
class Quick:
    """As :class:`Plain`."""

    name: str
    count: int = 3


def test_a_quick_record_is_a_frozen_dataclass() -> None:
    for given in ({"name": "a"}, {"name": "a", "count": 4}):
        quick, plain = Quick(**given), Plain(**given)
        assert dataclasses.asdict(quick) == dataclasses.asdict(plain)
        assert repr(quick) == repr(plain).replace("Plain", "Quick")
        assert quick == Quick(**given) == copy.deepcopy(quick) == pickle.loads(pickle.dumps(quick))
        assert hash(quick) == hash(plain)
        assert dataclasses.replace(quick, count=5) == Quick("a", 5)
    for wrong in ((), ("a", 1, 2)):
        with pytest.raises(TypeError):
            Quick(*wrong)


@pytest.mark.parametrize("record", [Quick, *QUICK])
def test_a_quick_record_can_not_be_changed(record: Any) -> None:
    values = {each.name: each.name for each in dataclasses.fields(record)}
    made = record(**values)
    assert type(made) is record
    assert {name: getattr(made, name) for name in values} == values
    for name in values:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, "other")
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(made, name)
    with pytest.raises((AttributeError, TypeError)):
        made.unknown = 1


def test_what_can_not_be_made_quickly_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class WithFactory:
        names: list[str] = field(default_factory=list)

    @dataclass(frozen=True, slots=True)
    class AfterThought:
        name: str

        def __post_init__(self) -> None: ...

    @dataclass(frozen=True)
    class WithoutSlots:
        name: str

    @dataclass(frozen=True, slots=True)
    class More(Plain):
        other: str = ""

    for record in (WithFactory, AfterThought, WithoutSlots, More):
        with pytest.raises(TypeError, match="quickly"):
            quickly_made(record)
