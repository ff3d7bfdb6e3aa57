"""The fake model API in a process of its own, as a real one is: it must not share the service's
interpreter, or the measured overhead of the gateway would be the simulation's."""

from __future__ import annotations

import multiprocessing
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import uvicorn

from loop.domain.errors import Unavailable
from loop.service.simulation.model_api import ModelApi
from loop.service.simulation.parameters import FleetParameters

START_SECONDS = 30


@contextmanager
def model_api_process(parameters: FleetParameters, host: str = "127.0.0.1") -> Iterator[str]:
    """Runs the API on a free port for the length of the block, and gives its base URL.

    Raises ``Unavailable`` when it doesn't come up.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(parameters, host, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_SECONDS):
            raise Unavailable("The simulated model API did not start.")
        try:
            port = ours.recv()
        except EOFError as error:
            raise Unavailable("The simulated model API ended while starting.") from error
        yield f"http://{host}:{port}"
    finally:
        ours.close()
        process.terminate()
        process.join()


def _serve(parameters: FleetParameters, host: str, started: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it ends us in order
    with socket.create_server((host, 0)) as listener:
        started.send(listener.getsockname()[1])
        started.close()
        config = uvicorn.Config(ModelApi(parameters), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])
