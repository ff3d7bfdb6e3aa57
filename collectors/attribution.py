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


NOBODY = Owner()


def owner_of(events: Iterable[Event], attribution: Attribution, fallback: Owner = NOBODY) -> Owner:
    """The owner that the events name: for each part the first event that names it wins, and
    ``fallback`` fills in the parts that none names."""
    developer = org_path = repository = ""
    for event in events:
        attributes, resource = event.attributes, event.resource
        if not developer:
            developer = _first_of(attribution.developer_attributes, attributes, resource)
        if not org_path:
            org_path = _org_path(attribution, attributes, resource)
        if not repository:
            repository = _repository(attributes) or _repository(resource)
        if developer and org_path and (repository or fallback is not NOBODY):
            break  # the repository is the session's, found once for all its turns
    return Owner(
        developer or fallback.developer,
        org_path or fallback.org_path,
        repository or fallback.repository,
    )


def _first_of(
    names: Iterable[str], attributes: Mapping[str, object], resource: Mapping[str, object]
) -> str:
    for name in names:
        value = text(attributes, name) or text(resource, name)
        if value:
            return value
    return ""


def _org_path(
    attribution: Attribution, attributes: Mapping[str, object], resource: Mapping[str, object]
) -> str:
    levels = [
        text(attributes, name) or text(resource, name) for name in attribution.org_path_attributes
    ]
    path = "/".join(level.replace("/", "-") for level in levels if level)
    return path or _first_of((ORG_FALLBACK_ATTRIBUTE,), attributes, resource)


def _repository(attributes: Mapping[str, object]) -> str:
    if "vcs.repository.url.full" not in attributes and "vcs.repository.name" not in attributes:
        return ""
    url = text(attributes, "vcs.repository.url.full")
    owner, name = text(attributes, "vcs.owner.name"), text(attributes, "vcs.repository.name")
    return url or (f"{owner}/{name}" if owner and name else name)
