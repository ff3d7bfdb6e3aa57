"""A browser without JavaScript: plain requests to the pages, no redirect followed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.types import ASGIApp

from loop.service.web import web_routes

ORIGIN = "http://127.0.0.1:8080"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}


class AppClient:
    """Speaks to an ASGI application in this process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self._request("GET", path, headers=headers)

    def post(
        self, path: str, data: dict[str, str], headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return self._request("POST", path, data=data, headers=headers)

    def post_json(self, path: str, document: dict[str, Any]) -> httpx.Response:
        return self._request("POST", path, json=document)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def request() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                return await client.request(method, path, **options)

        return asyncio.run(request())


class PageClient(AppClient):
    """Speaks to the pages alone, over given readings."""

    def __init__(
        self,
        readings: Any,
        act: Callable[..., object] | None = None,
        add_label: Callable[..., object] | None = None,
    ) -> None:
        super().__init__(Starlette(routes=web_routes(readings, act, add_label)))
