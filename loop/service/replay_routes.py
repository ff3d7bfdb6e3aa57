"""The routes of ``/v1/replay``: what a policy document would have cost, and how far to trust it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute

from loop.domain.policy_documents import parse_policy
from loop.service.assemble import Parts
from loop.service.json_routes import get, post
from loop.service.logged_turns import calibration_of, replay_policy
from loop.service.request_callers import view_of_caller


def replay_routes(parts: Parts) -> list[BaseRoute]:
    """Both read the turns that the caller may see, and change nothing."""

    def replay(_: Request, document: dict[str, Any]) -> dict[str, Any]:
        policy = parse_policy(document.get("policy"))
        active = parts.versions.active_version(parts.settings.channel)
        incumbent = active.policy if active else None
        return replay_policy(parts, policy, incumbent, view_of_caller(parts))

    return [
        post("/v1/replay", replay),
        get(
            "/v1/replay/calibration",
            lambda request, _: calibration_of(parts, view_of_caller(parts)),
        ),
    ]
