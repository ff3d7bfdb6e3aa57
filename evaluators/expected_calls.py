"""Calls against those that a label asks for, after BFCL's ``ast_checker``.

The name must be right, every parameter that may not be left out given, none given that the label
does not know, and each value among those that are right. Calls are matched without order. An
integer counts as the float it equals. Unlike BFCL, texts are compared as they are: its
normalisation drops ``/``, ``-``, ``_`` and ``.``, which makes ``src/a_b.py`` equal to
``srcab.py``. ``same_text`` can be given for benchmarks.

Source: ShishirPatil/gorilla, berkeley-function-call-leaderboard, ``ast_checker.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loop.domain.turns import ExpectedCall

LEFT_OUT = ""
"""Among the right values it says that the parameter may be left out."""
SameText = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class GivenCall:
    """A call as made. ``arguments`` is ``None`` where they could not be read."""

    name: str
    arguments: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class CallMatch:
    """``wrong`` says for each call made why it is none of those expected; "" where it is one.
    ``missing`` are the expected calls that were not made."""

    wrong: tuple[str, ...]
    missing: tuple[ExpectedCall, ...]

    @property
    def is_right(self) -> bool:
        return not any(self.wrong) and not self.missing


def match_calls(
    given: Sequence[GivenCall],
    expected: Sequence[ExpectedCall],
    *,
    same_text: SameText = str.__eq__,
) -> CallMatch:
    """Matches each call with the first expected one that it is and that no earlier call is."""
    left = list(expected)
    wrong = []
    for call in given:
        problems = [_problem(call, wanted, same_text) for wanted in left]
        place = next((place for place, problem in enumerate(problems) if not problem), None)
        if place is None:
            same_name = (p for p, w in zip(problems, left, strict=True) if w.name == call.name)
            wrong.append(next(same_name, "it is none of the calls expected"))
        else:
            del left[place]
            wrong.append("")
    return CallMatch(tuple(wrong), tuple(left))


def _problem(call: GivenCall, wanted: ExpectedCall, same_text: SameText) -> str:
    if call.name != wanted.name:
        return "it is none of the calls expected"
    if call.arguments is None:
        return "its arguments can't be read"
    for name, values in wanted.arguments.items():
        if name not in call.arguments and LEFT_OUT not in values:
            return f"{name} is missing"
    for name, value in call.arguments.items():
        if name not in wanted.arguments:
            return f"{name} is not expected"
        if not any(_same(value, right, same_text) for right in wanted.arguments[name]):
            return f"{name} has another value"
    return ""


def _same(value: object, right: object, same_text: SameText) -> bool:
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(value, int | float) and isinstance(right, int | float):
        return float(value) == float(right)
    if isinstance(value, str) and isinstance(right, str):
        return same_text(value, right)
    if isinstance(value, list | tuple) and isinstance(right, list | tuple):
        pairs = zip(value, right, strict=False)
        return len(value) == len(right) and all(_same(v, r, same_text) for v, r in pairs)
    if isinstance(value, Mapping) and isinstance(right, Mapping):
        return _same_object(value, right, same_text)
    return value == right


def _same_object(
    value: Mapping[object, object], right: Mapping[object, object], same_text: SameText
) -> bool:
    """An object in a label gives for each key the values that are right."""
    for key, item in value.items():
        if key not in right or not any(_same(item, one, same_text) for one in _each(right[key])):
            return False
    return all(key in value or LEFT_OUT in _each(rights) for key, rights in right.items())


def _each(rights: object) -> Sequence[object]:
    return rights if isinstance(rights, list | tuple) else (rights,)
