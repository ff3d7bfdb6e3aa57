"""What the drainer writes down before it touches the lake, so that a crash can't count twice.

``drain.json`` holds the position, the segments that are bound to it, what was counted in them, and
the counts of earlier positions that the control store has not taken yet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from collectors.intake_counts import IntakeCounts, IntakeSink
from collectors.segments import sync_directory
from loop.domain.errors import Corrupt, Unavailable

MAX_UNCOUNTED = 10_000
"""Positions whose counts may wait for the control store; with more, draining waits too."""


class DrainState:
    """The file of one journal directory. Only the process with the drain lock has one."""

    def __init__(self, directory: Path, lowest_position: int) -> None:
        self._directory = directory
        self._path = directory / "drain.json"
        self.position = lowest_position
        self.pending: list[str] = []
        self.counts: IntakeCounts | None = None
        self._uncounted: list[tuple[int, list[Any]]] = []
        if self._path.exists():
            self._load(lowest_position)

    def next_position(self) -> int:
        """Above all that were used; by the clock, so that it also is after a loss of the file."""
        return max(self.position + 1, time.time_ns() // 1000)

    def bind(self, position: int, pending: Iterable[str], counts: IntakeCounts) -> None:
        """Binds segments and what was counted in them to a position, durably.

        Raises:
            Unavailable: too many counts wait for the control store.
        """
        if len(self._uncounted) >= MAX_UNCOUNTED:
            raise Unavailable(
                "Draining waits for the control store.",
                why=f"The counts of {len(self._uncounted)} commits wait for it.",
                fix="Bring the control database back; nothing is lost meanwhile.",
            )
        self.position, self.pending, self.counts = position, list(pending), counts
        self._save()

    def let_go(self) -> None:
        """What was bound is in the lake and gone from the journal; its counts remain to be told."""
        if self.counts is not None:
            self._uncounted.append((self.position, list(self.counts.rows())))
        self.pending, self.counts = [], None
        self._save()

    def tell(self, sink: IntakeSink | None, journal: str) -> None:
        """Tells the sink what it has not taken yet.

        Raises:
            Unavailable: it is away; the counts are kept for the next time.
        """
        while self._uncounted:
            position, rows = self._uncounted[0]
            if sink is not None:
                sink.record(journal, position, [tuple(row) for row in rows])
            # Saved with the next binding: the sink takes a position once.
            del self._uncounted[0]

    def _load(self, lowest_position: int) -> None:
        try:
            state = orjson.loads(self._path.read_bytes())
            position, pending = int(state["position"]), list(state["pending"])
            counts = state.get("counts")
            self.counts = None if counts is None else IntakeCounts(counts)
            self._uncounted = [(int(at), list(rows)) for at, rows in state.get("uncounted", [])]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise Corrupt(
                f"{self._path} can't be read.",
                why=repr(error),
                fix="Restore it; without it, records that are in the lake already would count as "
                "duplicates.",
            ) from error
        self.pending = [name for name in pending if (self._directory / name).exists()]
        self.position = position  # what is bound must keep it
        if not self.pending:
            if pending:
                self.let_go()  # the crash came after the last segment was deleted
            self.position = max(lowest_position, position)

    def _save(self) -> None:
        document = {
            "position": self.position,
            "pending": self.pending,
            "counts": None if self.counts is None else self.counts.rows(),
            "uncounted": self._uncounted,
        }
        temporary = self._path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            file.write(orjson.dumps(document))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        sync_directory(self._directory)
