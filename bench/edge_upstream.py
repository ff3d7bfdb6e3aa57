"""An upstream that costs next to nothing: fixed Messages answers, JSON or a stream of 40 events.

``python -m bench.edge_upstream`` prints its port and answers until it is ended.
"""

from __future__ import annotations

import asyncio

import uvloop

EVENTS = 40
_EVENT = b"event: content_block_delta\ndata: " + b"x" * 120 + b"\n\n"
_JSON = b'{"type": "message", "model": "claude-opus-4-7", "content": []}'
_HEAD = b"HTTP/1.1 200 OK\r\nrequest-id: req_1\r\ncontent-type: "
_ANSWER = _HEAD + b"application/json\r\ncontent-length: %d\r\n\r\n" % len(_JSON) + _JSON
_STREAM = _HEAD + b"text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Reads requests by their Content-Length, one after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._held = bytearray()
        self._streams: set[asyncio.Task[None]] = set()

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._held[:end]).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._held) < end + 4 + length:
                return
            wants_stream = b'"stream": true' in self._held[end : end + 100]
            del self._held[: end + 4 + length]
            if wants_stream:
                stream = asyncio.get_running_loop().create_task(self._stream())
                self._streams.add(stream)
                stream.add_done_callback(self._streams.discard)
            else:
                self._transport.write(_ANSWER)

    async def _stream(self) -> None:
        self._transport.write(_STREAM)
        for _ in range(EVENTS):
            self._transport.write(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
            await asyncio.sleep(0)
        self._transport.write(b"0\r\n\r\n")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
