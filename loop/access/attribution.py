"""Who is charged for a turn: the one place that says which source counts before which.

For the node of the organization tree, the first of these that names one *within the node of the
credential* wins:

1. the developer directory, by any identity that the client states;
2. the client's labels (record before resource, then the gateway's header);
3. the credential's own node;
4. the rules for what is left, in the order of their making.

A source that names a node outside of the credential's is not believed; what labels said then stays
visible as *asserted*. The developer is the credential's, else the client's label, else a rule's.
The repository is the client's, else the gateway's header, else a rule's. Where no organization
tree was defined, labels are the organization path as they are. ``docs/organization.md`` has the
same as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from loop.access.attribution_rules import AttributionRule
from loop.access.directory import CredentialScope, Directory
from loop.domain.organization import SEPARATOR
from loop.domain.turns import UNATTRIBUTED

AttributedBy = Literal["credential", "directory", "label", "rule", "nobody"]


def no_attribute(_name: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a turn's records say of who sent them; none of it is believed as it stands.

    ``credentials`` in the order in which the records arrived; ``developers`` are all identities
    that were stated, the one to show first; ``levels`` are the labels of the organization path,
    top level first; ``lookup`` gives any attribute of the records, for rules.
    """

    credentials: tuple[str, ...] = ()
    developers: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    repository: str = ""
    lookup: Callable[[str], str] = no_attribute

    @property
    def label_path(self) -> str:
        return SEPARATOR.join(level.replace(SEPARATOR, "-") for level in self.levels if level)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who is charged. ``node_id`` is "" where no node of the tree is; ``asserted_org_path`` is
    what labels said where that was not believed."""

    developer: str = UNATTRIBUTED
    org_path: str = UNATTRIBUTED
    repository: str = UNATTRIBUTED
    node_id: str = ""
    attributed_by: AttributedBy = "nobody"
    asserted_org_path: str = ""


def scope_of(directory: Directory, credentials: tuple[str, ...], day: str) -> CredentialScope:
    """The scope of a turn whose records came by several credentials.

    The first to arrive binds it. A later one counts only where its node lies below that one's: a
    sub-unit's own collector says more than the gateway of the org, but nobody can pull another's
    turn over by sending a record that names it.
    """
    bound = CredentialScope()
    for credential in credentials:
        scope = directory.scope_of_credential(credential)
        if not bound.node_id or directory.tree.is_within(scope.node_id, bound.node_id, day):
            node_id = scope.node_id or bound.node_id
            bound = CredentialScope(node_id, scope.developer or bound.developer)
    return bound


def attribute(directory: Directory, claims: Claims, day: str) -> Owner:
    """The owner of a turn that began on a UTC day. A pure function of its three arguments."""
    scope = scope_of(directory, claims.credentials, day)
    rules = _matching(directory, claims, day)
    developer = (
        scope.developer
        or (claims.developers[0] if claims.developers else "")
        or next((rule.developer for rule in rules() if rule.developer), "")
    )
    repository = claims.repository or next(
        (rule.repository for rule in rules() if rule.repository), ""
    )
    shown = (developer or UNATTRIBUTED, repository or UNATTRIBUTED)
    if not directory.tree:
        path = claims.label_path
        return Owner(
            shown[0],
            path or UNATTRIBUTED,
            shown[1],
            attributed_by="label" if path else "nobody",
        )
    node_id, by = _node_of(directory, claims, scope, developer, rules, day)
    path = directory.tree.path(node_id, day)
    said = claims.label_path
    believed = not said or f"/{path}".casefold().endswith(f"/{said}".casefold())
    if not path:
        return Owner(shown[0], UNATTRIBUTED, shown[1], asserted_org_path=said)
    return Owner(shown[0], path, shown[1], node_id, by, "" if believed else said)


def _node_of(
    directory: Directory,
    claims: Claims,
    scope: CredentialScope,
    developer: str,
    rules: Callable[[], tuple[AttributionRule, ...]],
    day: str,
) -> tuple[str, AttributedBy]:
    def within(node_id: str) -> bool:
        return bool(node_id) and directory.tree.is_within(node_id, scope.node_id, day)

    identities = (scope.developer,) if scope.developer else claims.developers or (developer,)
    for identity in identities:
        node_id = directory.node_of_developer(identity, day)
        if within(node_id) and node_id != scope.node_id:
            return node_id, "directory"
    node_id = directory.node_of_names(claims.levels, day, scope.node_id)
    if node_id and node_id != scope.node_id:
        return node_id, "label"
    if scope.node_id:
        return scope.node_id, "credential"
    for rule in rules():
        if within(rule.node_id):
            return rule.node_id, "rule"
    return "", "nobody"


def _matching(
    directory: Directory, claims: Claims, day: str
) -> Callable[[], tuple[AttributionRule, ...]]:
    """The rules that match, looked for once and only when something is open."""
    found: list[tuple[AttributionRule, ...]] = []

    def matching() -> tuple[AttributionRule, ...]:
        if not found:
            found.append(
                tuple(
                    rule
                    for rule in directory.rules
                    if rule.covers(day) and rule.matches(claims.lookup)
                )
            )
        return found[0]

    return matching
