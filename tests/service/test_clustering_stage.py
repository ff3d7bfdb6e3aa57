"""Clustering over a real lake: what is read, what is written, what goes with the texts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators import ToolUse
from evaluators.session_features import profile_session
from loop.access.view import ALL_ROWS, View
from loop.control.stage_progress import StageLog
from loop.control.store import connect, metadata
from loop.domain.errors import NotFound, Refused
from loop.lake import Lake
from loop.lake.erasure import PersonalRows, erase_rows
from loop.lake.expiry import Expired, expire_rows
from loop.service import clustering_stage
from loop.service.cluster_readings import list_clusters, show_cluster
from loop.service.cluster_scopes import scope_of_cluster
from loop.service.clustering_stage import cluster_low_scoring, profile_new
from loop.service.evaluation_stage import evaluate_changed
from loop.service.session_readings import list_sessions
from tests.evaluators.scored_sessions import MODES, make_trace
from tests.evaluators.stored_traces import store_traces
from tests.evaluators.traces import session

PER_MODE = 6


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    generator = random.Random(1)
    lake = Lake.open(str(tmp_path / "store"))
    modes = (*MODES, "good")
    traces = [
        replace(
            make_trace(mode, n, generator),
            attributes={"repository": "shop" if mode == "looping" else "site"},
        )
        for mode in modes
        for n in range(PER_MODE)
    ]
    silent = replace(session(claim="Hello."), session_id="silent")  # nothing to score it by
    store_traces(lake, [*traces, silent])
    return lake


@pytest.fixture
def stage_log(tmp_path: Path) -> Iterator[StageLog]:
    engine = connect(f"sqlite:///{tmp_path / 'control.db'}")
    metadata.create_all(engine)
    yield StageLog(engine)
    engine.dispose()


def test_low_sessions_are_clustered_and_unscored_ones_kept_apart(
    lake: Lake, stage_log: StageLog
) -> None:
    evaluate_changed(lake, stage_log)
    found = cluster_low_scoring(lake, stage_log)
    assert (found.low, found.scored, found.unscored) == (4 * PER_MODE, 5 * PER_MODE, 1)
    stored = lake.latest_clusters()
    assert stored == found.clusters
    assert {c.session_ids[0].split("-")[0] for c in stored} == set(MODES)
    assert "silent" not in {name for c in stored for name in c.session_ids}
    assert "24 low-scoring of 30 scored sessions" in stage_log.read("cluster").note


def test_only_what_was_scored_since_is_described_again(
    lake: Lake, stage_log: StageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_changed(lake, stage_log, evaluators=[ToolUse()])
    evaluate_changed(lake, stage_log)  # what one evaluator saw is not all of a description
    ids = [f"{mode}-{n:05d}" for mode in (*MODES, "good") for n in range(PER_MODE)]
    monkeypatch.setattr(clustering_stage, "SESSIONS_PER_BATCH", 7)
    steps: list[tuple[int, int]] = []
    assert profile_new(lake, ids, lambda *step: steps.append(step)) == 30
    assert steps == [(7, 30), (14, 30), (21, 30), (28, 30), (30, 30)]
    assert profile_new(lake, ids) == 0
    store_traces(lake, [make_trace("looping", 3, random.Random(9))], revision=2)
    evaluate_changed(lake, stage_log)
    assert profile_new(lake, ids) == 0  # scoring described it
    again = profile_session(lake.load_traces(ids[:1])[0], lake.scores_of(ids[:1]))
    lake.write_profiles([replace(again, profile_version="0", profiled_at_us=2**60)])
    assert profile_new(lake, ids) == 1  # by older code
    assert lake.query("SELECT count(*) AS n FROM profiles") == [{"n": 31}]  # the silent one too


def test_of_more_sessions_the_newest_are_clustered(lake: Lake, stage_log: StageLog) -> None:
    evaluate_changed(lake, stage_log)
    found = cluster_low_scoring(lake, stage_log, max_sessions=10)
    assert found.scored + found.unscored == 10


def test_a_cluster_opens_as_a_filter_over_sessions(lake: Lake, stage_log: StageLog) -> None:
    evaluate_changed(lake, stage_log)
    first = cluster_low_scoring(lake, stage_log).clusters[0]
    shown = show_cluster(lake, first.cluster_id, ALL_ROWS)
    assert shown["sessions"] == PER_MODE
    page = list_sessions(lake, limit=4, sort="quality", members=first.session_ids)
    rest = list_sessions(
        lake, limit=4, sort="quality", members=first.session_ids, cursor=page["next"]
    )
    listed = [row["session_id"] for row in (*page["rows"], *rest["rows"])]
    assert sorted(listed) == list(first.session_ids)
    assert rest["next"] is None
    answer = list_clusters(lake, ALL_ROWS)
    assert answer["rows"][0] == shown
    assert (answer["scored_sessions"], answer["unscored_sessions"]) == (5 * PER_MODE, 1)
    of_nobody = View(())
    assert list_clusters(lake, of_nobody)["rows"] == []
    with pytest.raises(NotFound):
        show_cluster(lake, first.cluster_id, of_nobody)


def test_a_cluster_is_a_scope_by_its_repository_or_not_at_all(
    lake: Lake, stage_log: StageLog
) -> None:
    evaluate_changed(lake, stage_log)
    clusters = cluster_low_scoring(lake, stage_log).clusters
    by_mode = {c.session_ids[0].split("-")[0]: c.cluster_id for c in clusters}
    scope = scope_of_cluster(lake, by_mode["looping"])
    assert scope.repositories == ("shop",)
    assert scope.reason.startswith(f"6 of the 6 earlier sessions of {by_mode['looping']}")
    with pytest.raises(Refused, match="can't be the scope of a search"):
        scope_of_cluster(lake, by_mode["corrected"])
    with pytest.raises(NotFound):
        scope_of_cluster(lake, "cluster-nowhere")


def test_profiles_go_with_the_texts_and_with_the_person(lake: Lake, stage_log: StageLog) -> None:
    evaluate_changed(lake, stage_log)
    cluster_low_scoring(lake, stage_log)
    log = lake.tables["profiles"]

    def described() -> set[str]:
        lake.queries.forget_files()
        return {row["session_id"] for row in lake.query("SELECT session_id FROM profiles")}

    texts = {"looping-00001": "short"}
    day = "2026-09-22"  # the sessions' own; they were described today, later or earlier
    expire_rows(log, Expired({}, texts, until_day=day), "r1", strip=lambda x: x, dry_run=False)
    assert "looping-00001" not in described()
    assert "looping-00002" in described()
    erase_rows(log, PersonalRows("", {"looping-00002"}), "e1", dry_run=False)
    assert "looping-00002" not in described()
    # What is still there is described again, from what is left of it.
    assert profile_new(lake, ["looping-00001"]) == 1
