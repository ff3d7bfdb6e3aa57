"""Rules that resolve what is unattributed: who sends such records, and who is charged for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from loop.domain.errors import BadInput
from loop.domain.organization import check_day

MAX_CONDITIONS = 8
MAX_TEXT = 400
TARGETS = ("node_id", "developer", "repository")

Lookup = Callable[[str], str]
"""The value that a session's records give an attribute, "" for none."""


@dataclass(frozen=True, slots=True)
class AttributionRule:
    """Where every condition matches, what the rule names fills what nothing else has named.

    ``conditions`` are pairs of an attribute (``user.email``, ``user.email_domain``, ``cwd``, any
    other that records carry) and a pattern with ``*`` and ``?``, without regard to capitals. The
    rule holds for turns that began on the UTC days from ``valid_from`` up to ``valid_to``.
    """

    rule_id: int
    conditions: tuple[tuple[str, str], ...]
    node_id: str = ""
    developer: str = ""
    repository: str = ""
    valid_from: str = ""
    valid_to: str = ""

    def covers(self, day: str) -> bool:
        return self.valid_from <= day and (not self.valid_to or day < self.valid_to)

    def matches(self, lookup: Lookup) -> bool:
        return all(_matches(lookup(name), pattern) for name, pattern in self.conditions)

    def to_document(self) -> dict[str, Any]:
        return {
            "rule_id": self.rule_id,
            "match": dict(self.conditions),
            "node_id": self.node_id,
            "developer": self.developer,
            "repository": self.repository,
            "valid_from": self.valid_from,
            "valid_to": self.valid_to,
        }

    def words(self) -> str:
        """The rule as a sentence."""
        conditions = " and ".join(f"{name} is {pattern}" for name, pattern in self.conditions)
        targets = [f"{name} {getattr(self, name)}" for name in TARGETS if getattr(self, name)]
        until = f" up to {self.valid_to}" if self.valid_to else ""
        targets_words = ", ".join(targets).replace("node_id", "node")
        return f"Where {conditions}: {targets_words}, from {self.valid_from}{until}."


def parse_rule(document: Mapping[str, Any], rule_id: int = 0) -> AttributionRule:
    """A rule of its document: ``match`` (an object), one or more of ``node_id``, ``developer`` and
    ``repository``, and ``valid_from``. Raises :class:`BadInput`."""
    match = document.get("match")
    if not isinstance(match, dict) or not 1 <= len(match) <= MAX_CONDITIONS:
        raise BadInput(
            f"A rule needs 1 to {MAX_CONDITIONS} conditions.",
            fix='Send "match": {attribute: pattern}.',
        )
    conditions = []
    for name, pattern in match.items():
        if not isinstance(pattern, str) or not pattern.strip("*?") or len(pattern) > MAX_TEXT:
            raise BadInput(
                f"match: {name}: {pattern!r} is no pattern.",
                fix="Write a value; * and ? stand for what differs.",
            )
        conditions.append((str(name)[:MAX_TEXT], pattern))
    targets = {name: document.get(name) or "" for name in TARGETS}
    for name, value in targets.items():
        if not isinstance(value, str) or len(value) > MAX_TEXT or not (value or "-").isprintable():
            raise BadInput(f"{name} must be a text.")
    if not any(targets.values()):
        raise BadInput("A rule must name something.", fix=f"One or more of {', '.join(TARGETS)}.")
    day = check_day(str(document.get("valid_from") or ""), "valid_from")
    return AttributionRule(rule_id, tuple(conditions), **targets, valid_from=day)


def _matches(value: str, pattern: str) -> bool:
    return bool(value) and fnmatchcase(value.casefold(), pattern.casefold())
