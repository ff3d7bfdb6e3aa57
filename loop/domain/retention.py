"""How long the rows of a session are kept: classes of so many days, and rules that put sessions
into them.

Of several rules that cover a session the longest decides, so that no rule shortens what another
one asks for. A rule on ``all`` decides only where no other one does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from fnmatch import fnmatchcase
from typing import Any

from loop.domain.errors import BadInput, NotFound

BUILT_IN_DAYS: Mapping[str, int] = {"default": 1096, "sox": 2557, "hipaa": 2192}
"""Three, seven and six years, each with as many leap days as it can have."""
RULE_KINDS = ("repository", "org", "developer", "all")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What rules go by: all that the session's turns are charged to."""

    developers: frozenset[str] = frozenset()
    org_paths: frozenset[str] = frozenset()
    repositories: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """``value`` is a pattern (``*``, ``?``) of repositories, an organization path with all below
    it, a developer, or empty for ``all``. ``contents_class`` is that of texts; empty: the same."""

    kind: str
    value: str
    class_name: str
    contents_class: str = ""

    def covers(self, facts: SessionFacts) -> bool:
        if self.kind == "repository":
            return any(fnmatchcase(name, self.value) for name in facts.repositories)
        if self.kind == "org":
            return any(
                path == self.value or path.startswith(f"{self.value}/") for path in facts.org_paths
            )
        return self.kind == "all" or self.value in facts.developers


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """``days`` by class."""

    days: Mapping[str, int] = field(default_factory=lambda: dict(BUILT_IN_DAYS))
    rules: tuple[RetentionRule, ...] = ()

    def class_of(self, facts: SessionFacts, *, contents: bool = False) -> str:
        """The class of a session's rows, or of its texts. Texts never stay longer."""
        rules = [rule for rule in self.rules if rule.kind != "all" and rule.covers(facts)]
        rules = rules or [rule for rule in self.rules if rule.kind == "all"]
        names = {rule.class_name for rule in rules} or {"default"}
        longest = max(names, key=lambda name: (self.days[name], name))
        if not contents or not rules:
            return longest
        texts = {rule.contents_class or rule.class_name for rule in rules}
        return min(
            longest,
            max(texts, key=lambda name: (self.days[name], name)),
            key=lambda name: (self.days[name], name),
        )

    def first_kept_day(self, class_name: str, today: str) -> str:
        """Rows of sessions that ended before this UTC day go."""
        return (date.fromisoformat(today) - timedelta(days=self.days[class_name])).isoformat()

    def changed(self, change: Mapping[str, Any]) -> RetentionPolicy:
        """The policy after a change: ``{"class", "days"}`` sets a class, ``{"kind", "value",
        "class", "contents_class"}`` a rule; ``{"kind", "value", "end": true}`` ends a rule.

        Raises :class:`BadInput` for what is no change, :class:`NotFound` for a rule to end that
        there is none of.
        """
        if change.get("kind"):
            return self._with_rule(change)
        name, days = change.get("class"), change.get("days")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadInput(f"{name!r} is no name of a class.", fix="Lower case letters, 0-9, - _.")
        if isinstance(days, bool) or not isinstance(days, int) or not 0 < days <= 36_525:
            raise BadInput(f"Class {name}: {days!r} is no number of days.", fix="1 to 36525.")
        return replace(self, days={**self.days, name: days})

    def _with_rule(self, change: Mapping[str, Any]) -> RetentionPolicy:
        kind, value = change["kind"], change.get("value") or ""
        if kind not in RULE_KINDS:
            raise BadInput(f"No rule on a {kind!r}.", fix=f"One of {', '.join(RULE_KINDS)}.")
        if not isinstance(value, str) or (kind == "all") != (not value.strip()):
            raise BadInput(f"Say which {kind}." if kind != "all" else "`all` takes no value.")
        value = value.strip().strip("/") if kind == "org" else value.strip()
        others = tuple(r for r in self.rules if (r.kind, r.value) != (kind, value))
        if change.get("end"):
            if len(others) == len(self.rules):
                raise NotFound(f"There is no rule on {kind} {value}.")
            return replace(self, rules=others)
        names = change.get("class"), change.get("contents_class") or ""
        for name in names:
            if name not in (*self.days, "") or not names[0]:
                known = ", ".join(sorted(self.days))
                raise BadInput(f"There is no class {name!r}.", fix=f"One of {known}.")
        return replace(self, rules=(*others, RetentionRule(kind, value, str(names[0]), names[1])))
