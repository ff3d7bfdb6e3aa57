"""``turnwise serve``: collectors, API, pages, scheduler and edge proxy in one process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from collectors.otlp_grpc import serve_grpc
from collectors.otlp_http import BodyLimits, otlp_app
from loop.access.tokens import token_check
from loop.domain.errors import BadInput, Unavailable
from loop.service.assemble import Parts, assemble
from loop.service.edge import Edge
from loop.service.http_api import api_app
from loop.service.schedule import RepeatedTask
from loop.service.settings import Settings, is_loopback, parse_address
from loop.service.stages import scheduled_tasks

OFF = "off"
GRACE_SECONDS = 5
BACKLOG = 1024


def run_server(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises :class:`BadInput` or :class:`Unavailable`."""
    check_exposure(settings)
    parts = assemble(settings)
    with only_server(settings.data_dir), uvloop_runner() as runner:
        runner.run(_serve(parts))


@contextmanager
def only_server(data_dir: Path) -> Iterator[None]:
    """Keeps the data folder to this server; the lock goes with the process, however it ends.

    Raises :class:`Unavailable` while another server has it.
    """
    path = data_dir / "serve.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Unavailable(
                f"Another server works on {data_dir}.",
                why=f"Process {file.read().strip() or 'unknown'} holds {path}.",
                fix="Stop it first, or give this one a data folder of its own (--data).",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def check_exposure(settings: Settings) -> None:
    """Only loopback may go without a token."""
    for name in ("http", "otlp_http", "otlp_grpc", "edge"):
        address = getattr(settings, name)
        if address == OFF:
            continue
        host, _ = parse_address(address, name)
        if not is_loopback(host) and not settings.api_token:
            raise BadInput(
                f"{name}={address} can be reached from outside, and no token is set.",
                fix="Set TURNWISE_API_TOKEN, or bind to 127.0.0.1.",
            )


@contextmanager
def uvloop_runner() -> Iterator[asyncio.Runner]:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


async def _serve(parts: Parts) -> None:
    settings = parts.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    limits = BodyLimits(settings.max_body_bytes, settings.max_inflated_bytes)
    authorise = token_check(settings.api_token)
    api_socket = _listen(settings.http, "http")
    otlp_socket = _listen(settings.otlp_http, "otlp_http")
    servers = [
        _Server(api_app(parts), api_socket),
        _Server(otlp_app(parts.journal, limits, authorise), otlp_socket),
    ]
    edge: Edge | None = None
    edge_address = OFF
    if settings.edge != OFF:
        edge_socket = _listen(settings.edge, "edge")
        edge_address = _address(edge_socket)
        service_url = f"http://{_address(api_socket)}"
        edge = Edge(settings, parts.publications.keys, service_url, edge_address)
        servers.append(_Server(edge.app, edge_socket))
    grpc = await serve_grpc(settings.otlp_grpc, parts.journal, limits, authorise)
    grpc_host, _ = parse_address(settings.otlp_grpc, "otlp_grpc")
    tasks: list[RepeatedTask] = scheduled_tasks(parts)

    running = [asyncio.create_task(server.run()) for server in servers]
    for server in servers:
        await server.wait_until_started()
    if edge is not None:
        edge.start()
    for task in tasks:
        task.start()
    sys.stderr.write(
        f"ready: pages and API http://{_address(api_socket)}  "
        f"OTLP/HTTP http://{_address(otlp_socket)}  OTLP/gRPC {grpc_host}:{grpc.port}  "
        f"edge {edge_address if edge is None else 'http://' + edge_address}\n"
    )
    sys.stderr.flush()

    waiting = asyncio.create_task(stop.wait())
    ended, _ = await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for server in servers:
        server.should_exit = True
    parts.publications.close()  # long polls end now, not after their 25 seconds
    if edge is not None:
        await asyncio.to_thread(edge.stop)
    await grpc.stop(GRACE_SECONDS)
    await asyncio.gather(*running)
    for task in tasks:
        await asyncio.to_thread(task.stop)
    await asyncio.to_thread(parts.close)
    if waiting not in ended:
        raise Unavailable("A server ended by itself.", fix="See the log above; start it again.")


class _Server(uvicorn.Server):
    """Uvicorn on a socket that is open already, without its own signal handling."""

    def __init__(self, app: ASGIApp, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            lifespan="auto",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
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


def _listen(address: str, name: str) -> socket.socket:
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


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
