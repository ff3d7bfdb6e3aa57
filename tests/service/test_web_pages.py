"""Each page as a browser without JavaScript gets it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.service.web_client import PageClient
from tests.service.web_readings import (
    HOSTILE,
    SESSION_ID,
    EmptyReadings,
    FilledReadings,
    reach_rows,
)

PAGES = {
    "/": "/v1/overview",
    "/sessions": "/v1/sessions",
    f"/sessions/{SESSION_ID}": f"/v1/sessions/{SESSION_ID}",
    "/clusters": "/v1/clusters",
    "/runs": "/v1/runs",
    "/runs/run-2026-11-23-1": "/v1/runs/run-2026-11-23-1",
    "/policies": "/v1/policies",
    "/policies/2": "/v1/policies/2",
    "/policies/1...2": "/v1/policies/1...2",
    "/rollouts": "/v1/rollouts",
    "/rollouts/r-1": "/v1/rollouts/r-1",
    "/spend": "/v1/spend?by=org",
}
LISTS = ("/", "/sessions", "/clusters", "/runs", "/policies", "/rollouts", "/spend")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the ones left open."""

    VOID = frozenset({"meta", "link", "input", "br", "img", "rect", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def text_of(page: str) -> str:
    """The words of a page as a reader sees them."""
    without_scripts = re.sub(r"<script.*?</script>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without_scripts))


@pytest.mark.parametrize("path", PAGES)
def test_each_page_is_well_formed_and_names_its_json_twin(path: str) -> None:
    response = PageClient(FilledReadings(), act=lambda *_: None).get(path)
    assert response.status_code == 200
    page = Elements(response.text)
    assert page.open == []
    alternates = [link for link in page.all("link") if link.get("rel") == "alternate"]
    assert alternates == [{"rel": "alternate", "type": "application/json", "href": PAGES[path]}]
    assert PAGES[path] in [link["href"] for link in page.all("a")]
    assert len(page.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", PAGES)
def test_no_page_holds_inline_code_or_leaves_the_origin(path: str) -> None:
    response = PageClient(FilledReadings(), act=lambda *_: None).get(path)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag, attributes in Elements(response.text).found:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "script" and attributes.get("type") != "application/json":
            assert attributes["src"]
        for name in ("src", "href", "action", "hx-get"):
            assert (attributes.get(name) or "/")[:1] in "/#", attributes


@pytest.mark.parametrize("path", LISTS)
def test_a_fresh_installation_says_what_will_be_there(path: str) -> None:
    response = PageClient(EmptyReadings()).get(path)
    assert response.status_code == 200
    text = text_of(response.text)
    expected = {
        "/": "Nothing is published yet",
        "/sessions": "No sessions yet",
        "/clusters": "No clusters yet",
        "/runs": "No runs yet",
        "/policies": "No policies yet",
        "/rollouts": "No rollouts yet",
        "/spend": "Nothing spent yet",
    }
    assert expected[path] in text
    assert "<pre><code>" in response.text  # the one next step


def test_filters_that_match_nothing_are_another_sentence_than_no_sessions() -> None:
    response = PageClient(FilledReadings()).get("/sessions?developer=nobody")
    text = text_of(response.text)
    assert "No session matches" in text
    assert "Clear 1 filter" in text
    assert "No sessions yet" not in text


def test_the_session_list_keeps_filters_and_order_over_its_pages() -> None:
    readings = FilledReadings()
    client = PageClient(readings)
    page = client.get("/sessions?model=claude-opus-4-7&sort=cost")
    following = [link["href"] for link in Elements(page.text).all("a") if link.get("rel") == "next"]
    assert following == ["/sessions?model=claude-opus-4-7&sort=cost&cursor=more"]
    client.get(following[0])
    asked = readings.asked[-1][1]
    assert asked["cursor"] == "more"
    assert asked["sort"] == "cost"
    assert asked["model"] == "claude-opus-4-7"


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/sessions", {"session": {"developer": HOSTILE, "repository": HOSTILE}}),
        (f"/sessions/{SESSION_ID}", {"session": {"org_path": HOSTILE}, "turn": {"model": HOSTILE}}),
        (
            f"/sessions/{SESSION_ID}?content=1",
            {"texts": dict.fromkeys(("prompt", "answer", "output", "claim"), HOSTILE)},
        ),
        ("/clusters", {"cluster": {"label": HOSTILE, "cluster_id": HOSTILE}}),
        ("/runs", {"run": {"outcome": HOSTILE}}),
        ("/runs/x", {"run": {"run_id": HOSTILE, "outcome": HOSTILE}}),
        ("/policies", {"policy": {"name": HOSTILE, "words": [HOSTILE]}}),
        ("/policies/2", {"policy": {"name": HOSTILE, "document": {"description": HOSTILE}}}),
        ("/rollouts/x", {"rollout": {"sentence": HOSTILE, "rollout_id": HOSTILE}}),
    ],
)
def test_hostile_text_is_shown_and_does_nothing(path: str, given: dict[str, Any]) -> None:
    response = PageClient(FilledReadings(**given), act=lambda *_: None).get(path)
    assert response.status_code == 200
    page = Elements(response.text)
    assert page.open == []
    assert page.all("img") == []
    assert "<script>alert" not in response.text
    assert "alert(" in response.text  # it is there, as text
    assert "\x1b" not in response.text
    assert "\u202e" not in response.text


def test_texts_are_hidden_until_asked_for_and_then_not_kept_by_caches() -> None:
    readings = FilledReadings()
    client = PageClient(readings)
    hidden = client.get(f"/sessions/{SESSION_ID}")
    assert readings.asked[-1] == ("show_session", False)
    assert "Please run the tests" not in hidden.text
    assert "pytest -q" not in hidden.text
    shown = client.get(f"/sessions/{SESSION_ID}?content=1")
    assert "Please run the tests" in shown.text
    assert "pytest -q" in shown.text
    assert shown.headers["Cache-Control"] == "no-store"


def test_a_session_shows_what_was_contradicted_and_what_has_no_price() -> None:
    text = text_of(PageClient(FilledReadings()).get(f"/sessions/{SESSION_ID}").text)
    assert "✕ contradicted “All tests pass.”: the last test run failed" in text
    assert "unscored" in text
    assert "no test or build was run" in text
    assert "unknown model unknown-model" in text
    assert "$0.00" not in text
    assert "a call that left no event" in text


def test_simulated_sessions_are_labelled() -> None:
    page = PageClient(FilledReadings()).get("/sessions").text
    assert page.count(">simulated</span>") == 1
    assert ">simulated</span>" in PageClient(FilledReadings()).get("/spend?by=org").text


def test_spend_keeps_exact_micro_dollars_and_never_shows_unpriced_as_nothing() -> None:
    readings = FilledReadings()
    page = PageClient(readings).get("/spend?by=developer,model&since=2026-11-01&level=2")
    assert readings.asked[-1] == (
        "spend",
        {"by": "developer,model", "since": "2026-11-01", "until": None, "level": 2},
    )
    assert "3,000,001 micro-dollars" in page.text
    assert ">unpriced</span>" in page.text
    assert "+10 unpriced" in text_of(page.text)


@pytest.mark.parametrize("query", ["by=planet", "by=org&level=9", "by=org&level=x"])
def test_a_wrong_question_about_spend_is_a_400_with_the_way_out(query: str) -> None:
    response = PageClient(FilledReadings()).get(f"/spend?{query}")
    assert response.status_code == 400
    assert "One of developer" in response.text or "1, 2, 3 or 4" in response.text


@pytest.mark.parametrize("path", ["/sessions/none", "/policies/99", "/runs/x", "/rollouts/x"])
def test_what_is_not_there_is_a_404_page(path: str) -> None:
    response = PageClient(EmptyReadings()).get(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"].startswith("text/html")
    assert Elements(response.text).open == []


def test_the_run_page_shows_both_estimates_and_the_reach_under_each_measure() -> None:
    text = text_of(PageClient(FilledReadings()).get("/runs/run-2026-11-23-1").text)
    assert "27.0 %" in text  # on the sessions that chose it
    assert "23.1 %" in text  # on later ones
    for row in reach_rows():
        assert row["measure"].replace("_", " ") in text
    assert "0.025 %" in text
    assert "no answer" in text  # the trial without an estimate of quality


def test_a_run_that_found_nothing_says_so() -> None:
    nothing = {"found": None, "selection": None, "test": None, "proposed_version": None}
    given = {"run": {**nothing, "outcome": "No better policy was found.", "trials": []}}
    text = text_of(PageClient(FilledReadings(**given)).get("/runs/x").text)
    assert "No better policy was found" in text
    assert "No trials yet" in text


def test_the_overview_renews_only_its_live_part() -> None:
    client = PageClient(FilledReadings())
    whole = client.get("/")
    assert 'hx-trigger="every 5s"' in whole.text
    part = client.get("/", headers={"HX-Request-Type": "partial"})
    assert "<html" not in part.text
    assert "Waiting on you" in part.text
    assert part.text.strip() in whole.text


@pytest.mark.parametrize("path", [path for path in PAGES if path not in ("/", "/rollouts/r-1")])
def test_other_pages_stay_as_they_are(path: str) -> None:
    assert "hx-trigger" not in PageClient(FilledReadings()).get(path).text


def test_static_files_carry_the_headers_and_vendored_ones_are_kept() -> None:
    client = PageClient(FilledReadings())
    own = client.get("/static/turnwise.css")
    assert own.status_code == 200
    assert own.headers["Cache-Control"] == "no-cache"
    vendored = client.get("/static/vendor/htmx-4.0.1.min.js")
    assert "immutable" in vendored.headers["Cache-Control"]
    assert vendored.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/static/%2e%2e/pages.py").status_code == 404
