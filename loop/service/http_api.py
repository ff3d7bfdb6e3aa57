"""The HTTP API, version 1: thin routes over the readings and the actions.

``docs/http-api.md`` documents every route, and a test holds it to :func:`api_routes`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from collectors.decision_intake import accept_decisions
from collectors.transcripts import import_lines
from loop.access.callers import CheckCaller, bearer_token, current_caller
from loop.access.view import ALL_ROWS, View, view_of
from loop.domain.errors import BadInput, Refused, Unavailable
from loop.ledger.statement_formats import CONTENT_TYPES
from loop.service.access_desk import AccessDesk
from loop.service.actions import Actions
from loop.service.api_client import IN_PROCESS_HOST
from loop.service.assemble import Parts
from loop.service.budget_readings import Budgets
from loop.service.documents import with_actor
from loop.service.http_errors import ERROR_HANDLERS, answer_turnwise_error
from loop.service.intake_readings import IntakeReadings
from loop.service.price_desk import PriceDesk
from loop.service.readings import Readings
from loop.service.route_rules import CALLER, guard
from loop.service.settings import is_loopback
from loop.service.statement_desk import StatementDesk
from loop.service.web import web_routes
from loop.service.web.actions import check_same_origin
from routing_policies.gateway_routes import gateway_routes

SAFE_METHODS = frozenset({"GET", "HEAD"})
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
MAX_DOCUMENT_BYTES = 1024 * 1024
DEFAULT_ROWS = 50
MAX_NAME_BYTES = 255  # of a part of a path
MAX_DIGITS = 19  # what fits into 64 bits
Answer = Callable[[Request, dict[str, Any]], dict[str, Any]]


def api_app(parts: Parts) -> Starlette:
    """The API and the pages over assembled parts."""
    # These build on this module.
    from loop.service.judge_routes import judge_routes
    from loop.service.lake_routes import lake_routes
    from loop.service.replay_routes import replay_routes

    readings = Readings(parts, sees=lambda: view_of_caller(parts))
    actions = Actions(parts, readings)
    routes = [
        *api_routes(readings, actions),
        *intake_routes(IntakeReadings(parts)),
        *money_routes(parts),
        *budget_routes(Budgets(parts, lambda: view_of_caller(parts))),
        *access_routes(AccessDesk(parts)),
        *lake_routes(parts),
        *replay_routes(parts),
        *judge_routes(parts),
        Route("/v1/transcripts", _transcript_intake(parts), methods=["POST"]),
        *gateway_routes(parts.publications, parts.versions, _decision_intake(parts)),
        *web_routes(readings, actions.act),
    ]
    return Starlette(
        routes=guard(routes),
        middleware=[Middleware(RequireToken, check=parts.callers)],
        exception_handlers=ERROR_HANDLERS,
    )


def view_of_caller(parts: Parts) -> View:
    """What the caller of the request that is being answered may see."""
    caller = current_caller.get()
    return view_of(parts.directories.current(), caller.node_id) if caller.node_id else ALL_ROWS


class RequireToken:
    """Finds out who calls, and refuses with 401 what carries no valid token, where one is needed.

    Without an installation token only this machine may call, and by its own name: a page of
    another site whose name was pointed at this address (DNS rebinding) is refused with 403, and so
    is a POST that another site's page sends here. What a caller may do is the routes' matter.
    """

    def __init__(self, app: ASGIApp, check: CheckCaller) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            headers = dict(scope["headers"])
            given = headers.get(b"authorization", b"").decode("latin-1")
            try:
                caller = self._check(bearer_token(given))
                if caller is not None and caller.credential == "":
                    _check_caller(Request(scope))
            except (Refused, Unavailable) as error:
                await answer_turnwise_error(Request(scope), error)(scope, receive, send)
                return
            if caller is None:
                envelope = {
                    "code": "unauthorized",
                    "what": "This needs a valid bearer token.",
                    "why": "None was sent, or it is unknown, expired or revoked.",
                    "fix": "Send 'Authorization: Bearer …' (TURNWISE_API_TOKEN, or a token of "
                    "`turnwise token create`).",
                }
                response = JSONResponse(
                    {"error": envelope}, 401, {"WWW-Authenticate": 'Bearer realm="turnwise"'}
                )
                await response(scope, receive, send)
                return
            scope[CALLER] = caller
        await self._app(scope, receive, send)


def _check_caller(request: Request) -> None:
    """Raises :class:`Refused` for what a page of another site may have caused."""
    host = request.headers.get("host", "")
    if not _is_own_name(host):
        raise Refused(f"This server is not {host!r}.", fix="Call it as localhost or 127.0.0.1.")
    if request.method not in SAFE_METHODS and request.url.path.startswith("/v1/"):
        check_same_origin(request)  # the pages' own forms do so themselves


def _is_own_name(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name in (IN_PROCESS_HOST, "") or is_loopback(name.strip("[]"))


def get(path: str, answer: Answer) -> Route:
    """A route that reads; ``answer`` gets an empty document."""
    return Route(path, _endpoint(answer, takes_document=False), methods=["GET"])


def post(path: str, answer: Answer) -> Route:
    """A route that acts on the JSON object that it is sent."""
    return Route(path, _endpoint(answer, takes_document=True), methods=["POST"])


def money_routes(parts: Parts) -> list[BaseRoute]:
    """Price books, re-pricings, statements and what the provider billed."""
    desk = PriceDesk(parts)
    statements = StatementDesk(parts, sees=lambda: view_of_caller(parts))

    def print_statement(request: Request) -> Response:
        kind = request.path_params["format"]
        text = statements.printed(request.path_params["month"], _org(request), kind)
        return Response(text, media_type=CONTENT_TYPES[kind])

    async def statement(request: Request) -> Response:
        return await run_in_threadpool(print_statement, request)

    return [
        get("/v1/statements", lambda request, _: statements.list_closed()),
        get(
            "/v1/statements/{month}",
            lambda request, _: statements.show(request.path_params["month"], _org(request)),
        ),
        Route("/v1/statements/{month}/{format}", statement, methods=["GET"]),
        post("/v1/statements", lambda request, document: statements.close(document)),
        get(
            "/v1/reconciliation",
            lambda request, _: statements.reconcile(
                request.query_params.get("month", ""), request.query_params.get("limit")
            ),
        ),
        post("/v1/billing-reports", lambda request, document: statements.take_report(document)),
        post("/v1/billing-reports/fetch", lambda request, document: statements.fetch(document)),
        get("/v1/prices", lambda request, _: desk.list_books()),
        get(
            "/v1/prices/{version}",
            lambda request, _: desk.show_book(
                request.path_params["version"], request.query_params.get("model")
            ),
        ),
        get(
            "/v1/prices/{version}/document",
            lambda request, _: desk.export_book(request.path_params["version"]),
        ),
        post("/v1/prices", lambda request, document: desk.change_prices(document)),
        get("/v1/charge-versions", lambda request, _: desk.list_charge_versions()),
        post("/v1/charge-versions", lambda request, document: desk.reprice(document)),
    ]


def _org(request: Request) -> str:
    return request.query_params.get("org", "").strip("/")


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


def access_routes(desk: AccessDesk) -> list[BaseRoute]:
    """Credentials, the organization, its developers and rules."""
    return [
        get("/v1/tokens", lambda request, _: desk.list_tokens()),
        post("/v1/tokens", lambda request, document: desk.create_token(document)),
        post(
            "/v1/tokens/{token_id}/{verb}",
            lambda request, document: desk.change_token(
                request.path_params["token_id"], request.path_params["verb"], document
            ),
        ),
        get("/v1/org", lambda request, _: desk.list_nodes(request.query_params.get("day"))),
        post("/v1/org", lambda request, document: desk.import_nodes(document)),
        get("/v1/org/developers", lambda request, _: desk.list_members()),
        post("/v1/org/developers", lambda request, document: desk.assign_members(document)),
        get("/v1/org/content-modes", lambda request, _: desk.list_content_modes()),
        post("/v1/org/content-modes", lambda request, document: desk.set_content_mode(document)),
        get("/v1/org/rules", lambda request, _: desk.list_rules()),
        post("/v1/org/rules", lambda request, document: desk.add_rule(document)),
        post(
            "/v1/org/rules/{rule_id:int}/end",
            lambda request, document: desk.end_rule(request.path_params["rule_id"], document),
        ),
        get(
            "/v1/org/unattributed",
            lambda request, _: desk.unattributed(request.query_params.get("since")),
        ),
        get("/v1/org/records", lambda request, _: desk.records()),
        get(
            "/v1/org/nodes/{node_id}",
            lambda request, _: desk.show_node(request.path_params["node_id"]),
        ),
        post(
            "/v1/org/nodes/{node_id}/{verb}",
            lambda request, document: desk.change_node(
                request.path_params["node_id"], request.path_params["verb"], document
            ),
        ),
    ]


def intake_routes(intake: IntakeReadings) -> list[BaseRoute]:
    """What came in, what disagrees, what was set aside."""

    return [
        get("/v1/intake", lambda request, _: intake.intake(**_intake_options(request))),
        get(
            "/v1/conflicts",
            lambda request, _: intake.list_conflicts(since=request.query_params.get("since")),
        ),
        get(
            "/v1/conflicts/{conflict_id}",
            lambda request, _: intake.show_conflict(request.path_params["conflict_id"]),
        ),
        get("/v1/quarantine", lambda request, _: intake.list_quarantine()),
        get(
            "/v1/quarantine/{name}",
            lambda request, _: intake.show_quarantined(request.path_params["name"]),
        ),
        post("/v1/quarantine/replay", lambda request, document: intake.replay(document)),
        post("/v1/quarantine/drop", lambda request, document: intake.drop(document)),
    ]


def budget_routes(budgets: Budgets) -> list[BaseRoute]:
    """What may be spent, and who was told."""
    return [
        get("/v1/budgets", lambda request, _: budgets.list()),
        post("/v1/budgets", lambda request, document: budgets.set(document)),
        get(
            "/v1/budgets/{budget_id}",
            lambda request, _: budgets.show(request.path_params["budget_id"]),
        ),
        post(
            "/v1/budgets/{budget_id}/{verb}",
            lambda request, document: budgets.act(
                request.path_params["budget_id"], request.path_params["verb"], document
            ),
        ),
        get("/v1/notices", lambda request, _: budgets.notices()),
    ]


def _intake_options(request: Request) -> dict[str, Any]:
    query = request.query_params
    return {
        "by": query.get("by", "source"),
        "since": query.get("since"),
        "until": query.get("until"),
    }


def _endpoint(answer: Answer, *, takes_document: bool) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        document = with_actor(await _read_document(request)) if takes_document else {}
        return JSONResponse(await run_in_threadpool(answer, request, document))

    return endpoint


def _decision_intake(parts: Parts) -> Callable[[Request], Any]:
    async def intake(request: Request) -> Response:
        body = await _read_body(request, parts.settings.max_body_bytes)
        accepted = await accept_decisions(
            parts.journal, body, credential=current_caller.get().credential
        )
        return JSONResponse({"accepted": accepted})

    return intake


def _transcript_intake(parts: Parts) -> Callable[[Request], Any]:
    async def intake(request: Request) -> Response:
        name = PurePosixPath(request.query_params.get("path", ""))
        is_name = str(name).isprintable() and all(
            len(part.encode()) <= MAX_NAME_BYTES for part in name.parts
        )
        if name.suffix != ".jsonl" or ".." in name.parts or not is_name:
            raise BadInput(
                f"path={str(name)!r} names no session file.",
                fix="Send the file's path below ~/.claude/projects; it ends in .jsonl.",
            )
        line = _number(request.query_params.get("line"), "line")
        body = await _read_body(request, parts.settings.max_inflated_bytes)
        report = await run_in_threadpool(
            import_lines,
            str(name),
            BytesIO(body),
            parts.journal,
            first_line=line or 1,
            credential=current_caller.get().credential,
        )
        return JSONResponse(report.as_dict())

    return intake


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BadInput(f"The body is larger than {limit} bytes.")
    return bytes(body)


async def _read_document(request: Request) -> dict[str, Any]:
    body = await _read_body(request, MAX_DOCUMENT_BYTES)
    try:
        document = json.loads(body or b"{}")
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise BadInput("The body is no JSON.", why=str(error)) from error
    if not isinstance(document, dict):
        raise BadInput("The body must be one JSON object.")
    return document


def _spend_options(request: Request) -> dict[str, Any]:
    query = request.query_params
    return {
        "by": query.get("by", "developer"),
        "since": query.get("since"),
        "until": query.get("until"),
        "level": _number(query.get("level"), "level"),
        "charge_version": _number(query.get("charge_version"), "charge_version"),
    }


def _list_options(request: Request) -> dict[str, Any]:
    query = request.query_params
    options: dict[str, Any] = {
        name: query.get(name)
        for name in ("cursor", "developer", "repository", "model", "org", "cluster")
    }
    limit = _number(query.get("limit"), "limit")
    options["limit"] = DEFAULT_ROWS if limit is None else limit
    options["sort"] = query.get("sort", "started")
    options["disagreeing"] = query.get("disagreeing") == "1"
    return options


def _number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < MAX_DIGITS):
        raise BadInput(f"{name}={text!r} is no whole number.")
    return int(text)
