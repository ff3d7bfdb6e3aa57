"""Every route answers bad input with the one envelope and the right status, and never with 500."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loop.service.assemble import Parts, assemble
from loop.service.http_api import api_app
from loop.service.http_errors import ERROR_HANDLERS
from loop.service.json_routes import MAX_DOCUMENT_BYTES
from loop.service.settings import load_settings
from optimizers.classic import classic_policy

HUGE = 10**25
WHO = {"actor": "ada", "reason": "a test"}
POLICY = classic_policy().to_document()
POSTS = (
    "/v1/evaluate",
    "/v1/clusters",
    "/v1/runs",
    "/v1/policies",
    "/v1/policies/1/approve",
    "/v1/explorations",
    "/v1/replay",
    "/v1/rollouts/none/pause",
    "/v1/gateway/ack",
    "/v1/gateway/decisions",
)
GETS = (
    "/healthz",
    "/readyz",
    "/v1/overview",
    "/v1/settings",
    "/v1/spend",
    "/v1/sessions",
    "/v1/sessions/none",
    "/v1/reach",
    "/v1/replay/calibration",
    "/v1/runs/none",
    "/v1/policies/1",
    "/v1/policies/1...1",
    "/v1/rollouts",
    "/v1/rollouts/none",
    "/v1/gateway/policy",
    "/v1/gateway/keys",
)


def cursor_of(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


class Api:
    """The application, called in this process; faults are answered, not raised."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:8080"
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """A folder in which version 1 is active and version 2 is proposed."""
    parts = assemble(load_settings({}, data_dir=tmp_path_factory.mktemp("data")))
    api = Api(api_app(parts))
    proposed = api.request("POST", "/v1/policies", json={"policy": POLICY, "actor": "ada"})
    assert proposed.json()["version"] == 2
    yield parts
    parts.close()


@pytest.fixture(scope="module")
def api(parts: Parts) -> Api:
    return Api(api_app(parts))


def assert_refused(response: httpx.Response, status: int, code: str) -> dict[str, str]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    document = response.json()
    assert document.keys() == {"error"}
    error: dict[str, str] = document["error"]
    assert error.keys() == {"code", "what", "why", "fix"}
    assert all(isinstance(value, str) for value in error.values())
    assert error["code"] == code
    assert error["what"]
    assert "Traceback" not in response.text
    return error


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1",
        "/v1/nothing",
        "/v1/sessions/none",
        "/v1/sessions/%00",
        "/v1/sessions/%ff",
        "/v1/sessions/a/b",
        "/v1/policies/99",
        "/v1/policies/-1",
        "/v1/policies/x",
        f"/v1/policies/{HUGE}",
        "/v1/policies/1...99",
        f"/v1/policies/1...{HUGE}",
        "/v1/runs/none",
        "/v1/rollouts/none",
        "/v1/rollouts/latest",
        "/v1/gateway/policy?channel=none",
    ],
)
def test_what_is_not_there_is_not_found(api: Api, path: str) -> None:
    assert_refused(api.request("GET", path), 404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/spend?by=colour",
        "/v1/spend?by=developer,colour",
        "/v1/spend?since=yesterday",
        "/v1/spend?until=2026-13-01",
        "/v1/spend?since=2026-1-1",
        "/v1/spend?level=2",
        "/v1/spend?by=org&level=0",
        "/v1/spend?by=org&level=9",
        "/v1/spend?by=org&level=two",
        "/v1/spend?by=org&level=" + "9" * 30,
        "/v1/sessions?limit=0",
        "/v1/sessions?limit=-1",
        "/v1/sessions?limit=501",
        "/v1/sessions?limit=%C2%B2",
        "/v1/sessions?limit=" + "9" * 5000,
        "/v1/sessions?sort=size",
        "/v1/sessions?cursor=zzz",
        "/v1/sessions?cursor=%C3%A4",
        "/v1/sessions?cursor=" + cursor_of([1]),
        "/v1/sessions?cursor=" + cursor_of({"offset": -1}),
        "/v1/sessions?cursor=" + cursor_of({"offset": True}),
        "/v1/sessions?cursor=" + cursor_of({"offset": HUGE}),
        "/v1/sessions?cursor=" + base64.urlsafe_b64encode(b"[" * 30_000).decode(),
        "/v1/gateway/policy?wait=x",
        "/v1/gateway/policy?wait=nan",
        "/v1/gateway/policy?wait=-1",
    ],
)
def test_a_parameter_that_is_wrong_is_bad_input(api: Api, path: str) -> None:
    assert_refused(api.request("GET", path), 400, "bad_input")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a": 1} and more',
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"actor": "\\ud800", "reason": "half a pair"}',
        b'{"actor": ' + b"9" * 5000 + b"}",
        b" " * (17 * 1024 * 1024),
    ],
    ids=[
        "cut short",
        "followed",
        "null",
        "text",
        "no utf-8",
        "deep list",
        "deep object",
        "half a surrogate pair",
        "long number",
        "oversized",
    ],
)
def test_a_body_that_is_no_document_is_bad_input(api: Api, path: str, body: bytes) -> None:
    assert_refused(api.request("POST", path, content=body), 400, "bad_input")


