"""What runs when: one thread per stage, each pass logged, a failing pass tried again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("turnwise")
LONGEST_PAUSE_SECONDS = 60.0
MAX_DOUBLINGS = 16  # of the pause: a store may be away for days


class RepeatedTask:
    """Calls ``work`` again and again in a thread of its own until :meth:`stop`.

    ``work`` returns whether it found something to do; then it is called again at once. A failure
    is logged with its cause and tried again after a growing pause, so that a store that is away
    for hours is found again when it is back.
    """

    def __init__(self, name: str, work: Callable[[], bool], interval_seconds: float) -> None:
        self.name = name
        self._work = work
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"turnwise-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Lets the current pass end and waits for it."""
        self._stopped.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            pause = self._interval_seconds
            try:
                if self._work():
                    pause = 0.0
                failures = 0
            except Exception:
                failures += 1
                growth = 2.0 ** min(failures, MAX_DOUBLINGS)
                pause = min(LONGEST_PAUSE_SECONDS, self._interval_seconds * growth)
                logger.exception("%s failed; trying again in %.0f s", self.name, pause)
            self._stopped.wait(pause)
