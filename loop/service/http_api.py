"""The HTTP API, version 1: thin routes over the readings and the actions.

``docs/http-api.md`` documents every route, and a test holds it to :func:`api_app`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from collectors.refusals import Refusals
from loop.service.access_desk import AccessDesk
from loop.service.access_routes import access_routes
from loop.service.actions import Actions
from loop.service.assemble import Parts
from loop.service.budget_readings import Budgets
from loop.service.http_errors import ERROR_HANDLERS
from loop.service.intake_readings import IntakeReadings
from loop.service.intake_routes import (
    CountRefusals,
    decision_intake,
    intake_routes,
    transcript_intake,
)
from loop.service.json_routes import get, number, post
from loop.service.judge_routes import judge_routes
from loop.service.lake_routes import lake_routes
from loop.service.money_routes import budget_routes, money_routes
from loop.service.readings import Readings
from loop.service.replay_routes import replay_routes
from loop.service.request_callers import RequireToken, senders_of_caller, view_of_caller
from loop.service.route_rules import guard
from loop.service.web import web_routes
from routing_policies.gateway_routes import gateway_routes

DEFAULT_ROWS = 50


def api_app(parts: Parts) -> Starlette:
    """The API and the pages over assembled parts."""
    readings = Readings(parts, sees=lambda: view_of_caller(parts))
    actions = Actions(parts, readings)
    routes = [
        # First, since routes are tried in their order and every gateway asks all the time.
        *gateway_routes(parts.publications, parts.versions, decision_intake(parts)),
        *api_routes(readings, actions),
        *intake_routes(IntakeReadings(parts, lambda: senders_of_caller(parts))),
        *money_routes(parts),
        *budget_routes(Budgets(parts, lambda: view_of_caller(parts))),
        *access_routes(AccessDesk(parts)),
        *lake_routes(parts),
        *replay_routes(parts),
        *judge_routes(parts),
        Route("/v1/transcripts", transcript_intake(parts), methods=["POST"]),
        *web_routes(readings, actions.act, actions.label),
    ]
    refusals = cache(lambda: Refusals(parts.journal))

    @asynccontextmanager
    async def telling(_: Starlette) -> AsyncIterator[None]:
        yield
        if refusals.cache_info().currsize:
            await refusals().close()

    return Starlette(
        routes=guard(routes),
        middleware=[
            Middleware(CountRefusals, refusals=refusals),
            Middleware(RequireToken, check=parts.callers),
        ],
        lifespan=telling,
        exception_handlers=ERROR_HANDLERS,
    )


def api_routes(readings: Readings, actions: Actions) -> list[BaseRoute]:
    """Every route of the JSON API but the gateways' and those of money."""
    return [
        get("/healthz", lambda request, _: {"ok": True}),
        get("/readyz", lambda request, _: readings.readiness()),
        get("/v1/overview", lambda request, _: readings.overview()),
        get("/v1/settings", lambda request, _: readings.settings()),
        get("/v1/spend", lambda request, _: readings.spend(**_spend_options(request))),
        get(
            "/v1/spend/doubles",
            lambda request, _: readings.suspected_doubles(
                request.query_params.get("since"), request.query_params.get("until")
            ),
        ),
        get("/v1/sessions", lambda request, _: readings.list_sessions(**_list_options(request))),
        get(
            "/v1/sessions/{session_id}",
            lambda request, _: readings.show_session(
                request.path_params["session_id"],
                content=request.query_params.get("content") == "1",
            ),
        ),
        post("/v1/evaluate", lambda request, document: actions.evaluate(document)),
        get("/v1/clusters", lambda request, _: readings.list_clusters()),
        post("/v1/clusters", lambda request, _: actions.cluster()),
        get(
            "/v1/clusters/{cluster_id}",
            lambda request, _: readings.show_cluster(request.path_params["cluster_id"]),
        ),
        get("/v1/reach", lambda request, _: readings.reach_of_classic()),
        get("/v1/runs", lambda request, _: readings.list_runs()),
        post("/v1/runs", lambda request, document: actions.optimize(document)),
        get(
            "/v1/runs/{run_id}",
            lambda request, _: readings.show_run(request.path_params["run_id"]),
        ),
        get("/v1/policies", lambda request, _: readings.list_policies()),
        get("/v1/policy-transitions", lambda request, _: readings.list_transitions()),
        post("/v1/policies", lambda request, document: actions.propose(document)),
        get(
            "/v1/policies/{before:int}...{after:int}",
            lambda request, _: readings.diff_policies(
                request.path_params["before"], request.path_params["after"]
            ),
        ),
        get(
            "/v1/policies/{version:int}",
            lambda request, _: readings.show_policy(request.path_params["version"]),
        ),
        post(
            "/v1/policies/{version:int}/{verb}",
            lambda request, document: actions.move_policy(
                request.path_params["version"], request.path_params["verb"], document
            ),
        ),
        post("/v1/explorations", lambda request, document: actions.explore(document)),
        get("/v1/rollouts", lambda request, _: readings.list_rollouts()),
        get(
            "/v1/rollouts/{rollout_id}",
            lambda request, _: readings.show_rollout(request.path_params["rollout_id"]),
        ),
        post(
            "/v1/rollouts/{rollout_id}/{verb}",
            lambda request, document: actions.steer_rollout(
                request.path_params["rollout_id"], request.path_params["verb"], document
            ),
        ),
    ]


def _spend_options(request: Request) -> dict[str, Any]:
    query = request.query_params
    return {
        "by": query.get("by", "developer"),
        "since": query.get("since"),
        "until": query.get("until"),
        "level": number(query.get("level"), "level"),
        "charge_version": number(query.get("charge_version"), "charge_version"),
    }


def _list_options(request: Request) -> dict[str, Any]:
    query = request.query_params
    options: dict[str, Any] = {
        name: query.get(name)
        for name in ("cursor", "developer", "repository", "model", "org", "cluster")
    }
    limit = number(query.get("limit"), "limit")
    options["limit"] = DEFAULT_ROWS if limit is None else limit
    options["sort"] = query.get("sort", "started")
    options["disagreeing"] = query.get("disagreeing") == "1"
    return options
