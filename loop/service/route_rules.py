"""Which verb each route needs, and whether it answers for a part of the organization: one table.

A route without a rule is open to nobody but credentials of the whole installation that may do
everything; a test fails for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from loop.access.callers import THIS_MACHINE, Caller, current_caller
from loop.access.verbs import ALL_VERBS, Verb
from loop.domain.errors import Refused
from loop.service.web.responses import render_error

CALLER = "turnwise.caller"  # where the ASGI scope holds it


@dataclass(frozen=True, slots=True)
class RouteRule:
    """``verb`` ``None`` is open to all. ``by_node``: a credential of a node is answered with what
    is charged to it and below; else only a credential of the installation is answered."""

    verb: Verb | None
    by_node: bool = False


OPEN = RouteRule(None, by_node=True)
READ_OWN = RouteRule(Verb.READ, by_node=True)
READ_ALL = RouteRule(Verb.READ)
OPTIMIZE = RouteRule(Verb.OPTIMIZE)
REVIEW = RouteRule(Verb.REVIEW)
PUBLISH = RouteRule(Verb.PUBLISH)
ADMIN = RouteRule(Verb.ADMIN)
ADMIN_OWN = RouteRule(Verb.ADMIN, by_node=True)
GATEWAY = RouteRule(Verb.GATEWAY, by_node=True)
INGEST = RouteRule(Verb.INGEST, by_node=True)

RULES: Mapping[str, RouteRule] = {
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    # What a node sees of itself.
    "GET /v1/overview": READ_OWN,
    "GET /v1/spend": READ_OWN,
    "GET /v1/spend/doubles": READ_OWN,
    "GET /v1/statements": READ_OWN,
    "GET /v1/statements/{month}": READ_OWN,
    "GET /v1/statements/{month}/{format}": READ_OWN,
    "GET /v1/sessions": READ_OWN,
    "GET /v1/sessions/{session_id}": READ_OWN,  # with content=1 also the verb content
    "GET /v1/clusters": READ_OWN,
    "GET /v1/clusters/{cluster_id}": READ_OWN,
    "GET /v1/reach": READ_OWN,
    "POST /v1/replay": READ_OWN,
    "GET /v1/replay/calibration": READ_OWN,
    "GET /v1/policies": READ_OWN,
    "GET /v1/policy-transitions": READ_ALL,
    "GET /v1/policies/{version:int}": READ_OWN,
    "GET /v1/policies/{before:int}...{after:int}": READ_OWN,
    "GET /v1/budgets": READ_OWN,
    "GET /v1/budgets/{budget_id}": READ_OWN,
    "GET /v1/prices": READ_OWN,
    "GET /v1/prices/{version}": READ_OWN,
    "GET /v1/prices/{version}/document": READ_OWN,
    # What searches in it, and canaries that may route it: figures of its own sessions only.
    "GET /v1/runs": READ_OWN,
    "GET /v1/runs/{run_id}": READ_OWN,
    "GET /v1/rollouts": READ_OWN,
    "GET /v1/rollouts/{rollout_id}": READ_OWN,
    # What its own credentials sent.
    "GET /v1/intake": READ_OWN,
    "GET /v1/conflicts": READ_OWN,
    "GET /v1/conflicts/{conflict_id}": RouteRule(Verb.CONTENT, by_node=True),
    "GET /v1/quarantine": READ_OWN,
    "GET /v1/quarantine/{name}": READ_OWN,
    "POST /v1/quarantine/replay": ADMIN_OWN,
    "POST /v1/quarantine/drop": ADMIN_OWN,
    # What is measured and moved for all at once.
    "GET /v1/charge-versions": READ_ALL,
    "GET /v1/reconciliation": READ_ALL,
    "GET /v1/notices": READ_ALL,
    "GET /v1/settings": ADMIN,
    "POST /v1/budgets": ADMIN,
    "POST /v1/budgets/{budget_id}/override": ADMIN,
    "POST /v1/budgets/{budget_id}/end-override": ADMIN,
    "POST /v1/budgets/{budget_id}/close": ADMIN,
    "POST /v1/prices": ADMIN,
    "POST /v1/charge-versions": ADMIN,
    "POST /v1/statements": ADMIN,
    "POST /v1/billing-reports": ADMIN,
    "POST /v1/billing-reports/fetch": ADMIN,
    "GET /v1/lake": READ_ALL,
    "GET /v1/lake/work": ADMIN,
    "GET /v1/lake/erasures": ADMIN,
    "GET /v1/lake/holds": ADMIN,
    "POST /v1/lake/verify": ADMIN,
    "POST /v1/lake/compact": ADMIN,
    "POST /v1/lake/restore": ADMIN,
    "POST /v1/lake/erasures": ADMIN,
    "POST /v1/lake/erasures/resume": ADMIN,
    "POST /v1/lake/holds": ADMIN,
    "GET /v1/lake/retention": ADMIN,
    "POST /v1/lake/retention": ADMIN,
    "POST /v1/lake/retention/apply": ADMIN,
    "POST /v1/lake/holds/{hold_id}/release": ADMIN,
    "GET /v1/judge": READ_ALL,
    "POST /v1/judge": OPTIMIZE,
    "POST /v1/judge/collect": OPTIMIZE,
    "GET /v1/judge/calibration": READ_ALL,
    "POST /v1/judge/anchors": OPTIMIZE,
    "GET /v1/labels": READ_ALL,
    "POST /v1/labels": REVIEW,
    "POST /v1/evaluate": OPTIMIZE,
    "POST /v1/clusters": OPTIMIZE,
    "POST /v1/runs": OPTIMIZE,
    "POST /v1/policies": OPTIMIZE,
    "POST /v1/policies/{version:int}/gate": OPTIMIZE,
    "POST /v1/policies/{version:int}/submit": REVIEW,
    "POST /v1/policies/{version:int}/approve": REVIEW,
    "POST /v1/policies/{version:int}/reject": REVIEW,
    "POST /v1/policies/{version:int}/publish": PUBLISH,
    "POST /v1/policies/{version:int}/rollback": PUBLISH,
    "POST /v1/explorations": PUBLISH,
    "POST /v1/rollouts/{rollout_id}/pause": PUBLISH,
    "POST /v1/rollouts/{rollout_id}/resume": PUBLISH,
    "POST /v1/rollouts/{rollout_id}/rollback": PUBLISH,
    # Who may, and who is charged.
    "GET /v1/tokens": ADMIN_OWN,
    "POST /v1/tokens": ADMIN_OWN,
    "POST /v1/tokens/{token_id}/rotate": ADMIN_OWN,
    "POST /v1/tokens/{token_id}/revoke": ADMIN_OWN,
    "GET /v1/org": READ_OWN,
    "GET /v1/org/nodes/{node_id}": READ_OWN,
    "POST /v1/org": ADMIN,
    "POST /v1/org/nodes/{node_id}/add": ADMIN,
    "POST /v1/org/nodes/{node_id}/move": ADMIN,
    "POST /v1/org/nodes/{node_id}/rename": ADMIN,
    "POST /v1/org/nodes/{node_id}/assign": ADMIN,
    "POST /v1/org/nodes/{node_id}/close": ADMIN,
    "GET /v1/org/developers": ADMIN,
    "POST /v1/org/developers": ADMIN,
    "GET /v1/org/content-modes": READ_OWN,
    "POST /v1/org/content-modes": ADMIN,
    "GET /v1/org/rules": ADMIN,
    "POST /v1/org/rules": ADMIN,
    "POST /v1/org/rules/{rule_id:int}/end": ADMIN,
    "GET /v1/org/unattributed": READ_ALL,
    "GET /v1/org/records": ADMIN,
    # Who sends, and what routes.
    "POST /v1/transcripts": INGEST,
    "GET /v1/gateway/policy": GATEWAY,
    "GET /v1/gateway/keys": GATEWAY,
    "POST /v1/gateway/ack": GATEWAY,
    "POST /v1/gateway/decisions": GATEWAY,
    # The pages: the same readings and moves.
    "GET /": READ_OWN,
    "GET /sessions": READ_OWN,
    "GET /sessions/{session_id:path}": READ_OWN,
    "GET /clusters": READ_OWN,
    "GET /clusters/{cluster_id}": READ_OWN,
    "GET /spend": READ_OWN,
    "GET /judge": READ_ALL,
    "GET /policies": READ_OWN,
    "GET /policies/{version:int}": READ_OWN,
    "GET /policies/{before:int}...{after:int}": READ_OWN,
    "GET /runs": READ_OWN,
    "GET /runs/{run_id}": READ_OWN,
    "GET /rollouts": READ_OWN,
    "GET /rollouts/{rollout_id}": READ_OWN,
    "POST /sessions/{session_id:path}/labels": REVIEW,
    "POST /policies/{version:int}/submit": REVIEW,
    "POST /policies/{version:int}/approve": REVIEW,
    "POST /policies/{version:int}/reject": REVIEW,
    "POST /policies/{version:int}/publish": PUBLISH,
    "POST /policies/{version:int}/rollback": PUBLISH,
    "POST /rollouts/{rollout_id}/pause": PUBLISH,
    "POST /rollouts/{rollout_id}/resume": PUBLISH,
    "POST /rollouts/{rollout_id}/rollback": PUBLISH,
    "GET /static": RouteRule(None, by_node=True),
}
"""``METHOD path`` with the path as the route states it, a ``{verb}`` of it filled in."""


def rules_of(path: str, method: str) -> list[str]:
    """The keys of :data:`RULES` that a route's path stands for."""
    if not path.endswith("/{verb}"):
        return [f"{method} {path}"]
    start = f"{method} {path.removesuffix('{verb}')}"
    return [key for key in RULES if key.startswith(start) and "/" not in key[len(start) :]]


