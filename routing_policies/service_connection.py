"""HTTP from a gateway to the turnwise service, with the standard library only.

Gateways load this into their own process, so it brings no HTTP package, and it can be stopped
from another thread in the middle of a long poll.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from loop.domain.errors import BadInput, Unavailable

MAX_ANSWER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` has lower-case names. ``complete`` is false for a body that was cut off."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True


class ServiceConnection:
    """Sends one request at a time per thread; each on its own connection."""

    def __init__(self, base_url: str, token: str = "") -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(
                f"{base_url!r} is no address of a turnwise service.",
                fix="Write http://HOST:PORT or https://HOST.",
            )
        self._parts = parts
        self._token = token
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def host(self) -> str:
        return str(self._parts.hostname)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Answer:
        """One request; raises :class:`Unavailable` when no answer comes, and after ``close``."""
        connection = self._connection(timeout_seconds)
        sent = {"connection": "close", **(headers or {})}
        if self._token:
            sent["authorization"] = f"Bearer {self._token}"
        try:
            with self._lock:
                if self._closed:
                    raise Unavailable("The connection to the turnwise service was closed.")
                self._open.add(connection)
            connection.request(method, f"{self._parts.path.rstrip('/')}{path}", body, sent)
            response = connection.getresponse()
            complete = True
            try:
                content = response.read(MAX_ANSWER_BYTES + 1)
                left = response.length  # what Content-Length still promises
                complete = not left and len(content) <= MAX_ANSWER_BYTES
            except http.client.IncompleteRead as error:
                content, complete = error.partial, False
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, content, complete)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"The turnwise service at {self._parts.netloc} does not answer.",
                why=str(error) or type(error).__name__,
            ) from error
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def close(self) -> None:
        """Ends every request under way and refuses further ones."""
        with self._lock:
            self._closed = True
            for connection in self._open:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):  # the other side may have closed it
                        connection.sock.shutdown(socket.SHUT_RDWR)

    def _connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout_seconds)
        return http.client.HTTPConnection(host, port, timeout=timeout_seconds)
