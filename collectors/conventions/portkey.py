"""Portkey's gateway, by its export of complete logs: GenAI spans of a scope of its own.

Made from the shape that its documentation states (semantic conventions 1.40.0); the exporter is
part of the enterprise gateway and could not be run. Cached tokens are named where the response's
usage has them, so a span without a word on them had none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.conventions.convention import ToldSession
from collectors.conventions.otel_genai import SESSION, read_genai
from collectors.event_fields import text
from loop.domain.turns import Event

SCOPE_NAME = "custom.genai.instrumentation"


class Portkey:
    """The adapter of ``portkey``."""

    name = "portkey"
    rank = 20

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        return scope == SCOPE_NAME or scope.startswith("portkey")

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        return text(attributes, *SESSION)

    def read(self, events: Sequence[Event]) -> ToldSession:
        return read_genai(events, tells_cache=True)
