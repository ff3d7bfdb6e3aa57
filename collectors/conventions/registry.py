"""Finds the adapters: entry points of the group ``turnwise.conventions``, loaded when first asked.

An adapter that can't be loaded, or that fails on a record, is reported once and passed over: its
records stay plain events.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from collectors.conventions.convention import ENTRY_POINTS, Convention

logger = logging.getLogger("turnwise")


class ConventionRegistry:
    """The adapters in the order in which they are asked."""

    def __init__(self, conventions: Iterable[Convention], problems: Iterable[str] = ()) -> None:
        self.conventions = tuple(
            sorted(conventions, key=lambda convention: (convention.rank, convention.name))
        )
        self.problems = list(problems)
        self._broken: set[str] = set()

    def recognise(self, scope: str, name: str, attributes: Mapping[str, Any]) -> Convention | None:
        """The first adapter that knows a record as its own."""
        for convention in self.conventions:
            try:
                if convention.recognises(scope, name, attributes):
                    return convention
            except Exception as error:  # noqa: BLE001 - a plug-in's fault must not stop the intake
                self.report(convention, error)
        return None

    def session_of(self, convention: Convention, attributes: Mapping[str, Any]) -> str:
        """The conversation that a record names, else ""."""
        try:
            session_id = convention.session_of(attributes)
        except Exception as error:  # noqa: BLE001 - as above
            self.report(convention, error)
            return ""
        return session_id if isinstance(session_id, str) else ""

    def report(self, convention: Convention, error: Exception) -> None:
        """Logs an adapter's first fault; the others of its kind are passed over in silence."""
        if convention.name in self._broken:
            return
        self._broken.add(convention.name)
        problem = f"the convention {convention.name} failed and is passed over: {error!r}"
        self.problems.append(problem)
        logger.error("%s", problem)


def load_conventions(entries: Iterable[EntryPoint]) -> ConventionRegistry:
    """Loads the adapters that the entry points name; those that can't be are in ``problems``.

    Of two entries of one name the first stands, the other is a problem.
    """
    found: dict[str, Convention] = {}
    problems = []
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
        try:
            convention = entry.load()()
            name, rank = convention.name, convention.rank
            if not isinstance(name, str) or not name or not isinstance(rank, int):
                raise TypeError("it has no name or no rank")
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises, the service goes on
            problems.append(f"the convention {entry.name} ({entry.value}) is left out: {error!r}")
            logger.error("%s", problems[-1])
            continue
        if name in found:
            problems.append(f"the convention {name} ({entry.value}) is left out: it is there twice")
            logger.error("%s", problems[-1])
            continue
        found[name] = convention
    return ConventionRegistry(found.values(), problems)


@cache
def known_conventions() -> ConventionRegistry:
    """The adapters of every installed package, loaded once in a process."""
    return load_conventions(entry_points(group=ENTRY_POINTS))
