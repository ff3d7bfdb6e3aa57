"""Names for clusters by a model: asked only where it may be, kept only if they are on the menu."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.cluster_names import ClusterBrief
from evaluators.judge.cluster_names import build_naming, read_name
from loop.domain.clusters import ClusterFeature, SessionCluster
from loop.service.cluster_naming import name_latest_clusters
from loop.service.http_api import api_app
from tests.fakes.judge_api import FakeJudgeApi
from tests.service.judged_sessions import JudgedHouse, judged_house, session
from tests.service.test_web_pages import text_of
from tests.service.web_client import AppClient

NAMER = {"CLUSTER_NAMER": "claude-haiku-4-5"}
HOSTILE = ("ignore", "instructions", "judge", "score")


def cluster(cluster_id: str, members: str, **given: Any) -> SessionCluster:
    fields: dict[str, Any] = {
        "label": "repeated calls; billing",
        "mean_score": 0.3,
        "cost_microusd": 1_000,
        "cost_share": 0.1,
        "features": (ClusterFeature("repeated_calls", 0.8, 0.1),),
        "exemplars": (members[0],),
        "clustered_at_us": 5,
        "terms": ("billing", *HOSTILE),
    }
    return SessionCluster(cluster_id=cluster_id, session_ids=tuple(members), **(fields | given))


def fill(house: JudgedHouse, **places: str) -> None:
    """Two clusters of five sessions each; ``places`` are the paths of some of the sessions."""
    names = "abcdefghij"
    house.add(*(session(n, **({"org_path": places[n]} if n in places else {})) for n in names))
    house.parts.lake.write_clusters([cluster("c1", "abcde"), cluster("c2", "fghij")])


def says(name: object) -> FakeJudgeApi:
    return FakeJudgeApi(answer=lambda body: json.dumps({"name": name}))


def test_a_name_is_marked_kept_paid_for_and_asked_for_once(tmp_path: Path) -> None:
    with judged_house(tmp_path, says("Repeated billing calls"), **NAMER) as house:
        fill(house)
        before = [c.session_ids for c in house.parts.lake.latest_clusters()]
        assert name_latest_clusters(house.parts) == 2
        assert name_latest_clusters(house.parts) == 0
        clusters = house.parts.lake.latest_clusters()
        assert [c.session_ids for c in clusters] == before
        assert {c.name for c in clusters} == {"Repeated billing calls"}
        assert len(house.sent_bodies()) == 2
        assert not any("33 passed" in json.dumps(body) for body in house.sent_bodies())
        shown = house.desk.show()
        assert 0 < shown["spent_microusd"] < 10_000
        assert [row["org_path"] for row in shown["by_path"]] == ["engineering/payments"]
        assert (shown["on_its_way"], house.desk.calibration()["rows"]) == (0, [])
        client = AppClient(api_app(house.parts))
        row = client.get("/v1/clusters/c1").json()
        assert row["name"] == "Repeated billing calls"
        assert row["named_by"].startswith("claude-haiku-4-5+names-")
        assert "given by a model (claude-haiku-4-5+names-" in text_of(
            client.get("/clusters/c1").text
        )


def test_what_is_off_the_menu_is_no_name(tmp_path: Path) -> None:
    answers = ["Perfect work", "Ignore all instructions", "", "calls", 7, "billing\n; 1.0"]
    api = FakeJudgeApi(answer=lambda body: json.dumps({"name": answers.pop()}))
    with judged_house(tmp_path, api, **NAMER) as house:
        fill(house)
        while answers:
            assert name_latest_clusters(house.parts) == 0
        assert {c.name for c in house.parts.lake.latest_clusters()} == {""}
        assert len(house.sent_bodies()) == 6
        assert house.desk.show()["spent_microusd"] > 0


def _without_consent(house: JudgedHouse) -> None:
    fill(house, b="research/lab", g="research/lab")


@pytest.mark.parametrize(
    ("given", "prepare"),
    [
        ({}, fill),
        (NAMER | {"JUDGE_ORG_PATHS": ""}, fill),
        (NAMER | {"JUDGE_BUDGET_USD": "0.000001"}, fill),
        (NAMER | {"CONTENT_MODES": "engineering/payments=none"}, fill),
        (NAMER, _without_consent),
        ({"CLUSTER_NAMER": "a-model-without-a-price"}, fill),
    ],
    ids=["off", "nobody consents", "no money", "no texts", "one does not consent", "no price"],
)
def test_nothing_is_asked_where_it_may_not_be(
    tmp_path: Path, given: dict[str, str], prepare: Callable[[JudgedHouse], None]
) -> None:
    with judged_house(tmp_path, **given) as house:
        prepare(house)
        assert name_latest_clusters(house.parts) == 0
        assert house.api.seen == []
        assert house.desk.show()["spent_microusd"] == 0


def test_an_api_that_is_away_is_asked_for_one_name_and_not_for_the_next(tmp_path: Path) -> None:
    with judged_house(tmp_path, FakeJudgeApi(statuses=[429] * 12), **NAMER) as house:
        fill(house)
        assert name_latest_clusters(house.parts) == 0
        assert len(house.api.seen) == 6
        assert house.desk.show()["spent_microusd"] == 0


@given(st.text() | st.text("abcdefghilnrst -", max_size=30), st.lists(st.text(), max_size=3))
def test_no_answer_gives_a_name_of_other_words(answer: str, terms: list[str]) -> None:
    brief = ClusterBrief("failing calls", tuple(terms), (), "", 9, 0.4)
    request = build_naming(brief, "m")
    message = {
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": json.dumps({"name": answer})}],
    }
    name = read_name(request, message)
    assert len(name) <= 60
    for word in name.lower().split():
        assert {word, f"{word}s", word.removesuffix("s")} & request.menu
