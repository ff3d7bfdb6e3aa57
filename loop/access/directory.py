"""What is in force: which node a credential, a developer or a record belongs to, on which day.

A :class:`Directory` is one immutable reading of tree, credentials, developers and rules, indexed
for the collectors' hot path; :class:`DirectorySource` gives the newest one and reads the stores
again only when the record of changes has moved on.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from loop.access.attribution_rules import AttributionRule
from loop.access.content_mode_store import load_modes
from loop.access.credentials import Credential, load_credentials
from loop.access.organization_store import load_members, load_rules, load_tree
from loop.access.records import AccessLog, version_of
from loop.domain.content_modes import ContentMode
from loop.domain.errors import Unavailable
from loop.domain.organization import NodeSpan, OrganizationTree
from loop.domain.organization_csv import MemberRow

REFRESH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class CredentialScope:
    """What a credential says of who sent a record; "" leaves that open."""

    node_id: str = ""
    developer: str = ""


OPEN_SCOPE = CredentialScope()


class Directory:
    """One reading of everything that attribution and content modes go by. Immutable.

    ``version`` is the number of the newest change in it.
    """

    def __init__(
        self,
        tree: OrganizationTree | None = None,
        credentials: Mapping[str, Credential] | None = None,
        members: Iterable[MemberRow] = (),
        rules: Iterable[AttributionRule] = (),
        version: int = 0,
        content_modes: Mapping[str, ContentMode] | None = None,
    ) -> None:
        self.tree = tree or OrganizationTree()
        self.credentials = dict(credentials or {})
        self.rules = tuple(rules)
        self.version = version
        self.content_modes = dict(
            content_modes or {}
        )  # by node id: those that nodes have themselves
        self._scopes = {
            name: CredentialScope(credential.node_id, credential.developer)
            for name, credential in self.credentials.items()
        }
        self._days: dict[str, list[str]] = {}
        self._nodes: dict[str, list[str]] = {}
        for member in sorted(members, key=lambda member: member.valid_from):
            self._days.setdefault(member.developer.casefold(), []).append(member.valid_from)
            self._nodes.setdefault(member.developer.casefold(), []).append(member.node_id)

    def scope_of_credential(self, credential: str) -> CredentialScope:
        """By the name that records carry; the installation's own credential is open."""
        return self._scopes.get(credential, OPEN_SCOPE)

    def node_of_credential(self, credential: str) -> str:
        """The id of the node that a credential is bound to, "" for none."""
        return self.scope_of_credential(credential).node_id

    def knows_developer(self, developer: str) -> bool:
        """Whether the directory has ever placed an identity."""
        return developer.casefold() in self._days

    def node_of_developer(self, developer: str, day: str) -> str:
        """The id of the node that the directory has a developer in on a day, "" for none."""
        name = developer.casefold()
        index = bisect_right(self._days.get(name, ()), day) - 1
        return self._nodes[name][index] if index >= 0 else ""

    def node_of_names(self, names: Iterable[str], day: str, within: str = "") -> str:
        """The one node on or below ``within`` that names of levels mean, top level first, or the
        deepest of them that name one; "" where none does or several could be meant."""
        levels = [name for name in names if name]
        while levels:
            found = [
                node_id
                for node_id in self.tree.named("/".join(levels), day)
                if self.tree.is_within(node_id, within, day)
            ]
            if len(found) == 1:
                return found[0]
            levels.pop()
        return ""

    def lineage(self, node_id: str, day: str) -> tuple[NodeSpan, ...]:
        """From the org down to the node on a day: its business unit is the one of that kind."""
        return self.tree.lineage(node_id, day)

    def with_rule(self, rule: AttributionRule) -> Directory:
        """This reading with one more rule behind the others, to see what it would do."""
        changed = Directory(self.tree, self.credentials, (), (*self.rules, rule), self.version)
        changed.content_modes = self.content_modes
        changed._days, changed._nodes = self._days, self._nodes
        return changed


class DirectorySource:
    """The newest directory, looked for at most every ``refresh_seconds``.

    While the control store is away, what was read last stays in force.
    """

    def __init__(self, log: AccessLog, *, refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._log = log
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._current: Directory | None = None
        self._looked_at = float("-inf")
        log.subscribe(self.expire)

    def current(self) -> Directory:
        """Raises :class:`Unavailable` only when nothing could be read yet."""
        now = time.monotonic()
        if self._current is not None and now - self._looked_at < self._refresh_seconds:
            return self._current
        with self._lock:
            try:
                self._look()
            except Unavailable:
                if self._current is None:
                    raise
            self._looked_at = time.monotonic()
            if self._current is None:
                raise Unavailable("The organization could not be read.")
            return self._current

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` after each change that this process made."""
        self._log.subscribe(listener)

    def expire(self) -> None:
        """Makes the next call look, however short ago the last one was."""
        self._looked_at = float("-inf")

    def _look(self) -> None:
        with self._log.reading() as connection:
            version = version_of(connection)
            if self._current is not None and self._current.version == version:
                return
            self._current = Directory(
                load_tree(connection),
                load_credentials(connection),
                load_members(connection),
                load_rules(connection),
                version,
                load_modes(connection),
            )
