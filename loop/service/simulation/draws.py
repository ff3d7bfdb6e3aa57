"""Reproducible chance: every random choice is a hash of what it is about.

No generator is shared, so a choice doesn't depend on which of many concurrent sessions came
first, and two processes that know the same names draw the same numbers.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option")


def draw(*names: object) -> float:
    """A number in [0, 1), uniform over names."""
    return int(digest(16, *names), 16) / 2**64


def between(low: float, high: float, *names: object) -> float:
    return low + (high - low) * draw(*names)


def pick(options: Sequence[Option], *names: object) -> Option:
    return options[int(draw(*names) * len(options))]


def digest(length: int, *names: object) -> str:
    """``length`` hexadecimal digits (at most 64)."""
    joined = "\x1f".join(map(str, names)).encode()
    return hashlib.blake2b(joined, digest_size=32).hexdigest()[:length]


def identifier(*names: object) -> str:
    """A UUID of version 4 in form."""
    return str(uuid.UUID(digest(32, *names), version=4))
