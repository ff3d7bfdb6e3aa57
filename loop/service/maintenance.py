"""Times when nothing may be written but by one: erasing a person, restoring a table.

Locks on two files, which go with the process however it ends: who writes what was read of sessions
(the drainer for each pass, a stage for what it reads at a time) holds one shared; who maintains
holds both alone, the other one first, so that new writers don't keep it waiting. So nothing that
was read before an erasure is written after it. A drainer that is refused lets go of the journal
and of the sessions that it keeps in memory.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from loop.domain.errors import Conflict, Refused, Unavailable
from loop.service.assemble import Parts

ASKED_NAME = "maintenance.lock"
WRITERS_NAME = "writers.lock"
WAIT_SECONDS = 180.0
_PAUSE_SECONDS = 0.05
_ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB


@contextmanager
def writing_allowed(data_dir: Path) -> Iterator[bool]:
    """Whether one may begin to read sessions and write of them; if so maintenance waits for the
    end of the block. No block begins while maintenance is waited for."""
    with (data_dir / ASKED_NAME).open("a") as asked, (data_dir / WRITERS_NAME).open("a") as writers:
        try:
            fcntl.flock(asked, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(writers, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        fcntl.flock(asked, fcntl.LOCK_UN)
        yield True


@contextmanager
def maintenance(parts: Parts) -> Iterator[None]:
    """Holds the drainer and the stages up, after all that was received is in the lake.

    Raises :class:`Refused` in a process beside a running server (whose stages write, too) and
    :class:`Unavailable` when one of them does not let go.
    """
    folder = parts.settings.data_dir
    _check_no_other_server(folder)
    deadline = time.monotonic() + WAIT_SECONDS
    with (folder / ASKED_NAME).open("a") as asked, (folder / WRITERS_NAME).open("a") as writers:
        for file in (asked, writers):
            _until(deadline, partial(fcntl.flock, file, _ALONE), BlockingIOError)
        try:
            _until(deadline, parts.drainer.drain_once, Conflict)
            while not parts.drainer.is_drained() and time.monotonic() < deadline:
                time.sleep(_PAUSE_SECONDS)  # a receiver seals its segment within a second
                parts.drainer.drain_once()
            yield
        finally:
            parts.drainer.close()


def _until(deadline: float, action: object, obstacle: type[Exception]) -> None:
    while True:
        try:
            action()  # type: ignore[operator]
            return
        except obstacle as error:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "The drainer or a stage does not end what it is at.",
                    why=str(error),
                    fix="Try again; if it stays so, stop the server first.",
                ) from error
        time.sleep(_PAUSE_SECONDS)


def _check_no_other_server(data_dir: Path) -> None:
    path = data_dir / "serve.lock"
    if not path.exists():
        return
    with path.open("r+") as file:
        holder = file.read().strip()
        if holder == str(os.getpid()):
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                f"A server works on {data_dir}.",
                why=f"Process {holder or 'unknown'} writes its tables meanwhile.",
                fix="Let the server do it: --api URL. Or stop it first.",
            ) from error
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
