"""``turnwise edge``: the edge proxy alone, for machines on which nothing else of turnwise runs.

A parent holds the listening socket and a child serves it, so that SIGHUP can bring up new code and
settings without a connection being refused: the new child gets everything ready, the old one stops
accepting and leaves its kept routes, the new one takes both up, and the old one's answers go on
until they are whole. Meanwhile connections wait in the socket's queue.

The child's standard input is a pipe that only the parent holds, as the drainer's is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from loop.domain.errors import BadInput, Unavailable
from loop.service.edge import Edge
from loop.service.listening import HttpServer, address_of, check_exposure, listen, uvloop_runner
from loop.service.settings import Settings, is_loopback
from routing_policies.client import fetch_trusted_keys
from routing_policies.service_connection import ServiceConnection
from routing_policies.signing import TrustedKeys

log = logging.getLogger("turnwise")
READY_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0
_PREPARED, _GO, _SERVING, _STOPPED = b"prepared\n", b"go\n", b"serving\n", b"stopped\n"


def run_edge(settings: Settings, service_url: str, keys: Path | None, arguments: list[str]) -> None:
    """Serves until SIGTERM or SIGINT, and anew on SIGHUP; ``arguments`` are the child's.

    Raises :class:`BadInput`, or :class:`Unavailable` when it can't begin.
    """
    check_exposure(settings, ("edge",))
    ServiceConnection(service_url)  # names a wrong address now, not from the child
    trusted_keys(settings, service_url, keys)
    listening = listen(settings.edge, "edge")
    with contextlib.closing(listening), uvloop_runner() as runner:
        runner.run(_supervise(settings, listening, arguments))


def serve_inherited(
    settings: Settings, service_url: str, keys: Path | None, descriptor: int
) -> None:
    """The child: serves the parent's socket when told to, until SIGTERM or the parent's end."""
    trusted = trusted_keys(settings, service_url, keys)
    listening = socket.socket(fileno=descriptor)
    listening.setblocking(False)
    instance = f"{socket.gethostname()}-{address_of(listening)}"
    edge = Edge(settings, trusted, service_url, instance)
    with uvloop_runner() as runner:
        runner.run(_serve(edge, listening, settings.edge_drain_seconds))


def trusted_keys(settings: Settings, service_url: str, keys: Path | None) -> TrustedKeys:
    """From the file; without one, asked of the service if that is on this machine.

    Raises :class:`BadInput`, :class:`Unavailable`.
    """
    if keys is None:
        host = ServiceConnection(service_url).host
        if not is_loopback(host):
            raise BadInput(
                "The keys that sign policies must come by another way than the policies.",
                why=f"{host} is not this machine.",
                fix="Give --keys FILE, with what GET /v1/gateway/keys answers there.",
            )
        return fetch_trusted_keys(service_url, settings.api_token)
    try:
        return TrustedKeys.from_document(json.loads(keys.read_text()))
    except (OSError, ValueError) as error:
        raise BadInput(f"{keys} holds no trusted keys.", why=str(error)) from error


async def _serve(edge: Edge, listening: socket.socket, drain_seconds: float) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # a terminal's hangup is the parent's
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    edge.start()
    _say(_PREPARED)
    if await orders.readline() != _GO:
        edge.stop()
        return
    edge.take_up_routes()
    server = HttpServer(edge.app, listening, drain_seconds, lingering=True)
    running = asyncio.create_task(server.run())
    await server.wait_until_started()
    _say(_SERVING)
    ending = [asyncio.create_task(stop.wait()), asyncio.create_task(orders.read()), running]
    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    edge.drain()
    server.should_exit = True
    while any(one.is_serving() for one in server.servers) and not running.done():
        await asyncio.sleep(0.005)
    edge.leave_routes()
    _say(_STOPPED)
    await running
    await asyncio.to_thread(edge.stop)


def _say(word: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        os.write(sys.stdout.fileno(), word)


class _Child:
    """One serving process, as its parent sees it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ended = asyncio.create_task(process.wait())

    @classmethod
    async def prepare(cls, arguments: list[str], listening: socket.socket) -> _Child:
        """A child that has everything but the order to serve. Raises :class:`Unavailable`."""
        descriptor = listening.fileno()
        command = [sys.executable, "-m", "loop.service", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, "--inherited", str(descriptor),
            stdin=PIPE, stdout=PIPE, pass_fds=[descriptor], start_new_session=True,
        )  # fmt: skip
        child = cls(process)
        await child.expect(_PREPARED)
        return child

    async def expect(self, word: bytes) -> None:
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(READY_SECONDS):
                said = await self.process.stdout.readline()
        except TimeoutError:
            said = b""
        if said != word:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            raise Unavailable("The edge proxy did not begin to serve.", fix="See the log above.")

    async def serve(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(_GO)
        await self.expect(_SERVING)

    async def leave(self) -> None:
        """Returns when it accepts no more; its answers under way go on."""
        with contextlib.suppress(ProcessLookupError, Unavailable):
            self.process.terminate()
            await self.expect(_STOPPED)


async def _supervise(settings: Settings, listening: socket.socket, arguments: list[str]) -> None:
    stop, reload, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    child = await _Child.prepare(arguments, listening)
    await child.serve()
    sys.stderr.write(f"ready: edge http://{address_of(listening)}\n")
    sys.stderr.flush()
    leaving: set[asyncio.Task[int]] = set()
    pause = FIRST_PAUSE_SECONDS
    while not stop.is_set():
        events = [asyncio.create_task(stop.wait()), asyncio.create_task(reload.wait())]
        await asyncio.wait([*events, child.ended], return_when=asyncio.FIRST_COMPLETED)
        for event in events:
            event.cancel()
        if stop.is_set():
            break
        if child.ended.done():
            log.error(
                "The serving process ended with %s; another is started.", child.ended.result()
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        reload.clear()
        try:
            following = await _Child.prepare(arguments, listening)
        except Unavailable as error:
            log.error("The old process goes on: %s", error)
            continue
        await child.leave()
        leaving = {task for task in leaving if not task.done()} | {child.ended}
        await following.serve()
        child, pause = following, FIRST_PAUSE_SECONDS
    await child.leave()
    await asyncio.gather(child.ended, *leaving)
