"""What may be stored of texts, and which of two modes is the stricter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from loop.domain.errors import BadInput

ContentMode = Literal["none", "hashed", "redacted", "full"]
CONTENT_MODES: tuple[ContentMode, ...] = get_args(ContentMode)
"""The strictest first. ``docs/redaction.md`` says what each stores."""


def parse_mode(text: str, name: str) -> ContentMode:
    """Raises :class:`BadInput` for what is no content mode."""
    for mode in CONTENT_MODES:
        if text == mode:
            return mode
    raise BadInput(
        f"{name}: {text!r} is no content mode.", fix=f"Use one of {', '.join(CONTENT_MODES)}."
    )


def strictest(modes: Iterable[ContentMode]) -> ContentMode:
    """Of one or more modes."""
    return min(modes, key=CONTENT_MODES.index)
