"""What long work is at right now, so that whoever waits for it can be told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class WorkProgress:
    """The verbs that run in this process and the step that each is at. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, dict[str, Any]] = {}

    @contextmanager
    def running(self, verb: str) -> Iterator[None]:
        """While it lasts, :meth:`note` in this thread speaks of this verb."""
        row = {"verb": verb, "step": "", "started_at_us": time.time_ns() // 1000}
        key = threading.get_ident()
        with self._lock:
            self._running[key] = row
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(key, None)

    def note(self, step: str) -> None:
        with self._lock:
            row = self._running.get(threading.get_ident())
            if row is not None:
                row["step"] = step

    def note_count(self, words: str) -> Callable[[int, int], None]:
        """A callback that notes how many of how many are done."""
        return lambda done, total: self.note(f"{done:,} of {total:,} {words}")

    def rows(self) -> list[dict[str, Any]]:
        """``verb``, ``step`` and ``started_at_us`` of each that runs, the oldest first."""
        with self._lock:
            return sorted((dict(row) for row in self._running.values()), key=_start)


def _start(row: dict[str, Any]) -> int:
    started: int = row["started_at_us"]
    return started
