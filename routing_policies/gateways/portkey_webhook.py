"""Answers Portkey's webhook check, used as a mutator before each request (docs/gateways.md).

Portkey sends the whole request body and keeps the headers to itself: session and device come from
the body's ``metadata``, the rest from ``x-portkey-metadata``. It takes a whole body back. Nothing
can be set in headers, on the way up or back, so an effort that a rule asks for is not set, and the
decision is joined by session and time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from loop.domain.errors import Refused, TurnwiseError
from loop.domain.policies import Decision
from routing_policies.client import PolicyClient
from routing_policies.repair import repair

log = logging.getLogger("turnwise.portkey")

# Keys of `x-portkey-metadata`, and the headers that they stand for.
METADATA_HEADERS = {
    "tw_org": "x-tw-org",
    "tw_repo": "x-tw-repo",
    "tw_developer": "x-tw-developer",
    "tw_session": "x-claude-code-session-id",
    "tw_agent": "x-claude-code-agent-id",
    "tw_agent_type": "x-claude-code-agent-type",
    "tw_request_class": "x-claude-code-request-class",
}
_BEFORE, _MESSAGES, _COUNT = "beforeRequestHook", "messages", "messagesCountTokens"
_UNFORESEEN = (TurnwiseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def answer_webhook(
    raw: bytes, client: PolicyClient, report_decision: Callable[[Decision], None]
) -> dict[str, Any]:
    """The webhook's answer. The verdict is always true: turnwise changes requests or leaves them.

    Never raises: what can't be read or decided is left as it came.
    """
    try:
        call = json.loads(raw)
        body = call["request"]["json"]
        kind = call.get("requestType")
        if call.get("eventType") != _BEFORE or kind not in (_MESSAGES, _COUNT):
            return _left("this is no Messages request")
        if not isinstance(body.get("model"), str):
            return _left("no model is named")
        headers = _headers_of(call.get("metadata"))
        if kind == _COUNT:
            return _fitted(body, client.foresee_body(body, headers).decision)[0]
        decision = client.route_body(body, headers).decision
    except (*_UNFORESEEN, RecursionError):
        log.exception("A request keeps its model")
        return _left("the request could not be decided")
    answer, decision = _fitted(body, decision)
    report_decision(decision)
    return answer


def _fitted(body: dict[str, Any], decision: Decision) -> tuple[dict[str, Any], Decision]:
    told = {
        "decision_id": decision.decision_id,
        "policy_version": decision.policy_version,
        "arm": decision.arm,
        "rule": decision.rule_id,
        "model": decision.routed_model,
    }
    if decision.routed_model == decision.requested_model:
        return {"verdict": True, "data": told}, decision
    try:
        fitted = repair(body, "", decision.routed_model)
    except (Refused, *_UNFORESEEN) as error:
        log.warning("A request keeps its model: %s", error)
        kept = replace(
            decision, routed_model=decision.requested_model, rule_id="guard:untranslatable"
        )
        return _left("no translation"), kept
    # Flags of a header that it can't reach are no fixes.
    fixes = tuple(fix for fix in fitted.fixes if not fix.startswith("beta_"))
    changed = {"request": {"json": fitted.body}}
    return {"verdict": True, "data": told, "transformedData": changed}, replace(
        decision, fixes=fixes
    )


def _left(why: str) -> dict[str, Any]:
    return {"verdict": True, "data": {"left": why}}


def _headers_of(metadata: object) -> dict[str, str]:
    given: Mapping[str, object] = metadata if isinstance(metadata, dict) else {}
    return {
        header: str(given[name]) for name, header in METADATA_HEADERS.items() if given.get(name)
    }
