"""What a turn's records claim of who sent them: developer, organization labels, repository.

Claims are the client's word and can be spoofed; ``loop.access.attribution`` decides what of them
counts. Record attributes come before those of the resource block, which anybody can set by
environment, and both before the gateway's headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from collectors.event_fields import text
from loop.access.attribution import Claims, Owner, attribute
from loop.access.directory import Directory
from loop.domain.days import utc_day
from loop.domain.turns import Event

DEVELOPER_ATTRIBUTES = ("user.email", "enduser.id", "user.account_uuid", "user.id")
ORG_PATH_ATTRIBUTES = ("department", "team.id", "cost_center")
ORG_FALLBACK_ATTRIBUTE = "organization.id"
EMAIL_DOMAIN = "user.email_domain"
_REPOSITORY_ATTRIBUTES = ("vcs.repository.url.full", "vcs.owner.name", "vcs.repository.name")
NO_CLAIMS = Claims()


@dataclass(frozen=True, slots=True)
class Attribution:
    """Which attributes name the developer (the first one found is shown) and the levels of the
    organization path, and the directory that says what of it counts.

    ``organization.id`` alone names the path only when no level is given: it comes with a login
    by OAuth and would split a department between those who log in and those who use a key.
    """

    developer_attributes: tuple[str, ...] = DEVELOPER_ATTRIBUTES
    org_path_attributes: tuple[str, ...] = ORG_PATH_ATTRIBUTES
    directory: Directory = field(default_factory=Directory)


CLIENT_LABELS = Attribution()


def client_labels() -> Attribution:
    """Attribution by what clients say alone: without an organization, credentials or rules."""
    return CLIENT_LABELS


class Owners(Protocol):
    """Says who is charged for a turn of these records, by the tree of its UTC day."""

    def owner_of(
        self, records: Sequence[Event], decision: Event | None, started_at_us: int
    ) -> Owner: ...


class SessionOwners:
    """The owners of one session's turns: what a turn's own records do not name, those of the
    session fill in, each part from the first record that names it."""

    def __init__(self, events: Sequence[Event], attribution: Attribution) -> None:
        self._attribution = attribution
        self._events = [event for event in events if event.kind != "decision"]
        self._session = claims_of(self._events, attribution)
        self._known: dict[tuple[object, ...], Owner] = {}

    def owner_of(
        self, records: Sequence[Event], decision: Event | None, started_at_us: int
    ) -> Owner:
        directory = self._attribution.directory
        own = claims_of(records, self._attribution, needs_repository=False)
        session = self._session
        levels, repository = own.levels or session.levels, own.repository or session.repository
        if decision is not None and not levels and text(decision, "org_path"):
            levels = tuple(text(decision, "org_path").split("/"))
        if decision is not None and not repository:
            repository = text(decision, "repository")
        claims = Claims(
            own.credentials or session.credentials or _credentials_of(decision),
            own.developers or session.developers,
            levels,
            repository,
            lambda name: own.lookup(name) or session.lookup(name) or _said(decision, name),
        )
        day = utc_day(started_at_us)
        if directory.rules:  # they may look at anything that the records carry
            return attribute(directory, claims, day)
        key = (claims.credentials, claims.developers, claims.levels, claims.repository, day)
        owner = self._known.get(key)
        if owner is None:
            owner = self._known[key] = attribute(directory, claims, day)
        return owner


class EqualOwners:
    """The owners of turns whose records all say of their sender what one event says, in a session
    of which ``others`` say what is left open."""

    def __init__(self, event: Event, others: Sequence[Event], attribution: Attribution) -> None:
        self._records = [event]
        self._owners = SessionOwners([event, *others], attribution)
        self._by_day: dict[str, Owner] = {}

    def owner_of(
        self, records: Sequence[Event], decision: Event | None, started_at_us: int
    ) -> Owner:
        if decision is not None:
            return self._owners.owner_of(self._records, decision, started_at_us)
        day = utc_day(started_at_us)
        owner = self._by_day.get(day)
        if owner is None:
            owner = self._owners.owner_of(self._records, None, started_at_us)
            self._by_day[day] = owner
        return owner


def separate(events: Sequence[Event], attribution: Attribution) -> list[list[Event]]:
    """A session's events, apart for credentials of parts of the organization of which neither
    lies below the other, in the order of their arrival.

    So nobody can add to another's turns, or change them, by sending records that name them. A
    session that goes on under a credential of another node is several such groups, none of it
    lost.
    """
    directory = attribution.directory
    credentials = _credentials(events)
    if not any(directory.node_of_credential(name) for name in credentials):
        return [list(events)]
    day = utc_day(min(event.at_us for event in events))
    groups: list[str] = []  # the node that binds each
    group_of: dict[str, int] = {}
    for name in credentials:
        node_id = directory.node_of_credential(name)
        for number, bound in enumerate(groups):
            if not node_id or not bound or directory.tree.is_within(bound, node_id, day):
                groups[number] = bound or node_id
            elif directory.tree.is_within(node_id, bound, day):
                groups[number] = node_id
            else:
                continue
            group_of[name] = number
            break
        else:
            group_of[name] = len(groups)
            groups.append(node_id)
    separated: list[list[Event]] = [[] for _ in groups]
    for event in events:
        separated[group_of[event.credential]].append(event)
    return separated


@dataclass(slots=True)
class NamedOwner:
    """Whom a session's records name, as long as they agree with each other."""

    attribution: Attribution
    named: dict[str, object] = field(default_factory=dict)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Every attribute that an owner can depend on."""
        asked = {
            "user.email" if name == EMAIL_DOMAIN else name
            for rule in self.attribution.directory.rules
            for name, _ in rule.conditions
        }
        return tuple(
            dict.fromkeys(
                (
                    *self.attribution.developer_attributes,
                    *self.attribution.org_path_attributes,
                    ORG_FALLBACK_ATTRIBUTE,
                    *_REPOSITORY_ATTRIBUTES,
                    *sorted(asked),
                )
            )
        )

    def takes(self, event: Event) -> bool | None:
        """Whether the event names something for the first time; ``None`` when it contradicts."""
        claims = claims_of([event], self.attribution)
        directory = self.attribution.directory
        said: dict[str, object] = {
            "developer": claims.developers[:1],
            "identities": tuple(filter(directory.knows_developer, claims.developers)),
            "org_path": claims.label_path,
            "repository": claims.repository,
        }
        for rule in directory.rules:
            said |= {f"rule {name}": claims.lookup(name) for name, _ in rule.conditions}
        is_first = False
        for part, value in said.items():
            if not value:
                continue
            if part not in self.named:
                self.named[part] = value
                is_first = True
            elif self.named[part] != value:
                return None
        return is_first


def claims_of(
    events: Sequence[Event], attribution: Attribution, *, needs_repository: bool = True
) -> Claims:
    """What the events claim: for each part the first event that names it. Without
    ``needs_repository`` the search ends once the other parts are known."""
    developers: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    repository = ""
    for event in events:
        attributes, resource = event.attributes, event.resource
        if not developers:
            developers = _all_of(attribution.developer_attributes, attributes, resource)
        if not levels:
            levels = _levels(attribution, attributes, resource)
        if not repository:
            repository = _repository(attributes) or _repository(resource)
        if developers and levels and (repository or not needs_repository):
            break
    return Claims(_credentials(events), developers, levels, repository, lookup_in(events))


def lookup_in(events: Sequence[Event]) -> Callable[[str], str]:
    """Looks an attribute up in the events: the first that has it as a text, its record before its
    resource. ``user.email_domain`` is what follows the @ of ``user.email``."""

    def lookup(name: str) -> str:
        if name == EMAIL_DOMAIN:
            return lookup("user.email").rpartition("@")[2]
        for event in events:
            value = text(event.attributes, name) or text(event.resource, name)
            if value:
                return value
        return ""

    return lookup


def _said(decision: Event | None, name: str) -> str:
    return "" if decision is None else text(decision, name)


def _credentials_of(decision: Event | None) -> tuple[str, ...]:
    return () if decision is None or not decision.credential else (decision.credential,)


def _credentials(events: Sequence[Event]) -> tuple[str, ...]:
    """Those that the events came with, in the order in which they first arrived."""
    arrivals: dict[str, int] = {}
    for event in events:
        first = arrivals.get(event.credential)
        if first is None or event.received_at_us < first:
            arrivals[event.credential] = event.received_at_us
    if not any(arrivals):
        return ()
    return tuple(sorted(arrivals, key=lambda name: (arrivals[name], name)))


def _all_of(
    names: Iterable[str], attributes: Mapping[str, object], resource: Mapping[str, object]
) -> tuple[str, ...]:
    found = []
    for name in names:
        value = attributes.get(name)
        if not value or type(value) is not str:
            value = resource.get(name)
            if not value or type(value) is not str:
                continue
        found.append(value)
    return tuple(found)


def _levels(
    attribution: Attribution, attributes: Mapping[str, object], resource: Mapping[str, object]
) -> tuple[str, ...]:
    return _all_of(attribution.org_path_attributes, attributes, resource) or _all_of(
        (ORG_FALLBACK_ATTRIBUTE,), attributes, resource
    )


def _repository(attributes: Mapping[str, object]) -> str:
    if "vcs.repository.url.full" not in attributes and "vcs.repository.name" not in attributes:
        return ""
    url = text(attributes, "vcs.repository.url.full")
    owner, name = text(attributes, "vcs.owner.name"), text(attributes, "vcs.repository.name")
    return url or (f"{owner}/{name}" if owner and name else name)