@pytest.mark.parametrize("path", [path for path in POSTS if path != "/v1/gateway/decisions"])
def test_a_list_is_no_document(api: Api, path: str) -> None:
    assert_refused(api.request("POST", path, json=[{"actor": "ada"}]), 400, "bad_input")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "x.txt",
        "../x.jsonl",
        "a/../../x.jsonl",
        "a%00b.jsonl",
        "%0a.jsonl",
        "x" * 300 + ".jsonl",
    ],
)
def test_a_session_file_needs_a_name(api: Api, path: str) -> None:
    refused = api.request("POST", f"/v1/transcripts?path={path}", content=b"{}\n")
    assert_refused(refused, 400, "bad_input")


def test_a_session_file_of_broken_lines_names_them(api: Api) -> None:
    answer = api.request("POST", "/v1/transcripts?path=p/s.jsonl", content=b"{\n\xff\n[1]\n")
    assert answer.status_code == 200
    assert [problem["line"] for problem in answer.json()["problems"]] == [1, 2, 3]
    assert {problem["path"] for problem in answer.json()["problems"]} == {"p/s.jsonl"}


def test_the_largest_document_is_read(api: Api) -> None:
    body = json.dumps({"everything": False})
    padded = body + " " * (MAX_DOCUMENT_BYTES - len(body))
    assert api.request("POST", "/v1/evaluate", content=padded).status_code == 200
    assert_refused(api.request("POST", "/v1/evaluate", content=padded + " "), 400, "bad_input")


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v1/evaluate", {"everything": "no"}),
        ("/v1/policies", {}),
        ("/v1/policies", {"policy": POLICY}),
        ("/v1/policies", {"policy": POLICY, "actor": " "}),
        ("/v1/policies", {"policy": POLICY, "actor": 7}),
        ("/v1/policies", {"policy": {}, "actor": "ada"}),
        ("/v1/policies", {"policy": "text", "actor": "ada"}),
        ("/v1/policies", {"policy": POLICY | {"unit": "century"}, "actor": "ada"}),
        ("/v1/policies", {"policy": POLICY | {"more": 1}, "actor": "ada"}),
        ("/v1/policies/2/submit", {}),
        ("/v1/policies/2/submit", {"actor": "ada"}),
        ("/v1/policies/2/submit", {"actor": "ada", "reason": ["x"]}),
        ("/v1/policies/2/approve", WHO | {"review_cycle": "one"}),
        ("/v1/policies/2/approve", WHO | {"review_cycle": True}),
        ("/v1/runs", {"trials": 0}),
        ("/v1/runs", {"trials": "many"}),
        ("/v1/runs", {"trials": 1.5}),
        ("/v1/runs", {"trials": HUGE}),
        ("/v1/runs", {"seed": -1}),
        ("/v1/runs", {"margin": True}),
        ("/v1/runs", {"margin": 2}),
        ("/v1/runs", {"seconds": 10**400}),
        ("/v1/runs", {"propose": "yes"}),
        ("/v1/explorations", WHO),
        ("/v1/explorations", WHO | {"arms": {}}),
        ("/v1/explorations", WHO | {"arms": [2, 0.5]}),
        ("/v1/explorations", WHO | {"arms": {"2": "half"}}),
        ("/v1/explorations", WHO | {"arms": {"2": 0}}),
        ("/v1/explorations", WHO | {"arms": {"2": 1.5}}),
        ("/v1/explorations", WHO | {"arms": {"²": 0.5}}),
        ("/v1/explorations", WHO | {"arms": {"two": 0.5}}),
        ("/v1/explorations", WHO | {"arms": {"1": 0.5}}),
        ("/v1/explorations", {"arms": {"2": 0.5}}),
        ("/v1/rollouts/none/pause", {}),
        ("/v1/gateway/ack", {"instance": "edge-1"}),
        ("/v1/gateway/ack", {"instance": 7, "serial": 1, "status": "applied"}),
        ("/v1/gateway/ack", {"instance": "edge-1", "serial": -1, "status": "applied"}),
        ("/v1/gateway/ack", {"instance": "edge-1", "serial": 1, "status": "eaten"}),
        ("/v1/gateway/decisions", {"decision_id": "d1"}),
        ("/v1/gateway/decisions", [{"decision_id": "d1"}]),
        ("/v1/gateway/decisions", ["d1"]),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:50],
)
def test_a_document_of_the_wrong_shape_is_bad_input(api: Api, path: str, document: object) -> None:
    error = assert_refused(api.request("POST", path, json=document), 400, "bad_input")
    assert len(error["what"]) < 500


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/policies/2/fly", 404, "not_found"),
        ("/v1/policies/99/approve", 404, "not_found"),
        (f"/v1/policies/{HUGE}/approve", 404, "not_found"),
        ("/v1/rollouts/none/pause", 404, "not_found"),
        ("/v1/rollouts/none/fly", 404, "not_found"),
        ("/v1/policies/1/approve", 409, "conflict"),
        ("/v1/policies/1/publish", 409, "conflict"),
        ("/v1/policies/2/publish", 409, "conflict"),
        ("/v1/policies/2/approve", 409, "conflict"),
        ("/v1/policies/1/rollback", 403, "refused"),
    ],
)
def test_a_move_that_can_not_be_made_says_why(api: Api, path: str, status: int, code: str) -> None:
    before = api.request("GET", "/v1/policies").json()
    assert_refused(api.request("POST", path, json=WHO), status, code)
    assert api.request("GET", "/v1/policies").json() == before


