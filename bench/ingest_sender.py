"""Sends bodies over HTTP/1.1 on kept-open connections, for little processor time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.ingest_load import Body


@dataclass(slots=True)
class Sent:
    """What was answered with 200: ``acknowledged`` holds (moment, records so far), ``latencies``
    seconds from the moment that a body was due to its answer."""

    began: float = 0.0
    ended: float = 0.0
    bodies: int = 0
    records: int = 0
    bytes: int = 0
    refused: int = 0
    latencies: list[float] = field(default_factory=list)
    acknowledged: list[tuple[float, int]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def note(self, due: float, body: Body) -> None:
        now = time.monotonic()
        self.latencies.append(now - due)
        self.bodies += 1
        self.records += body.records
        self.bytes += len(body.content)
        self.acknowledged.append((now, self.records))


class _Connection(asyncio.Protocol):
    """One request at a time; the answer's body is read and thrown away."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._answer: asyncio.Future[int] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(rest) >= length and self._answer is not None:
            self._received = b""
            self._answer.set_result(int(head.split(b" ", 2)[1]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection ended"))

    async def post(self, request: bytes) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer


def request_of(body: Body, media_type: str, headers: str = "") -> bytes:
    head = (
        f"POST /v1/{body.signal} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
        f"{headers}Content-Length: {len(body.content)}\r\n\r\n"
    )
    return head.encode() + body.content


async def send(
    port: int,
    bodies: Sequence[Body],
    *,
    connections: int,
    seconds: float,
    records_per_second: float = 0.0,
    media_type: str = "application/x-protobuf",
    headers: str = "",
) -> Sent:
    """Sends for so many seconds, or until the bodies are used up. Without a rate each connection
    sends its next body as soon as the last is answered; with one each body has a moment at which
    it is due, whether or not others are answered, and its latency counts from there."""
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(_Connection, "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    sent = Sent(began=time.monotonic())
    queue = _schedule(bodies, sent.began, records_per_second)

    async def work(connection: _Connection) -> None:
        for due, body in queue:
            now = time.monotonic()
            if max(now, due) - sent.began > seconds:
                return
            if due > now:
                await asyncio.sleep(due - now)
            status = await connection.post(request_of(body, media_type, headers))
            if status == 200:
                sent.note(due or now, body)
            else:
                sent.refused += 1

    await asyncio.gather(*(work(connection) for connection in opened))
    sent.ended = time.monotonic()
    for connection in opened:
        connection.transport.close()
    return sent


def _schedule(
    bodies: Sequence[Body], began: float, records_per_second: float
) -> Iterator[tuple[float, Body]]:
    records = 0
    for body in bodies:
        yield (began + records / records_per_second if records_per_second else 0.0), body
        records += body.records
