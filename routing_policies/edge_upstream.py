"""The edge proxy's side towards its upstream: connections, timeouts, and what can go wrong there.

aiohttp's client, with everything off that would change a request on its way: no cookies, no
redirects, no decompression, no headers of its own. It reads ahead by no more than some hundred
kilobytes, so a client that reads slowly slows its upstream down.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from routing_policies.edge_answers import Headers

_LARGE_BODY_BYTES = 256 * 1024  # from here on it is written in pieces
_MAX_HEADER_BYTES = 64 * 1024
_KEEPALIVE_SECONDS = 55.0
_OWN_HEADERS = ("accept", "accept-encoding", "content-type", "user-agent")
FailureKind = Literal["connect", "connect_timeout", "first_byte_timeout", "no_answer"]
BreakKind = Literal["idle_timeout", "broken"]


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What the proxy waits for and holds, at most.

    ``first_byte_seconds``: from the whole request in hand to the head of the answer; the API may
    think for minutes. ``idle_seconds``: between two pieces of an answer; a stream pings every few
    seconds. ``client_idle_seconds``: for the next piece of a request, and for the client to take
    the next piece of its answer. ``max_buffered_bytes``: of all requests together, since one has
    to be whole before it is routed.
    """

    connect_seconds: float = 5.0
    first_byte_seconds: float = 600.0
    idle_seconds: float = 120.0
    client_idle_seconds: float = 120.0
    max_body_bytes: int = 64 * 1024 * 1024
    max_buffered_bytes: int = 512 * 1024 * 1024
    max_requests: int = 1000


class UpstreamFailure(Exception):
    """No answer came. ``kind`` says how far it got."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class AnswerBroken(Exception):
    """An answer had begun and did not come to its end."""

    def __init__(self, kind: BreakKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class UpstreamAnswer:
    """The head of an answer, and its body as it comes. Must be closed."""

    def __init__(self, response: aiohttp.ClientResponse, idle_seconds: float) -> None:
        self._response = response
        self._idle_seconds = idle_seconds
        self.status = response.status
        self.headers: Headers = [(name.lower(), value) for name, value in response.raw_headers]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises :class:`AnswerBroken`."""
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    chunk = await self._response.content.readany()
            except TimeoutError as error:
                raise AnswerBroken("idle_timeout", "silence") from error
            except (aiohttp.ClientError, OSError) as error:
                raise AnswerBroken("broken", str(error) or type(error).__name__) from error
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        """Ends the request, if the answer is not whole, by closing its connection."""
        self._response.close()


class Upstream:
    """One pool of connections to one upstream; opened and closed inside the event loop."""

    def __init__(self, url: str, limits: EdgeLimits) -> None:
        self._url = url.rstrip("/")
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._limits.max_requests, keepalive_timeout=_KEEPALIVE_SECONDS
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy_of(self._url),
            skip_auto_headers=_OWN_HEADERS,
            auto_decompress=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self, method: str, target: str, headers: Headers, body: bytes | AsyncIterator[bytes]
    ) -> UpstreamAnswer:
        """Sends a request, ``target`` being path and query; raises :class:`UpstreamFailure`."""
        if self._session is None:
            await self.open()
        assert self._session is not None
        data: object = body
        if isinstance(body, bytes):
            data = io.BytesIO(body) if len(body) > _LARGE_BODY_BYTES else body or None
        sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        try:
            async with asyncio.timeout(self._limits.first_byte_seconds):
                response = await self._session.request(
                    method,
                    URL(self._url + target, encoded=True),
                    data=data,
                    headers=sent,
                    allow_redirects=False,
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamFailure("connect_timeout", str(error)) from error
        except TimeoutError as error:
            raise UpstreamFailure("first_byte_timeout", "silence") from error
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise UpstreamFailure("connect", str(error)) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailure("no_answer", str(error) or type(error).__name__) from error
        return UpstreamAnswer(response, self._limits.idle_seconds)


def _proxy_of(url: str) -> str | None:
    """The outbound proxy that the environment names for this upstream (``HTTPS_PROXY`` …)."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
