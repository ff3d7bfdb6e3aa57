"""Listening: sockets opened first, so that a port in use is named before anything starts."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from loop.domain.errors import BadInput, Unavailable
from loop.service.settings import Settings, is_loopback, parse_address

OFF = "off"
GRACE_SECONDS = 5
BACKLOG = 1024
LINGER_SECONDS = 2.0
KEEP_ALIVE_SECONDS = 75  # longer than clients keep an idle connection


class HttpServer(uvicorn.Server):
    """Uvicorn on a socket that is open already, without its own signal handling."""

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        grace_seconds: float = GRACE_SECONDS,
        *,
        lingering: bool = False,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            lifespan="auto",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(grace_seconds),
            http=LingeringProtocol if lingering else "auto",
            timeout_keep_alive=KEEP_ALIVE_SECONDS if lingering else 5,
        )
        super().__init__(config)
        self._listening = listening

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run(self) -> None:  # type: ignore[override]
        await self.serve(sockets=[self._listening])

    async def wait_until_started(self) -> None:
        while not self.started and not self.should_exit:
            await asyncio.sleep(0.005)


class LingeringProtocol(HttpToolsProtocol):
    """At the server's end a connection without a request is not closed at once.

    It may have been accepted a moment ago, with its request still on the way: closed now, that
    request would fail. One that does come is answered, and the app says ``connection: close``.
    """

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_SECONDS, super().shutdown)
        else:
            super().shutdown()


@contextmanager
def uvloop_runner() -> Iterator[asyncio.Runner]:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


def check_exposure(settings: Settings, names: tuple[str, ...]) -> None:
    """Only loopback may go without a token. Raises :class:`BadInput` naming the address."""
    for name in names:
        address = getattr(settings, name)
        if address == OFF:
            continue
        host, _ = parse_address(address, name)
        if not is_loopback(host) and not settings.api_token:
            raise BadInput(
                f"{name}={address} can be reached from outside, and no token is set.",
                fix="Set TURNWISE_API_TOKEN, or bind to 127.0.0.1.",
            )


def listen(address: str, name: str) -> socket.socket:
    """A listening socket. Raises :class:`Unavailable` when the address can't be had."""
    host, port = parse_address(address, name)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise Unavailable(
            f"{name}: can't listen on {address}.",
            why=str(error),
            fix="Free the port or set another address (`turnwise settings show`).",
        ) from error
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


def address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
