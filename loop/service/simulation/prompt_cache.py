"""The prompt cache of the simulated API: content-addressed prefixes with a time to live.

As the Messages API documents it: blocks are hashed in the order tools, system, messages;
``cache_control`` marks where a prefix is written; a request reads the longest prefix that is
cached at any block boundary up to its last mark, and every read renews it. Entries belong to one
session and model: sharing between sessions is left out, because a simulation that runs sessions
concurrently on a virtual clock could not reproduce it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from loop.domain.turns import TokenUsage

LIFETIMES_US = {"5m": 300_000_000, "1h": 3_600_000_000}


@dataclass(frozen=True, slots=True)
class Boundary:
    """The end of one block: everything before it, as tokens and as a digest."""

    tokens: int
    digest: bytes
    lifetime: str  # "5m" or "1h" where the block carries a mark, else ""


@dataclass(slots=True)
class _Entry:
    lifetime: str
    expires_at_us: int


class PromptCache:
    """Entries of the most recent sessions; ``usage_of`` is the only way in.

    Not thread-safe: it lives in one event loop.
    """

    def __init__(self, min_cacheable_tokens: int, max_sessions: int = 20_000) -> None:
        self._min_cacheable_tokens = min_cacheable_tokens
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[tuple[str, str], dict[bytes, _Entry]] = OrderedDict()

    def usage_of(
        self, session_id: str, model: str, boundaries: list[Boundary], at_us: int
    ) -> TokenUsage:
        """Input tokens by class of one request (output left 0), after which the cache holds it.

        The classes always sum to the tokens of the last boundary.
        """
        total = boundaries[-1].tokens if boundaries else 0
        marks = [n for n, boundary in enumerate(boundaries) if boundary.lifetime]
        if not marks or boundaries[marks[-1]].tokens < self._min_cacheable_tokens:
            return TokenUsage(input_tokens=total)
        entries = self._entries((session_id, model))
        read = 0
        for boundary in boundaries[: marks[-1] + 1]:
            entry = entries.get(boundary.digest)
            if entry is not None and entry.expires_at_us > at_us:
                read = max(read, boundary.tokens)
                entry.expires_at_us = max(entry.expires_at_us, at_us + LIFETIMES_US[entry.lifetime])
        written = {"5m": 0, "1h": 0}
        position = read
        for boundary in (boundaries[n] for n in marks):
            if boundary.tokens < self._min_cacheable_tokens:
                continue
            written[boundary.lifetime] += max(boundary.tokens - position, 0)
            position = max(position, boundary.tokens)
            expires_at_us = at_us + LIFETIMES_US[boundary.lifetime]
            entries[boundary.digest] = _Entry(boundary.lifetime, expires_at_us)
        return TokenUsage(
            input_tokens=total - position,
            cache_read_tokens=read,
            cache_creation_5m_tokens=written["5m"],
            cache_creation_1h_tokens=written["1h"],
        )

    def _entries(self, key: tuple[str, str]) -> dict[bytes, _Entry]:
        entries = self._sessions.setdefault(key, {})
        self._sessions.move_to_end(key)
        if len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)
        return entries


def boundaries_of(body: Mapping[str, Any], chars_per_token: float) -> list[Boundary]:
    """The block boundaries of a Messages API request body. Tokens are characters of the blocks'
    JSON without their marks, over ``chars_per_token``, rounded down."""
    running = hashlib.blake2b(digest_size=16)
    chars = 0
    boundaries = []
    for block in _blocks_in_order(body):
        mark = block.get("cache_control")
        plain = {key: value for key, value in block.items() if key != "cache_control"}
        encoded = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
        running.update(encoded)
        chars += len(encoded)
        lifetime = str(mark.get("ttl", "5m")) if isinstance(mark, dict) else ""
        boundaries.append(Boundary(int(chars / chars_per_token), running.copy().digest(), lifetime))
    return boundaries


def _blocks_in_order(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from body.get("tools", ())
    system = body.get("system", ())
    yield from [{"type": "text", "text": system}] if isinstance(system, str) else system
    for message in body["messages"]:
        content = message["content"]
        yield from [{"type": "text", "text": content}] if isinstance(content, str) else content
