"""The HTTP routes that gateways use: policy, keys, acknowledgements, decisions.

They raise the errors of ``loop.domain.errors``; the service that mounts them maps those to
answers and decides who may call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loop.domain.errors import BadInput, Unavailable
from routing_policies.acknowledgements import AckStatus
from routing_policies.publication import MAX_WAIT_SECONDS, PublicationSource
from routing_policies.signing import TrustedKeys
from routing_policies.version_store import VersionStore

MAX_ACK_BYTES = 64 * 1024
SEEN_SECONDS = 15.0  # an instance's poll is written down at most this often
MAX_REMEMBERED_INSTANCES = 10_000
MAX_COUNT_DIGITS = 18
_TEXT_LIMITS = {"instance": 255, "status": 16, "error": 4000, "channel": 64, "gateway": 64}
_POLICY_HEADERS = {"content-type": "application/json", "cache-control": "no-cache"}


def gateway_routes(
    source: PublicationSource,
    store: VersionStore,
    intake: Callable[[Request], Awaitable[Response]],
    *,
    further_keys: TrustedKeys | None = None,
) -> list[Route]:
    """``GET /v1/gateway/policy``, ``GET /v1/gateway/keys``, ``POST /v1/gateway/ack``,
    ``POST /v1/gateway/decisions``.

    ``intake`` answers the last one. ``further_keys`` are served too, before they sign.
    """

    async def keys(request: Request) -> Response:
        known = {**source.keys.keys, **(further_keys.keys if further_keys else {})}
        return JSONResponse(TrustedKeys(known).to_document())

    return [
        Route("/v1/gateway/policy", policy_route(source, store), methods=["GET"]),
        Route("/v1/gateway/keys", keys, methods=["GET"]),
        Route("/v1/gateway/ack", ack_route(store), methods=["POST"]),
        Route("/v1/gateway/decisions", intake, methods=["POST"]),
    ]


def policy_route(
    source: PublicationSource, store: VersionStore
) -> Callable[[Request], Awaitable[Response]]:
    """Answers the envelope with its ETag, or 304 when ``wait`` seconds bring nothing new.

    Query: ``channel`` (prod), ``wait`` (seconds, at most 30), ``gateway`` and ``instance`` (who
    asks), ``rollout`` and ``decided`` (how many decisions it has made in which rollout). Raises
    :class:`NotFound` for a channel in which nothing was published, :class:`BadInput` for a
    ``wait`` that is no number.
    """
    seen: dict[str, float] = {}

    async def policy(request: Request) -> Response:
        query = request.query_params
        channel = query.get("channel", "prod")
        seconds = _seconds(query.get("wait", "0"))
        found = await source.current(channel)
        instance = query.get("instance", "")
        if instance and time.monotonic() - seen.get(instance, float("-inf")) >= SEEN_SECONDS:
            if len(seen) >= MAX_REMEMBERED_INSTANCES:
                seen.clear()
            seen[instance] = time.monotonic()
            # A publication is still served while the store can't be written.
            with contextlib.suppress(Unavailable):
                await asyncio.to_thread(
                    store.record_seen,
                    instance[:255],
                    channel=channel,
                    gateway=query.get("gateway", "")[:64],
                    rollout_id=query.get("rollout", "")[:64],
                    decided=_count(query.get("decided", "0")),
                )
        known = _etags(request.headers.get("if-none-match", ""))
        if found.etag in known:
            newer = await source.wait(channel, known, seconds)
            if newer is None:
                headers = {"etag": found.etag, "cache-control": "no-cache"}
                return Response(status_code=304, headers=headers)
            found = newer
        return Response(found.envelope, headers={**_POLICY_HEADERS, "etag": found.etag})

    return policy


def ack_route(store: VersionStore) -> Callable[[Request], Awaitable[Response]]:
    """Records ``{"instance", "serial", "status": "applied" | "rejected", "error", "at_us",
    "channel", "gateway"}``; answers 204. Raises :class:`BadInput`."""

    async def ack(request: Request) -> Response:
        row = _object(await _read(request, MAX_ACK_BYTES))
        at_us = row.get("at_us")
        if at_us is not None and not _is_whole(at_us):
            raise BadInput("at_us must be a whole number of microseconds.")
        serial = row.get("serial")
        if not _is_whole(serial):
            raise BadInput("serial must be a whole number of 0 or more.")
        await asyncio.to_thread(
            store.record_ack,
            _text(row, "instance"),
            cast(int, serial),
            cast(AckStatus, _text(row, "status")),
            _text(row, "error"),
            at_us,
            channel=_text(row, "channel") or "prod",
            gateway=_text(row, "gateway"),
        )
        return Response(status_code=204)

    return ack


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BadInput(f"The body is larger than {limit} bytes.")
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise BadInput("The body is not JSON.", why=str(error)) from error
    if not isinstance(document, dict):
        raise BadInput("The body is not an object.")
    return document


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        raise BadInput(f"{name} must be a text.")
    return value[: _TEXT_LIMITS[name]]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise BadInput(f"wait must be a number of seconds, not {text!r}.") from error
    if not math.isfinite(seconds) or seconds < 0:
        raise BadInput("wait must be 0 or more.")
    return min(seconds, MAX_WAIT_SECONDS)


def _count(text: str) -> int:
    """0 for what is no count: a poll must not fail for it."""
    is_count = text.isascii() and text.isdecimal() and len(text) < MAX_COUNT_DIGITS
    return int(text) if is_count else 0


def _etags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in header.split(",") if tag.strip()]
