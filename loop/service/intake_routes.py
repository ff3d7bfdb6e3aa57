"""The routes of what comes in: session files, decisions, and what became of all that came."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from collectors.decision_intake import accept_decisions
from collectors.refusals import REASONS, Refusals
from collectors.transcripts import import_lines
from loop.access.callers import Caller, current_caller
from loop.domain.errors import BadInput
from loop.service.assemble import Parts
from loop.service.intake_readings import IntakeReadings
from loop.service.json_routes import get, number, post, read_body
from loop.service.route_rules import CALLER

MAX_NAME_BYTES = 255  # of a part of a path
TAKEN_IN = {"/v1/transcripts": "transcript", "/v1/gateway/decisions": "decisions"}


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


def decision_intake(parts: Parts) -> Callable[[Request], Any]:
    """Takes the decisions that gateways report."""

    async def intake(request: Request) -> Response:
        body = await read_body(request, parts.settings.max_body_bytes)
        accepted = await accept_decisions(
            parts.journal, body, credential=current_caller.get().credential
        )
        return JSONResponse({"accepted": accepted})

    return intake


def transcript_intake(parts: Parts) -> Callable[[Request], Any]:
    """Takes a part of a session file, named by its path and first line."""

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
        line = number(request.query_params.get("line"), "line")
        body = await read_body(request, parts.settings.max_inflated_bytes)
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


class CountRefusals:
    """Counts bodies of session files and decisions that are answered with an error, as the OTLP
    receivers count theirs: on the disk before the answer."""

    def __init__(self, app: ASGIApp, refusals: Callable[[], Refusals]) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = TAKEN_IN.get(scope["path"]) if scope["type"] == "http" else None
        if kind is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in REASONS:
                caller: Caller | None = scope.get(CALLER)
                credential = caller.credential if caller else ""
                reason = REASONS[message["status"]]
                await self._refusals().count(kind, "json", credential, reason)
            await send(message)

        await self._app(scope, receive, counted)


def _intake_options(request: Request) -> dict[str, Any]:
    query = request.query_params
    return {
        "by": query.get("by", "source"),
        "since": query.get("since"),
        "until": query.get("until"),
    }
