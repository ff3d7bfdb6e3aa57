"""Readings as the API answers them: what the page tests look at.

``FilledReadings`` has one of everything, ``EmptyReadings`` is a fresh installation.
"""

from __future__ import annotations

from typing import Any

from loop.domain.errors import NotFound
from tests.service.web_documents import (
    GATE,
    NOW_US,
    SESSION_ID,
    calibration_document,
    judge_document,
    policy_document,
    policy_row,
    reach_rows,
    rollout_document,
    run_document,
    session_row,
    tool_row,
    transition_rows,
    turn_row,
)


class FilledReadings:
    """One of everything. ``given`` replaces parts of the session, run, policy and rollout."""

    def __init__(self, **given: dict[str, Any]) -> None:
        self.given = given
        self.asked: list[tuple[str, Any]] = []

    def overview(self) -> dict[str, Any]:
        stages = ["collect", "lake", "evaluate", "cluster", "optimize", "publish", "roll out"]
        return {
            "as_of_us": NOW_US,
            "stages": [
                {
                    "name": name,
                    "label": name.capitalize(),
                    "last_at_us": None if index == 6 else NOW_US - index * 60_000_000,
                    "count": 1_234 * index,
                    "note": "started with `turnwise serve`" if index == 6 else "",
                    "url": "/sessions",
                }
                for index, name in enumerate(stages)
            ],
            "spend": {
                "month": "2026-11",
                "cost_microusd": 123_456_789,
                "turns": 4_321,
                "unpriced_turns": 5,
            },
            "waiting": [{"what": "Version 2 waits for a review", "url": "/policies/2"}],
            "transitions": transition_rows(),
            "policy": {
                "serial": 9,
                "arms": [
                    {"name": "canary", "weight": 500, "policy_version": 2},
                    {"name": "stable", "weight": 9_000, "policy_version": 1},
                    {"name": "control", "weight": 500, "policy_version": 1},
                ],
            },
        }

    def list_sessions(self, **options: Any) -> dict[str, Any]:
        self.asked.append(("list_sessions", options))
        if options.get("developer") == "nobody":
            return {"rows": [], "next": None}
        rows = [
            session_row(**self.given.get("session", {})),
            session_row(
                session_id="simulated-1",
                org_path="simulated/alpha",
                developer="dev-01",
                cost_microusd=None,
                unpriced_turns=2,
                quality=None,
                arm="",
                policy_version=None,
                scores={},
            ),
        ]
        return {"rows": rows, "next": None if options.get("cursor") else "more"}

    def show_session(self, session_id: str, *, content: bool = False) -> dict[str, Any]:
        self.asked.append(("show_session", content))
        row = session_row(**self.given.get("session", {}))
        if session_id != row["session_id"]:
            raise NotFound(f"No session {session_id!r}.", fix="`turnwise session list` names them.")
        texts = self.given.get("texts", {})
        prompt: dict[str, Any] = {
            "prompt_id": "p1",
            "at_us": NOW_US - 3_600_000_000,
            "chars": 40,
            "state": "present",
            "from_human": True,
        }
        first = turn_row(**self.given.get("turn", {}))
        second = turn_row(
            turn_id="req_2",
            agent_id="a1",
            agent_name="Explore",
            request_class="subagent",
            model="unknown-model",
            cost_microusd=None,
            unpriced_reason="unknown model unknown-model",
            attempts=1,
            error_status=None,
            status="refused",
            stop_reason="",
            rule_id="",
            tools=[tool_row(inferred=True, name="", tool_use_id=""), tool_row(success=None)],
        )
        if content:
            prompt["text"] = texts.get("prompt", "Please run the tests")
            for turn in (first, second):
                turn["texts"] = [texts.get("answer", "All tests pass.")]
                turn["tools"] = [
                    tool | {"input": "pytest -q", "output": texts.get("output", "1 failed")}
                    for tool in turn["tools"]
                ]
        return {
            "session": row,
            "prompts": [prompt],
            "turns": [first, second],
            "scores": [
                {
                    "session_id": session_id,
                    "evaluator": "faithfulness",
                    "evaluator_version": "1",
                    "value": 0.0,
                    "unscored_reason": "",
                    "coverage": 1.0,
                    "findings": [
                        {
                            "verdict": "contradicted",
                            "claim": texts.get("claim", "All tests pass."),
                            "reason": "the last test run failed",
                            "turn_id": "req_1",
                            "evidence": ["toolu_1"],
                        }
                    ],
                    "scored_at_us": NOW_US,
                    "input_digest": "",
                },
                {
                    "session_id": session_id,
                    "evaluator": "code_correctness",
                    "evaluator_version": "1",
                    "value": None,
                    "unscored_reason": "no test or build was run",
                    "coverage": 0.0,
                    "findings": [],
                    "scored_at_us": NOW_US,
                    "input_digest": "",
                },
            ],
            "labels": [
                {
                    "session_id": session_id,
                    "rubric": "faithfulness",
                    "item": "",
                    "value": 0.25,
                    "labeller": "ana",
                    "note": texts.get("note", "it says so twice"),
                    "probability": 1.0,
                    "source": "console",
                    "at_us": NOW_US,
                }
            ],
        }

    def list_clusters(self) -> dict[str, Any]:
        return {
            "rows": [self.show_cluster("c1")],
            "next": None,
            "scored_sessions": 40,
            "unscored_sessions": 3,
        }

    def show_cluster(self, cluster_id: str) -> dict[str, Any]:
        row = {
            "cluster_id": "c1",
            "label": "failing edits, many retries",
            "sessions": 12,
            "mean_score": 0.31,
            "cost_microusd": 4_500_000,
            "cost_share": 0.034,
            "features": [
                {"name": "tool_errors", "cluster_mean": 4.25, "overall_mean": 0.5},
                {"name": "turns", "cluster_mean": 31.0, "overall_mean": 12.0},
            ],
            "exemplars": [SESSION_ID],
            "name": "Edits that do not apply",
            "named_by": "model-1/prompt-1",
            "kind": "group",
            "state": "split",
            "parents": ["c0"],
            "lost_cost_microusd": 3_100_000,
            "stability": 0.93,
            "contrast": "unlike “loops”: more failing calls",
            "lifts": [
                {
                    "kind": "repository",
                    "name": "shop",
                    "cluster_share": 0.8,
                    "overall_share": 0.2,
                    "lift": 4.0,
                    "low": 2.5,
                    "high": 5.5,
                }
            ],
            "policy_check": {
                "verdict": "can't tell",
                "reason": "no two policy versions served 20 scored sessions each",
            },
        }
        return row | self.given.get("cluster", {})

    def show_judge(self) -> dict[str, Any]:
        return judge_document()

    def show_calibration(self) -> dict[str, Any]:
        return calibration_document()

    def reach_of_classic(self) -> dict[str, Any]:
        return {"rows": reach_rows(), "next": None}

    def list_runs(self) -> dict[str, Any]:
        return {"rows": [run_document(**self.given.get("run", {}))], "next": None}

    def show_run(self, run_id: str) -> dict[str, Any]:
        return run_document(**self.given.get("run", {}))

    def list_policies(self) -> dict[str, Any]:
        first = policy_row(version=1, name="as-requested", state="active", run_id="")
        return {"rows": [policy_row(**self.given.get("policy", {})), first], "next": None}

    def show_policy(self, version: int) -> dict[str, Any]:
        if version > 2:
            raise NotFound(f"There is no policy version {version}.")
        return policy_row(version=version) | {
            "document": policy_document(),
            "transitions": transition_rows(),
            "gate": GATE,
            "reach": reach_rows(),
            "reach_words": ["short matches 0.1 % of turns: a dead rule."],
            **self.given.get("policy", {}),
        }

    def diff_policies(self, before: int, after: int) -> dict[str, Any]:
        words = ["measure: total_input_tokens → new_tokens", "new rule small: …"]
        documents = {"from": policy_document("as-requested"), "to": policy_document("found", 8_000)}
        return {"from": before, "to": after, "words": words, "documents": documents}

    def list_rollouts(self) -> dict[str, Any]:
        return {"rows": [rollout_document(**self.given.get("rollout", {}))], "next": None}

    def show_rollout(self, rollout_id: str) -> dict[str, Any]:
        return rollout_document(**self.given.get("rollout", {}))

    def spend(self, by: str, **options: Any) -> dict[str, Any]:
        self.asked.append(("spend", {"by": by, **options}))
        keys = {
            "developer": ("developer", "ada@example.com"),
            "session": ("session_id", SESSION_ID),
            "repo": ("repository", "example/shop"),
            "org": ("org_path", "simulated/alpha"),
            "model": ("model", "claude-opus-4-7"),
            "day": ("day", "2026-11-23"),
        }
        amounts = {
            "turns": 10,
            "input_tokens": 1_000,
            "cache_read_tokens": 900_000,
            "cache_creation_5m_tokens": 20_000,
            "cache_creation_1h_tokens": 0,
            "output_tokens": 5_000,
        }
        names = dict(keys[name] for name in by.split(","))
        first = names | amounts | {"cost_microusd": 3_000_001, "unpriced_turns": 0}
        second = names | amounts | {"cost_microusd": None, "unpriced_turns": 10}
        return {"rows": [first, second], "next": None}


