"""Which content mode a record is stored in: that of the node which it alone would be charged to.

So the same order holds as for charging (:mod:`loop.access.attribution`): what a record says of
itself counts only within the node of its credential, and a node without a mode of its own has that
of the nearest above it. Settings say the mode where no node does; a path of theirs is that of a
node where it names one, and of labels where there is no tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from collectors.attribution import (
    DEVELOPER_ATTRIBUTES,
    EMAIL_DOMAIN,
    ORG_FALLBACK_ATTRIBUTE,
    ORG_PATH_ATTRIBUTES,
)
from collectors.content_modes import Treatment
from loop.access.attribution import Claims, attribute
from loop.access.directory import Directory
from loop.domain.content_modes import CONTENT_MODES, ContentMode, parse_mode, strictest
from loop.domain.days import utc_day
from loop.domain.errors import BadInput

SETTINGS = "settings"
Label = Callable[[str], str]
"""Gives the value that a record, else its resource, has under a name of :attr:`ContentModes.asked`,
"" for none."""
_MAX_KNOWN = 10_000


class ContentModes:
    """The modes in force at one time. ``now_us`` says which UTC day the tree is asked for."""

    def __init__(
        self,
        default: ContentMode = "full",
        by_path: Mapping[str, ContentMode] | None = None,
        labels: tuple[str, ...] = ORG_PATH_ATTRIBUTES,
        *,
        hash_key: bytes = b"",
        directory: Directory | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.default = default
        self._by_path = dict(by_path or {})
        self._labels = labels
        self._directory = directory or Directory()
        self._now_us = now_us
        self._treatments = {mode: Treatment(mode, hash_key) for mode in CONTENT_MODES}
        modes = {default, *self._by_path.values(), *self._directory.content_modes.values()}
        self._is_always_full = modes == {"full"}
        self.asked = self._asked() if len(modes) > 1 else frozenset()
        self._settings: tuple[str, _Settings] = ("", _Settings({}, {}))
        self._known: dict[object, Treatment] = {}

    def is_always_full(self) -> bool:
        return self._is_always_full

    def treatment(self, credential: str, label: Label) -> Treatment:
        """For a record by the credential that it came with and by what it says of itself."""
        if not self.asked:
            return self._treatments[self.default]
        day = utc_day(self._now_us())
        levels = _values(self._labels, label)
        if not self._directory.tree:
            return self._treatments[self._of_labels(levels, self._by_path) or self.default]
        developers = _values(DEVELOPER_ATTRIBUTES, label)
        key = (credential, developers, levels or label(ORG_FALLBACK_ATTRIBUTE), day)
        known = self._known.get(key)
        if known is None:
            known = self._of_record(credential, developers, levels, label, day)
            if not self._directory.rules:  # they may look at anything that the record says
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[key] = known
        return known

    def of_node(self, node_id: str, day: str) -> tuple[ContentMode, str]:
        """The mode of a node on a day, and where it comes from: the id of the node that has it, or
        "settings"."""
        settings = self._settings_on(day)
        for node in reversed(self._directory.lineage(node_id, day)):
            if node.node_id in self._directory.content_modes:
                return self._directory.content_modes[node.node_id], node.node_id
            if node.node_id in settings.by_node:
                return settings.by_node[node.node_id], SETTINGS
        return self.default, SETTINGS

    def of_path(self, org_path: str) -> ContentMode:
        """The mode that the settings have for a path, whatever the tree says."""
        path = org_path
        while path and path not in self._by_path:
            path = path.rpartition("/")[0]
        return self._by_path.get(path, self.default)

    def _of_record(
        self,
        credential: str,
        developers: tuple[str, ...],
        levels: tuple[str, ...],
        label: Label,
        day: str,
    ) -> Treatment:
        def lookup(name: str) -> str:
            return label("user.email").rpartition("@")[2] if name == EMAIL_DOMAIN else label(name)

        claims = Claims(
            (credential,) if credential else (),
            developers,
            levels or _values((ORG_FALLBACK_ATTRIBUTE,), label),
            lookup=lookup,
        )
        mode, _ = self.of_node(attribute(self._directory, claims, day).node_id, day)
        # A path of the settings that no node has can still make it stricter, never laxer.
        said = self._of_labels(levels, self._settings_on(day).unplaced)
        return self._treatments[strictest([mode, said] if said else [mode])]

    def _of_labels(
        self, levels: tuple[str, ...], by_path: Mapping[str, ContentMode]
    ) -> ContentMode | None:
        path = Claims(levels=levels).label_path
        while path and path not in by_path:
            path = path.rpartition("/")[0]
        return by_path.get(path)

    def _settings_on(self, day: str) -> _Settings:
        if self._settings[0] != day:
            self._settings = (day, self._placed(day))
        return self._settings[1]

    def _placed(self, day: str) -> _Settings:
        placed = _Settings({}, {})
        for path, mode in self._by_path.items():
            nodes = self._directory.tree.named(path, day)
            for node_id in nodes:
                placed.by_node[node_id] = strictest([mode, placed.by_node.get(node_id, mode)])
            if not nodes:
                placed.unplaced[path] = mode
        return placed

    def _asked(self) -> frozenset[str]:
        if not self._directory.tree:
            return frozenset(self._labels)
        rules = {name for rule in self._directory.rules for name, _ in rule.conditions}
        names = {*self._labels, *DEVELOPER_ATTRIBUTES, ORG_FALLBACK_ATTRIBUTE, *rules}
        return frozenset(names - {EMAIL_DOMAIN})


class _Settings:
    """The settings' paths on a day: by the node that they name, and those that name none."""

    __slots__ = ("by_node", "unplaced")

    def __init__(self, by_node: dict[str, ContentMode], unplaced: dict[str, ContentMode]) -> None:
        self.by_node = by_node
        self.unplaced = unplaced


def parse_modes(entries: Iterable[str], name: str) -> dict[str, ContentMode]:
    """``path=mode`` entries as a mapping. Raises :class:`BadInput`."""
    modes: dict[str, ContentMode] = {}
    for entry in entries:
        path, separator, mode = entry.rpartition("=")
        if not separator or not path.strip("/ "):
            raise BadInput(f"{name}: {entry!r} is no mode of a path.", fix="Write PATH=MODE.")
        modes[path.strip("/ ")] = parse_mode(mode.strip(), name)
    return modes


def _values(names: Iterable[str], label: Label) -> tuple[str, ...]:
    return tuple(value for name in names if (value := label(name)))
