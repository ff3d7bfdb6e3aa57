"""A reverse proxy before the Anthropic API, or before any gateway that speaks it.

``POST /v1/messages`` is routed by the policy client, its parameters are fitted to the routed
model, and its answer, JSON or SSE, is streamed through as it comes. ``count_tokens`` counts for
the model that would serve. Every other path below ``/v1/`` is passed on as it is. A request that
nothing changes leaves with the bytes it came with. docs/gateways.md says what it promises.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from loop.domain.policies import Decision
from routing_policies.client import PolicyClient
from routing_policies.edge_answers import anthropic_error, send_answer
from routing_policies.edge_exchange import EdgeParts, Exchange
from routing_policies.edge_inbound import ClientLeft, ClientStalled, Inbound, TooLarge, is_passable
from routing_policies.edge_metrics import CONTENT_TYPE
from routing_policies.edge_sidecar import SIDECAR_PATHS, answer_gateway
from routing_policies.edge_stamps import EdgeMode
from routing_policies.edge_upstream import EdgeLimits, Upstream

_MESSAGES, _COUNT_TOKENS = b"/v1/messages", b"/v1/messages/count_tokens"


def edge_app(
    client: PolicyClient,
    upstream_url: str,
    report_decision: Callable[[Decision], None],
    *,
    status: Callable[[], dict[str, Any]] | None = None,
    limits: EdgeLimits | None = None,
    mode: EdgeMode = "rewrite",
    forward_prefixes: tuple[str, ...] = (),
) -> EdgeProxy:
    """The proxy as an ASGI app.

    ``client`` is started and stopped by the caller; ``report_decision`` must return at once
    (:class:`routing_policies.decision_reporter.DecisionReporter`); ``status`` adds to
    ``GET /turnwise/status``; ``forward_prefixes`` name further request headers that may pass.
    The app needs lifespan events.
    """
    limits = limits or EdgeLimits()
    prefixes = tuple(prefix.lower().encode("latin-1") for prefix in forward_prefixes)
    upstream = Upstream(upstream_url, limits)
    parts = EdgeParts(client, upstream, report_decision, limits, mode, prefixes)
    return EdgeProxy(parts, status)


class EdgeProxy:
    """Made by :func:`edge_app`."""

    def __init__(self, parts: EdgeParts, status: Callable[[], dict[str, Any]] | None) -> None:
        self._parts = parts
        self._status = status
        self._draining = False
        self.metrics = parts.metrics
        self.metrics.watch_policy(lambda: parts.client.status)
        self.metrics.open_requests.set_function(lambda: parts.open_requests)
        self.metrics.buffered_bytes.set_function(lambda: parts.buffered_bytes)

    def drain(self) -> None:
        """From now on it is not ready, which a load balancer asks; requests are still served."""
        self._draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await self._parts.upstream.open()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._parts.upstream.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        send = self._ending_connections(send)
        if path in SIDECAR_PATHS and scope["method"] == "POST":
            await answer_gateway(self._parts, path, scope, receive, send)
            return
        if path.startswith(b"/turnwise/") and scope["method"] == "GET":
            await self._answer_of_itself(path, send)
            return
        if not is_passable(path):
            await send_answer(send, *anthropic_error(404, "not_found_error", "Not found"))
            return
        kind = {_MESSAGES: "messages", _COUNT_TOKENS: "count_tokens"}.get(path, "other")
        if scope["method"] != "POST":
            kind = "other"
        parts, limits = self._parts, self._parts.limits
        inbound = Inbound(scope, receive, limits.client_idle_seconds)
        exchange = Exchange(parts, scope, path, kind, inbound, send)
        self.metrics.requests.labels(kind).inc()
        if parts.open_requests >= limits.max_requests:
            await exchange.turn_away(f"{parts.open_requests} requests are under way")
            return
        parts.open_requests += 1
        try:
            await exchange.run()
        except ClientLeft:
            self.metrics.clients_left.inc()
        except ClientStalled:
            self.metrics.clients_stalled.inc()
            message = "The request did not come to its end in time"
            await exchange.refuse(408, "invalid_request_error", message)
        except TooLarge:
            message = f"The request is larger than {limits.max_body_bytes} bytes"
            await exchange.refuse(413, "request_too_large", message)
        finally:
            parts.open_requests -= 1
            parts.buffered_bytes -= exchange.buffered_bytes
            self.metrics.duration.labels(kind).observe(time.perf_counter() - exchange.began)

    def _ending_connections(self, send: Send) -> Send:
        """While it drains, a client's next request needs a new connection, to who comes after."""

        async def send_last(message: Message) -> None:
            if self._draining and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        return send_last

    async def _answer_of_itself(self, path: bytes, send: Send) -> None:
        status, kind, body = 200, b"application/json", b""
        if path == b"/turnwise/status":
            body = self._state()
        elif path == b"/turnwise/metrics":
            kind, body = CONTENT_TYPE.encode(), self.metrics.render()
        elif path == b"/turnwise/healthz":
            body = json.dumps({"ok": True}).encode()
        elif path == b"/turnwise/readyz":
            status = 503 if self._draining else 200
            body = json.dumps({"ok": not self._draining, "draining": self._draining}).encode()
        else:
            await send_answer(send, *anthropic_error(404, "not_found_error", "Not found"))
            return
        await send_answer(send, status, [(b"content-type", kind)], body)

    def _state(self) -> bytes:
        parts, metrics = self._parts, self.metrics
        policy = parts.client.status
        state: dict[str, Any] = {
            "instance": parts.client.instance,
            "channel": parts.client.channel,
            "mode": parts.mode,
            "process": os.getpid(),
            "draining": self._draining,
            "serial": policy.serial,
            "not_after_us": policy.not_after_us,
            "problem": policy.problem,
            "rejected_publications": policy.rejected,
            "kept_units": policy.kept_units,
            "open_requests": parts.open_requests,
            "buffered_bytes": parts.buffered_bytes,
            "requests": metrics.total("requests"),
            "rewritten_requests": metrics.total("rewritten_requests"),
            "paused_requests": metrics.total("paused_requests"),
            "upstream_failures": metrics.total("upstream_failures"),
        }
        return json.dumps({**state, **(self._status() if self._status else {})}).encode()
