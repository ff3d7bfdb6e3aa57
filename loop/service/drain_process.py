"""The drainer in a process of its own, so that decoding never holds up an acknowledgement.

``turnwise drain`` is the process; :class:`DrainChild` is how ``turnwise serve`` keeps one running.
The child's standard input is a pipe that only the parent holds: it ends when the parent does,
however the parent ends, and with it the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time

from loop.domain.errors import TurnwiseError, Unavailable
from loop.service.assemble import assemble
from loop.service.drain_stage import drain, drain_and_price
from loop.service.repricing_stage import PendingRepricing
from loop.service.schedule import RepeatedTask
from loop.service.settings import Settings

logger = logging.getLogger("turnwise")
START_SECONDS = 60.0
STOP_SECONDS = 30.0
"""What a pass and the last one after it may take before the child is killed; it loses nothing."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0
LONG_LIFE_SECONDS = 60.0
_STARTED = b"started\n"


def run_drainer(settings: Settings, *, supervised: bool) -> None:
    """Drains until SIGTERM or SIGINT, or, when supervised, until the parent is gone.

    While another process drains this folder it stands by, and takes over when that one ends.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parts = assemble(settings)
    repricing = PendingRepricing(parts)
    _spare_collections()
    task = RepeatedTask(
        "drain", lambda: drain_and_price(parts, repricing), settings.drain_interval_ms / 1000
    )
    task.start()
    if supervised:
        sys.stdout.buffer.write(_STARTED)
        sys.stdout.flush()
        threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    else:
        sys.stderr.write(f"ready: drains {parts.journal_dir} into {settings.lake_uri}\n")
        sys.stderr.flush()
    stop.wait()
    task.stop()
    try:
        drain(parts)  # what was acknowledged during the last pass
    except TurnwiseError as error:
        logger.warning("what was received last stays in the journal: %s", error)
    parts.close()
    gc.unfreeze()  # libraries look at exit for what was left behind


def _spare_collections() -> None:
    """Fewer looks for cycles: nothing here makes them in number, and each look at the events that
    are kept in memory takes longer than a pass does."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


def _stop_with_parent(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()
    time.sleep(STOP_SECONDS)
    os._exit(1)  # hung in a call that does not return; the journal has everything


class DrainChild:
    """Keeps one drainer process running until :meth:`stop`.

    One that dies is started again, after a pause that grows while it dies young.
    """

    def __init__(self, settings: Settings) -> None:
        self._environment = settings.environment()
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Returns once the process runs. Raises :class:`Unavailable` when it does not start."""
        await self._spawn()
        self._watch = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """Lets it drain what is in the journal by now, and end."""
        if self._watch is not None:
            self._watch.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            logger.warning("the drainer did not end in %.0f s and is killed", STOP_SECONDS)
            process.kill()
            await process.wait()

    async def _spawn(self) -> None:
        # -P: the folder that the service is started in must not lend its modules. A session of
        # its own: Ctrl-C reaches the parent alone, which ends the child once it has received all.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "loop.service", "drain", "--supervised"),
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
        except TimeoutError:
            self._process.kill()
            line = b""
        if line != _STARTED:
            raise Unavailable(
                "The process that drains the journal did not start.",
                why=f"It ended with {await self._process.wait()}.",
                fix="See the log above.",
            )

    async def _keep_running(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            assert self._process is not None
            began = time.monotonic()
            code = await self._process.wait()
            if time.monotonic() - began > LONG_LIFE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            logger.warning("the drainer ended with %s; starting it again in %.1f s", code, pause)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
            try:
                await self._spawn()
            except (Unavailable, OSError) as error:
                logger.warning("%s", error)
