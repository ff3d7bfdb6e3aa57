"""Labels from the console: what the form offers, who may send it, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from evaluators.judge.questions import key_of
from loop.access.verbs import Verb
from loop.service import stages
from loop.service.http_api import api_app
from tests.service.judged_sessions import JudgedHouse, judged_house, session
from tests.service.test_web_pages import Elements, text_of
from tests.service.two_tenants import ADA
from tests.service.web_client import SAME_ORIGIN, AppClient, PageClient
from tests.service.web_documents import SESSION_ID
from tests.service.web_readings import EmptyReadings, FilledReadings

CLAIM = "All 33 tests pass."


@pytest.fixture
def house(tmp_path: Path) -> Iterator[JudgedHouse]:
    with judged_house(tmp_path) as house:
        house.add(session("s1"))
        house.run(now=True)
        stages.evaluate(house.parts)
        yield house


def test_a_claim_is_labelled_on_its_page_and_the_judge_is_measured_by_it(
    house: JudgedHouse,
) -> None:
    client = AppClient(api_app(house.parts))
    page = Elements(client.get("/sessions/s1").text)
    offered = {str(option["value"]) for option in page.all("option")}
    claim = f"faithfulness:{key_of('req_s1_2', CLAIM)}"
    call = f"tool_use:{key_of('req_s1_1', 'toolu_s1')}"
    assert {"faithfulness", "tool_use", claim, call} <= offered
    assert any(form["action"] == "/sessions/s1/labels" for form in page.all("form"))

    form = {"target": claim, "value": "1", "actor": "ana", "note": "I ran them"}
    for _ in range(2):  # the same said twice is one label
        response = client.post("/sessions/s1/labels", form, SAME_ORIGIN)
        assert response.status_code == 303
        assert response.headers["Location"] == "/sessions/s1#labels"
    (label,) = client.get("/v1/sessions/s1").json()["labels"]
    told = {name: label[name] for name in ("rubric", "value", "labeller", "note", "source")}
    assert told == {
        "rubric": "faithfulness", "value": 1.0, "labeller": "ana", "note": "I ran them",
        "source": "console",
    }  # fmt: skip
    (standing,) = client.get("/v1/judge/calibration").json()["rows"]
    assert (standing["agreement"]["items"], standing["agreement"]["both_good"]) == (1, 1)

    client.post("/sessions/s1/labels", form | {"value": "0.25"}, SAME_ORIGIN)
    client.post("/sessions/s1/labels", form | {"target": "tool_use"}, SAME_ORIGIN)
    shown = text_of(client.get("/sessions/s1").text)
    assert f"“{CLAIM}” faithfulness 0.25 ana" in shown
    assert "the session as a whole tool use 1 ana" in shown
    judge = text_of(client.get("/judge").text)
    assert "1 of its sessions are labelled, fewer than 100" in judge
    rows = client.get("/v1/judge").json()["labels"]
    assert [(row["rubric"], row["source"], row["labels"]) for row in rows] == [
        ("faithfulness", "console", 1),
        ("tool_use", "console", 1),
    ]


@pytest.mark.parametrize(
    ("path", "change", "status"),
    [
        ("s1", {"value": "7"}, 400),
        ("s1", {"value": ""}, 400),
        ("s1", {"actor": " "}, 400),
        ("s1", {"target": "faithfulness:zz"}, 400),
        ("s1", {"target": "handwriting"}, 404),
        ("nobody", {}, 404),
    ],
)
def test_what_is_no_label_is_told_and_kept_nowhere(
    house: JudgedHouse, path: str, change: Mapping[str, str], status: int
) -> None:
    client = AppClient(api_app(house.parts))
    form = {"target": "faithfulness", "value": "1", "actor": "ana", **change}
    response = client.post(f"/sessions/{path}/labels", form, SAME_ORIGIN)
    assert response.status_code == status
    assert f'href="/sessions/{path}"' in response.text
    assert house.parts.labels.count() == 0


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}]
)
def test_a_label_from_another_site_is_refused(headers: dict[str, str]) -> None:
    taken: list[Any] = []
    form = {"target": "faithfulness", "value": "1", "actor": "ana"}
    client = PageClient(FilledReadings(), add_label=taken.append)
    assert client.post(f"/sessions/{SESSION_ID}/labels", form, headers).status_code == 403
    assert taken == []
    assert client.post(f"/sessions/{SESSION_ID}/labels", form, SAME_ORIGIN).status_code == 303
    assert len(taken) == 1


def test_only_who_reviews_may_label_and_records_name_the_holder(tmp_path: Path) -> None:
    with judged_house(tmp_path, API_TOKEN="installation-token-0123456789") as house:
        house.add(session("s1"))
        client = AppClient(api_app(house.parts))
        form = {"target": "faithfulness", "value": "0", "actor": "somebody else"}
        answers = []
        for verbs in ([Verb.READ], [Verb.READ, Verb.REVIEW]):
            token, _ = house.parts.credentials.create("+".join(verbs), verbs, ADA)
            headers = SAME_ORIGIN | {"Authorization": f"Bearer {token}"}
            answers.append(client.post("/sessions/s1/labels", form, headers).status_code)
        assert answers == [403, 303]
        (label,) = house.parts.labels.current()
        assert label.labeller.startswith("read+review")


def test_without_labelling_a_page_has_no_form_and_shows_what_there_is() -> None:
    page = PageClient(FilledReadings()).get(f"/sessions/{SESSION_ID}").text
    assert Elements(page).all("form") == []
    assert "ana" in text_of(page)
    assert "Nobody has labelled anything yet" in PageClient(EmptyReadings()).get("/judge").text
