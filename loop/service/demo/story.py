"""The demo's story, told in order: recordings, then a simulated fleet, then what holds."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loop.domain.errors import Unavailable
from loop.domain.policy_documents import parse_policy
from loop.service.api_client import ApiClient
from loop.service.commands.runs import estimate_lines
from loop.service.demo.claims import Claims
from loop.service.demo.policies import everything_to_haiku, small_prompts_to_haiku
from loop.service.demo.recorded_chapter import RecordedChapter
from loop.service.demo.service_process import (
    ServiceAddresses,
    free_addresses,
    running_service,
)
from loop.service.demo.telling import ProgressBar, begin_chapter, wait_until
from loop.service.printing import print_lines, talk
from loop.service.simulation import Fleet, FleetParameters, expected_quality, model_api_process

DAY_US = 24 * 3600 * 1_000_000
HISTORY_DAYS = 14
EXPLORING_SESSIONS = 1100
CANARY_SESSIONS = 200  # of one round; rounds follow until the rollout is decided
MAX_ROUNDS = 12
CONCURRENCY = 8
TRIALS = 150
EXPLORED = {"explore-short": 20, "explore-small": 60}  # prompt tokens below which haiku serves
EXPLORED_SHARE = 0.3
SETTLE_SECONDS = 4.0
OPERATOR = "demo-operator"
REVIEWER = "demo-reviewer"
RULE = {
    "TURNWISE_AUTO_APPROVE_MIN_SAVING_SHARE": "0.05",
    "TURNWISE_AUTO_APPROVE_MAX_QUALITY_LOSS": "0.08",
    "TURNWISE_AUTO_APPROVE_WRITTEN_BY": OPERATOR,
}
PACE = {
    "TURNWISE_DRAIN_INTERVAL_MS": "700",
    "TURNWISE_EVALUATE_INTERVAL_SECONDS": "1",
    "TURNWISE_ROLLOUT_INTERVAL_SECONDS": "1",
    "TURNWISE_ROLLOUT_STAGES": "25,50",
    "TURNWISE_ROLLOUT_MARGIN": "0.08",
    "TURNWISE_ROLLOUT_DWELL_SECONDS": "1",
    "TURNWISE_ROLLOUT_MATURATION_SECONDS": "2",
    "TURNWISE_GATE_MAX_QUALITY_LOSS": "0.08",
}


def run_demo(*, end: bool, seed: int, data_dir: Path | None) -> int:
    """Runs the demo; returns the exit code: 0, or 1 when one of its claims does not hold."""
    began = time.monotonic()
    with ExitStack() as stack:
        if data_dir is None:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="turnwise-")))
        else:
            shutil.rmtree(data_dir, ignore_errors=True)
        data_dir.mkdir(parents=True, exist_ok=True)
        model_api = stack.enter_context(model_api_process(FleetParameters()))
        environment = {**free_addresses(), **PACE, **RULE, "ANTHROPIC_BASE_URL": model_api}
        addresses = stack.enter_context(
            running_service(data_dir, environment, data_dir / "serve.log")
        )
        print_lines(f"turnwise is up: pages and API at {addresses.api}", "")
        client = stack.enter_context(ApiClient(addresses.api))
        demo = Demo(client, addresses, seed)
        RecordedChapter(client, addresses, data_dir, demo.claims).tell()
        demo.explore()
        demo.optimize()
        demo.promote()
        demo.roll_back()
        demo.summarise(time.monotonic() - began)
        if end:
            return 0 if demo.claims.hold() else 1
        print_lines("", f"It stays up: {addresses.api} (Ctrl-C ends it).")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0 if demo.claims.hold() else 1


class Demo:
    """Chapters 2 to 5. Each prints what happened and notes what it claims."""

    def __init__(self, client: ApiClient, addresses: ServiceAddresses, seed: int) -> None:
        self.claims = Claims()
        self._client = client
        self._parameters = FleetParameters()
        self._fleet = Fleet(self._parameters, addresses.edge, addresses.otlp_http, seed)
        self._seed = seed
        now_us = time.time_ns() // 1000
        self._history_from_us = now_us - HISTORY_DAYS * DAY_US
        self._clock_us = self._history_from_us

    # -- chapter 2 -----------------------------------------------------------------------------

    def explore(self) -> None:
        begin_chapter("2. SIMULATED fleet: whole policies at random, so that the log can answer")
        print_lines(
            "From here on everything is simulated (org path simulated/…, seed "
            f"{self._seed}; docs/simulation.md has every parameter).",
            "",
        )
        arms = {}
        for name, limit in EXPLORED.items():
            version = self._client.post(
                "/v1/policies", {"policy": small_prompts_to_haiku(name, limit), "actor": OPERATOR}
            )["version"]
            self._client.post(f"/v1/policies/{version}/gate")
            self._review(version, "explore: a bounded share of sessions")
            arms[str(version)] = EXPLORED_SHARE
        self._client.post(
            "/v1/explorations",
            {"arms": arms, "actor": OPERATOR, "reason": "randomise to learn what haiku can do"},
        )
        self._run_fleet(EXPLORING_SESSIONS, days=HISTORY_DAYS * 0.6)
        self._wait_for_scores()
        clusters = self._client.post("/v1/clusters")["rows"]
        for cluster in clusters[:3]:
            print_lines(
                f"cluster of {cluster['sessions']} low-scoring sessions: {cluster['label']} "
                f"(mean score {cluster['mean_score']:.2f})"
            )

    # -- chapter 3 -----------------------------------------------------------------------------

    def optimize(self) -> None:
        begin_chapter("3. Optimize: replay every candidate with its caches, estimate its quality")
        run = self._client.post(
            "/v1/runs",
            {
                "trials": TRIALS,
                "seed": self._seed,
                "margin": 0.05,
                "propose": True,
                "actor": OPERATOR,
            },
        )
        with ProgressBar("Trials") as advance:
            while run["state"] == "running":
                time.sleep(0.3)
                run = self._client.get(f"/v1/runs/{run['run_id']}")
                advance(run["trials_done"], TRIALS)
        print_lines(run["outcome"])
        self._run = run
        self.claims.note(
            "the optimizer proposed a policy", bool(run["proposed_version"]), run["outcome"]
        )
        if not run["proposed_version"]:
            raise Unavailable("The search proposed nothing: the demo can't go on.")
        shown = self._client.get(f"/v1/policies/{run['proposed_version']}")
        print_lines("", *shown["words"], "", "On later sessions that the search never saw:")
        print_lines(*estimate_lines(run["test"]))
        self._compare_with_truth(shown["document"], run["test"])

    def _compare_with_truth(self, document: dict[str, Any], estimate: dict[str, Any]) -> None:
        truth = expected_quality(parse_policy(document), self._parameters)
        before = expected_quality(None, self._parameters)
        print_lines(
            f"  the simulation's own truth: {truth.solve_rate:.3f} of tasks solved, "
            f"{before.solve_rate:.3f} before",
        )

    # -- chapters 4 and 5 ----------------------------------------------------------------------

    def promote(self) -> None:
        begin_chapter("4. Gate, written approval rule, canary, promotion")
        version = self._run["proposed_version"]
        report = self._client.post(f"/v1/policies/{version}/gate")
        print_lines(*report["lines"])
        self.claims.note("the gate passed the candidate", report["verdict"] == "passed", "")
        shown = self._client.get(f"/v1/policies/{version}")
        approval = next((move for move in shown["transitions"] if move["to"] == "approved"), None)
        if approval is None:
            raise Unavailable("The written rule did not approve: the demo can't go on.")
        print_lines("", f"approved by {approval['actor']}: {approval['reason']}", "")
        self._client.post(
            f"/v1/policies/{version}/publish", {"actor": OPERATOR, "reason": "canary of the demo"}
        )
        ended = self._run_until_decided()
        self._promoted = version
        self.claims.note(
            "the good policy's canary was promoted", ended["state"] == "promoted", ended["sentence"]
        )
        self._check_serving(version)

    def roll_back(self) -> None:
        begin_chapter("5. A bad policy: everything to haiku, which the log can't answer for")
        document = everything_to_haiku()
        version = self._client.post("/v1/policies", {"policy": document, "actor": OPERATOR})[
            "version"
        ]
        report = self._client.post(f"/v1/policies/{version}/gate")
        print_lines(*report["lines"])
        self._review(version, "a person takes the risk of a canary")
        self._client.post(
            f"/v1/policies/{version}/publish",
            {"actor": OPERATOR, "reason": "try everything on haiku"},
        )
        print_lines("", f"inconclusive, so {REVIEWER} decided to try it as a canary.", "")
        ended = self._run_until_decided()
        self.claims.note(
            "the bad policy was rolled back by itself",
            ended["state"] == "rolled_back",
            ended["sentence"],
        )
        self._check_serving(self._promoted)

    def _check_serving(self, version: int) -> None:
        policy = self._client.get("/v1/overview")["policy"]
        serving = {arm["policy_version"]: arm["weight"] for arm in policy["arms"]}
        print_lines(f"serial {policy['serial']} serves version {version} to all sessions.")
        self.claims.note(
            f"version {version} serves all sessions", serving == {version: 10_000}, str(serving)
        )

    def _review(self, version: int, reason: str) -> None:
        shown = self._client.get(f"/v1/policies/{version}")
        if shown["state"] != "in_review":
            shown = self._client.post(
                f"/v1/policies/{version}/submit", {"actor": OPERATOR, "reason": reason}
            )
        self._client.post(
            f"/v1/policies/{version}/approve",
            {"actor": REVIEWER, "reason": reason, "review_cycle": shown["review_cycle"]},
        )

    def _run_until_decided(self) -> dict[str, Any]:
        """Lets the fleet work in rounds until the newest rollout has ended."""
        for _ in range(MAX_ROUNDS):
            self._run_fleet(CANARY_SESSIONS, days=0.25)
            self._wait_for_scores()
            rollout = self._settled_rollout()
            print_lines(f"  {rollout['sentence']}")
            if rollout["finished"]:
                return rollout
        return rollout

    def _settled_rollout(self) -> dict[str, Any]:
        """The rollout after the controller has looked at what is scored by now."""
        time.sleep(SETTLE_SECONDS)
        return self._client.get("/v1/rollouts/latest")

    def _run_fleet(self, sessions: int, *, days: float) -> None:
        start_us, self._clock_us = self._clock_us, self._clock_us + int(days * DAY_US)
        with ProgressBar("Simulated sessions") as advance:
            report = asyncio.run(
                self._fleet.run_sessions(sessions, start_us, self._clock_us, CONCURRENCY, advance)
            )
        talk.print(
            f"{report.sessions} simulated sessions, {report.turns} turns, "
            f"{report.requests / report.elapsed_seconds:.0f} requests/s, {report.failures} failed"
        )
        self.claims.note("no request of the fleet failed", report.failures == 0, "")

    def _wait_for_scores(self) -> None:
        def settled() -> bool:
            answer = self._client.post("/v1/evaluate")
            return bool(answer["sessions"] == 0)

        wait_until(settled, "the simulated sessions are scored")

    # -- the end -------------------------------------------------------------------------------

    def summarise(self, elapsed_seconds: float) -> None:
        begin_chapter("What happened")
        for move in reversed(self._client.get("/v1/overview")["transitions"]):
            print_lines(
                f"version {move['version']}: {move['from']} → {move['to']} by {move['actor']}"
            )
        print_lines("", *self.claims.lines(), "", f"{elapsed_seconds:.0f} seconds.")
