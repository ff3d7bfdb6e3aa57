"""Who calls the API: the token that a request carries, and what its holder may see."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from loop.access.callers import CheckCaller, bearer_token, current_caller
from loop.access.view import ALL_ROWS, ALL_SENDERS, SenderView, View, senders_of, view_of
from loop.domain.errors import Refused, Unavailable
from loop.service.api_client import IN_PROCESS_HOST
from loop.service.assemble import Parts
from loop.service.http_errors import answer_turnwise_error
from loop.service.route_rules import CALLER
from loop.service.settings import is_loopback
from loop.service.web.actions import check_same_origin

SAFE_METHODS = frozenset({"GET", "HEAD"})
OPEN_PATHS = frozenset({"/healthz", "/readyz"})


def view_of_caller(parts: Parts) -> View:
    """What the caller of the request that is being answered may see."""
    caller = current_caller.get()
    return view_of(parts.directories.current(), caller.node_id) if caller.node_id else ALL_ROWS


def senders_of_caller(parts: Parts) -> SenderView:
    """Whose records, as they came in, the caller of that request may know of."""
    node_id = current_caller.get().node_id
    return senders_of(parts.directories.current(), node_id) if node_id else ALL_SENDERS


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
