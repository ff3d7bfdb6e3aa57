"""Headers that may cross the edge proxy, and its own answers in the API's error envelope."""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import Send

Headers = list[tuple[bytes, bytes]]

_TO_UPSTREAM = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"x-api-key",
        b"x-app",
    }
)
_TO_UPSTREAM_PREFIXES = (b"anthropic-", b"x-stainless-", b"x-claude-code-")
OWN_PREFIX = b"x-tw-"
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_TO_CLIENT = frozenset(
    {
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
    }
)
_TO_CLIENT_PREFIXES = (b"anthropic-",)


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], further_prefixes: tuple[bytes, ...] = ()
) -> Headers:
    """What of a client's request goes on; ``further_prefixes`` are those of a gateway behind.

    Cookies, hop-by-hop headers and turnwise's own stay here, whatever the prefixes say.
    """
    prefixes = _TO_UPSTREAM_PREFIXES + further_prefixes
    return [
        (name, value)
        for name, value in headers
        if (name in _TO_UPSTREAM or name.startswith(prefixes))
        and name not in _HOP_BY_HOP
        and not name.startswith(OWN_PREFIX)
    ]


def response_headers(headers: Iterable[tuple[bytes, bytes]], stamps: Headers) -> Headers:
    """What of the upstream's answer goes back, with ``stamps``.

    Where a request id is stamped, the upstream's own is kept as ``x-upstream-request-id``.
    """
    stamped = {name for name, _ in stamps}
    kept: Headers = []
    for name, value in headers:
        if name == b"request-id":
            kept.append((b"x-upstream-request-id" if name in stamped else name, value))
        elif name in _TO_CLIENT or name.startswith(_TO_CLIENT_PREFIXES):
            kept.append((name, value))
    return [*kept, *stamps]


def anthropic_error(status: int, kind: str, message: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error as the API writes it."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": f"turnwise: {message}"}})
    return status, [(b"content-type", b"application/json")], body.encode()


def event_stream_error(headers: Headers, message: str) -> bytes:
    """The event that ends a broken SSE stream; empty where none can be written into it."""
    found = dict(headers)
    is_plain = found.get(b"content-encoding", b"identity") == b"identity"
    is_stream = found.get(b"content-type", b"").startswith(b"text/event-stream")
    if not is_plain or not is_stream or b"content-length" in found:
        return b""
    error = {"type": "error", "error": {"type": "api_error", "message": f"turnwise: {message}"}}
    return b"\n\nevent: error\ndata: " + json.dumps(error).encode() + b"\n\n"


async def send_answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
