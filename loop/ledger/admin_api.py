"""Anthropic's Admin API: the usage and the cost report of an organization, day by day.

The address comes from a setting and nowhere else: no redirect is followed, and the pages are named
by tokens, never by addresses. It must be ``https`` unless it is on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from loop import __version__
from loop.domain.errors import BadInput, Corrupt, Refused, Unavailable
from loop.ledger.billing_reports import BillingReport, ReportKind, read_pages
from loop.ledger.statements import Month

API_VERSION = "2023-06-01"
PATHS: dict[ReportKind, str] = {
    "usage": "/v1/organizations/usage_report/messages",
    "cost": "/v1/organizations/cost_report",
}
_GROUPS: dict[ReportKind, tuple[str, ...]] = {
    "usage": ("model", "service_tier"),
    "cost": ("description",),
}
MAX_BUCKETS = 31
MAX_PAGES = 1000
ATTEMPTS = 6
LONGEST_PAUSE_SECONDS = 60.0
TIMEOUT_SECONDS = 60.0
_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
Parameters = list[tuple[str, str | int | float | bool | None]]
_LOCAL = ("127.0.0.1", "localhost", "::1")


class AdminApi:
    """A client of one organization. Raises :class:`BadInput` for an address or key it can't use."""

    def __init__(
        self, base_url: str, key: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        parts = urlsplit(base_url)
        is_local = parts.hostname in _LOCAL
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username:
            raise BadInput(
                f"{base_url!r} is no address of an API.",
                fix="Set TURNWISE_BILLING_BASE_URL to https://HOST.",
            )
        if parts.scheme == "http" and not is_local:
            raise BadInput("The Admin API is spoken to by https only.", fix="Write https://.")
        if not key:
            raise BadInput(
                "There is no key of the Admin API.",
                fix="Set ANTHROPIC_ADMIN_KEY to an Admin API key, or give the reports as files.",
            )
        self._sleep = sleep
        self._client = httpx.Client(
            base_url=base_url,
            headers={
                "x-api-key": key,
                "anthropic-version": API_VERSION,
                "user-agent": f"turnwise/{__version__}",
            },
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
        )

    def fetch(
        self, kind: ReportKind, month: Month, workspaces: tuple[str, ...] = ()
    ) -> BillingReport:
        """The report of a month, all pages of it.

        ``workspaces`` restricts usage to these; the cost report has no such filter. Raises
        :class:`Refused` for a key that may not, :class:`Unavailable` when the API does not answer
        after several tries, :class:`Corrupt` for pages that do not end.
        """
        source = f"Admin API {PATHS[kind]}"
        try:
            return read_pages(self._pages(kind, month, workspaces), source, kind)
        except BadInput as error:
            raise Corrupt("The provider's report can't be read.", why=str(error)) from error

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pages(self, kind: ReportKind, month: Month, workspaces: tuple[str, ...]) -> Iterator[Any]:
        parameters: Parameters = [
            ("starting_at", f"{month.first_day}T00:00:00Z"),
            ("ending_at", f"{month.end_day}T00:00:00Z"),
            ("bucket_width", "1d"),
            ("limit", MAX_BUCKETS),
            *(("group_by[]", group) for group in _GROUPS[kind]),
        ]
        if kind == "usage":
            parameters += [("workspace_ids[]", workspace) for workspace in workspaces]
        page, seen = "", set[str]()
        while True:
            more = [("page", page)] if page else []
            answer = self._get(PATHS[kind], [*parameters, *more])
            yield answer
            if not answer.get("has_more"):
                return
            page = str(answer.get("next_page") or "")
            if not page or page in seen or len(seen) >= MAX_PAGES:
                raise Corrupt("The pages of the provider's report do not end.")
            seen.add(page)

    def _get(self, path: str, parameters: Parameters) -> dict[str, Any]:
        problem = ""
        for attempt in range(ATTEMPTS):
            pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2**attempt)
            try:
                response = self._client.get(path, params=httpx.QueryParams(parameters))
            except httpx.HTTPError as error:
                problem = str(error) or type(error).__name__
            else:
                if response.is_success:
                    return _read(response)
                problem = f"It answered {response.status_code}: {_message(response)}"
                if response.status_code in (401, 403):
                    raise Refused(
                        "The provider refuses this key.",
                        why=problem,
                        fix="It must be an Admin API key (sk-ant-admin…) of the organization.",
                    )
                if response.status_code not in _AGAIN:
                    raise Unavailable("The provider does not give the report.", why=problem)
                pause = _retry_after(response, pause)
            if attempt + 1 < ATTEMPTS:
                self._sleep(pause)
        raise Unavailable(
            "The provider's Admin API does not answer.",
            why=problem,
            fix="Try again later, or give the reports as files.",
            retry_after_seconds=int(LONGEST_PAUSE_SECONDS),
        )


def _read(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError as error:
        raise Corrupt("The provider's report is no JSON.", why=str(error)) from error
    if not isinstance(document, dict):
        raise Corrupt("The provider's report is no JSON object.")
    return document


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _retry_after(response: httpx.Response, default: float) -> float:
    try:
        return min(LONGEST_PAUSE_SECONDS, max(0.0, float(response.headers["retry-after"])))
    except (KeyError, ValueError):
        return default
