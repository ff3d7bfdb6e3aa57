"""OTLP bodies to events: logs, metrics and traces in protobuf or JSON.

A record gets the same ``event_id`` whichever protocol carried it and however often it was sent:
the id is a digest of all that it says, its resource included. What makes two records that say
different things the same record is told by ``collectors.event_identity``.

What OTLP keeps outside the attributes is added to them under ``otel.`` names: ``otel.trace_id``,
``otel.span_id``, ``otel.parent_span_id``, ``otel.ended_at_us``, ``otel.status_code``,
``otel.status_message``, ``otel.events`` (the span's events, a list of ``name``, ``at_us``,
``attributes``), ``otel.body``, ``otel.value``, ``otel.started_at_us``, ``otel.temporality``,
``otel.unit``.

Records of other tools than Claude Code keep the name of their instrumentation scope as
``otel.scope``; those of a known convention (``collectors.conventions``) get the session that they
name by it, or ``trace:…``, their trace, where they name none.

The session id is read from the record alone: the resource block takes a ``session.id`` from the
environment, so anybody can put another's there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import orjson

from collectors.conventions.convention import SCOPE
from collectors.conventions.registry import known_conventions
from collectors.record_limits import INVALID_ID, RecordRejected
from loop.domain.turns import Event

TRACE_SESSION = "trace:"
"""What the session id of a record begins with that names no session: its trace's id follows."""

_SCOPE = "com.anthropic.claude_code"
_PREFIX = "claude_code."


