"""The routes of ``/v1/lake``."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute

from loop.domain.errors import BadInput
from loop.service.assemble import Parts
from loop.service.json_routes import Answer, get, post
from loop.service.lake_keeping import LakeKeeper
from loop.service.retention_keeping import RetentionKeeper, change_from


def lake_routes(parts: Parts) -> list[BaseRoute]:
    """Status, verification and the verbs that change tables. What destroys is a dry run unless
    ``dry_run`` is ``false``."""

    def keeper() -> LakeKeeper:
        return LakeKeeper(parts)

    def long(verb: str, path: str, act: Answer) -> BaseRoute:
        def answer(request: Request, document: dict[str, Any]) -> dict[str, Any]:
            with parts.work.running(verb):
                return act(request, document)

        return post(path, answer)

    def restore(_: Request, document: dict[str, Any]) -> dict[str, Any]:
        version = document.get("version")
        if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
            raise BadInput("version must be a whole number.")
        return keeper().restore(
            _text(document, "table"),
            version=version,
            at=_text(document, "at") or None,
            dry_run=_is_dry_run(document),
        )

    def erase(_: Request, document: dict[str, Any]) -> dict[str, Any]:
        return keeper().erase(
            _text(document, "developer"),
            asked_by=_text(document, "actor"),
            reason=_text(document, "reason"),
            dry_run=_is_dry_run(document),
        )

    def hold(_: Request, document: dict[str, Any]) -> dict[str, Any]:
        return keeper().holds.add(
            _text(document, "kind"),
            _text(document, "value"),
            reason=_needed(document, "reason"),
            placed_by=_needed(document, "actor"),
        )

    return [
        get("/v1/lake", lambda request, _: keeper().status()),
        get("/v1/lake/work", lambda request, _: _rows(parts.work.rows())),
        long("verify", "/v1/lake/verify", lambda _, body: keeper().verify(_tables(body))),
        long("compact", "/v1/lake/compact", lambda _, body: keeper().compact(_tables(body))),
        long("restore", "/v1/lake/restore", restore),
        get("/v1/lake/erasures", lambda request, _: _rows(keeper().erasures.list())),
        long("erase", "/v1/lake/erasures", erase),
        long(
            "erase",
            "/v1/lake/erasures/resume",
            lambda _, document: keeper().resume(dry_run=_is_dry_run(document)),
        ),
        get("/v1/lake/retention", lambda request, _: RetentionKeeper(parts).show()),
        post(
            "/v1/lake/retention",
            lambda _, document: RetentionKeeper(parts).set(
                change_from(document),
                actor=_needed(document, "actor"),
                reason=_needed(document, "reason"),
            ),
        ),
        long(
            "retention",
            "/v1/lake/retention/apply",
            lambda _, document: RetentionKeeper(parts).apply(dry_run=_is_dry_run(document)),
        ),
        get("/v1/lake/holds", lambda request, _: _rows(keeper().holds.list())),
        post("/v1/lake/holds", hold),
        post(
            "/v1/lake/holds/{hold_id}/release",
            lambda request, document: keeper().holds.release(
                request.path_params["hold_id"], released_by=_needed(document, "actor")
            ),
        ),
    ]


def _rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": rows, "next": None}


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{name} must be a text, not {value!r}.")
    return (value or "").strip()


def _needed(document: dict[str, Any], name: str) -> str:
    if not (value := _text(document, name)):
        raise BadInput(f'Send "{name}".')
    return value


def _is_dry_run(document: dict[str, Any]) -> bool:
    value = document.get("dry_run", True)
    if not isinstance(value, bool):
        raise BadInput(f"dry_run must be true or false, not {value!r}.")
    return value


def _tables(document: dict[str, Any]) -> list[str]:
    tables = document.get("tables") or []
    if not isinstance(tables, list) or not all(isinstance(name, str) for name in tables):
        raise BadInput("tables must be a list of names.")
    return tables
