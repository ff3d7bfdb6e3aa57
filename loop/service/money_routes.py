"""The routes of money: price books, charges, statements, what was billed, and budgets."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from loop.ledger.statement_formats import CONTENT_TYPES
from loop.service.assemble import Parts
from loop.service.budget_readings import Budgets
from loop.service.json_routes import get, post
from loop.service.price_desk import PriceDesk
from loop.service.request_callers import view_of_caller
from loop.service.statement_desk import StatementDesk


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


def _org(request: Request) -> str:
    return request.query_params.get("org", "").strip("/")
