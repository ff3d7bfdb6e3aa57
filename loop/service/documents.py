"""What the documents of requests say, read with clear refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loop.access.callers import current_caller
from loop.domain.errors import BadInput
from loop.domain.lifecycle import Actor, ActorKind


def person(document: Mapping[str, Any]) -> Actor:
    """Who acts: the holder of the credential, else who is named. Raises :class:`BadInput` where
    nobody is."""
    name = document.get("actor") or current_caller.get().holder
    if not isinstance(name, str) or not name.strip():
        raise BadInput("Say who acts.", fix='Send "actor".')
    return Actor(ActorKind.PERSON, name.strip())


def with_actor(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a request, in which ``actor`` is whom records will name."""
    given = document.get("actor")
    if isinstance(given, str):
        document["actor"] = current_caller.get().acting_as(given)
    return document


def reason(document: Mapping[str, Any]) -> str:
    """Why. Raises :class:`BadInput` where it is not said."""
    given = document.get("reason")
    if not isinstance(given, str) or not given.strip():
        raise BadInput("Say why.", fix='Send "reason".')
    return given.strip()


def flag(document: Mapping[str, Any], name: str) -> bool:
    """A switch of the document, off where it is missing. Raises :class:`BadInput`."""
    value = document.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadInput(f"{name} must be true or false, not {value!r}.")
    return bool(value)


def text(document: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text of the document. Raises :class:`BadInput` where it is needed and missing."""
    value = document.get(name, default)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{name} must be a text, not {value!r}.", fix=f'Send "{name}".')
    return value
