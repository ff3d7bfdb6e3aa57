"""Clients of the edge bench: ``python -m bench.edge_load PORT CHARACTERS STREAM CLIENTS EACH``.

Each client keeps one connection and sends one request after another. Prints JSON: requests per
second, and the median and 99th percentile in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop


def request_of(characters: int, stream: bool) -> bytes:
    """All but the session id, whose place is marked by ``%b``."""
    body = json.dumps(
        {
            "stream": stream,
            "model": "claude-opus-4-7",
            "max_tokens": 32_000,
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "xhigh"},
            "tools": [{"name": "Read", "input_schema": {"type": "object"}}],
            "messages": [{"role": "user", "content": "y" * characters}],
        }
    ).encode()
    return (
        b"POST /v1/messages?beta=true HTTP/1.1\r\nhost: bench\r\nx-api-key: sk-of-a-bench\r\n"
        b"anthropic-version: 2023-06-01\r\nanthropic-beta: effort-2025-11-24\r\n"
        b"x-claude-code-session-id: %b\r\ncontent-type: application/json\r\n"
        b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )


async def send(port: int, request: bytes, client: int, each: int, taken: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(each):
        began = time.perf_counter()
        writer.write(request.replace(b"%b", b"s%d-%d" % (client, number), 1))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200 "), head
        if b"chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        else:
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        taken.append((time.perf_counter() - began) * 1000)
    writer.close()


async def main() -> None:
    port, characters, stream, clients, each = (int(argument) for argument in sys.argv[1:])
    request, taken = request_of(characters, bool(stream)), []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for client in range(clients):
            group.create_task(send(port, request, client, each, taken))
    seconds = time.perf_counter() - began
    taken.sort()
    result = {
        "requests_per_second": len(taken) / seconds,
        "median_ms": taken[len(taken) // 2],
        "p99_ms": taken[len(taken) * 99 // 100],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    uvloop.run(main())
