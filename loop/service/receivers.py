"""The receivers: OTLP over HTTP and over gRPC in front of this process's journal.

``turnwise serve`` runs them beside everything else; ``turnwise collect`` runs them alone, as often
as is wanted on one data folder, for each process writes segments of its own.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass

from collectors import redaction
from collectors.otlp_grpc import GrpcCollector, serve_grpc
from collectors.otlp_http import BodyLimits, otlp_app
from loop.access.verbs import Verb
from loop.domain.errors import BadInput, Unavailable
from loop.service.assemble import Parts, assemble
from loop.service.listening import (
    GRACE_SECONDS,
    OFF,
    HttpServer,
    address_of,
    check_exposure,
    listen,
    uvloop_runner,
)
from loop.service.settings import Settings, parse_address

ADDRESSES = ("otlp_http", "otlp_grpc")


@dataclass(frozen=True, slots=True)
class Receivers:
    """What receives, and where it can be reached (``off`` for what does not run)."""

    http: HttpServer | None
    grpc: GrpcCollector | None
    http_url: str
    grpc_address: str

    def __str__(self) -> str:
        return f"OTLP/HTTP {self.http_url}  OTLP/gRPC {self.grpc_address}"


async def open_receivers(parts: Parts) -> Receivers:
    """Opens the ports. gRPC accepts at once; the HTTP server is for the caller to run.

    Raises :class:`Unavailable` for a port that can't be had.
    """
    settings = parts.settings
    preparing = asyncio.get_running_loop().run_in_executor(None, redaction.prepare)
    limits = BodyLimits(settings.max_body_bytes, settings.max_inflated_bytes)
    parts.callers.start()
    await preparing  # rather than have the first sender wait for it
    authorise = parts.callers.authorise(Verb.INGEST)
    http, http_url, grpc, grpc_address = None, OFF, None, OFF
    if settings.otlp_http != OFF:
        listening = listen(settings.otlp_http, "otlp_http")
        http = HttpServer(otlp_app(parts.journal, limits, authorise), listening)
        http_url = f"http://{address_of(listening)}"
    if settings.otlp_grpc != OFF:
        host, _ = parse_address(settings.otlp_grpc, "otlp_grpc")
        grpc = await serve_grpc(settings.otlp_grpc, parts.journal, limits, authorise)
        grpc_address = f"{host}:{grpc.port}"
    return Receivers(http, grpc, http_url, grpc_address)


def run_receivers(settings: Settings) -> None:
    """Receives until SIGTERM or SIGINT. Raises :class:`BadInput` or :class:`Unavailable`."""
    check_exposure(settings, ADDRESSES)
    if settings.otlp_http == settings.otlp_grpc == OFF:
        raise BadInput("Both receivers are off.", fix="Set TURNWISE_OTLP_HTTP to an address.")
    parts = assemble(settings)
    with uvloop_runner() as runner:
        runner.run(_receive(parts))


async def _receive(parts: Parts) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    receivers = await open_receivers(parts)
    waiting = asyncio.create_task(stop.wait())
    running = []
    if receivers.http is not None:
        running.append(asyncio.create_task(receivers.http.run()))
        await receivers.http.wait_until_started()
    sys.stderr.write(f"ready: {receivers}\n")
    sys.stderr.flush()
    ended, _ = await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if receivers.http is not None:
        receivers.http.should_exit = True
    if receivers.grpc is not None:
        await receivers.grpc.stop(GRACE_SECONDS)
    await asyncio.gather(*running)
    await asyncio.to_thread(parts.close)
    if waiting not in ended:
        raise Unavailable("A server ended by itself.", fix="See the log above; start it again.")
