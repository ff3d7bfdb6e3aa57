"""Segments decoded ahead of the drainer, by a process of its own: the second core's work.

Decoding is a pure function of a segment, so it can be done while the drainer is busy with the one
before. ``python -m collectors.reading_ahead`` is that process: it reads paths from its standard
input, a line each, and writes each segment, decoded and packed, behind its length. It ends with its
input, so with its parent. Where it fails, whatever the reason, the drainer decodes by itself.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from collectors.quarantine import is_replay
from collectors.segment_decoding import DecodedSegment, decode_packed, unpack

logger = logging.getLogger("turnwise")
SMALLEST_BYTES = 256 * 1024
"""Smaller segments are not worth a message to another process."""
LONGEST_SECONDS = 120.0
PAUSE_SECONDS = 60.0
"""How long nothing is asked after the process failed."""
_LENGTH = struct.Struct("<Q")
_PIPE_BYTES = 1024 * 1024  # the most that Linux gives anybody; fewer turns for each segment


class ReadingAhead:
    """Keeps the process, once there is something to ask. Not safe to use from several threads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: deque[Path] = deque()
        self._failed_at = -PAUSE_SECONDS

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def ask(self, paths: Iterable[Path]) -> None:
        """Lets those of the segments be decoded that are worth it and were not asked for yet."""
        if time.monotonic() - self._failed_at < PAUSE_SECONDS:
            return
        asked = set(self._asked)
        # A replayed record is judged by the time of the pass that takes it.
        wanted = [path for path in paths if path not in asked and not is_replay(path)]
        try:
            wanted = [
                path
                for path in wanted
                if path.stat().st_size >= SMALLEST_BYTES and b"\n" not in bytes(path)
            ]
            if not wanted:
                return
            process = self._running()
            assert process.stdin is not None
            process.stdin.write(b"".join(bytes(path) + b"\n" for path in wanted))
        except OSError as error:
            self._fail(repr(error))
        else:
            self._asked += wanted

    def take(self, path: Path) -> DecodedSegment | None:
        """The segment, if it was asked for; what was asked for before it is passed over."""
        if path not in self._asked:
            return None
        try:
            while True:
                data = self._read()
                if self._asked.popleft() == path:
                    return unpack(data) if data else None
        except (OSError, EOFError, ValueError) as error:
            self._fail(repr(error))
            return None

    def close(self) -> None:
        """Ends the process; what was asked for is forgotten."""
        self._asked.clear()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # -P: the folder that the drainer is started in must not lend its modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "collectors.reading_ahead"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pipesize=_PIPE_BYTES,
            )
        return self._process

    def _read(self) -> bytearray:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        return self._exactly(length)

    def _exactly(self, count: int) -> bytearray:
        assert self._process is not None
        stream: Any = self._process.stdout
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            if not select.select([stream], [], [], LONGEST_SECONDS)[0]:
                raise EOFError("no answer")
            read = stream.readinto(view[done:])
            if not read:
                raise EOFError("it ended")
            done += read
        return data

    def _fail(self, why: str) -> None:
        logger.warning("the process that decodes ahead failed (%s); decoding without it", why)
        self._failed_at = time.monotonic()
        self.close()


def main() -> None:
    """Decodes what it is told to until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the drainer hears it, and ends this one
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)
    for line in sys.stdin.buffer:
        try:
            data = decode_packed(Path(os.fsdecode(line[:-1])))
        except (OSError, ValueError):
            data = b""  # the drainer meets the same and says what it is
        answer = memoryview(_LENGTH.pack(len(data)) + data)
        try:
            while answer:
                answer = answer[os.write(sys.stdout.fileno(), answer) :]
        except BrokenPipeError:
            return  # the drainer is gone


if __name__ == "__main__":
    main()
