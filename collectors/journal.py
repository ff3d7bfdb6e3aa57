"""The durable log: what a collector has acknowledged is in here, fsynced, until the lake has it.

One writer thread per process takes everything that waits, writes it with one ``write`` and one
``fdatasync``, then wakes all who waited (group commit): latency is that of one fsync, throughput
that of the disk. A failed write or fsync poisons the segment: nothing in it is acknowledged any
more and its descriptor is never synced again, because after a failed fsync the kernel may have
dropped the pages it reports as clean from then on.

Each process writes segments of its own and keeps a lock on the open one. A segment whose lock can
be taken belongs to a dead process; :func:`recover` seals it, so its valid prefix is drained.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from collectors.quarantine import DEFAULT_MAX_BYTES, Quarantine
from collectors.screening import Screen
from collectors.segments import (
    CREATING,
    MAGIC,
    OPEN,
    SEALED,
    ContentType,
    Record,
    RecordKind,
    encode_record,
    encode_trailer,
    new_segment_name,
    sync_directory,
)
from loop.domain.errors import Unavailable

_DISK_CHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """When the journal refuses, and how its segments are cut.

    ``min_free_bytes`` and ``max_used_percent``: the disk's high-water mark, as ``df`` counts it;
    the percentage does not count while ``ample_free_bytes`` are free, for of a large disk 15 % are
    more than a journal ever needs.
    ``seal_after_seconds``: an open segment that has records is sealed at this age, so that a
    drainer in another process gets at it. ``max_waiting_bytes``: what may wait for one fsync.
    ``max_quarantine_bytes``: what may lie in the quarantine beside the journal.
    """

    min_free_bytes: int = 256 * 1024 * 1024
    max_used_percent: float = 85.0
    ample_free_bytes: int = 32 * 1024 * 1024 * 1024
    segment_bytes: int = 4 * 1024 * 1024
    seal_after_seconds: float = 0.5
    max_waiting_bytes: int = 256 * 1024 * 1024
    max_quarantine_bytes: int = DEFAULT_MAX_BYTES


class _Waiting:
    """An append on its way to the disk."""

    __slots__ = ("async_future", "data", "future", "loop")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.future: Future[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.async_future: asyncio.Future[None] | None = None


class Journal:
    """Appends records durably, each through the screen: what is on the disk holds no secret.
    Thread-safe; use one per process and :meth:`close` it."""

    def __init__(
        self,
        directory: Path,
        limits: JournalLimits | None = None,
        screen: Screen | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.limits = limits or JournalLimits()
        self.screen = screen or Screen()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self.quarantine = Quarantine(
            self.directory.parent / "quarantine", self.limits.max_quarantine_bytes
        )
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._closed = False
        self._seal_requests: list[threading.Event] = []
        self._segment: _OpenSegment | None = None
        self._disk_checked_at = 0.0
        self._disk_refusal = ""
        self._bytes_since_check = 0
        self._thread = threading.Thread(target=self._write_forever, name="journal", daemon=True)
        self._thread.start()

    async def append(
        self, kind: RecordKind, content_type: ContentType, body: bytes, *, credential: str = ""
    ) -> None:
        """Returns once the body is durable, as the screen lets it pass.

        Raises:
            BadInput: the body can't be screened.
            Unavailable: nothing was acknowledged; the sender should try again later.
        """
        waiting = _Waiting(self._encode(kind, content_type, body, credential))
        waiting.loop = asyncio.get_running_loop()
        waiting.async_future = waiting.loop.create_future()
        self._enqueue([waiting])
        await waiting.async_future

    def append_sync(
        self, kind: RecordKind, content_type: ContentType, body: bytes, *, credential: str = ""
    ) -> None:
        """:meth:`append` for callers without an event loop."""
        self.append_later(kind, content_type, body, credential=credential).result()

    def append_later(
        self, kind: RecordKind, content_type: ContentType, body: bytes, *, credential: str = ""
    ) -> Future[None]:
        """Begins to append; the result is there once the body is durable, or an Unavailable."""
        waiting = _Waiting(self._encode(kind, content_type, body, credential))
        future: Future[None] = Future()
        waiting.future = future
        self._enqueue([waiting])
        return future

    def seal(self) -> None:
        """Seals the open segment, if it has records, so that it can be drained now."""
        done = threading.Event()
        with self._wake:
            if self._closed:
                return
            self._seal_requests.append(done)
            self._wake.notify()
        done.wait()

    def close(self) -> None:
        """Writes what waits, seals the open segment and stops the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check_disk(self) -> None:
        """Raises Unavailable while the disk is above its high-water mark."""
        now = time.monotonic()
        # A fast sender could fill what is to be kept free between two looks at the clock.
        much = self._bytes_since_check > self.limits.min_free_bytes // 8
        if much or now - self._disk_checked_at > _DISK_CHECK_SECONDS:
            self._disk_refusal = _disk_refusal(self.directory, self.limits)
            self._disk_checked_at = now
            self._bytes_since_check = 0
        if self._disk_refusal:
            raise Unavailable(
                "The collector's disk is full.",
                why=self._disk_refusal,
                fix="Free space or move the data directory.",
                retry_after_seconds=30,
            )

    def _encode(
        self, kind: RecordKind, content_type: ContentType, body: bytes, credential: str
    ) -> bytes:
        body = self.screen.screen(kind, content_type, body, credential)
        return encode_record(Record(kind, content_type, body, time.time_ns() // 1000, credential))

    def _enqueue(self, items: list[_Waiting]) -> None:
        self.check_disk()
        size = sum(len(item.data) for item in items)
        with self._wake:
            if self._closed:
                raise Unavailable("The collector is shutting down.", retry_after_seconds=5)
            if self._waiting and self._waiting_bytes + size > self.limits.max_waiting_bytes:
                raise Unavailable(
                    "The collector can't write as fast as data arrives.",
                    why=f"{self._waiting_bytes} bytes wait for the disk.",
                    retry_after_seconds=1,
                )
            self._waiting.extend(items)
            self._waiting_bytes += size
            self._bytes_since_check += size
            self._wake.notify()

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._seal_requests or self._closed):
                    if not self._wake.wait(self._seconds_until_seal()):
                        break
                group, self._waiting = self._waiting, []
                self._waiting_bytes = 0
                seals, self._seal_requests = self._seal_requests, []
                closed = self._closed
            if group:
                _resolve(group, self._commit(group))
            segment = self._segment
            if segment is not None and (
                seals or closed or segment.is_due(self.limits) or segment.poisoned
            ):
                segment.seal()
                self._segment = None
            for seal in seals:
                seal.set()
            if closed and not group:
                return

    def _seconds_until_seal(self) -> float | None:
        if self._segment is None:
            return None
        return max(0.0, self._segment.due_at(self.limits) - time.monotonic())

    def _commit(self, group: list[_Waiting]) -> Unavailable | None:
        try:
            if self._segment is None:
                self._segment = _OpenSegment(self.directory)
            self._segment.write([item.data for item in group])
        except OSError as error:
            self._disk_checked_at = 0.0
            return Unavailable(
                "The collector could not make the data durable; nothing of it was accepted.",
                why=f"{error.strerror or error} ({self.directory})",
                fix="Send it again later; free space if the disk is full.",
                retry_after_seconds=10,
            )
        return None


class _OpenSegment:
    """The segment that this process writes now."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / (new_segment_name() + OPEN)
        # Under its final name only once it is locked: recover() must never seal a live segment.
        creating = self.path.with_suffix(CREATING)
        self.poisoned = False
        self.records = 0
        self.size = 0
        self.opened_at = time.monotonic()
        self._file: BinaryIO = open(  # noqa: SIM115 - kept open until sealed
            creating, "xb", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600)
        )
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._write_all(MAGIC)
            creating.rename(self.path)
            sync_directory(directory)
        except OSError:
            self._file.close()
            creating.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            raise

    def write(self, chunks: list[bytes]) -> None:
        """One write and one fdatasync for all chunks; an OSError poisons the segment."""
        try:
            self._write_all(b"".join(chunks) if len(chunks) > 1 else chunks[0])
            os.fdatasync(self._file.fileno())
        except OSError:
            self.poisoned = True
            raise
        self.records += len(chunks)

    def due_at(self, limits: JournalLimits) -> float:
        return self.opened_at + limits.seal_after_seconds

    def is_due(self, limits: JournalLimits) -> bool:
        return self.size >= limits.segment_bytes or time.monotonic() >= self.due_at(limits)

    def seal(self) -> None:
        """Adds the trailer and renames; a poisoned or empty segment gets no trailer."""
        directory = self.path.parent
        try:
            if not self.poisoned:
                self._write_all(encode_trailer(self.records))
                os.fdatasync(self._file.fileno())
        except OSError:
            # The records before are synced; without a trailer the reader takes its valid prefix.
            self.poisoned = True
        try:
            self.path.rename(self.path.with_suffix(SEALED))
            sync_directory(directory)
        except OSError:
            self.poisoned = True  # recover() tries again once the lock is gone
        finally:
            self._file.close()

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._file.fileno(), view)
            view = view[written:]
        self.size += len(data)


def sealed_segments(directory: Path) -> list[Path]:
    """Sealed segments in order of creation."""
    return sorted(directory.glob("*" + SEALED))


def recover(directory: Path) -> list[Path]:
    """Seals every open segment whose process is gone; returns their new paths."""
    recovered = []
    for path in sorted(directory.glob("*" + OPEN)):
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sealed = path.with_suffix(SEALED)
                path.rename(sealed)
        except (BlockingIOError, FileNotFoundError):
            continue  # alive, or sealed by its owner between the listing and now
        recovered.append(sealed)
    if recovered:
        sync_directory(directory)
    return recovered


def has_records(directory: Path) -> bool:
    """Whether any segment, open ones included, holds a record that was not drained yet."""
    try:
        return any(
            path.stat().st_size > len(MAGIC)
            for pattern in (OPEN, SEALED)
            for path in directory.glob("*" + pattern)
        )
    except FileNotFoundError:
        return True  # one was sealed or drained while we looked: look again later


def _resolve(group: list[_Waiting], error: Unavailable | None) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for item in group:
        if item.future is not None:
            if error is None:
                item.future.set_result(None)
            else:
                item.future.set_exception(error)
        elif item.loop is not None and item.async_future is not None:
            by_loop.setdefault(item.loop, []).append(item.async_future)
    for loop, futures in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve_on_loop, futures, error)


def _resolve_on_loop(futures: list[asyncio.Future[None]], error: Unavailable | None) -> None:
    for future in futures:
        if future.done():  # the request was cancelled meanwhile
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _disk_refusal(directory: Path, limits: JournalLimits) -> str:
    stats = os.statvfs(directory)
    free = stats.f_bavail * stats.f_frsize
    used = (stats.f_blocks - stats.f_bfree) * stats.f_frsize
    percent = 100.0 * used / (used + free) if used + free else 100.0
    if free < limits.min_free_bytes:
        return f"{free} bytes are free, fewer than the {limits.min_free_bytes} to keep."
    if percent > limits.max_used_percent and free < limits.ample_free_bytes:
        return f"{percent:.1f} % are used, more than {limits.max_used_percent} %."
    return ""
