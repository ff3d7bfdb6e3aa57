"""What of a turn or a text the lake has no room for, found before it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter

from loop.domain.turns import Content, TokenUsage, Turn

_LIMIT = 2**63
_YEAR_10000_US = 253_402_300_800_000_000
_NAMES = {
    record: tuple(field.name for field in fields(record) if str(field.type).startswith("int"))
    for record in (Turn, Content, TokenUsage)
}
_VALUES = {record: attrgetter(*names) for record, names in _NAMES.items()}


def check_storable(records: Iterable[Turn | Content]) -> None:
    """Raises ValueError for a number beyond 64 bits or a time outside years 1970 to 9999."""
    for record in records:
        numbers = [value for value in _VALUES[type(record)](record) if value is not None]
        if min(numbers) < 0 or max(numbers) >= _YEAR_10000_US:
            _check_each(record)
        if isinstance(record, Turn):
            counts = _VALUES[TokenUsage](record.usage)
            if min(counts) < 0 or max(counts) >= _LIMIT:
                raise ValueError(f"the token counts {record.usage} can't be")


def _check_each(record: Turn | Content) -> None:
    kind = type(record)
    for name, value in zip(_NAMES[kind], _VALUES[kind](record), strict=True):
        if value is None:
            continue
        if not -_LIMIT <= value < _LIMIT:
            raise ValueError(f"{name} is {value}, beyond 64 bits")
        if name[-6:] == "_at_us" and not 0 <= value < _YEAR_10000_US:
            raise ValueError(f"{name} is {value}, no time before the year 10000")
