"""One error envelope for every route of the API: ``{"error": {code, what, why, fix}}``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from loop.domain.errors import (
    BadInput,
    Conflict,
    Corrupt,
    NotFound,
    Refused,
    TurnwiseError,
    Unavailable,
)

logger = logging.getLogger("turnwise")
STATUS_OF: Mapping[type[TurnwiseError], int] = {
    BadInput: 400,
    Refused: 403,
    NotFound: 404,
    Conflict: 409,
    Corrupt: 500,
    Unavailable: 503,
}
INTERNAL = {
    "code": "internal",
    "what": "Something went wrong in turnwise itself.",
    "why": "",
    "fix": "The server's log has the cause; please report it.",
}
_CODE_OF_STATUS = {401: "unauthorized", 404: "not_found", 405: "method_not_allowed"}


def answer_turnwise_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, TurnwiseError):
        raise error
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_seconds)
    status = next(code for kind, code in STATUS_OF.items() if isinstance(error, kind))
    return JSONResponse({"error": error.as_dict()}, status, headers)


def answer_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = _CODE_OF_STATUS.get(error.status_code, "error")
    what = f"{request.method} {request.url.path}: {error.detail}."
    envelope = {"code": code, "what": what, "why": "", "fix": "docs/http-api.md has the routes."}
    return JSONResponse({"error": envelope}, error.status_code, error.headers)


def answer_database_error(request: Request, error: Exception) -> Response:
    """The database went away between two calls; the stores that look for it say so themselves."""
    if not isinstance(error, OperationalError):
        raise error
    away = Unavailable(
        "The control database does not answer.",
        why=str(error.orig),
        fix="Check TURNWISE_DATABASE_URL and that the server runs.",
    )
    return answer_turnwise_error(request, away)


def answer_fault(request: Request, error: Exception) -> Response:
    """The last resort: the cause goes to the log, never to the caller."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": INTERNAL}, 500)


ERROR_HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Response]] = {
    TurnwiseError: answer_turnwise_error,
    HTTPException: answer_http_exception,
    OperationalError: answer_database_error,
    Exception: answer_fault,
}
"""What an application of Starlette's takes as its ``exception_handlers``."""
