"""A re-pricing across processes: who rolls up begins and ends it, who drains writes the turns."""

from __future__ import annotations

import time
from collections.abc import Iterator

from loop.domain.errors import Conflict, Unavailable
from loop.domain.money import PriceBook
from loop.ledger.charge_versions import ChargeVersion
from loop.ledger.repricing import OnProgress, Repricing
from loop.service.assemble import Parts

SLICE_SECONDS = 1.0
"""How long the drainer prices anew before it looks for new records."""
POLL_SECONDS = 0.1
LOOK_SECONDS = 2.0
"""How often whoever waits for the drainer looks how far that is."""
WAIT_SECONDS = 3600.0


class PendingRepricing:
    """The drainer's part: goes on with the version that is not written yet, a slice at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._version = 0
        self._steps: Iterator[tuple[int, int]] = iter(())

    def advance(self) -> bool:
        """Writes turns for about :data:`SLICE_SECONDS`; whether there is more to do.

        Raises :class:`Conflict` while another process drains.
        """
        version = self._parts.charge_versions.unfinished()
        if version is None or version.rewritten_at_us is not None:
            self._version = 0
            return False
        repricing = repricing_of(self._parts)
        if self._version != version.version:
            book = self._parts.price_books.find(version.price_version)
            self._steps = repricing.rewrite(version, book, self._parts.drainer.revising)
            self._version = version.version
        began = time.monotonic()
        try:
            for _ in self._steps:
                if time.monotonic() - began > SLICE_SECONDS:
                    return True
        except Exception:
            self._version = 0  # begins again, and skips what has its new cost
            raise
        return False


def price_anew(
    parts: Parts, book: PriceBook, from_day: str, until_day: str, *, author: str, reason: str
) -> ChargeVersion:
    """Prices the days anew and returns the finished version.

    Where another process drains, that one writes the turns, and this one waits for it. Raises
    :class:`Unavailable` when that takes longer than an hour; it goes on all the same.
    """
    repricing = repricing_of(parts)
    version = repricing.begin(
        book,
        from_day,
        until_day,
        author=author,
        reason=reason,
        on_progress=noting(parts, "turns compared"),
    )
    note = noting(parts, "turns priced anew")
    deadline, looked = time.monotonic() + WAIT_SECONDS, time.monotonic()
    while parts.charge_versions.get(version.version).rewritten_at_us is None:
        try:
            for done, total in repricing.rewrite(version, book, parts.drainer.revising):
                note(done, total)
        except Conflict as conflict:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Charge version {version.version} is still being written.",
                    fix="`turnwise prices charges` shows when it is done.",
                ) from conflict
            if time.monotonic() - looked > LOOK_SECONDS:
                note(*repricing.progress(version))
                looked = time.monotonic()
            time.sleep(POLL_SECONDS)
    parts.work.note("rolling up the charges")
    repricing.finish(version)
    return parts.charge_versions.get(version.version)


def noting(parts: Parts, words: str) -> OnProgress:
    """Tells whoever looks at the work of this process how far it is."""
    return parts.work.note_count(words)


def finish_pending(parts: Parts) -> None:
    """Rolls up a version that was written while nobody waited for it any more."""
    version = parts.charge_versions.unfinished()
    if version is not None and version.rewritten_at_us is not None:
        repricing_of(parts).finish(version)


def repricing_of(parts: Parts) -> Repricing:
    return Repricing(parts.lake, parts.charge_table, parts.charge_versions)
