"""Serves the publication in force: signed bytes, a strong ETag, and a long poll.

One :class:`PublicationSource` per process and event loop. It looks at the store every
``check_seconds`` while someone waits, so that another process's publication is seen too; a
publication of this process wakes the waiters at once. The store is read once per look, not once
per waiter.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from loop.domain.errors import NotFound, Unavailable
from loop.domain.policies import Publication
from routing_policies.signing import Signer, TrustedKeys, sign_envelope
from routing_policies.version_store import VersionStore

MAX_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class SignedPublication:
    """What is served: the envelope's bytes and the strong ETag of exactly these bytes."""

    serial: int
    envelope: bytes
    etag: str


@dataclass(slots=True)
class _Channel:
    current: SignedPublication | None = None
    looked_at: float = float("-inf")  # on the event loop's clock
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    watcher: asyncio.Task[None] | None = None
    woken: asyncio.Task[None] | None = None  # held, or it might be collected while it runs
    waiting: int = 0
    look: asyncio.Lock = field(default_factory=asyncio.Lock)


class PublicationSource:
    """The publications of every channel, signed with every key in ``signers``.

    ``signers`` holds more than one key while a key is rotated: gateways that trust either accept.
    """

    def __init__(
        self, store: VersionStore, signers: Sequence[Signer], *, check_seconds: float = 0.5
    ) -> None:
        self._store = store
        self._signers = tuple(signers)
        self._check_seconds = check_seconds
        self._channels: dict[str, _Channel] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        store.subscribe(self._on_publication)

    @property
    def keys(self) -> TrustedKeys:
        return TrustedKeys.of(signer.public_key for signer in self._signers)

    async def current(self, channel: str) -> SignedPublication:
        """What is in force now, at most ``check_seconds`` old.

        Raises :class:`NotFound` when nothing was ever published in the channel. While the store
        is away the last known publication is served: it is signed, and it expires by itself.
        """
        self._loop = asyncio.get_running_loop()
        state = self._channels.setdefault(channel, _Channel())
        async with state.look:
            if self._loop.time() - state.looked_at >= self._check_seconds:
                try:
                    await self._look(channel, state)
                except Unavailable:
                    if state.current is None:
                        raise
        if state.current is None:
            self._channels.pop(channel, None)  # any name can be asked for: remember none of them
            raise NotFound(f"Nothing was published in channel {channel!r}.")
        return state.current

    def close(self) -> None:
        """Ends every wait now, as if its time were over: the process is going down."""
        self._closed = True
        for state in self._channels.values():
            state.changed.set()

    async def wait(
        self, channel: str, etags: Sequence[str], seconds: float
    ) -> SignedPublication | None:
        """The publication once its ETag is not among ``etags``; ``None`` after ``seconds``."""
        found = await self.current(channel)
        if found.etag not in etags:
            return found
        state = self._channels.setdefault(channel, _Channel(found))
        deadline = asyncio.get_running_loop().time() + min(max(seconds, 0.0), MAX_WAIT_SECONDS)
        state.waiting += 1
        try:
            while True:
                changed = state.changed
                if state.current is not None and state.current.etag not in etags:
                    return state.current
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or self._closed:
                    return None
                if state.watcher is None or state.watcher.done():
                    state.watcher = asyncio.create_task(self._watch(channel, state))
                try:
                    await asyncio.wait_for(changed.wait(), left)
                except TimeoutError:
                    return None
        finally:
            state.waiting -= 1

    async def _watch(self, channel: str, state: _Channel) -> None:
        while state.waiting:
            await asyncio.sleep(self._check_seconds)
            async with state.look:
                try:
                    await self._look(channel, state)
                except Unavailable:
                    continue  # the waiters keep what they have; the next look may succeed

    async def _look(self, channel: str, state: _Channel) -> None:
        known = 0 if state.current is None else state.current.serial
        found = await asyncio.to_thread(self._load_newer, channel, known)
        state.looked_at = asyncio.get_running_loop().time()
        if found is not None and found.serial > known:
            state.current = found
            state.changed.set()
            state.changed = asyncio.Event()

    def _load_newer(self, channel: str, known: int) -> SignedPublication | None:
        if self._store.current_serial(channel) <= known:
            return None
        record = self._store.current_publication(channel)
        if record is None:
            return None
        envelope = sign_envelope(record.payload.encode(), self._signers)
        etag = f'"{hashlib.sha256(envelope).hexdigest()}"'
        return SignedPublication(record.publication.serial, envelope, etag)

    def _on_publication(self, publication: Publication) -> None:
        """Called on the thread that published."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake, publication.channel)

    def _wake(self, channel: str) -> None:
        state = self._channels.get(channel)
        if state is not None:
            state.looked_at = float("-inf")
            state.woken = asyncio.create_task(self._look_now(channel, state))

    async def _look_now(self, channel: str, state: _Channel) -> None:
        async with state.look:
            try:
                await self._look(channel, state)
            except Unavailable:
                return  # the watcher looks again
