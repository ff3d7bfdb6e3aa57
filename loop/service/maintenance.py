"""Times when nothing may be written but by one: erasing a person, restoring a table.

Two locks on a file, which go with the process however it ends: who drains holds it shared for each
pass, who maintains holds it alone. A drainer that finds it taken lets go of the journal and of the
sessions that it keeps in memory.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loop.domain.errors import Conflict, Refused, Unavailable
from loop.service.assemble import Parts

LOCK_NAME = "maintenance.lock"
WAIT_SECONDS = 60.0
_PAUSE_SECONDS = 0.05


@contextmanager
def draining_allowed(data_dir: Path) -> Iterator[bool]:
    """Whether a pass of the drainer may begin; it may end, then, before maintenance begins."""
    with (data_dir / LOCK_NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def maintenance(parts: Parts) -> Iterator[None]:
    """Holds the drainer up, after all that was received is in the lake.

    Raises :class:`Refused` in a process beside a running server (whose stages write, too) and
    :class:`Unavailable` when the drainer does not let go.
    """
    _check_no_other_server(parts.settings.data_dir)
    deadline = time.monotonic() + WAIT_SECONDS
    with (parts.settings.data_dir / LOCK_NAME).open("a") as file:
        _until(deadline, lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB), BlockingIOError)
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
                    "The drainer does not let go of the journal.",
                    why=str(error),
                    fix="Try again; if it stays so, stop it first.",
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
