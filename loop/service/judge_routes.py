"""The routes of ``/v1/judge`` and ``/v1/labels``."""

from __future__ import annotations

from starlette.routing import BaseRoute

from loop.service.assemble import Parts
from loop.service.json_routes import get, post
from loop.service.judge_desk import JudgeDesk


def judge_routes(parts: Parts) -> list[BaseRoute]:
    desk = JudgeDesk(parts)
    return [
        get("/v1/judge", lambda request, _: desk.show()),
        post("/v1/judge", lambda request, document: desk.run(document)),
        post("/v1/judge/collect", lambda request, _: desk.collect()),
        get("/v1/judge/calibration", lambda request, _: desk.calibration()),
        post("/v1/judge/anchors", lambda request, document: desk.freeze_anchors(document)),
        get(
            "/v1/labels",
            lambda request, _: desk.list_labels(request.query_params.get("rubric") or None),
        ),
        post("/v1/labels", lambda request, document: desk.add_labels(document)),
    ]
