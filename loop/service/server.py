"""``turnwise serve``: receivers, API, pages, scheduler and edge proxy in one process, and the
drainer in a child of it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loop.domain.errors import Unavailable
from loop.service.assemble import Parts, assemble
from loop.service.drain_process import DrainChild
from loop.service.edge import Edge
from loop.service.http_api import api_app
from loop.service.listening import (
    GRACE_SECONDS,
    OFF,
    HttpServer,
    address_of,
    check_exposure,
    listen,
    uvloop_runner,
)
from loop.service.receivers import open_receivers
from loop.service.schedule import RepeatedTask
from loop.service.settings import Settings
from loop.service.stages import scheduled_tasks


def run_server(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises :class:`BadInput` or :class:`Unavailable`."""
    check_exposure(settings, ("http", "otlp_http", "otlp_grpc", "edge"))
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


async def _serve(parts: Parts) -> None:
    settings = parts.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    api_socket = listen(settings.http, "http")
    servers = [HttpServer(api_app(parts), api_socket)]
    edge: Edge | None = None
    edge_server: HttpServer | None = None
    edge_address = OFF
    if settings.edge != OFF:
        edge_socket = listen(settings.edge, "edge")
        edge_address = f"http://{address_of(edge_socket)}"
        service_url = f"http://{address_of(api_socket)}"
        instance = f"edge-{address_of(edge_socket)}"
        edge = Edge(settings, parts.publications.keys, service_url, instance)
        edge.take_up_routes()
        edge_server = HttpServer(edge.app, edge_socket, settings.edge_drain_seconds)
        servers.append(edge_server)
    receivers = await open_receivers(parts)
    if receivers.http is not None:
        servers.append(receivers.http)
    drainer = DrainChild(settings)
    starting = asyncio.create_task(drainer.start())
    tasks: list[RepeatedTask] = scheduled_tasks(parts)

    running = [asyncio.create_task(server.run()) for server in servers]
    for server in servers:
        await server.wait_until_started()
    await starting
    if edge is not None:
        edge.start()
    for task in tasks:
        task.start()
    sys.stderr.write(
        f"ready: pages and API http://{address_of(api_socket)}  {receivers}  edge {edge_address}\n"
    )
    sys.stderr.flush()

    waiting = asyncio.create_task(stop.wait())
    ended, _ = await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    parts.stopping.set()
    if edge is not None and edge_server is not None:
        # First, while the API still takes its decisions.
        edge.drain()
        edge_server.should_exit = True
        await running[servers.index(edge_server)]
        edge.leave_routes()
        await asyncio.to_thread(edge.stop)
    for server in servers:
        server.should_exit = True
    parts.publications.close()  # long polls end now, not after their 25 seconds
    if receivers.grpc is not None:
        await receivers.grpc.stop(GRACE_SECONDS)
    await asyncio.gather(*running)
    for task in tasks:
        await asyncio.to_thread(task.stop)
    await asyncio.to_thread(parts.close)  # seals the journal: the drainer's last pass has it all
    await drainer.stop()
    if waiting not in ended:
        raise Unavailable("A server ended by itself.", fix="See the log above; start it again.")
