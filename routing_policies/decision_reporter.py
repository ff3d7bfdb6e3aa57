"""Sends a gateway's decisions to the service, in batches, without ever holding up a request.

The buffer is in memory and bounded: when the service is away for long the oldest decisions are
dropped and counted. Sending a batch twice does no harm, since decisions have ids.
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections import deque
from dataclasses import asdict, dataclass

from loop.domain.errors import Unavailable
from loop.domain.policies import Decision
from routing_policies.service_connection import ServiceConnection

log = logging.getLogger("turnwise.decision_reporter")

MAX_BUFFERED = 20_000
MAX_BATCH = 500
INTERVAL_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ReporterStatus:
    """Counts since the start. ``dropped``: the buffer was full; ``refused``: the service's no."""

    buffered: int
    sent: int
    dropped: int
    refused: int


class DecisionReporter:
    """Collects decisions on any thread and posts them from its own."""

    def __init__(
        self,
        service_url: str,
        *,
        token: str = "",
        max_buffered: int = MAX_BUFFERED,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._service = ServiceConnection(service_url, token)
        self._buffer: deque[Decision] = deque()
        self._max_buffered = max_buffered
        self._interval_seconds = interval_seconds
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._sent = self._dropped = self._refused = 0
        self._rollout_id, self._decided = "", 0  # of the newest rollout that was decided in
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> ReporterStatus:
        with self._lock:
            return ReporterStatus(len(self._buffer), self._sent, self._dropped, self._refused)

    def decided(self, rollout_id: str) -> int:
        """How many decisions of a rollout were reported here; 0 of any but the newest."""
        with self._lock:
            return self._decided if rollout_id == self._rollout_id else 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._send_until_stopped, daemon=True)
        self._thread.start()

    def stop(self, flush_seconds: float = 5.0) -> None:
        """Sends what is left, for at most ``flush_seconds``."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=flush_seconds)
        self._service.close()

    def report(self, decision: Decision) -> None:
        """Takes a decision; returns at once."""
        with self._lock:
            if len(self._buffer) >= self._max_buffered:
                self._buffer.popleft()
                self._dropped += 1
            self._buffer.append(decision)
            if decision.rollout_id:
                if decision.rollout_id != self._rollout_id:
                    self._rollout_id, self._decided = decision.rollout_id, 0
                self._decided += 1
            full = len(self._buffer) >= MAX_BATCH
        if full:
            self._wake.set()

    def send_batch(self) -> int:
        """Posts up to one batch; returns how many decisions left the buffer.

        Raises :class:`Unavailable` when the service did not take them; they stay buffered.
        """
        with self._lock:
            batch = list(self._buffer)[:MAX_BATCH]
        if not batch:
            return 0
        answer = self._service.request(
            "POST",
            "/v1/gateway/decisions",
            body=json.dumps([asdict(decision) for decision in batch]).encode(),
            headers={"content-type": "application/json"},
            timeout_seconds=10,
        )
        accepted = 200 <= answer.status < 300
        if not accepted and (answer.status >= 500 or answer.status in (401, 403, 408, 429)):
            raise Unavailable(f"The service answered {answer.status} to decisions.")
        with self._lock:
            gone = {decision.decision_id for decision in batch}
            while self._buffer and self._buffer[0].decision_id in gone:
                self._buffer.popleft()
            if accepted:
                self._sent += len(batch)
            else:
                self._refused += len(batch)
                log.warning("The service refused %d decisions: %s", len(batch), answer.status)
        return len(batch)

    def _send_until_stopped(self) -> None:
        failures = 0
        while True:
            if not self._stopping:
                delay = self._interval_seconds
                if failures:
                    ceiling = min(MAX_BACKOFF_SECONDS, 2.0 ** min(failures, 10))
                    delay = random.uniform(0.5, ceiling)  # noqa: S311
                self._wake.wait(delay)
                self._wake.clear()
            try:
                while self.send_batch():
                    failures = 0
            except Unavailable as error:
                failures += 1
                log.info("Decisions could not be sent: %s", error)
            if self._stopping:
                return
