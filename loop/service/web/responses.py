"""Turns a template and its context into a response, with the headers that every page carries."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from loop.domain.errors import TurnwiseError
from loop.service.http_errors import STATUS_OF
from loop.service.web.formats import FILTERS, finalize, is_simulated

API_PREFIX = "/v1"  # the JSON twin of page /x is /v1/x
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_VENDORED_SECONDS = 31_536_000  # a vendored file has its version in its name and never changes


@dataclass(frozen=True, slots=True)
class Page:
    """What the frame around every page needs: ``section`` is the marked entry of the menu,
    ``twin`` the address of the same data as JSON, ``crumbs`` the way back as (words, address)."""

    title: str
    section: str
    twin: str
    crumbs: tuple[tuple[str, str], ...] = ()


def path_of(*parts: object) -> str:
    """A path with each part quoted, a slash inside a part included."""
    return "/" + "/".join(quote(str(part), safe="", errors="replace") for part in parts)


def query_of(values: Mapping[str, object]) -> str:
    """``?a=b`` of the values that are set; empty when none is."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


def make_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("loop.service.web"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(path_of=path_of, query_of=query_of)
    environment.tests["simulated"] = is_simulated
    return environment


_ENVIRONMENT = make_environment()


def render(
    request: Request,
    template: str,
    page: Page,
    *,
    status_code: int = 200,
    private: bool = False,
    **context: Any,
) -> Response:
    """A full page, or its live region alone when htmx asks for that.

    ``private`` pages hold texts of sessions: no cache may keep them.
    """
    partial = request.headers.get("HX-Request-Type") == "partial"
    body = _ENVIRONMENT.get_template(template).render(
        page=page, partial=partial, now_us=time.time_ns() // 1_000, **context
    )
    headers = {
        **SECURITY_HEADERS,
        "Cache-Control": "no-store" if private else "private, no-cache",
        "Vary": "HX-Request-Type",
    }
    return HTMLResponse(body, status_code, headers)


def render_error(
    request: Request, error: TurnwiseError, section: str = "", *, back: str = ""
) -> Response:
    """The error as a page: what, why and what to do, with the status that the API would give.

    ``back`` is the address of what the failed move was about.
    """
    status = next(code for kind, code in STATUS_OF.items() if isinstance(error, kind))
    page = Page(error.what, section, API_PREFIX + (back or request.url.path))
    return render(request, "error.html", page, status_code=status, error=error, back=back)


class PageFiles(StaticFiles):
    """Style sheets and scripts; vendored ones are kept by the browser for good."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(SECURITY_HEADERS)
        kept = f"public, max-age={_VENDORED_SECONDS}, immutable"
        response.headers["Cache-Control"] = kept if path.startswith("vendor") else "no-cache"
        return response
