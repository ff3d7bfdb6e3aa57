"""Whose turn it is: developer, org path and repository from what the client's records assert.

Client-asserted identity can be spoofed; it fills in what a credential leaves open. Record
attributes win over those of the resource block, which anybody can set by environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from collectors.event_fields import text
from loop.domain.turns import UNATTRIBUTED, Event

DEVELOPER_ATTRIBUTES = ("user.email", "enduser.id", "user.account_uuid", "user.id")
ORG_PATH_ATTRIBUTES = ("department", "team.id", "cost_center")
ORG_FALLBACK_ATTRIBUTE = "organization.id"


@dataclass(frozen=True, slots=True)
class Attribution:
    """Which attributes name the developer (first found wins) and the levels of the org path.

    ``organization.id`` alone names the path only when no level is given: it comes with a login
    by OAuth and would split a department between those who log in and those who use a key.
    """

    developer_attributes: tuple[str, ...] = DEVELOPER_ATTRIBUTES
    org_path_attributes: tuple[str, ...] = ORG_PATH_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class Owner:
    developer: str = UNATTRIBUTED
    org_path: str = UNATTRIBUTED
    repository: str = UNATTRIBUTED

    def or_else(self, other: Owner) -> Owner:
        """Fills in from ``other`` what is unattributed here."""
        return Owner(
            _first(self.developer, other.developer),
            _first(self.org_path, other.org_path),
            _first(self.repository, other.repository),
        )


def owner_of(events: Iterable[Event], attribution: Attribution) -> Owner:
    """The owner that the events name: the first event that names one wins, level by level."""
    owner = Owner()
    for event in events:
        owner = owner.or_else(_owner(event.attributes, event.resource, attribution))
        if UNATTRIBUTED not in (owner.developer, owner.org_path, owner.repository):
            break
    return owner


def _owner(
    attributes: Mapping[str, object], resource: Mapping[str, object], attribution: Attribution
) -> Owner:
    def read(name: str) -> str:
        return text(attributes, name) or text(resource, name)

    developer = next(filter(None, map(read, attribution.developer_attributes)), UNATTRIBUTED)
    levels = [read(name) for name in attribution.org_path_attributes]
    org_path = "/".join(level.replace("/", "-") for level in levels if level)
    return Owner(
        developer,
        org_path or read(ORG_FALLBACK_ATTRIBUTE) or UNATTRIBUTED,
        _repository(
            read("vcs.repository.url.full"), read("vcs.owner.name"), read("vcs.repository.name")
        ),
    )


def _repository(url: str, owner: str, name: str) -> str:
    if url:
        return url
    if owner and name:
        return f"{owner}/{name}"
    return name or UNATTRIBUTED


def _first(value: str, other: str) -> str:
    return value if value != UNATTRIBUTED else other
