"""Counts of what a receiver refused: on the disk before the sender is answered.

They travel as records of the journal, so that they are summed exactly once like all else. Refusals
that come while others are being written go together into the next record, so that a flood of them
costs one write at a time. While the journal takes nothing (a full disk) they wait in memory, where
there is one number per hour, signal, encoding, credential and reason: only what a process that is
killed then had not told is not counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from collectors.intake_counts import HOUR_US, Source, encode_refusals
from collectors.journal import Journal
from loop.domain.errors import Unavailable

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
        self._next: asyncio.Task[None] | None = None

    async def count(self, signal: str, content_type: str, credential: str, reason: str) -> None:
        """Returns once it is on the disk, or the journal can't take it now."""
        now_us = time.time_ns() // 1000
        source = (now_us - now_us % HOUR_US, signal, content_type, credential)
        self._counts[source, reason] += 1
        if self._timer is None:
            await asyncio.shield(self._tell_next())

    async def close(self) -> None:
        """Tells what was counted since the last time, if the journal can take it."""
        self._cancel_timer()
        await self._tell_next()
        self._cancel_timer()

    def _tell_next(self) -> asyncio.Task[None]:
        """The task that tells what is counted by the time at which the one before it ends."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._tell_after(self._telling))
        return self._next

    async def _tell_after(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await earlier
        self._telling, self._next = self._next, None
        await self._tell()

    def _begin(self) -> None:
        self._timer = None
        self._tell_next()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _tell(self) -> None:
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        body = encode_refusals((source, reason, n) for (source, reason), n in counts.items())
        try:
            await self._journal.append("refusals", "json", body)
        except Unavailable:
            self._counts.update(counts)
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(TELL_AGAIN_SECONDS, self._begin)
