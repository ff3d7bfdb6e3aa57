"""Counts of what a receiver refused, told to the journal about once a second.

They travel as a record of the journal, so that they are summed exactly once like all else. What was
refused within the last second of a process that is killed is not counted; while the disk is full
they wait in memory, where there is one number per hour, signal, encoding, credential and reason.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from collectors.intake_counts import HOUR_US, Source, encode_refusals
from collectors.journal import Journal
from loop.domain.errors import Unavailable

TELL_SECONDS = 1.0
TELL_AGAIN_SECONDS = 10.0
REASONS = {
    400: "malformed",
    401: "unauthorized",
    403: "forbidden",
    413: "too_large",
    415: "unsupported",
    429: "unavailable",
    503: "unavailable",
}


class Refusals:
    """For one event loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._counts: Counter[tuple[Source, str]] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None

    def count(self, signal: str, content_type: str, credential: str, reason: str) -> None:
        now_us = time.time_ns() // 1000
        source = (now_us - now_us % HOUR_US, signal, content_type, credential)
        self._counts[source, reason] += 1
        self._tell_in(TELL_SECONDS)

    async def close(self) -> None:
        """Tells what was counted since the last time, if the journal can take it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._telling is not None:
            await self._telling
        await self._tell()
        if self._timer is not None:
            self._timer.cancel()

    def _tell_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        body = encode_refusals((source, reason, n) for (source, reason), n in counts.items())
        try:
            await self._journal.append("refusals", "json", body)
        except Unavailable:
            self._counts.update(counts)
            self._tell_in(TELL_AGAIN_SECONDS)
