"""Frozen records of which many are made a second.

A frozen dataclass sets each field by a call of ``object.__setattr__``, which for the fifty fields
of a turn takes eight times as long as plain assignment. :func:`quickly_made` lets a record take
the class of a twin while it is made: one with the same slots, whose fields can be assigned. It has
its own class, and is frozen, before anybody else sees it. All else is what dataclasses make.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

Record = TypeVar("Record")


def quickly_made(record: type[Record]) -> type[Record]:
    """The same frozen dataclass with slots, made faster.

    Raises TypeError for one with default factories, ``__post_init__`` or a base class with fields.
    """
    fields = dataclasses.fields(record)  # type: ignore[arg-type]
    names = [field.name for field in fields]
    if (
        any(field.default_factory is not dataclasses.MISSING or not field.init for field in fields)
        or hasattr(record, "__post_init__")
        or list(getattr(record, "__slots__", ())) != names
    ):
        raise TypeError(f"{record.__name__} can't be made quickly")
    twin = type(record.__name__, (), {"__slots__": tuple(names)})
    scope: dict[str, Any] = {"_twin": twin, "_set": object.__setattr__, "_type": type}
    parameters = ["self"]
    for field in fields:
        if field.default is dataclasses.MISSING:
            parameters.append(field.name)
        else:
            scope[f"_default_{field.name}"] = field.default
            parameters.append(f"{field.name}=_default_{field.name}")
    lines = [
        f"def __init__({', '.join(parameters)}):",
        "    _class = _type(self)",
        "    _set(self, '__class__', _twin)",
        *(f"    self.{name} = {name}" for name in names),
        "    self.__class__ = _class",
    ]
    exec("\n".join(lines), scope)  # noqa: S102 - the names of the record's own fields, as dataclasses do
    made = scope["__init__"]
    made.__qualname__ = f"{record.__qualname__}.__init__"
    made.__annotations__ = dict(record.__init__.__annotations__)
    setattr(record, "__init__", made)  # noqa: B010 - mypy lets no method be assigned
    return record
