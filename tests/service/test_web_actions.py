"""The forms: who may send one, what it must hold, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from loop.domain.errors import Conflict, NotFound, Refused
from tests.service.web_client import SAME_ORIGIN, PageClient
from tests.service.web_readings import FilledReadings

FORM = {"actor": "grace", "reason": "numbers look right", "review_cycle": "3"}


class Recorder:
    """Remembers the moves it was asked for, or raises what it was given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.moves: list[tuple[Any, ...]] = []
        self._error = error

    def act(self, verb: str, target: int | str, actor: str, reason: str, cycle: int | None) -> None:
        if self._error:
            raise self._error
        self.moves.append((verb, target, actor, reason, cycle))


def test_an_approval_goes_through_with_its_review_cycle_and_shows_the_policy_again() -> None:
    recorder = Recorder()
    client = PageClient(FilledReadings(), recorder.act)
    response = client.post("/policies/2/approve", FORM, SAME_ORIGIN)
    assert response.status_code == 303
    assert response.headers["Location"] == "/policies/2"
    assert recorder.moves == [("approve", 2, "grace", "numbers look right", 3)]


@pytest.mark.parametrize("verb", ["pause", "resume", "rollback"])
def test_a_rollout_is_steered(verb: str) -> None:
    recorder = Recorder()
    form = {"actor": "grace", "reason": "odd latency"}
    response = PageClient(FilledReadings(), recorder.act).post(f"/rollouts/r-1/{verb}", form)
    assert response.status_code == 303
    assert recorder.moves == [(verb, "r-1", "grace", "odd latency", None)]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)
def test_a_form_from_elsewhere_is_refused(headers: dict[str, str]) -> None:
    recorder = Recorder()
    client = PageClient(FilledReadings(), recorder.act)
    response = client.post("/policies/2/approve", FORM, headers)
    assert response.status_code == 403
    assert recorder.moves == []


@pytest.mark.parametrize("missing", ["actor", "reason"])
def test_a_move_needs_a_name_and_a_reason(missing: str) -> None:
    recorder = Recorder()
    client = PageClient(FilledReadings(), recorder.act)
    response = client.post("/policies/2/approve", FORM | {missing: "  "}, SAME_ORIGIN)
    assert response.status_code == 400
    assert f"The {missing} is missing" in response.text
    assert recorder.moves == []


def test_a_stale_approval_says_that_it_changed_and_leads_back() -> None:
    error = Conflict("Version 2 is in review cycle 4; the decision is about 3.")
    client = PageClient(FilledReadings(), Recorder(error).act)
    response = client.post("/policies/2/approve", FORM, SAME_ORIGIN)
    assert response.status_code == 409
    assert "Changed since you looked" in response.text
    assert "review cycle 4" in response.text
    assert '<a href="/policies/2">See it as it is now</a>' in response.text


@pytest.mark.parametrize(
    ("error", "status"), [(Refused("Ask a second person."), 403), (NotFound("No version 2."), 404)]
)
def test_a_refusal_is_told_with_its_reason(error: Exception, status: int) -> None:
    client = PageClient(FilledReadings(), Recorder(error).act)
    response = client.post("/policies/2/approve", FORM, SAME_ORIGIN)
    assert response.status_code == status
    assert str(error) in response.text


@pytest.mark.parametrize("cycle", ["-1", "x", "3.5", "²"])
def test_a_review_cycle_is_a_whole_number(cycle: str) -> None:
    client = PageClient(FilledReadings(), Recorder().act)
    response = client.post("/policies/2/approve", FORM | {"review_cycle": cycle}, SAME_ORIGIN)
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        ("gate_inconclusive", {"submit", "reject"}),
        ("in_review", {"approve", "reject"}),
        ("approved", {"publish", "reject"}),
        ("canary", {"rollback"}),
        ("active", {"rollback"}),
        ("rolled_back", set()),
        ("superseded", set()),
    ],
)
def test_a_policy_offers_the_moves_of_its_state(state: str, verbs: set[str]) -> None:
    page = PageClient(FilledReadings(policy={"state": state}), Recorder().act).get("/policies/2")
    every = {"submit", "approve", "reject", "publish", "rollback"}
    assert {verb for verb in every if f'action="/policies/2/{verb}"' in page.text} == verbs


def test_pages_that_only_show_have_no_forms_and_no_routes_for_them() -> None:
    client = PageClient(FilledReadings())
    assert 'method="post"' not in client.get("/policies/2").text
    assert client.post("/policies/2/approve", FORM, SAME_ORIGIN).status_code in (404, 405)


def test_a_form_that_is_too_large_is_refused() -> None:
    recorder = Recorder()
    client = PageClient(FilledReadings(), recorder.act)
    response = client.post("/policies/2/approve", FORM | {"reason": "x" * 100_000}, SAME_ORIGIN)
    assert response.status_code in (400, 413)
    assert recorder.moves == []
