"""The command line's one way in: the HTTP API, of a server or of this very process.

With ``--api URL`` requests go over the network; with a data folder they go to the same ASGI
application assembled here. So every command prints what the API answers, either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx
from starlette.types import ASGIApp

from loop.domain.errors import (
    BadInput,
    Conflict,
    Corrupt,
    NotFound,
    Refused,
    TurnwiseError,
    Unavailable,
)

ERRORS: Mapping[str, type[TurnwiseError]] = {
    kind.code: kind for kind in (BadInput, Conflict, Corrupt, NotFound, Refused, Unavailable)
} | {"unauthorized": Refused, "method_not_allowed": BadInput}
TIMEOUT_SECONDS = 120.0
WATCH_SECONDS = 0.5  # between two looks at what long work is at
IN_PROCESS_HOST = "turnwise"  # the name that an application in this process is called by


class ApiClient:
    """Speaks the API and raises the error that the envelope names."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str = "",
        app: ASGIApp | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_close = on_close
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(
            base_url=base_url,
            # What the application answers to a fault of its own is an answer, too.
            transport=httpx.ASGITransport(app, raise_app_exceptions=False) if app else None,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT_SECONDS,
        )

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        given = {name: value for name, value in parameters.items() if value is not None}
        return self.request("GET", path, params=given)

    def post(self, path: str, document: object = None) -> dict[str, Any]:
        return self.request("POST", path, json=document if document is not None else {})

    def text(self, path: str, **parameters: Any) -> str:
        """The body of an answer that is no JSON document, exactly."""
        given = {name: value for name, value in parameters.items() if value is not None}
        response = self._send("GET", path, params=given)
        if not response.is_success:
            self._read("GET", path, response)  # raises what it says
        return response.content.decode("utf-8")

    def request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return self._read(method, path, self._send(method, path, **options))

    def watch(
        self, path: str, document: object, tell: Callable[[str], None], work: str
    ) -> dict[str, Any]:
        """Posts what takes long, and tells meanwhile each step that the server is at.

        ``work`` is the path that answers with what runs; where it can't be read, nothing is told.
        """
        return self._read("POST", path, self._watched(path, document, tell, work))

    def _watched(
        self, path: str, document: object, tell: Callable[[str], None], work: str
    ) -> httpx.Response:
        async def run() -> httpx.Response:
            asked = asyncio.create_task(self._client.post(path, json=document, timeout=None))
            told = ""
            while not (await asyncio.wait({asked}, timeout=WATCH_SECONDS))[0]:
                step = await self._step(work)
                if step and step != told:
                    tell(step)
                    told = step
            return await asked

        return self._run(run())

    async def _step(self, work: str) -> str:
        with suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            rows = (await self._client.get(work)).json()["rows"]
            return "; ".join(f"{row['verb']}: {row['step']}" for row in rows if row["step"])
        return ""

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._run(self._client.request(method, path, **options))

    def _run(self, asking: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        try:
            return self._runner.run(asking)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"{self._client.base_url} does not answer.",
                why=str(error) or type(error).__name__,
                fix="Start it with `turnwise serve`, or give another --api.",
            ) from error

    def _read(self, method: str, path: str, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError as error:
            raise Unavailable(
                f"{self._client.base_url} answered {response.status_code} without JSON.",
                fix="Is that a turnwise server?",
            ) from error
        if response.is_success:
            return dict(answer)
        envelope = answer.get("error") or {}
        kind = ERRORS.get(envelope.get("code", ""), Unavailable)
        told = kind(
            envelope.get("what") or f"{method} {path} answered {response.status_code}.",
            why=envelope.get("why", ""),
            fix=envelope.get("fix", ""),
        )
        retry_after = response.headers.get("retry-after", "")
        if isinstance(told, Unavailable) and retry_after.isdecimal():
            told.retry_after_seconds = int(retry_after)
        raise told

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
        self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
