"""The edge proxy as a sidecar: another gateway on the machine asks it, and serves by itself.

``POST /turnwise/decide`` takes a Messages request as the client sent it, headers included, and
answers

- 204: leave it as it is;
- 200: send this body instead, and ``x-turnwise-beta`` as ``anthropic-beta`` (none: no such header);
- 402: a budget is used up; answer the client so.

The answer's other headers are those that the proxy stamps on its own. ``POST /turnwise/portkey``
answers Portkey's webhook. Signatures, features, repair and the log are the proxy's in both, so a
gateway needs no code of ours but the call. What can't be read is left as it came.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from loop.domain.errors import Refused, TurnwiseError
from loop.domain.policies import Decision
from routing_policies.edge_answers import Headers, anthropic_error, send_answer
from routing_policies.edge_exchange import PAYMENT_REQUIRED, EdgeParts
from routing_policies.edge_inbound import ClientLeft, ClientStalled, Inbound, TooLarge
from routing_policies.edge_stamps import answer_stamps
from routing_policies.gateways.portkey_webhook import answer_webhook
from routing_policies.repair import repair

log = logging.getLogger("turnwise.edge_proxy")

_DECIDE, _PORTKEY = b"/turnwise/decide", b"/turnwise/portkey"
SIDECAR_PATHS = frozenset({_DECIDE, _PORTKEY})
_UNFORESEEN = (TurnwiseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


async def answer_gateway(
    parts: EdgeParts, path: bytes, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answers one call of a gateway."""
    raw = bytearray()
    try:
        inbound = Inbound(scope, receive, parts.limits.client_idle_seconds)
        async for chunk in inbound.chunks(parts.limits.max_body_bytes):
            raw += chunk
    except ClientLeft:
        return
    except (ClientStalled, TooLarge):
        await send_answer(send, *anthropic_error(413, "request_too_large", "Too large"))
        return

    def report(decision: Decision) -> None:
        parts.metrics.count_decision(decision)
        parts.report_decision(decision)

    if path == _PORTKEY:
        answer = json.dumps(answer_webhook(bytes(raw), parts.client, report)).encode()
        await send_answer(send, 200, [(b"content-type", b"application/json")], answer)
        return
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    status, headers, body = _decide(parts, named, bytes(raw), report)
    if status == 204:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
    else:
        await send_answer(send, status, headers, body)


def _decide(
    parts: EdgeParts, named: dict[str, str], raw: bytes, report: Callable[[Decision], None]
) -> tuple[int, Headers, bytes]:
    try:
        document = json.loads(raw)
        if not isinstance(document, dict) or not isinstance(document.get("model"), str):
            return 204, [], b""
        choice = parts.client.route_body(document, named)
    except (*_UNFORESEEN, RecursionError):
        parts.metrics.unforeseen.inc()
        return 204, [], b""
    decision = choice.decision
    if choice.pause is not None:
        parts.metrics.paused.inc()
        report(replace(decision, upstream_status=PAYMENT_REQUIRED))
        status, headers, body = anthropic_error(
            PAYMENT_REQUIRED, "billing_error", choice.pause.message
        )
        budget = quote(choice.pause.budget_id).encode()
        stamps = [(b"x-should-retry", b"false"), (b"x-turnwise-budget", budget)]
        return status, [*headers, *stamps, *answer_stamps(decision)], body
    if decision.routed_model == decision.requested_model and not choice.effort:
        report(decision)
        return 204, answer_stamps(decision), b""
    try:
        betas = named.get("anthropic-beta", "")
        fitted = repair(document, betas, decision.routed_model, choice.effort)
    except (Refused, *_UNFORESEEN) as error:
        log.warning("A request keeps its model: %s", error)
        decision = replace(
            decision, routed_model=decision.requested_model, rule_id="guard:untranslatable"
        )
        report(decision)
        return 204, answer_stamps(decision), b""
    parts.metrics.rewritten.inc()
    decision = replace(decision, fixes=fitted.fixes)
    report(decision)
    stamps = [(b"content-type", b"application/json"), *answer_stamps(decision)]
    if fitted.betas:
        stamps.append((b"x-turnwise-beta", fitted.betas.encode("latin-1")))
    return 200, stamps, json.dumps(fitted.body).encode()