@dataclass(slots=True)
class EventFactory:
    """Builds the events of one body, which was screened before it came into the journal."""

    received_at_us: int
    credential: str
    without_session: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # records, by reason
    written: dict[str, bytes] = field(default_factory=dict)  # attributes as JSON, by event id
    _resource: Mapping[str, Any] | None = None
    _resource_digest: str = ""
    _resource_end: bytes = b""

    def log(
        self,
        attributes: dict[str, Any],
        resource: Mapping[str, Any],
        *,
        time_ns: int,
        body: Any,
        event_name: str,
        scope: str,
        trace_id: str,
        span_id: str,
    ) -> Event:
        name = _log_name(attributes, body, event_name, scope)
        session_id = (
            self._session_id(attributes)
            if scope.startswith(_SCOPE) or name.startswith(_PREFIX)
            else self._foreign_session_id(attributes, scope, name, trace_id)
        )
        sequence = _integer(attributes.get("event.sequence"))
        at_us = max(0, time_ns // 1000) or _stated_time_us(attributes) or self.received_at_us
        if body is not None and body != name:
            attributes["otel.body"] = body
        if is_id(trace_id):
            attributes["otel.trace_id"] = trace_id
        if is_id(span_id):
            attributes["otel.span_id"] = span_id
        event_id = self._digest("log", session_id, time_ns, name, attributes, resource)
        return self._event(event_id, "log", name, session_id, at_us, sequence, attributes, resource)

    def span(
        self,
        attributes: dict[str, Any],
        resource: Mapping[str, Any],
        *,
        name: str,
        scope: str,
        trace_id: str,
        span_id: str,
        parent_span_id: str,
        start_ns: int,
        end_ns: int,
        status_code: int,
        status_message: str,
        events: list[dict[str, Any]],
    ) -> Event:
        """Raises :class:`RecordRejected` for a span without a valid id."""
        if len(trace_id) != 32 or len(span_id) != 16 or not (is_id(trace_id) and is_id(span_id)):
            raise RecordRejected(INVALID_ID)
        session_id = (
            self._session_id(attributes)
            if scope.startswith(_SCOPE) or name.startswith(_PREFIX)
            else self._foreign_session_id(attributes, scope, name, trace_id)
        )
        attributes["otel.trace_id"] = trace_id
        attributes["otel.span_id"] = span_id
        if is_id(parent_span_id):
            attributes["otel.parent_span_id"] = parent_span_id
        attributes["otel.ended_at_us"] = end_ns // 1000
        if status_code:
            attributes["otel.status_code"] = status_code
        if status_message:
            attributes["otel.status_message"] = status_message
        if events:
            attributes["otel.events"] = events
        event_id = self._digest("span", session_id, start_ns, name, attributes, resource)
        at_us = max(0, start_ns // 1000) or self.received_at_us
        return self._event(event_id, "span", name, session_id, at_us, 0, attributes, resource)

    def point(
        self,
        attributes: dict[str, Any],
        resource: Mapping[str, Any],
        *,
        name: str,
        start_ns: int,
        end_ns: int,
        value: Any,
        unit: str,
        temporality: int,
    ) -> Event:
        session_id = self._session_id(attributes)
        attributes["otel.value"] = value
        attributes["otel.started_at_us"] = start_ns // 1000
        if unit:
            attributes["otel.unit"] = unit
        if temporality:
            attributes["otel.temporality"] = temporality
        event_id = self._digest("metric", session_id, end_ns, name, attributes, resource)
        at_us = max(0, end_ns // 1000) or self.received_at_us
        return self._event(event_id, "metric", name, session_id, at_us, 0, attributes, resource)

    def reject(self, reason: str) -> None:
        self.rejected[reason] += 1

    def _digest(
        self,
        kind: str,
        session_id: str,
        time_ns: int,
        name: str,
        attributes: Mapping[str, Any],
        resource: Mapping[str, Any],
    ) -> str:
        if resource is not self._resource:  # one resource speaks for many records
            self._resource, self._resource_digest = resource, digest(resource)
            self._resource_end = f',"{self._resource_digest}"]'.encode()
        try:
            written = orjson.dumps(attributes, option=_DIGEST_OPTIONS)
            head = orjson.dumps((kind, session_id, time_ns, name))
        except orjson.JSONEncodeError:
            return digest(kind, session_id, time_ns, name, attributes, self._resource_digest)
        # What digest() of these takes, without writing the attributes twice.
        said = b"%b,%b%b" % (head[:-1], written, self._resource_end)
        event_id = blake2b(said, digest_size=16).hexdigest()
        self.written[event_id] = written
        return event_id

    def _session_id(self, attributes: Mapping[str, Any]) -> str:
        session_id = attributes.get("session.id")
        if isinstance(session_id, str) and session_id:
            return session_id
        if isinstance(session_id, int | float):
            return str(session_id)
        self.without_session += 1
        return ""

    def _foreign_session_id(
        self, attributes: dict[str, Any], scope: str, name: str, trace_id: str
    ) -> str:
        """The session of another tool's record, by the convention that knows it."""
        attributes[SCOPE] = scope
        registry = known_conventions()
        convention = registry.recognise(scope, name, attributes)
        if convention is None:
            return self._session_id(attributes)
        if session_id := registry.session_of(convention, attributes):
            return session_id
        if trace_id:
            return f"{TRACE_SESSION}{trace_id}"
        self.without_session += 1
        return ""

    def _event(
        self,
        event_id: str,
        kind: str,
        name: str,
        session_id: str,
        at_us: int,
        sequence: int,
        attributes: dict[str, Any],
        resource: Mapping[str, Any],
    ) -> Event:
        return Event(
            event_id,
            kind,
            name,
            session_id,
            at_us,
            sequence,
            attributes,
            resource,
            self.received_at_us,
            self.credential,
        )


def digest(*parts: Any) -> str:
    """32 hex digits over the canonical JSON of the parts (key order makes no difference)."""
    return blake2b(canonical(parts), digest_size=16).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys."""
    try:
        return orjson.dumps(value, option=_DIGEST_OPTIONS)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits or half a surrogate pair
        return json.dumps(value, sort_keys=True, default=str).encode()


_DIGEST_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


def _log_name(attributes: Mapping[str, Any], body: Any, event_name: str, scope: str) -> str:
    if isinstance(body, str) and body.startswith(_PREFIX):
        return body
    name = event_name or attributes.get("event.name")
    if not isinstance(name, str):
        return ""
    if scope.startswith(_SCOPE) and not name.startswith(_PREFIX):
        return _PREFIX + name
    return name


def _integer(value: Any) -> int:
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else 0
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**53 else 0
    if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) < 19:
        return int(value)
    return 0


def _stated_time_us(attributes: Mapping[str, Any]) -> int:
    return iso_time_us(attributes.get("event.timestamp"))


def iso_time_us(text: Any) -> int:
    """Microseconds since the epoch of an ISO 8601 time (UTC where it names no zone), else 0."""
    if not isinstance(text, str):
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - _EPOCH
    return max(0, (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_id(identifier: str) -> bool:
    """Whether a trace or span id in hex is one: all zeros mean that there is none."""
    return bool(identifier.strip("0"))


@dataclass(frozen=True, slots=True)
class DecodedBody:
    """The events of one body, how many of them named no session (kept with ``""``), and how many
    records are left out of ``events``, by the reason for which they are rejected. ``written`` is
    the attributes of events as JSON, by their ids, where decoding made it."""

    events: list[Event]
    without_session: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, bytes] = field(default_factory=dict)


def collect(events: Iterator[Event], factory: EventFactory) -> DecodedBody:
    decoded = list(events)
    return DecodedBody(decoded, factory.without_session, factory.rejected, factory.written)