@pytest.mark.parametrize("arms", [{"99": 0.5}, {"9" * 18: 0.5}])
def test_an_exploration_of_unknown_versions_is_not_found(api: Api, arms: dict[str, float]) -> None:
    serial = api.request("GET", "/v1/overview").json()["policy"]["serial"]
    refused = api.request("POST", "/v1/explorations", json=WHO | {"arms": arms})
    assert_refused(refused, 404, "not_found")
    assert api.request("GET", "/v1/overview").json()["policy"]["serial"] == serial


def test_an_exploration_needs_approved_versions(api: Api) -> None:
    refused = api.request("POST", "/v1/explorations", json=WHO | {"arms": {"2": 0.5}})
    assert refused.status_code in (403, 409)
    assert_refused(refused, refused.status_code, refused.json()["error"]["code"])


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_reading_routes_allow_reading_only(api: Api, path: str, method: str) -> None:
    response = api.request(method, path, json={})
    assert_refused(response, 405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/v1/evaluate", "/v1/explorations", "/v1/policies/1/approve"])
def test_acting_routes_are_not_read(api: Api, path: str) -> None:
    assert_refused(api.request("GET", path), 405, "method_not_allowed")


def test_a_store_that_is_away_is_503_with_retry_after(tmp_path: Path) -> None:
    parts = assemble(load_settings({}, data_dir=tmp_path))
    api = Api(api_app(parts))
    assert api.request("GET", "/readyz").status_code == 200
    parts.engine.dispose()
    for file in tmp_path.glob("control.db*"):
        file.unlink()
    (tmp_path / "control.db").mkdir()  # what can't be opened
    for path in ("/readyz", "/v1/policies", "/v1/rollouts", "/v1/runs", "/v1/overview"):
        response = api.request("GET", path)
        assert_refused(response, 503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0
    parts.close()


def test_a_fault_is_answered_and_its_cause_is_logged_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fault(_request: Request) -> Response:
        raise KeyError("a secret of the inside")

    app = Starlette(routes=[Route("/v1/fault", fault)], exception_handlers=ERROR_HANDLERS)
    with caplog.at_level(logging.ERROR, "turnwise"):
        response = Api(app).request("GET", "/v1/fault")
    assert_refused(response, 500, "internal")
    assert "secret" not in response.text
    assert "GET /v1/fault" in caplog.text
    assert "a secret of the inside" in caplog.text


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"measure": "input_tokens"}, 400, "bad_input"),
        ({"default": {"model": "no-such-model"}}, 400, "bad_input"),
        ({}, 409, "conflict"),  # no turns to replay it on
    ],
)
def test_a_replay_without_an_answer_is_an_error_and_no_number(
    api: Api, change: dict[str, Any], status: int, code: str
) -> None:
    assert_refused(
        api.request("POST", "/v1/replay", json={"policy": POLICY | change}), status, code
    )
