"""The routes of ``/v1/tokens`` and ``/v1/org``."""

from __future__ import annotations

from starlette.routing import BaseRoute

from loop.service.access_desk import AccessDesk
from loop.service.json_routes import get, post


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
