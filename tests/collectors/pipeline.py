"""A collector's parts wired together on a temporary directory, for the tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from collectors.drainer import Drainer, DrainLimits
from collectors.intake_counts import IntakeSink
from collectors.journal import Journal, JournalLimits
from collectors.otlp_grpc import serve_grpc
from collectors.otlp_http import Authorise, BodyLimits, anyone
from loop.domain.money import Price, PriceBook
from loop.lake import Lake

ROOMY = JournalLimits(min_free_bytes=0, max_used_percent=100.0)
PRICES = PriceBook(
    "test",
    [
        Price(model, "2020-01-01", 5_000_000, 25_000_000, 500_000, 6_250_000, 10_000_000)
        for model in ("claude-opus-4-7", "claude-sonnet-4-6")
    ],
)


@dataclass(slots=True)
class Pipeline:
    journal: Journal
    drainer: Drainer
    lake: Lake


@contextmanager
def pipeline(
    directory: Path, limits: DrainLimits | None = None, intake: IntakeSink | None = None
) -> Iterator[Pipeline]:
    lake = Lake.open(str(directory / "lake"))
    with (
        Journal(directory / "journal", ROOMY) as journal,
        Drainer(journal, lake, PRICES, limits=limits, intake=intake) as drainer,
    ):
        yield Pipeline(journal, drainer, lake)


@contextmanager
def grpc_collector(
    journal: Journal, limits: BodyLimits | None = None, authorise: Authorise = anyone
) -> Iterator[str]:
    """Serves on a free loopback port in a thread of its own; yields the target."""
    started: threading.Event = threading.Event()
    targets: list[str] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        collector = await serve_grpc("127.0.0.1:0", journal, limits, authorise)
        targets.append(f"127.0.0.1:{collector.port}")
        started.set()
        await stop.wait()
        await collector.stop(0.5)

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait(15)
    try:
        yield targets[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(15)
