"""OTLP over HTTP: ``POST /v1/logs``, ``/v1/metrics``, ``/v1/traces`` as a bare ASGI application.

Order of work per request: read and inflate within the limits, decode to prove it readable, append
durably, answer. A body that was answered with 200 is on the disk; any other answer means that
nothing of it was kept, and the status says whether sending it again can help (429, 502, 503, 504).
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from collectors.body_decoding import validate
from collectors.journal import Journal
from collectors.partial_success import PartialRejection
from collectors.refusals import REASONS, Refusals
from collectors.segments import ContentType, RecordKind
from loop.access.callers import bearer_token
from loop.domain.errors import BadInput, Refused, Unavailable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]
Authorise = Callable[[str], str | None]

_SIGNALS: dict[str, RecordKind] = {
    "/v1/logs": "logs",
    "/v1/metrics": "metrics",
    "/v1/traces": "traces",
}
_MEDIA_TYPES: dict[str, ContentType] = {
    "application/x-protobuf": "protobuf",
    "application/json": "json",
}
_INFLATERS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# google.rpc.Code of each HTTP status that is answered here.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 413: 8, 415: 3, 503: 14}


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The largest body as received and after inflating, in bytes."""

    compressed_bytes: int = 16 * 1024 * 1024
    inflated_bytes: int = 64 * 1024 * 1024


class _Answer(Exception):
    """An answer other than 200, on its way to the client."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        self.credential = ""  # of the sender, once it is known


def anyone(_token: str) -> str | None:
    """Accepts every request, under the empty credential: for loopback ports."""
    return ""


def otlp_app(
    journal: Journal, limits: BodyLimits | None = None, authorise: Authorise = anyone
) -> AsgiApplication:
    """The ASGI application.

    ``authorise`` gets the bearer token ("" without one) and returns the credential's name, which
    is stored with every record of the body, or ``None`` to refuse with 401; it raises
    :class:`Refused` for a credential that may not send, and then the answer is 403.
    """
    body_limits = limits or BodyLimits()
    refusals = Refusals(journal)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _answer_lifespan(receive, send)
            await refusals.close()
            return
        if scope["type"] != "http":
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        content_type = _MEDIA_TYPES.get(_media_type(headers), "json")
        try:
            rejection = await _accept(scope, headers, receive, journal, body_limits, authorise)
        except _Answer as answer:
            signal = _SIGNALS.get(scope["path"].rstrip("/"))
            if signal is not None and answer.status in REASONS:
                encoding = _MEDIA_TYPES.get(_media_type(headers), "")
                reason = REASONS[answer.status]
                await refusals.count(signal, encoding, answer.credential, reason)
            await _send_error(send, content_type, answer)
            return
        body = rejection.as_json() if content_type == "json" else rejection.as_protobuf()
        await _send(send, 200, content_type, body, {})

    return app


async def _accept(
    scope: Scope,
    headers: dict[str, str],
    receive: Receive,
    journal: Journal,
    limits: BodyLimits,
    authorise: Authorise,
) -> PartialRejection:
    signal = _SIGNALS.get(scope["path"].rstrip("/"))
    if signal is None:
        raise _Answer(404, "No such path; OTLP goes to /v1/logs, /v1/metrics or /v1/traces.")
    if scope["method"] != "POST":
        raise _Answer(405, f"{scope['method']} is not allowed here; use POST.", allow="POST")
    try:
        credential = authorise(bearer_token(headers.get("authorization", "")))
    except Refused as error:
        raise _Answer(403, str(error)) from error
    except Unavailable as error:
        raise _Answer(503, str(error), **{"retry-after": str(error.retry_after_seconds)}) from error
    if credential is None:
        raise _Answer(
            401, "A valid bearer token is required.", **{"www-authenticate": 'Bearer realm="otlp"'}
        )
    try:
        return await _take(signal, headers, receive, journal, limits, credential)
    except _Answer as answer:
        answer.credential = credential
        raise


async def _take(
    signal: RecordKind,
    headers: dict[str, str],
    receive: Receive,
    journal: Journal,
    limits: BodyLimits,
    credential: str,
) -> PartialRejection:
    content_type = _MEDIA_TYPES.get(_media_type(headers))
    if content_type is None:
        raise _Answer(
            415,
            f"Content type {_media_type(headers) or '(none)'} is not supported; use "
            "application/x-protobuf or application/json.",
        )
    encoding = headers.get("content-encoding", "identity").strip().lower() or "identity"
    if encoding != "identity" and encoding not in _INFLATERS:
        raise _Answer(
            415, f"Content encoding {encoding} is not supported; use gzip, deflate or identity."
        )
    try:
        journal.check_disk()  # before a large body is read for nothing
        body = await _read_body(headers, receive, limits, encoding)
        rejected = validate(signal, content_type, body)
        if rejected:
            journal.quarantine.check_room()
        if body:
            await journal.append(signal, content_type, body, credential=credential)
    except BadInput as error:
        raise _Answer(400, str(error)) from error
    except Unavailable as error:
        raise _Answer(503, str(error), **{"retry-after": str(error.retry_after_seconds)}) from error
    return PartialRejection(signal, rejected)


async def _read_body(
    headers: dict[str, str], receive: Receive, limits: BodyLimits, encoding: str
) -> bytes:
    stated = headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.compressed_bytes:
        raise _too_large(limits.compressed_bytes, "as sent")
    inflater = zlib.decompressobj(_INFLATERS[encoding]) if encoding in _INFLATERS else None
    chunks: list[bytes] = []
    received = inflated = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Answer(400, "The client went away before the body was complete.")
        chunk = message.get("body", b"")
        received += len(chunk)
        if received > limits.compressed_bytes:
            raise _too_large(limits.compressed_bytes, "as sent")
        if inflater is not None and chunk:
            chunk = _inflate(inflater, chunk, limits.inflated_bytes - inflated)
        inflated += len(chunk)
        if inflated > limits.inflated_bytes:
            raise _too_large(limits.inflated_bytes, "inflated")
        if chunk:
            chunks.append(chunk)
        if not message.get("more_body", False):
            break
    if inflater is not None and received and not inflater.eof:
        raise _Answer(400, f"The {encoding} body ends too early.")
    if inflater is not None and inflater.unused_data:
        raise _Answer(400, f"Something follows the end of the {encoding} body.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _inflate(inflater: Any, chunk: bytes, budget: int) -> bytes:
    """At most one byte over ``budget``: a bomb never gets to unfold."""
    if inflater.eof:
        raise _Answer(400, "Something follows the end of the compressed body.")
    try:
        output: bytes = inflater.decompress(chunk, budget + 1)
    except zlib.error as error:
        raise _Answer(400, f"The body can't be inflated: {error}.") from error
    return output


def _too_large(limit: int, how: str) -> _Answer:
    return _Answer(413, f"The body has more than {limit} bytes {how}; send smaller batches.")


def _media_type(headers: dict[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def _send_error(send: Send, content_type: ContentType, answer: _Answer) -> None:
    code = _CODES[answer.status]
    if content_type == "json":
        body = orjson.dumps({"code": code, "message": answer.message})
    else:
        body = Status(code=code, message=answer.message).SerializeToString()
    await _send(send, answer.status, content_type, body, answer.headers)


async def _send(
    send: Send, status: int, content_type: ContentType, body: bytes, headers: dict[str, str]
) -> None:
    media_type = "application/json" if content_type == "json" else "application/x-protobuf"
    all_headers = {"content-type": media_type, "content-length": str(len(body)), **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
