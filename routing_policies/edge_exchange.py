"""One request through the edge proxy: decided, fitted, passed on, and its answer streamed back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from starlette.types import Scope, Send

from loop.domain.budget_pauses import BudgetPause
from loop.domain.errors import Refused, TurnwiseError
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
from routing_policies.edge_inbound import ClientStalled, Inbound
from routing_policies.edge_metrics import EdgeMetrics
from routing_policies.edge_stamps import EdgeMode, answer_stamps, request_stamps
from routing_policies.edge_upstream import (
    AnswerBroken,
    EdgeLimits,
    Upstream,
    UpstreamAnswer,
    UpstreamFailure,
)
from routing_policies.repair import repair

log = logging.getLogger("turnwise.edge_proxy")

PAYMENT_REQUIRED = 402
# What a body that nobody foresaw can raise: a request must not fail for that.
_UNFORESEEN = (TurnwiseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(slots=True)
class EdgeParts:
    """What every request of one proxy shares. ``open_requests`` and ``buffered_bytes``: now."""

    client: PolicyClient
    upstream: Upstream
    report_decision: Callable[[Decision], None]
    limits: EdgeLimits
    mode: EdgeMode
    forward_prefixes: tuple[bytes, ...]
    metrics: EdgeMetrics = field(default_factory=EdgeMetrics)
    open_requests: int = 0
    buffered_bytes: int = 0


class _DecisionLog:
    """Reports one decision, once, whatever becomes of its request."""

    def __init__(self, decision: Decision, report: Callable[[Decision], None]) -> None:
        self.decision = decision
        self._report = report
        self._reported = False

    def __enter__(self) -> _DecisionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.answered(None)

    def answered(self, status: int | None) -> None:
        """With the status that the upstream, or a pause, answered; ``None`` where none did."""
        if not self._reported:
            self._reported = True
            self._report(replace(self.decision, upstream_status=status))


class Exchange:
    """One request and its answer."""

    def __init__(
        self,
        edge: EdgeParts,
        scope: Scope,
        path: bytes,
        kind: str,
        inbound: Inbound,
        send: Send,
    ) -> None:
        self._edge = edge
        self._scope = scope
        self._kind = kind
        self._inbound = inbound
        self._send_to_client = send
        query = scope.get("query_string", b"")
        self._target = (path + b"?" + query if query else path).decode("latin-1")
        self._headers = request_headers(scope["headers"], edge.forward_prefixes)
        self._stamps: Headers = []
        self.began = time.perf_counter()
        self._has_begun = False  # the answer
        self.buffered_bytes = 0

    async def run(self) -> None:
        """Raises :class:`ClientLeft`, :class:`ClientStalled`, :class:`TooLarge`."""
        if self._kind == "other":
            await self._pass_unread()
            return
        body = await self._whole_body()
        if body is None:
            return
        document = _object(body)
        if document is None or not isinstance(document.get("model"), str):
            await self._relay(body, None)  # the API will refuse it in its own words
        elif self._kind == "count_tokens":
            await self._relay(self._for_the_model_that_would_serve(document, body), None)
        else:
            await self._route(document, body)

    async def turn_away(self, why: str) -> None:
        self._edge.metrics.turned_away.inc()
        log.warning("A request was turned away: %s", why)
        await self.refuse(503, "overloaded_error", "Too much at once", [(b"retry-after", b"1")])

    async def refuse(
        self, status: int, kind: str, message: str, further: Headers | None = None
    ) -> None:
        """Answers in the API's error envelope, unless an answer has begun."""
        if self._has_begun:
            return
        code, headers, body = anthropic_error(status, kind, message)
        self._begin(code)
        await send_answer(
            self._send_to_client, code, [*headers, *(further or []), *self._stamps], body
        )

    async def _pass_unread(self) -> None:
        headers = self._headers
        length = self._inbound.length
        if length is not None:
            headers = [*headers, (b"content-length", str(length).encode())]
        body = self._inbound.chunks() if self._inbound.has_body else b""
        if not self._inbound.has_body:
            self._inbound.close()
        await self._relay(body, None, headers)

    async def _whole_body(self) -> bytes | None:
        """``None`` where it was refused, and that is answered."""
        edge, raw = self._edge, bytearray()
        async for chunk in self._inbound.chunks(edge.limits.max_body_bytes):
            raw += chunk
            self.buffered_bytes += len(chunk)
            edge.buffered_bytes += len(chunk)
            if edge.buffered_bytes > edge.limits.max_buffered_bytes:
                await self.turn_away(f"{edge.buffered_bytes} bytes of requests are held")
                return None
        return bytes(raw)

    async def _route(self, document: dict[str, Any], body: bytes) -> None:
        edge, received = self._edge, time.perf_counter()
        try:
            choice = edge.client.route_body(document, self._named_headers())
        except _UNFORESEEN:
            edge.metrics.unforeseen.inc()
            log.exception("A request could not be decided and passes as it came")
            await self._relay(body, None)
            return
        with _DecisionLog(choice.decision, edge.report_decision) as logged:
            if choice.pause is not None:
                await self._refuse_paused(logged, choice.pause)
                return
            body, headers = self._apply(choice, document, body, logged)
            edge.metrics.count_decision(logged.decision)
            self._stamps = answer_stamps(logged.decision)
            if edge.mode != "rewrite":
                headers = [*headers, *request_stamps(logged.decision)]
            edge.metrics.deciding.observe(time.perf_counter() - received)
            await self._relay(body, logged, headers)

    async def _refuse_paused(self, logged: _DecisionLog, pause: BudgetPause) -> None:
        """402 is the one status that the client neither retries nor dresses in other words."""
        metrics = self._edge.metrics
        metrics.paused.inc()
        metrics.count_decision(logged.decision)
        logged.answered(PAYMENT_REQUIRED)
        stamps = [
            (b"x-should-retry", b"false"),
            (b"request-id", logged.decision.decision_id.encode()),
            (b"x-turnwise-budget", quote(pause.budget_id).encode()),
        ]
        await self.refuse(PAYMENT_REQUIRED, "billing_error", pause.message, stamps)

    def _apply(
        self, choice: Choice, document: dict[str, Any], body: bytes, logged: _DecisionLog
    ) -> tuple[bytes, Headers]:
        """Body and headers as they go on; what was changed is noted in the decision."""
        decision = choice.decision
        changes_nothing = decision.routed_model == decision.requested_model and not choice.effort
        if changes_nothing or self._edge.mode == "stamp":
            return body, self._headers
        try:
            fitted, headers, fixes = self._fit(document, decision.routed_model, choice.effort)
        except (Refused, *_UNFORESEEN) as error:
            log.warning("A request keeps its model: %s", error)
            logged.decision = replace(
                decision, routed_model=decision.requested_model, rule_id="guard:untranslatable"
            )
            return body, self._headers
        self._edge.metrics.rewritten.inc()
        logged.decision = replace(decision, fixes=fixes)
        return fitted, headers

    def _for_the_model_that_would_serve(self, document: dict[str, Any], body: bytes) -> bytes:
        """Models count the same text differently; nothing is decided by asking."""
        if self._edge.mode == "stamp":
            return body
        try:
            choice = self._edge.client.foresee_body(document, self._named_headers())
            decision = choice.decision
            if decision.routed_model == decision.requested_model:
                return body
            body, self._headers, _ = self._fit(document, decision.routed_model, choice.effort)
        except (Refused, *_UNFORESEEN) as error:
            log.warning("Tokens are counted for the requested model: %s", error)
        return body

    def _fit(
        self, document: dict[str, Any], model: str, effort: str
    ) -> tuple[bytes, Headers, tuple[str, ...]]:
        betas = b",".join(value for name, value in self._headers if name == b"anthropic-beta")
        fitted = repair(document, betas.decode("latin-1"), model, effort)
        headers = [(name, value) for name, value in self._headers if name != b"anthropic-beta"]
        if fitted.betas:
            headers.append((b"anthropic-beta", fitted.betas.encode("latin-1")))
        return json.dumps(fitted.body).encode(), headers, fitted.fixes

    def _named_headers(self) -> dict[str, str]:
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._scope["headers"]
        }

    async def _relay(
        self, body: Any, logged: _DecisionLog | None, headers: Headers | None = None
    ) -> None:
        """Sends the request on and its answer back, until either side ends it."""
        passing = asyncio.create_task(
            self._pass(body, logged, self._headers if headers is None else headers)
        )
        leaving = asyncio.create_task(self._inbound.left())
        try:
            await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
            else:
                self._edge.metrics.clients_left.inc()
        finally:
            for task in (passing, leaving):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    async def _pass(self, body: Any, logged: _DecisionLog | None, headers: Headers) -> None:
        edge, asked = self._edge, time.perf_counter()
        try:
            answer = await edge.upstream.ask(self._scope["method"], self._target, headers, body)
        except UpstreamFailure as failure:
            self._inbound.raise_problem()
            if logged is not None:
                logged.answered(None)
            await self._answer_for_upstream(failure)
            return
        try:
            edge.metrics.first_byte.labels(self._kind).observe(time.perf_counter() - asked)
            if logged is not None:
                logged.answered(answer.status)
            await self._stream(answer)
        finally:
            answer.close()

    async def _stream(self, answer: UpstreamAnswer) -> None:
        self._begin(answer.status)
        headers = response_headers(answer.headers, self._stamps)
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )
        try:
            async for chunk in answer.chunks():
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except AnswerBroken as error:
            self._edge.metrics.upstream_failures.labels(error.kind).inc()
            log.warning("The upstream broke off its answer: %s", error)
            ending = event_stream_error(answer.headers, "The upstream broke off its answer")
            if ending:
                await self._send({"type": "http.response.body", "body": ending, "more_body": False})
            # Else the body ends too early, which is how HTTP tells the client of it.
        else:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _answer_for_upstream(self, failure: UpstreamFailure) -> None:
        self._edge.metrics.upstream_failures.labels(failure.kind).inc()
        log.warning("The upstream did not answer: %s", failure)
        if failure.kind == "first_byte_timeout":
            await self.refuse(504, "timeout_error", "The upstream did not answer in time")
        else:
            await self.refuse(502, "api_error", "The upstream can't be reached")

    async def _send(self, message: dict[str, Any]) -> None:
        """Waits while the client is slower than the upstream, but not for ever."""
        try:
            async with asyncio.timeout(self._edge.limits.client_idle_seconds):
                await self._send_to_client(message)
        except TimeoutError as error:
            raise ClientStalled from error

    def _begin(self, status: int) -> None:
        self._has_begun = True
        self._edge.metrics.responses.labels(self._kind, status).inc()


def _object(body: bytes) -> dict[str, Any] | None:
    """``None`` for what the API will refuse by itself."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