def guard(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """The routes, each letting through only callers that :data:`RULES` allows; while a request is
    answered, :data:`~loop.access.callers.current_caller` says whose it is."""
    guarded = list(routes)
    for route in guarded:
        if isinstance(route, Route | Mount):
            route.app = _Guard(route.app, route.path)
    return guarded


class _Guard:
    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope.get(CALLER, THIS_MACHINE)
        request = Request(scope)
        verb = scope.get("path_params", {}).get("verb", "")
        method = "GET" if request.method == "HEAD" else request.method
        rule = RULES.get(f"{method} {self._path.replace('{verb}', str(verb))}")
        try:
            check_rule(rule, caller)
        except Refused as refusal:
            if scope["path"].startswith("/v1/"):
                raise
            await render_error(request, refusal)(scope, receive, send)
            return
        reset = current_caller.set(caller)
        try:
            await self._app(scope, receive, send)
        finally:
            current_caller.reset(reset)


def check_rule(rule: RouteRule | None, caller: Caller) -> None:
    """Raises :class:`Refused` when the caller may not do what the rule is of."""
    if rule is None:  # a route, or a verb of one, that nobody wrote a rule for
        caller.require_installation()
        if caller.verbs != ALL_VERBS:
            raise Refused(f"The credential {caller.name!r} may not do this.")
        return
    if rule.verb is not None:
        caller.require(rule.verb)
    if not rule.by_node:
        caller.require_installation()
