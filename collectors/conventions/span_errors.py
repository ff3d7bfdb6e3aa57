"""How the spans of all conventions tell of failure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from collectors.conventions.convention import is_failed
from collectors.event_fields import integer, text
from loop.domain.turns import Event

# The SDKs of Anthropic and OpenAI begin the message of a failed request so.
_SDK_MESSAGE = re.compile(r"\bError code: ([45]\d\d)\b")
_STATUS = (
    "http.response.status_code",
    "http.status_code",
    "error.type",
    "error.code",
    "litellm.provider.error.code",
)


def error_status(event: Event) -> int | None:
    """The HTTP status of a failed call: stated as such, as ``error.type``, or in the SDK's text."""
    if not is_failed(event):
        return None
    for name in _STATUS:
        status = integer(event, name)
        if status is not None and 400 <= status < 600:
            return status
    for message in _messages(event):
        if found := _SDK_MESSAGE.search(message[:2000]):
            return int(found.group(1))
    return None


def _messages(event: Event) -> Iterator[str]:
    yield text(event, "otel.status_message")
    for span_event in span_events(event, "exception"):
        yield text(span_event, "exception.message")


def span_events(event: Event, *names: str) -> Iterator[Mapping[str, object]]:
    """The attributes of a span's events of some name."""
    events = event.attributes.get("otel.events")
    for item in events if isinstance(events, list) else []:
        if isinstance(item, Mapping) and item.get("name") in names:
            attributes = item.get("attributes")
            if isinstance(attributes, Mapping):
                yield attributes


def microusd(value: object) -> int | None:
    """Dollars as micro-dollars, to the nearest; ``None`` for what is no amount."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return round(value * 1_000_000) if 0 <= value < 1e9 else None


def milliseconds(seconds: object) -> int | None:
    """Seconds as milliseconds, to the nearest; ``None`` for what is no duration."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return round(seconds * 1000) if 0 <= seconds < 1e7 else None
