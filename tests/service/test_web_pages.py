"""Each page as a browser without JavaScript gets it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.service.web import charts
from loop.service.web.document_diff import diff_rows
from tests.service.web_client import PageClient
from tests.service.web_documents import (
    HOSTILE,
    SESSION_ID,
    policy_document,
    reach_rows,
    rollout_document,
    rollout_report,
    run_document,
)
from tests.service.web_readings import EmptyReadings, FilledReadings

finite = st.floats(-1, 1) | st.sampled_from([float("inf"), float("-inf")])
policies = st.builds(policy_document, st.text(), st.integers(0, 10**6))
PAGES = {
    "/": "/v1/overview",
    "/sessions": "/v1/sessions",
    f"/sessions/{SESSION_ID}": f"/v1/sessions/{SESSION_ID}",
    "/clusters": "/v1/clusters",
    "/clusters/c1": "/v1/clusters/c1",
    "/judge": "/v1/judge",
    "/runs": "/v1/runs",
    "/runs/run-2026-11-23-1": "/v1/runs/run-2026-11-23-1",
    "/policies": "/v1/policies",
    "/policies/2": "/v1/policies/2",
    "/policies/1...2": "/v1/policies/1...2",
    "/rollouts": "/v1/rollouts",
    "/rollouts/r-1": "/v1/rollouts/r-1",
    "/spend": "/v1/spend?by=org",
}
LISTS = ("/", "/sessions", "/clusters", "/judge", "/runs", "/policies", "/rollouts", "/spend")


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
        "/judge": "Nothing has been judged yet",
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
        ("/clusters", {"cluster": {"name": HOSTILE, "cluster_id": HOSTILE}}),
        ("/clusters/c1", {"cluster": {"label": HOSTILE, "name": "", "contrast": HOSTILE}}),
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
    assert "threshold share 60.0 %" in text  # what decided
    assert "-0.0500, 95 % interval -0.0610 to -0.0400" in text  # dollars a session
    assert "0.01 worse" in text  # the slice that would pay
    assert "too small" in text
    assert "0.71 output tokens for one (3,000 turns)" in text
    assert "Replay against the bill 1.1" in text
    assert "Scope" not in text


def test_the_run_page_names_the_scope_of_a_search() -> None:
    scope = {"repositories": ["shop", "pay"], "cluster_id": "c-1", "reason": "8 of 9 lie there"}
    run = run_document()
    readings = FilledReadings(run={"settings": {**run["settings"], "scope": scope}})
    text = text_of(PageClient(readings).get("/runs/x").text)
    assert "Only sessions that begin in shop, pay, because c-1 happens there: 8 of 9" in text
    part = FilledReadings(run={"settings": {"sampler": "tpe", "scope": {"repositories": ["pay"]}}})
    assert "begin in pay. For all others" in text_of(PageClient(part).get("/runs/x").text)


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


def test_a_diff_shows_both_documents_line_by_line() -> None:
    page = PageClient(FilledReadings()).get("/policies/1...2").text
    assert "measure: total_input_tokens → new_tokens" in page
    assert "<pre>− " in page
    assert "<pre>+ " in page
    assert page.count('class="goes"') == page.count('class="comes"') == 2  # name and threshold


@given(policies, policies)
def test_a_diff_holds_each_document_whole(before: dict[str, Any], after: dict[str, Any]) -> None:
    rows = diff_rows(before, after)
    left = "\n".join(row.before for row in rows if row.before is not None)
    right = "\n".join(row.after for row in rows if row.after is not None)
    assert json.loads(left) == before
    assert json.loads(right) == after
    assert any(row.is_changed for row in rows) == (before != after)


def test_a_rollout_names_each_gateway_once_with_where_it_stands() -> None:
    text = text_of(PageClient(FilledReadings()).get("/rollouts/r-1").text)
    assert "edge/one ✓ has applied it" in text
    assert "edge/two … behind" in text
    assert "edge/three ✕ rejected it (signature unknown)" in text
    assert "edge/old ? not heard of lately" in text
    assert text.count("edge/two") == 1


def test_a_rollout_with_too_little_data_says_how_much_is_needed() -> None:
    report = rollout_report(path=[], units=38, canary_units=12, waiting_units=5)
    given_report = {"rollout": {"report": report}}
    page = PageClient(FilledReadings(**given_report)).get("/rollouts/r-1").text
    assert "38 of 200 scored sessions, 12 of 30 of them in the canary" in text_of(page)
    assert "data-chart" not in page
    page = PageClient(FilledReadings(rollout={"report": None})).get("/rollouts/r-1").text
    assert "No session has been looked at yet" in page


def test_a_finished_rollout_rests() -> None:
    ended = {"state": "rolled_back", "finished": True, "ended_at_us": 1_763_900_000_000_000}
    page = PageClient(FilledReadings(rollout=ended), lambda *_: None).get("/rollouts/r-1").text
    assert "hx-trigger" not in page
    assert 'method="post"' not in page
    assert "ended here" in page


@given(st.lists(st.tuples(finite, finite, finite), max_size=40), st.floats(0.001, 0.2))
def test_the_band_can_always_be_drawn(
    bounds: list[tuple[float, float, float]], margin: float
) -> None:
    path = [
        {"units": 200 + index, "assigned_at_us": index, "estimate": e, "low": low, "high": high}
        for index, (e, low, high) in enumerate(bounds)
    ]
    document = rollout_document(report=rollout_report(path=path))
    document["plan"] = {**document["plan"], "margin": margin}
    chart = charts.band_chart(document)
    if not path:
        assert chart is None
        return
    assert chart is not None
    json.dumps(chart, allow_nan=False)
    assert chart["floor"] < chart["margin"] < chart["ceiling"]
    assert [row["x"] for row in chart["rows"]] == [point["units"] for point in path]


def test_a_run_of_many_trials_is_thinned_and_says_so() -> None:
    trial = run_document()["trials"][1]
    trials = [trial | {"number": number} for number in range(12_000)]
    front = trial | {"number": 12_000, "on_front": True}
    chart = charts.trials_chart(run_document(trials=[*trials, front]))
    assert chart is not None
    drawn = len(chart["feasible"]) + len(chart["infeasible"])
    assert drawn <= charts.MAX_POINTS
    assert len(chart["front"]) == 1
    assert any(f"{12_000 - drawn:,} points" in note for note in chart["notes"])
