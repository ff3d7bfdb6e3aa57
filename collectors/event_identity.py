"""Which records are the same record, and which one rules where two of one identity disagree.

Identity, by kind:

- an ``api_request`` that names its request: session and request id, for a request is answered once;
- any other log record that states its place: session, time, ``event.sequence`` and name;
- a span: its trace and span id;
- a metric point: its name, attributes, and the times that it covers;
- a transcript line: session and uuid;
- a gateway's decision: its decision id;
- what has none of these: all that it says, so it can't disagree with anything.

Records of one identity that say the same are one record sent twice. Records of one identity that
say different things are a *conflict*: all are kept, and the fuller one rules, whichever came first:
the one with most tokens (so that no conflict lowers a bill unseen), then the one that says most,
then the lower id. Of decisions the earliest rules, for the first answer is the one that was used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from collectors.event_fields import integer, text
from collectors.otlp_decoding import canonical, digest
from loop.domain.turns import Event

Identity = tuple[Any, ...]
API_REQUEST = "claude_code.api_request"
_TOKENS = (
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cache_read_tokens",),
    ("cache_creation_tokens",),
)
_LINE_TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
# The order of the columns that the view of the decisions sorts by.
_DECISION_ORDER = (
    "agent_id", "serial", "policy_version", "policy_digest", "arm", "bucket", "propensity",
    "rule_id", "requested_model", "routed_model", "upstream_status",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EventConflict:
    """Records of one identity that say different things; the first of ``events`` rules."""

    conflict_id: str
    events: tuple[Event, ...]


def identity_of(event: Event) -> Identity:
    """What makes two records the same record; see the module's text."""
    attributes = event.attributes
    kind = event.kind
    if kind == "log":
        request_id = attributes.get("request_id")
        if event.name == API_REQUEST and request_id and event.session_id:
            return kind, event.session_id, event.name, str(request_id)
        if event.session_id and "event.sequence" in attributes:
            return kind, event.session_id, event.at_us, event.sequence, event.name
    elif kind == "span":
        if span_id := text(event, "otel.span_id"):
            return kind, text(event, "otel.trace_id"), span_id
    elif kind == "metric":
        stated = {key: attributes[key] for key in attributes if not key.startswith("otel.")}
        started = integer(event, "otel.started_at_us")
        return kind, event.session_id, event.name, digest(stated), started, event.at_us
    elif kind == "transcript":
        if text(event, "uuid"):
            return kind, event.session_id, text(event, "uuid")
    elif kind == "decision" and text(event, "decision_id"):
        return kind, text(event, "decision_id")
    return "", event.event_id


def identity_hash(event: Event) -> int:
    """Equal for events of one identity, and cheaper than their identity where that is a digest:
    of metric points, of which there are most."""
    if event.kind == "metric":
        attributes = event.attributes
        try:
            said = frozenset([item for item in attributes.items() if item[0][:5] != "otel."])
        except TypeError:  # a list among them
            return hash(identity_of(event))
        return hash((event.name, said, integer(event, "otel.started_at_us"), event.at_us))
    return hash(identity_of(event))


def conflict_id_of(event: Event) -> str:
    """The id of the conflict that the event is in, if it is in one: a digest of its identity."""
    return digest(*identity_of(event))


def in_order_of_rule(events: Iterable[Event]) -> list[Event]:
    """Events of one identity, the one that rules first. A function of their set."""
    return sorted(events, key=_rule)


def ruling_events(events: Iterable[Event]) -> list[Event]:
    """One event of each identity: those that assembly reads."""
    return [group[0] if len(group) == 1 else min(group, key=_rule) for group in _groups(events)]


def conflicts_among(events: Iterable[Event]) -> list[EventConflict]:
    """Every conflict in a set of events (each event once), in order of id."""
    found = [
        EventConflict(conflict_id_of(group[0]), tuple(in_order_of_rule(group)))
        for group in _groups(events)
        if len(group) > 1
    ]
    return sorted(found, key=lambda conflict: conflict.conflict_id)


def _groups(events: Iterable[Event]) -> Iterable[list[Event]]:
    alike: dict[int, list[Event]] = {}
    for event in events:
        alike.setdefault(identity_hash(event), []).append(event)
    for candidates in alike.values():
        if len(candidates) == 1:
            yield candidates
            continue
        groups: dict[Identity, list[Event]] = {}
        for event in candidates:
            groups.setdefault(identity_of(event), []).append(event)
        yield from groups.values()


def _rule(event: Event) -> tuple[Any, ...]:
    if event.kind == "decision":
        fields = (event.attributes.get(name) for name in _DECISION_ORDER)
        return event.at_us, event.session_id, *map(_sortable, fields), event.event_id
    return -_counted_by(event), -len(canonical(event.attributes)), event.event_id


def _sortable(value: object) -> tuple[int, float, str]:
    """Orders what is missing before numbers before texts, as the database does."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, value, ""
    return 2, 0.0, str(value)


def _counted_by(event: Event) -> float:
    value = event.attributes.get("otel.value") if event.kind == "metric" else None
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return tokens_of(event)


def tokens_of(event: Event) -> int:
    """All tokens that the record states, of whatever class."""
    message = event.attributes.get("message")
    usage = message.get("usage") if isinstance(message, Mapping) else None
    if isinstance(usage, Mapping):
        return sum(integer(usage, name) or 0 for name in _LINE_TOKENS)
    return sum(integer(event, *names) or 0 for names in _TOKENS)
