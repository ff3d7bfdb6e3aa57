"""A small reverse proxy before the Anthropic API, or before any gateway that speaks it.

``POST /v1/messages`` is routed by the policy client, its parameters are fitted to the routed
model, and its answer, JSON or SSE, is streamed through as it comes. Every other path below
``/v1/`` is passed on as it is. A request that nothing changes leaves with the bytes it came with.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from loop.domain.budget_pauses import BudgetPause
from loop.domain.errors import Refused
from loop.domain.policies import Decision
from routing_policies.client import Choice, PolicyClient
from routing_policies.edge_answers import (
    Headers,
    anthropic_error,
    event_stream_error,
    request_headers,
    response_headers,
    send_answer,
)
from routing_policies.repair import repair

log = logging.getLogger("turnwise.edge_proxy")

PAYMENT_REQUIRED = 402
MAX_BODY_BYTES = 64 * 1024 * 1024
# Long silences are normal before the first token; the stream itself pings every few seconds.
TIMEOUT = httpx.Timeout(connect=5.0, read=600.0, write=60.0, pool=10.0)
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=200, keepalive_expiry=60)
_PATH = re.compile(rb"/v1/[A-Za-z0-9_\-./%~:@+=,]*")


def open_upstream(timeout: httpx.Timeout = TIMEOUT) -> httpx.AsyncClient:
    """The pool of connections to the upstream; opened and closed with the app."""
    return httpx.AsyncClient(timeout=timeout, limits=LIMITS, follow_redirects=False)


def edge_app(
    client: PolicyClient,
    upstream_url: str,
    report_decision: Callable[[Decision], None],
    *,
    status: Callable[[], dict[str, Any]] | None = None,
    timeout: httpx.Timeout = TIMEOUT,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> ASGIApp:
    """The proxy as an ASGI app.

    ``client`` is started and stopped by the caller; ``report_decision`` must return at once
    (:class:`routing_policies.decision_reporter.DecisionReporter`); ``status`` adds to
    ``GET /turnwise/status``. The app needs lifespan events.
    """
    return EdgeProxy(client, upstream_url, report_decision, status, timeout, max_body_bytes)


class EdgeProxy:
    """Made by :func:`edge_app`."""

    def __init__(
        self,
        client: PolicyClient,
        upstream_url: str,
        report_decision: Callable[[Decision], None],
        status: Callable[[], dict[str, Any]] | None,
        timeout: httpx.Timeout,
        max_body_bytes: int,
    ) -> None:
        self._client = client
        self._upstream_url = upstream_url.rstrip("/")
        self._report_decision = report_decision
        self._status = status
        self._timeout = timeout
        self._max_body_bytes = max_body_bytes
        self._upstream: httpx.AsyncClient | None = None
        self._requests = self._rewritten = self._paused = self._upstream_failures = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            with contextlib.suppress(_ClientLeft):
                await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                self._upstream = open_upstream(self._timeout)
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._upstream is not None:
                    await self._upstream.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        method: str = scope["method"]
        if path == b"/turnwise/status" and method == "GET":
            await send_answer(send, 200, [(b"content-type", b"application/json")], self._state())
            return
        if not _PATH.fullmatch(path) or b"/../" in path + b"/" or b"%2e" in path.lower():
            await send_answer(send, *anthropic_error(404, "not_found_error", "Not found"))
            return
        self._requests += 1
        headers = request_headers(scope["headers"])
        if method == "POST" and path == b"/v1/messages":
            await self._route_messages(scope, headers, receive, send)
            return
        length = _header(scope, b"content-length")
        if length:
            headers.append((b"content-length", length))
        has_body = length is not None or _header(scope, b"transfer-encoding") is not None
        request = httpx.Request(
            method,
            self._url(scope, path),
            headers=headers,
            content=_body_chunks(receive) if has_body else b"",
            extensions={"timeout": self._timeout.as_dict()},
        )
        await self._relay(request, [], None, receive, send)

    async def _route_messages(
        self, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None:
        raw = bytearray()
        async for chunk in _body_chunks(receive):
            raw += chunk
            if len(raw) > self._max_body_bytes:
                message = f"The request is larger than {self._max_body_bytes} bytes"
                await send_answer(send, *anthropic_error(413, "request_too_large", message))
                return
        body = bytes(raw)
        named = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        stamps: Headers = []
        decision = None
        document = _object(body)
        if document is not None and isinstance(document.get("model"), str):
            choice = self._client.route_body(document, named)
            if choice.pause is not None:
                await self._refuse_paused(choice, choice.pause, send)
                return
            decision, body, headers = self._apply(choice, document, body, headers)
            stamps = [
                (b"request-id", decision.decision_id.encode()),
                (b"x-turnwise-policy", str(decision.policy_version).encode()),
                (b"x-turnwise-arm", quote(decision.arm).encode()),
            ]
        request = httpx.Request(
            "POST",
            self._url(scope, b"/v1/messages"),
            headers=headers,
            content=body,
            extensions={"timeout": self._timeout.as_dict()},
        )
        await self._relay(request, stamps, decision, receive, send)

    async def _refuse_paused(self, choice: Choice, pause: BudgetPause, send: Send) -> None:
        """402 is the one status that the client neither retries nor dresses in other words."""
        self._paused += 1
        self._report(choice.decision, PAYMENT_REQUIRED)
        status, headers, body = anthropic_error(PAYMENT_REQUIRED, "billing_error", pause.message)
        stamps = [
            (b"x-should-retry", b"false"),
            (b"request-id", choice.decision.decision_id.encode()),
            (b"x-turnwise-budget", quote(pause.budget_id).encode()),
        ]
        await send_answer(send, status, [*headers, *stamps], body)

    def _apply(
        self, choice: Choice, document: dict[str, Any], body: bytes, headers: Headers
    ) -> tuple[Decision, bytes, Headers]:
        decision = choice.decision
        if decision.routed_model == decision.requested_model and not choice.effort:
            return decision, body, headers
        betas = b",".join(value for name, value in headers if name == b"anthropic-beta")
        try:
            fitted = repair(document, betas.decode("latin-1"), decision.routed_model, choice.effort)
        except Refused as error:
            log.warning("A request keeps its model: %s", error)
            kept = replace(
                decision, routed_model=decision.requested_model, rule_id="guard:untranslatable"
            )
            return kept, body, headers
        self._rewritten += 1
        others = [(name, value) for name, value in headers if name != b"anthropic-beta"]
        if fitted.betas:
            others.append((b"anthropic-beta", fitted.betas.encode("latin-1")))
        return replace(decision, fixes=fitted.fixes), json.dumps(fitted.body).encode(), others

    async def _relay(
        self,
        request: httpx.Request,
        stamps: Headers,
        decision: Decision | None,
        receive: Receive,
        send: Send,
    ) -> None:
        """Sends the request on and its answer back, until either side ends it."""
        passing = asyncio.create_task(self._pass(request, stamps, decision, send))
        if decision is None and request.method not in ("GET", "HEAD"):
            await passing  # the body is still being read: a disconnect shows there
            return
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        finally:
            for task in (passing, leaving):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    async def _pass(
        self, request: httpx.Request, stamps: Headers, decision: Decision | None, send: Send
    ) -> None:
        if self._upstream is None:
            self._upstream = open_upstream(self._timeout)
        try:
            response = await self._upstream.send(request, stream=True)
        except httpx.HTTPError as error:
            self._report(decision, None)
            await send_answer(send, *self._failure(error, stamps))
            return
        except asyncio.CancelledError:
            self._report(decision, None)
            raise
        self._report(decision, response.status_code)
        await self._stream(response, stamps, send)

    async def _stream(self, response: httpx.Response, stamps: Headers, send: Send) -> None:
        headers = response_headers(response.headers.raw, stamps)
        try:
            await send(
                {"type": "http.response.start", "status": response.status_code, "headers": headers}
            )
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.HTTPError as error:
            self._upstream_failures += 1
            log.warning("The upstream broke off its answer: %s", error)
            ending = event_stream_error(response.headers, "The upstream broke off its answer")
            if ending:
                await send({"type": "http.response.body", "body": ending, "more_body": False})
            # Else the body ends too early, which is how HTTP tells the client of it.
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await response.aclose()

    def _failure(self, error: httpx.HTTPError, stamps: Headers) -> tuple[int, Headers, bytes]:
        self._upstream_failures += 1
        log.warning("The upstream did not answer: %s %s", type(error).__name__, error)
        if isinstance(error, httpx.TimeoutException):
            answer = anthropic_error(504, "timeout_error", "The upstream did not answer in time")
        else:
            answer = anthropic_error(502, "api_error", "The upstream can't be reached")
        status, headers, body = answer
        return status, [*headers, *stamps], body

    def _report(self, decision: Decision | None, status: int | None) -> None:
        if decision is not None:
            self._report_decision(replace(decision, upstream_status=status))

    def _url(self, scope: Scope, path: bytes) -> str:
        query = scope.get("query_string", b"").decode("latin-1")
        return f"{self._upstream_url}{path.decode('latin-1')}" + (f"?{query}" if query else "")

    def _state(self) -> bytes:
        policy = self._client.status
        state: dict[str, Any] = {
            "instance": self._client.instance,
            "channel": self._client.channel,
            "serial": policy.serial,
            "not_after_us": policy.not_after_us,
            "problem": policy.problem,
            "rejected_publications": policy.rejected,
            "kept_units": policy.kept_units,
            "requests": self._requests,
            "rewritten_requests": self._rewritten,
            "paused_requests": self._paused,
            "upstream_failures": self._upstream_failures,
        }
        return json.dumps({**state, **(self._status() if self._status else {})}).encode()


class _ClientLeft(Exception):
    """The client closed its connection before its request was whole."""


def _object(body: bytes) -> dict[str, Any] | None:
    """``None`` for what the API will refuse by itself."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _header(scope: Scope, name: bytes) -> bytes | None:
    found = [value for header, value in scope["headers"] if header == name]
    return found[0] if found else None


async def _body_chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        event: MutableMapping[str, Any] = await receive()
        if event["type"] == "http.disconnect":
            raise _ClientLeft
        yield event.get("body", b"")
        if not event.get("more_body", False):
            return


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
