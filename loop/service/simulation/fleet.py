"""The fleet: many simulated sessions at once, and their telemetry on its way to the collector."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from loop.domain.errors import BadInput
from loop.service.simulation.client_session import ClientSession, SessionOutcome
from loop.service.simulation.draws import draw
from loop.service.simulation.http_connection import HttpConnection
from loop.service.simulation.model_client import ModelClient
from loop.service.simulation.parameters import FleetParameters
from loop.service.simulation.plans import SessionPlan, plan_session
from loop.service.simulation.telemetry import SessionTelemetry
from loop.service.simulation.telemetry_export import TelemetryExport

SESSION_ROOM_US = 45 * 60 * 1_000_000  # what a session may need of the window, pauses included

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FleetReport:
    """What a run of the fleet did, with the truth of every session."""

    outcomes: tuple[SessionOutcome, ...]
    requests: int  # sent to the gateway, retries included
    exports: int  # OTLP requests that were acknowledged
    resends: int  # OTLP requests that were refused for now and sent again
    elapsed_seconds: float

    @property
    def sessions(self) -> int:
        return len(self.outcomes)

    @property
    def turns(self) -> int:
        return sum(outcome.turns for outcome in self.outcomes)

    @property
    def failures(self) -> int:
        """Requests that the client gave up on."""
        return sum(outcome.failed_requests for outcome in self.outcomes)

    @property
    def solve_rate(self) -> float:
        """Share of sessions whose task was really solved."""
        solved = sum(outcome.solved for outcome in self.outcomes)
        return solved / len(self.outcomes) if self.outcomes else 0.0

    @property
    def solved_by_model(self) -> dict[str, tuple[int, int]]:
        """Per model that served the main loop: sessions solved, sessions. A session that more
        than one model served counts under their names joined by ``+``."""
        counts: dict[str, tuple[int, int]] = {}
        for outcome in self.outcomes:
            name = "+".join(outcome.served_models) or "none"
            solved, sessions = counts.get(name, (0, 0))
            counts[name] = (solved + outcome.solved, sessions + 1)
        return dict(sorted(counts.items()))


@dataclass(slots=True)
class _Tally:
    outcomes: list[SessionOutcome] = field(default_factory=list)
    requests: int = 0
    exports: int = 0
    resends: int = 0


class Fleet:
    """Simulated developers behind one gateway and one collector.

    ``gateway_url`` is what ``ANTHROPIC_BASE_URL`` would hold, ``otlp_url`` what
    ``OTEL_EXPORTER_OTLP_ENDPOINT`` would (OTLP over HTTP). Session ids never repeat within a
    fleet: the n-th session of a seed is the same in every process.
    """

    def __init__(
        self,
        parameters: FleetParameters,
        gateway_url: str,
        otlp_url: str,
        seed: int = 0,
        *,
        otlp_headers: Mapping[str, str] | None = None,
    ) -> None:
        self.parameters = parameters
        self._gateway_url = gateway_url
        self._otlp_url = otlp_url
        self._otlp_headers = dict(otlp_headers or {})
        self._seed = seed
        self._next = 0

    def plan(self, count: int, start_at_us: int, end_at_us: int) -> list[SessionPlan]:
        """The next ``count`` sessions, spread evenly over the window."""
        if end_at_us <= start_at_us:
            raise BadInput("The fleet's window is empty.", why=f"{start_at_us}..{end_at_us}")
        room_us = min(SESSION_ROOM_US, (end_at_us - start_at_us) // 2)
        step = (end_at_us - room_us - start_at_us) / max(count, 1)
        first, self._next = self._next, self._next + count
        return [
            plan_session(
                self.parameters,
                self._seed,
                number,
                int(start_at_us + step * (place + draw("start", self._seed, number))),
                end_at_us,
            )
            for place, number in enumerate(range(first, first + count))
        ]

    async def run_sessions(
        self,
        count: int,
        start_at_us: int,
        end_at_us: int,
        concurrency: int = 24,
        on_progress: Progress | None = None,
    ) -> FleetReport:
        """Runs ``count`` new sessions to their end and exports all of their telemetry.

        Virtual times lie inside the window. Raises ``Unavailable`` when the gateway or the
        collector stays away, ``Refused`` when the collector rejects the telemetry.
        """
        plans = iter(self.plan(count, start_at_us, end_at_us))
        tally = _Tally()
        began = time.monotonic()

        def note(outcome: SessionOutcome) -> None:
            tally.outcomes.append(outcome)
            if on_progress is not None:
                on_progress(len(tally.outcomes), count)

        workers = [
            asyncio.ensure_future(self._work(plans, tally, note))
            for _ in range(min(concurrency, count))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        order = sorted(tally.outcomes, key=lambda outcome: outcome.session_id)
        elapsed = time.monotonic() - began
        return FleetReport(tuple(order), tally.requests, tally.exports, tally.resends, elapsed)

    async def _work(
        self,
        plans: Iterator[SessionPlan],
        tally: _Tally,
        note: Callable[[SessionOutcome], None],
    ) -> None:
        """One worker: sessions one after another over its own connections."""
        gateway, collector = HttpConnection(self._gateway_url), HttpConnection(self._otlp_url)
        client = ModelClient(gateway)
        export = TelemetryExport(collector, self._otlp_headers)
        waiting: list[tuple[SessionTelemetry, int]] = []
        try:
            for plan in plans:
                session = ClientSession(plan, self.parameters, client)
                outcome = await session.run()
                waiting.append((session.telemetry, outcome.end_at_us))
                if len(waiting) >= self.parameters.sessions_per_export:
                    await export.send(waiting)
                    waiting = []
                note(outcome)
            if waiting:
                await export.send(waiting)
        finally:
            await gateway.close()
            await collector.close()
        tally.requests += client.requests
        tally.exports += export.exports
        tally.resends += export.resends
