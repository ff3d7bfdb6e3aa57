"""One error envelope for every route of the API: ``{"error": {code, what, why, fix}}``."""

from __future__ import annotations

from collections.abc import Mapping

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

STATUS_OF: Mapping[type[TurnwiseError], int] = {
    BadInput: 400,
    Refused: 403,
    NotFound: 404,
    Conflict: 409,
    Corrupt: 500,
    Unavailable: 503,
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


def answer_http_exception(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = _CODE_OF_STATUS.get(error.status_code, "error")
    envelope = {"code": code, "what": error.detail, "why": "", "fix": ""}
    return JSONResponse({"error": envelope}, error.status_code, error.headers)
