"""A stand-in for the provider's Admin API on a real socket: keys, pages, limits and failures."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loop.ledger.statements import Month

KEY = "sk-ant-admin-fake"
KINDS = {
    "/v1/organizations/usage_report/messages": "usage",
    "/v1/organizations/cost_report": "cost",
}


@dataclass(slots=True)
class FakeAdminApi:
    """``results`` by kind and day; ``page_days`` days a page; ``failures`` are answered first, as
    (status, headers)."""

    url: str = ""
    results: dict[str, dict[str, list[dict[str, Any]]]] = field(
        default_factory=lambda: {"usage": {}, "cost": {}}
    )
    page_days: int = 31
    endless: bool = False
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)

    def usage(self, day: str, model: str, tier: str = "standard", **tokens: int) -> None:
        result = {
            "api_key_id": None,
            "workspace_id": None,
            "model": model,
            "service_tier": tier,
            "context_window": None,
            "uncached_input_tokens": tokens.get("input_tokens", 0),
            "output_tokens": tokens.get("output_tokens", 0),
            "cache_read_input_tokens": tokens.get("cache_read_tokens", 0),
            "cache_creation": {
                "ephemeral_5m_input_tokens": tokens.get("cache_creation_5m_tokens", 0),
                "ephemeral_1h_input_tokens": tokens.get("cache_creation_1h_tokens", 0),
            },
            "server_tool_use": {"web_search_requests": tokens.get("web_search", 0)},
        }
        self.results["usage"].setdefault(day, []).append(result)

    def cost(self, day: str, model: str | None, token_type: str | None, cents: str) -> None:
        result = {
            "currency": "USD",
            "amount": cents,
            "workspace_id": None,
            "description": f"{model} {token_type}",
            "cost_type": "tokens" if token_type else "code_execution",
            "context_window": None,
            "model": model,
            "service_tier": "standard" if token_type else None,
            "token_type": token_type,
        }
        self.results["cost"].setdefault(day, []).append(result)

    def page(self, kind: str, query: dict[str, list[str]]) -> dict[str, Any]:
        first, end = query["starting_at"][0][:10], query["ending_at"][0][:10]
        days = [day for day in _days(first, end) if day >= query.get("page", [""])[0]]
        shown = days[: min(self.page_days, int(query["limit"][0]))]
        more = len(days) > len(shown) or self.endless
        buckets = [
            {
                "starting_at": f"{day}T00:00:00Z",
                "ending_at": f"{day}T23:59:59Z",
                "results": self.results[kind].get(day, []),
            }
            for day in shown
        ]
        following = days[len(shown)] if len(days) > len(shown) else first
        return {"data": buckets, "has_more": more, "next_page": following if more else None}


def _days(first: str, end: str) -> list[str]:
    return [day for day in Month.parse(first[:7]).days() if first <= day < end]


@contextmanager
def fake_admin_api() -> Iterator[FakeAdminApi]:
    api = FakeAdminApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            headers = {name.lower(): value for name, value in self.headers.items()}
            api.requests.append((parts.path, query, headers))
            if api.failures:
                status, given = api.failures.pop(0)
                return self._answer(status, {"error": {"message": "later"}}, given)
            if headers.get("x-api-key") != KEY:
                return self._answer(401, {"error": {"message": "invalid x-api-key"}}, {})
            if parts.path not in KINDS or headers.get("anthropic-version") != "2023-06-01":
                return self._answer(404, {"error": {"message": "not found"}}, {})
            return self._answer(200, api.page(KINDS[parts.path], query), {})

        def _answer(self, status: int, document: object, headers: dict[str, str]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
