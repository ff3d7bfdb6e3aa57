"""The whole loop as a story: the real service in a process of its own, a small simulated fleet.

Given recordings of the real client and a service on embedded defaults, when the fleet works while
policies are explored, searched, gated, approved and rolled out, then a good policy is promoted, a
bad one rolled back by itself, and every step can be found afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from loop.domain.errors import Conflict, Refused
from loop.lake import Lake
from loop.service.api_client import ApiClient
from loop.service.demo.recordings import read_expected, read_recordings, send_recordings
from loop.service.demo.service_process import ServiceAddresses, running_service
from loop.service.simulation import Fleet, FleetParameters, model_api_process
from optimizers.classic import classic_policy
from tests.service.service_process import FREE_PORTS, QUICK

pytestmark = pytest.mark.timeout(400)

SEED = 20_261
DAY_US = 86_400_000_000
EXPLORING_SESSIONS = 570
EXPLORED_SHARE = 0.8
CANARY_ROUNDS = (80, 150, 80, 80, 80)  # sessions; no more once the rollout is decided
CONCURRENCY = 6
TRIALS = 40
WAIT_SECONDS = 60.0
SMALL_BODIES = FleetParameters(
    static_body_chars=9_000,
    subagent_body_chars=6_000,
    reminder_chars=1_500,
    file_chars=(600, 1_500),
    min_cacheable_tokens=512,
)
SETTINGS = {
    **FREE_PORTS,
    **QUICK,
    "TURNWISE_ROLLOUT_STAGES": "40,50",
    "TURNWISE_ROLLOUT_MARGIN": "0.15",
    "TURNWISE_ROLLOUT_DWELL_SECONDS": "1",
    "TURNWISE_ROLLOUT_MATURATION_SECONDS": "1",
    "TURNWISE_GATE_MAX_QUALITY_LOSS": "0.15",
    "TURNWISE_GATE_MIN_SESSIONS": "100",
}
ADA, GRACE = "ada", "grace"


def policy_document(name: str, limit: int) -> dict[str, Any]:
    """Sessions that begin with fewer prompt tokens than ``limit`` go to haiku."""
    rule = {
        "id": "small-prompt",
        "when": [{"field": "input_tokens", "op": "<", "value": limit}],
        "set": {"model": "claude-haiku-4-5", "effort": ""},
    }
    return classic_policy("prompt_tokens").to_document() | {
        "name": name,
        "unit": "session",
        "rules": [rule],
        "default": {"model": ""},
    }


@dataclass
class Watch:
    """What was seen while the story went on: states of all versions, and publications in force."""

    most_active: int = 0
    most_canaries: int = 0
    looks: int = 0
    serials: list[int] = field(default_factory=list)
    payloads: dict[int, dict[str, Any]] = field(default_factory=dict)


@contextmanager
def watching(api: str) -> Iterator[Watch]:
    """Looks again and again from a thread of its own."""
    watch = Watch()
    done = threading.Event()

    def look() -> None:
        with httpx.Client(base_url=api, timeout=30) as client:
            while not done.wait(0.15):
                states = Counter(row["state"] for row in client.get("/v1/policies").json()["rows"])
                watch.most_active = max(watch.most_active, states["active"])
                canaries = states["canary"] + states["paused"]
                watch.most_canaries = max(watch.most_canaries, canaries)
                payload = publication(client)
                watch.serials.append(payload["serial"])
                watch.payloads[payload["serial"]] = payload
                watch.looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def publication(client: httpx.Client) -> dict[str, Any]:
    envelope = client.get("/v1/gateway/policy").json()
    payload: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return payload


@dataclass
class Story:
    """The facts that the tests look at, in the order in which they came about."""

    addresses: ServiceAddresses
    client: ApiClient
    watch: Watch
    fleet: Fleet
    clock_us: int
    requests: int = 0
    failures: int = 0
    spend: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    clusters: list[dict[str, Any]] = field(default_factory=list)
    exploration: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    refusals: dict[str, Exception] = field(default_factory=dict)
    good: dict[str, Any] = field(default_factory=dict)
    promoted: dict[str, Any] = field(default_factory=dict)
    bad_version: int = 0
    before_bad: dict[str, Any] = field(default_factory=dict)
    rolled_back: dict[str, Any] = field(default_factory=dict)
    after_bad: dict[str, Any] = field(default_factory=dict)
    lake: Lake | None = None

    def post(self, path: str, **document: Any) -> dict[str, Any]:
        return self.client.post(path, document)

    def work(self, sessions: int, days: float) -> None:
        """The fleet runs so many sessions, and all of them get scored."""
        start_us, self.clock_us = self.clock_us, self.clock_us + int(days * DAY_US)
        report = asyncio.run(
            self.fleet.run_sessions(sessions, start_us, self.clock_us, CONCURRENCY)
        )
        self.requests += report.requests
        self.failures += report.failures
        known = report.outcomes[-1].session_id
        wait_until(lambda: self.has_score(known), "the fleet's sessions are scored")
        wait_until(lambda: self.post("/v1/evaluate")["sessions"] == 0, "all sessions are scored")

    def has_score(self, session_id: str) -> bool:
        rows = self.client.get("/v1/sessions", limit=500)["rows"]
        return any(row["session_id"] == session_id and row["scores"] for row in rows)

    def review(self, version: int, approver: str) -> None:
        shown = self.client.get(f"/v1/policies/{version}")
        if shown["state"] != "in_review":
            shown = self.post(f"/v1/policies/{version}/submit", actor=ADA, reason="try it")
        cycle = shown["review_cycle"]
        self.post(
            f"/v1/policies/{version}/approve", actor=approver, reason="good", review_cycle=cycle
        )

    def refused(self, name: str, path: str, **document: Any) -> None:
        """Notes the refusal of what must not be possible."""
        try:
            self.post(path, **document)
        except (Refused, Conflict) as error:
            self.refusals[name] = error

    def run_until_decided(self) -> dict[str, Any]:
        for sessions in CANARY_ROUNDS:
            self.work(sessions, 0.25)
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                rollout = self.client.get("/v1/rollouts/latest")
                if rollout["finished"]:
                    return rollout
                time.sleep(0.2)
        return rollout


def wait_until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("loop")
    with (
        model_api_process(SMALL_BODIES) as upstream,
        running_service(
            folder, {**SETTINGS, "ANTHROPIC_BASE_URL": upstream}, folder / "serve.log"
        ) as addresses,
        ApiClient(addresses.api) as client,
        watching(addresses.api) as watch,
    ):
        fleet = Fleet(SMALL_BODIES, addresses.edge, addresses.otlp_http, SEED)
        clock_us = time.time_ns() // 1000 - 14 * DAY_US
        story = Story(addresses, client, watch, fleet, clock_us)
        for chapter in (recordings, explore, optimize, promote, roll_back):
            began = time.monotonic()
            chapter(story)
            print(f"{chapter.__name__}: {time.monotonic() - began:.1f} s")  # shown on failure
        wait_until(
            lambda: len(Lake.open(str(folder / "lake")).decisions_of()) >= story.requests,
            "every decision is in the lake",
        )
        story.lake = Lake.open(str(folder / "lake"))
        yield story
    log = (folder / "serve.log").read_text()
    assert "Traceback" not in log


# -- when ------------------------------------------------------------------------------------------


def recordings(story: Story) -> None:
    send_recordings(read_recordings(), story.addresses, lambda done, total: None)
    served = sum(row["api"]["ok"] for row in read_expected())

    def read() -> bool:
        rows = story.client.get("/v1/spend", by="session,model")["rows"]
        story.spend = {(row["session_id"], row["model"]): row for row in rows}
        return sum(row["turns"] for row in rows) >= served

    wait_until(read, "the recordings can be queried")


def explore(story: Story) -> None:
    document = policy_document("small prompts", 60)
    version = story.post("/v1/policies", policy=document, actor=ADA)["version"]
    story.post(f"/v1/policies/{version}/gate")
    story.review(version, GRACE)
    story.exploration = story.post(
        "/v1/explorations", arms={str(version): EXPLORED_SHARE}, actor=ADA, reason="learn"
    )
    story.work(EXPLORING_SESSIONS, 8)
    story.clusters = story.post("/v1/clusters")["rows"]


def optimize(story: Story) -> None:
    run = story.post("/v1/runs", trials=TRIALS, seed=SEED, margin=0.15, propose=True)

    def ended() -> bool:
        nonlocal run
        run = story.client.get(f"/v1/runs/{run['run_id']}")
        return run["state"] != "running"

    wait_until(ended, "the search ends")
    story.run = run


def promote(story: Story) -> None:
    version = story.run["proposed_version"]
    assert version, story.run["outcome"]
    path = f"/v1/policies/{version}"
    story.gate = story.post(f"{path}/gate")
    cycle = story.client.get(path)["review_cycle"]
    story.refused("unapproved", f"{path}/publish", actor=ADA, reason="at once")
    story.refused(
        "stale", f"{path}/approve", actor=GRACE, reason="an older look", review_cycle=cycle - 1
    )
    story.review(version, GRACE)
    story.post(f"{path}/publish", actor=ADA, reason="canary")
    story.promoted = story.run_until_decided()
    story.good = story.client.get(path)


def roll_back(story: Story) -> None:
    document = policy_document("everything to haiku", 1_000_000)
    version = story.post("/v1/policies", policy=document, actor=ADA)["version"]
    path = f"/v1/policies/{version}"
    story.bad_version = version
    story.post(f"{path}/gate")
    shown = story.client.get(path)
    if shown["state"] != "in_review":
        shown = story.post(f"{path}/submit", actor=ADA, reason="try it")
    story.refused(
        "own", f"{path}/approve", actor=ADA, reason="mine", review_cycle=shown["review_cycle"]
    )
    story.review(version, GRACE)
    with httpx.Client(base_url=story.addresses.api) as client:
        story.before_bad = publication(client)
        story.post(f"{path}/publish", actor=ADA, reason="a risk")
        story.rolled_back = story.run_until_decided()
        story.after_bad = publication(client)


# -- then ------------------------------------------------------------------------------------------


def test_the_recordings_are_charged_exactly(story: Story) -> None:
    served: dict[tuple[str, str], Counter[str]] = {}
    for expected in read_expected():  # a session that was resumed is in several recordings
        for model, tokens in expected["api"]["tokens_by_model"].items():
            served.setdefault((expected["session_id"], model), Counter()).update(tokens)
    for key, total in served.items():
        row = story.spend[key]
        written = row["cache_creation_5m_tokens"] + row["cache_creation_1h_tokens"]
        found = (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], written)
        names = ("input", "output", "cacheRead", "cacheCreation")
        assert found == tuple(total[name] for name in names)


def test_sessions_are_scored_and_the_bad_ones_clustered(story: Story) -> None:
    assert story.failures == 0
    assert story.clusters
    for cluster in story.clusters:
        assert cluster["sessions"] == len(cluster["session_ids"]) > 0
        assert set(cluster["exemplars"]) <= set(cluster["session_ids"])
        assert cluster["label"]
    unfaithful = next(
        row["session_id"] for row in read_expected() if row["name"].startswith("a04_")
    )
    scores = story.client.get(f"/v1/sessions/{unfaithful}")["scores"]
    verdicts = {finding["verdict"] for score in scores for finding in score["findings"]}
    assert "contradicted" in verdicts


def test_the_search_finds_a_policy_and_the_gate_passes_it(story: Story) -> None:
    assert story.run["state"] == "finished"
    assert story.run["test"]["saving_share"] > 0.1
    assert story.gate["verdict"] == "passed", story.gate["lines"]


def test_nobody_passes_the_review_by(story: Story) -> None:
    assert isinstance(story.refusals["unapproved"], Conflict)
    assert isinstance(story.refusals["stale"], Conflict)
    assert "review" in str(story.refusals["stale"])
    assert isinstance(story.refusals["own"], Refused)
    moves = {move["to"]: move["actor"] for move in story.good["transitions"]}
    assert moves["approved"] == f"person:{GRACE}"
    assert moves["proposed"].startswith("optimizer:")


def test_the_good_policy_is_promoted(story: Story) -> None:
    assert story.promoted["state"] == "promoted", story.promoted["sentence"]
    assert story.good["state"] == "active"
    assert [move["to"] for move in story.good["transitions"]] == [
        "proposed",
        "gate_passed",
        "in_review",
        "approved",
        "canary",
        "active",
    ]
    (arm,) = story.before_bad["arms"]
    assert (arm["policy_version"], arm["weight"]) == (story.good["version"], 10_000)


def test_the_bad_policy_is_rolled_back_by_itself(story: Story) -> None:
    assert story.rolled_back["state"] == "rolled_back", story.rolled_back["sentence"]
    assert story.rolled_back["version"] == story.bad_version
    moves = story.client.get(f"/v1/policies/{story.bad_version}")["transitions"]
    assert moves[-1]["to"] == "rolled_back"
    assert moves[-1]["actor"].startswith("rollout:")
    # A new serial with the old content, which the edge proxy has applied.
    assert story.after_bad["serial"] > story.before_bad["serial"]
    assert story.after_bad["arms"] == story.before_bad["arms"]
    assert story.rolled_back["rollback_complete"]
    gateways = story.rolled_back["gateways"]
    assert gateways["serial"] == story.after_bad["serial"]
    assert len(gateways["live"]) == 1
    assert gateways["behind"] == gateways["rejected"] == []
    status = httpx.get(f"{story.addresses.edge}/turnwise/status").json()
    assert story.after_bad["serial"] in _numbers(status)


def _numbers(document: object) -> Iterator[int]:
    if isinstance(document, dict):
        for value in document.values():
            yield from _numbers(value)
    elif isinstance(document, int):
        yield document


def test_there_was_never_more_than_one_active_version(story: Story) -> None:
    assert story.watch.looks > 50
    assert story.watch.most_active == 1
    assert story.watch.most_canaries == 1
    assert story.watch.serials == sorted(story.watch.serials)


def test_each_decision_is_in_the_lake_with_its_propensity(story: Story) -> None:
    assert story.lake is not None
    decisions = story.lake.decisions_of()
    assert len(decisions) == story.requests
    seen = set()
    for decision in decisions:
        arms = {arm["name"]: arm for arm in story.watch.payloads[decision.serial]["arms"]}
        arm = arms[decision.arm]
        assert decision.propensity == arm["weight"] / 10_000
        assert decision.policy_version == arm["policy_version"]
        assert decision.policy_digest == arm["policy_digest"]
        seen.add(decision.arm)
    assert seen == {"stable", "canary", "control", f"explore-{explored(story)}"}
    by_session: dict[tuple[str, int], set[str]] = {}
    for decision in decisions:
        by_session.setdefault((decision.session_id, decision.serial), set()).add(decision.arm)
    assert all(len(names) == 1 for names in by_session.values())  # a session keeps its arm


def explored(story: Story) -> int:
    (version,) = (
        arm["policy_version"] for arm in story.exploration["arms"] if arm["name"] != "stable"
    )
    return int(version)


def test_each_turn_carries_its_decision_by_request_id(story: Story) -> None:
    assert story.lake is not None
    turns = story.lake.query(
        "SELECT request_id, arm, policy_version, policy_serial, rule_id, served_model FROM turns "
        "WHERE starts_with(org_path, 'simulated/') AND status = 'ok'"
    )
    decisions = {row.decision_id: row for row in story.lake.decisions_of()}
    assert len(turns) > 1000
    for turn in turns:
        decision = decisions[turn["request_id"]]
        assert turn["arm"] == decision.arm
        assert turn["policy_version"] == decision.policy_version
        assert turn["policy_serial"] == decision.serial
        assert turn["rule_id"] == decision.rule_id
        assert turn["served_model"] == decision.routed_model


def test_the_pages_tell_the_story(story: Story) -> None:
    for path in ("/", "/sessions", "/runs", "/policies", "/rollouts", "/clusters"):
        page = httpx.get(f"{story.addresses.api}{path}", timeout=30)
        assert page.status_code == 200, path
    rollout = httpx.get(f"{story.addresses.api}/rollouts/{story.rolled_back['rollout_id']}")
    assert "rolled back" in rollout.text
