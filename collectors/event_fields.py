"""Reading event attributes that may be absent or of the wrong type.

The client is not consistent (``duration_ms`` is a number on one event and text on the next) and
older versions lack many attributes, so every reading is optional and converts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from collectors.content_modes import hidden_chars
from loop.domain.turns import Event, EvidenceState

REDACTED = "<REDACTED>"
TRUNCATION_MARK = "[TRUNCATED - Content exceeds"
_TRAILING_REMINDERS = re.compile(
    r"(?:\s*<system-reminder>(?:(?!</system-reminder>).)*</system-reminder>)+\s*\Z", re.DOTALL
)


def text(event: Event | Mapping[str, Any], name: str, *others: str) -> str:
    """The first of the named attributes that holds a non-empty text, else ""."""
    attributes = event.attributes if type(event) is Event else event
    value = attributes.get(name)  # type: ignore[union-attr]
    if value and type(value) is str:
        return value
    for other in others:
        value = attributes.get(other)  # type: ignore[union-attr]
        if value and type(value) is str:
            return value
    return ""


def integer(event: Event | Mapping[str, Any], *names: str) -> int | None:
    """The first of the named attributes that reads as a number, rounded down, else ``None``."""
    attributes = event.attributes if type(event) is Event else event
    for name in names:
        value = attributes.get(name)  # type: ignore[union-attr]
        if value is None:
            continue
        if type(value) is int:
            return value
        if isinstance(value, bool):
            continue
        if isinstance(value, float) and abs(value) < 2**53:
            return int(value)
        if isinstance(value, str):
            try:
                number = float(value)
                return int(number) if abs(number) < 2**53 else None
            except ValueError:
                continue
    return None


def boolean(event: Event | Mapping[str, Any], *names: str) -> bool | None:
    """The first of the named attributes that reads as true or false, else ``None``."""
    attributes = event.attributes if isinstance(event, Event) else event
    for name in names:
        value = attributes.get(name)
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
    return None


def state_of(content: str) -> EvidenceState:
    """Whether a text that the client reported is whole, cut or redacted."""
    if content == REDACTED or hidden_chars(content) is not None:
        return "redacted"
    if TRUNCATION_MARK in content[-120:]:
        return "truncated"
    return "present"


def without_reminders(content: str) -> str:
    """A tool result as the tool gave it, without what the client appended for the model."""
    if not content.rstrip().endswith("</system-reminder>"):
        return content
    return _TRAILING_REMINDERS.sub("", content)
