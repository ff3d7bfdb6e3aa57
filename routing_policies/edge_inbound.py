"""The edge proxy's side towards its client: the request's body, and whether the client is there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from starlette.types import Receive, Scope

_PATH = re.compile(rb"/v1/[A-Za-z0-9_\-./%~:@+=,]*")


class ClientLeft(Exception):
    """The client closed its connection before its answer was whole."""


class ClientStalled(Exception):
    """The client sent or took nothing for too long."""


class TooLarge(Exception):
    """The body is larger than the limit."""


def is_passable(path: bytes) -> bool:
    """Below ``/v1/``, and nothing in it that an upstream could read as leading out of there."""
    return bool(_PATH.fullmatch(path)) and b"/../" not in path + b"/" and b"%2e" not in path.lower()


class Inbound:
    """One request's body, read once and in pieces, and after it the client's presence."""

    def __init__(self, scope: Scope, receive: Receive, idle_seconds: float) -> None:
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._whole = asyncio.Event()
        self._problem: Exception | None = None
        found = dict(scope["headers"])
        length = found.get(b"content-length", b"")
        self.length = int(length) if length.isdigit() else None
        self.has_body = self.length is not None or b"transfer-encoding" in found

    async def chunks(self, limit: int | None = None) -> AsyncIterator[bytes]:
        """Raises :class:`ClientLeft`, :class:`ClientStalled`, and beyond ``limit`` bytes
        :class:`TooLarge`.

        Where another reads it and dresses errors in its own, :meth:`raise_problem` tells.
        """
        try:
            read = 0
            if limit is not None and (self.length or 0) > limit:
                raise TooLarge
            while True:
                async with asyncio.timeout(self._idle_seconds):
                    event = await self._receive()
                if event["type"] == "http.disconnect":
                    raise ClientLeft
                chunk: bytes = event.get("body", b"")
                read += len(chunk)
                if limit is not None and read > limit:
                    raise TooLarge
                if chunk:
                    yield chunk
                if not event.get("more_body", False):
                    self._whole.set()
                    return
        except TimeoutError as error:
            self._problem = ClientStalled()
            raise self._problem from error
        except (ClientLeft, TooLarge) as error:
            self._problem = error
            raise

    def close(self) -> None:
        """There is no body to be read."""
        self._whole.set()

    def raise_problem(self) -> None:
        """Raises what went wrong while the body was read, if anything did."""
        if self._problem is not None:
            raise self._problem

    async def left(self) -> None:
        """Returns when the client is gone, which shows once its request is whole."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            continue
