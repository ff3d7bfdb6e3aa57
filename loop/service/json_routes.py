"""Routes that answer JSON, and what is read of their requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loop.domain.errors import BadInput
from loop.service.documents import with_actor

MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_DIGITS = 19  # what fits into 64 bits
Answer = Callable[[Request, dict[str, Any]], dict[str, Any]]


def get(path: str, answer: Answer) -> Route:
    """A route that reads; ``answer`` gets an empty document."""
    return Route(path, _endpoint(answer, takes_document=False), methods=["GET"])


def post(path: str, answer: Answer) -> Route:
    """A route that acts on the JSON object that it is sent."""
    return Route(path, _endpoint(answer, takes_document=True), methods=["POST"])


async def read_body(request: Request, limit: int) -> bytes:
    """Raises :class:`BadInput` past ``limit`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BadInput(f"The body is larger than {limit} bytes.")
    return bytes(body)


def number(text: str | None, name: str) -> int | None:
    """A whole number of the query. Raises :class:`BadInput` naming it."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < MAX_DIGITS):
        raise BadInput(f"{name}={text!r} is no whole number.")
    return int(text)


def _endpoint(answer: Answer, *, takes_document: bool) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        document = with_actor(await _read_document(request)) if takes_document else {}
        return JSONResponse(await run_in_threadpool(answer, request, document))

    return endpoint


async def _read_document(request: Request) -> dict[str, Any]:
    body = await read_body(request, MAX_DOCUMENT_BYTES)
    try:
        document = json.loads(body or b"{}")
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise BadInput("The body is no JSON.", why=str(error)) from error
    if not isinstance(document, dict):
        raise BadInput("The body must be one JSON object.")
    return document