NOTHING: dict[str, Any] = {"rows": [], "next": None}


class EmptyReadings:
    """A fresh installation: nothing was sent yet."""

    def overview(self) -> dict[str, Any]:
        filled = FilledReadings().overview()
        stages = [stage | {"last_at_us": None, "count": 0} for stage in filled["stages"]]
        spend = {"month": "2026-11", "cost_microusd": 0, "turns": 0, "unpriced_turns": 0}
        empty = {"waiting": [], "transitions": [], "policy": None}
        return filled | {"stages": stages, "spend": spend} | empty

    def list_sessions(self, **options: Any) -> dict[str, Any]:
        return NOTHING

    def show_session(self, session_id: str, *, content: bool = False) -> dict[str, Any]:
        raise NotFound(f"No session {session_id!r}.", fix="`turnwise session list` names them.")

    def list_clusters(self) -> dict[str, Any]:
        return NOTHING

    def show_judge(self) -> dict[str, Any]:
        nothing = {"spent_microusd": 0, "left_microusd": 5_000_000, "by_path": [], "labels": []}
        return judge_document() | nothing | {"off_because": "There is no key of the model API."}

    def show_calibration(self) -> dict[str, Any]:
        return calibration_document() | {"rows": []}

    def reach_of_classic(self) -> dict[str, Any]:
        return NOTHING

    def list_runs(self) -> dict[str, Any]:
        return NOTHING

    def show_run(self, run_id: str) -> dict[str, Any]:
        raise NotFound(f"No run {run_id!r}.")

    def list_policies(self) -> dict[str, Any]:
        return NOTHING

    def show_policy(self, version: int) -> dict[str, Any]:
        raise NotFound(f"There is no policy version {version}.")

    def diff_policies(self, before: int, after: int) -> dict[str, Any]:
        raise NotFound(f"There is no policy version {before}.")

    def list_rollouts(self) -> dict[str, Any]:
        return NOTHING

    def show_rollout(self, rollout_id: str) -> dict[str, Any]:
        raise NotFound(f"No rollout {rollout_id!r}.")

    def spend(self, by: str, **options: Any) -> dict[str, Any]:
        return NOTHING
