"""The rules of a policy in a form that is quick to try: gateways decide at every request.

Each condition becomes one call into C on a value that was read from the request once. A policy
carries this form beside its rules; ``tests/domain/test_compiled_rules.py`` holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import attrgetter, contains, eq, ge, gt, is_not, le, lt, ne
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loop.domain.policies import Condition, RouteRequest, Rule

Check = tuple[int, Callable[[Any], bool]]  # which of the values read, and what must hold of it

# With the condition's value first, so that partial() leaves a function of the request's.
_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "<": gt,
    "<=": ge,
    ">": lt,
    ">=": le,
    "==": eq,
    "!=": ne,
    "in": contains,
}
_ALWAYS: Check = (0, partial(is_not, None))
_NODES = 0  # the place of the org path's nodes among the values


class CompiledRules:
    """Made once a policy by :class:`loop.domain.policies.RoutingPolicy`."""

    __slots__ = ("_names_nodes", "_read", "_rules")

    def __init__(self, rules: Sequence[Rule], measure: str) -> None:
        names = ["org_path"]  # what is read; its place is taken by the nodes

        def check_of(condition: Condition) -> Check:
            name = measure if condition.field == "input_tokens" else condition.field
            if name == "org_path" and condition.op == "==":
                return _NODES, partial(le, frozenset([condition.value]))  # is a subset of
            if name not in names[1:]:
                names.append(name)
            return names.index(name, 1), _predicate(condition)

        shared = Counter(condition for rule in rules for condition in rule.when)

        def order(condition: Condition) -> tuple[int, bool]:
            return shared[condition], isinstance(condition.value, str | tuple)

        # All of a rule's conditions must hold, so any order will do: what many rules share tells
        # them apart the least, and numbers are the quickest.
        checks = [
            [check_of(condition) for condition in sorted(rule.when, key=order)] or [_ALWAYS]
            for rule in rules
        ]
        self._rules = tuple(
            (*first, tuple(rest), rule) for rule, (first, *rest) in zip(rules, checks, strict=True)
        )
        self._names_nodes = any(place == _NODES for row in checks for place, _ in row)
        # At least two names: attrgetter gives a tuple then.
        self._read = attrgetter(*names, "requested_model")

    def first_match(self, request: RouteRequest) -> Rule | None:
        """The first rule whose conditions all hold."""
        values = self._read(request)
        if self._names_nodes:
            values = (_nodes_of(values[_NODES]), *values[1:])
        for place, holds, rest, rule in self._rules:
            if holds(values[place]):
                for place, holds in rest:
                    if not holds(values[place]):
                        break
                else:
                    return rule
        return None


def _predicate(condition: Condition) -> Callable[[Any], bool]:
    if condition.op == "in" and isinstance(condition.value, tuple):
        return frozenset(condition.value).__contains__
    return partial(_HOLDS[condition.op], condition.value)


@lru_cache(maxsize=4096)
def _nodes_of(org_path: str) -> frozenset[str]:
    """A node and all above it: of ``a/b/c`` also ``a/b`` and ``a``."""
    slashes = (place for place, letter in enumerate(org_path) if letter == "/")
    return frozenset([org_path, *(org_path[:place] for place in slashes)])
