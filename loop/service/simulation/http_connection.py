"""A keep-alive HTTP/1.1 connection for plain ``POST`` requests.

The fleet shares two cores with everything that it exercises: a general client (httpx) took 3 ms of
processor time per request at this concurrency, this takes a tenth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from loop.domain.errors import BadInput, Unavailable

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete response. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpConnection:
    """One connection at a time to one ``http://`` address, opened when first needed.

    Not for concurrent use: one request after another. Close it with :meth:`close`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise BadInput(f"The simulation speaks plain HTTP, not to {url!r}.")
        self._host, self._port = parts.hostname, parts.port or 80
        self._path = parts.path.rstrip("/")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """Sends one request and reads its whole answer.

        A kept connection that the server closed meanwhile is opened anew once. Raises
        ``Unavailable`` when the server can't be reached or breaks off.
        """
        lines = [f"POST {self._path}{path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        request = "\r\n".join(lines).encode() + body
        is_reused = self._streams is not None
        try:
            return await asyncio.wait_for(self._exchange(request), TIMEOUT_SECONDS)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            await self.close()
            if is_reused and not isinstance(error, TimeoutError):
                return await self.post(path, body, headers)
            raise Unavailable(
                f"Nothing answers at {self._host}:{self._port}.", why=repr(error)
            ) from error

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: bytes) -> HttpAnswer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {}
        for line in filter(None, lines):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await _body(reader, headers)
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return HttpAnswer(int(status_line.split()[1]), headers, body)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(chunks)
