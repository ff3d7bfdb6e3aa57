"""The documents that the page tests look at, in the shapes of ``docs/http-api.md``."""

from __future__ import annotations

import math
from typing import Any

NOW_US = 1_763_900_000_000_000
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\x1b[31mred\x1b[0m\u202egnp'
SESSION_ID = "11111111-2222-4333-8444-555555555555"


def session_row(**given: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "session_id": SESSION_ID,
        "started_at_us": NOW_US - 3_600_000_000,
        "ended_at_us": NOW_US - 3_000_000_000,
        "developer": "ada@example.com",
        "org_path": "engineering/payments/cc-4711",
        "repository": "example/shop",
        "models": ["claude-haiku-4-5", "claude-opus-4-7"],
        "turns": 2,
        "tool_calls": 3,
        "tool_errors": 1,
        "failed_attempts": 1,
        "total_input_tokens": 123_456,
        "output_tokens": 789,
        "cost_microusd": 1_234_567,
        "unpriced_turns": 0,
        "quality": 0.42,
        "scores": {"faithfulness": 0.0, "tool_use": 0.8, "code_correctness": None},
        "arm": "canary",
        "policy_version": 2,
    }
    return row | given


def tool_row(**given: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "tool_use_id": "toolu_1",
        "name": "Bash",
        "success": False,
        "error_type": "exit 1",
        "decision": "accept",
        "duration_ms": 1_200,
        "at_us": NOW_US,
        "inferred": False,
        "input_state": "present",
        "output_state": "truncated",
    }
    return row | given


def turn_row(**given: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "turn_id": "req_1",
        "started_at_us": NOW_US - 3_600_000_000,
        "duration_ms": 2_345,
        "agent_id": "",
        "agent_name": "",
        "request_class": "main",
        "requested_model": "claude-opus-4-7",
        "model": "claude-opus-4-7",
        "status": "ok",
        "stop_reason": "tool_use",
        "attempts": 2,
        "error_status": 529,
        "input_tokens": 12,
        "cache_read_tokens": 90_000,
        "cache_creation_5m_tokens": 1_200,
        "cache_creation_1h_tokens": 0,
        "output_tokens": 456,
        "cost_microusd": 1_200_000,
        "unpriced_reason": "",
        "arm": "canary",
        "rule_id": "small",
        "policy_version": 2,
        "tools": [tool_row()],
    }
    return row | given


def reach_rows() -> list[dict[str, Any]]:
    shares = {
        "total_input_tokens": (11, 0.0011, 0.00025),
        "uncached_input_tokens": (9_997, 0.9997, 0.9991),
        "new_tokens": (9_400, 0.94, 0.71),
        "prompt_tokens": (9_990, 0.999, 0.98),
    }
    return [
        {
            "rule_id": "small",
            "measure": measure,
            "turns": turns,
            "turn_share": turn_share,
            "session_share": None,
            "token_share": cost_share,
            "cost_share": cost_share,
        }
        for measure, (turns, turn_share, cost_share) in shares.items()
    ]


def policy_document(name: str = "classic", threshold: int = 10_000) -> dict[str, Any]:
    return {
        "schema": "turnwise.policy/1",
        "name": name,
        "description": "small requests to the small model",
        "measure": "new_tokens",
        "unit": "session",
        "rules": [
            {
                "id": "small",
                "when": [{"field": "input_tokens", "op": "<", "value": threshold}],
                "set": {"model": "claude-haiku-4-5", "effort": ""},
            }
        ],
        "default": {"model": "claude-opus-4-7"},
        "estimator": {"kind": "chars", "chars_per_token": 3.3, "image_tokens": 1600},
        "guards": {"max_context_tokens": {"claude-haiku-4-5": 180_000}, "tool_loop_lock": True},
    }


def slice_row(dimension: str, name: str, **given: Any) -> dict[str, Any]:
    return {
        "dimension": dimension,
        "name": name,
        "sessions": 120,
        "scored_sessions": 110,
        "effective_sample_size": 55.5,
        "saving_share": 0.2,
        "difference": {"estimate": -0.06, "low": -0.1, "high": -0.02},
        "p_worse": 0.004,
        "p_worse_holm": 0.5,
    } | given


def estimate(**given: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "policy_digest": "sha256:" + "ab" * 32,
        "sessions": 400,
        "turns": 12_000,
        "logged_cost_microusd": 90_000_000,
        "incumbent_cost_microusd": 91_000_000,
        "candidate_cost_microusd": 70_000_000,
        "naive_cost_microusd": 30_000_000,
        "rerouted_turns": 3_000,
        "reach": reach_rows(),
        "reach_words": ["short matches 0.1 % of turns: a dead rule."],
        "quality": {
            "value": {"estimate": 0.81, "low": 0.78, "high": 0.84},
            "difference": {"estimate": -0.004, "low": -0.02, "high": 0.012},
            "snips": 0.8,
            "sessions": 380,
            "effective_sample_size": 141.5,
            "support": 0.97,
            "refusals": ["too few sessions of team beta"],
        },
        "length_words": ["main turns, haiku for opus: 0.71 output tokens for one (3,000 turns)."],
        "session_cost_usd": {"difference": {"estimate": -0.05, "low": -0.061, "high": -0.04}},
        "session_wait_seconds": {"difference": {"estimate": 1.25, "low": -0.5, "high": 3.0}},
        "slices": [
            slice_row("repository", "ledger", p_worse_holm=0.01),
            slice_row("language", "Rust", difference=None, p_worse_holm=None, saving_share=None),
        ],
        "unpriced_turns": 3,
        "saving_share": 0.2308,
        "calibration_residual": 0.0111,
    }
    return document | given


def run_document(**given: Any) -> dict[str, Any]:
    trials = [
        {
            "number": number,
            "words": [f"new tokens < {number + 1},000: claude-haiku-4-5"],
            "parameters": {"measure": "new_tokens", "threshold": 1_000 * (number + 1)},
            "policy": policy_document("found" if number == 7 else "trial", 1_000 * (number + 1)),
            "saving_share": number * 0.03 - 0.05,
            "quality_difference_low": None if number == 9 else 0.02 - number * number / 1_000,
            "feasible": number < 8,
            "on_front": number in (3, 5, 7),
        }
        for number in range(10)
    ]
    document: dict[str, Any] = {
        "run_id": "run-2026-11-23-1",
        "state": "finished",
        "started_at_us": NOW_US - 60_000_000,
        "finished_at_us": NOW_US,
        "seed": 7,
        "settings": {"sampler": "tpe", "trials": 10},
        "importance": {"threshold_share": 0.6, "unit": 0.4},
        "spent_usd": 0.0012,
        "outcome": "A better policy was found: it saves 23.1 %.",
        "trials_done": 10,
        "table_versions": {"turns": 12, "scores": 4},
        "incumbent": policy_document("as-requested"),
        "found": policy_document("found", 8_000),
        "found_words": ["new tokens < 8,000: claude-haiku-4-5", "Otherwise: claude-opus-4-7."],
        "selection": estimate(saving_share=0.27),
        "test": estimate(),
        "trials": trials,
        "proposed_version": 2,
        "is_part": False,
    }
    return document | given


def policy_row(**given: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "version": 2,
        "name": "found",
        "digest": "sha256:" + "cd" * 32,
        "state": "in_review",
        "proposer": "optimizer:run-2026-11-23-1",
        "created_at_us": NOW_US - 7_200_000_000,
        "run_id": "run-2026-11-23-1",
        "parent_version": 1,
        "review_cycle": 3,
        "measure": "new_tokens",
        "unit": "session",
        "words": ["new tokens < 8,000: claude-haiku-4-5", "Otherwise: claude-opus-4-7."],
    }
    return row | given


def transition_rows() -> list[dict[str, Any]]:
    return [
        {
            "at_us": NOW_US - 7_200_000_000,
            "version": 2,
            "from": "",
            "to": "proposed",
            "actor": "optimizer:run-2026-11-23-1",
            "reason": "proposed",
            "review_cycle": 0,
            "evidence": {},
            "hash": "0" * 64,
        },
        {
            "at_us": NOW_US - 3_600_000_000,
            "version": 2,
            "from": "proposed",
            "to": "gate_passed",
            "actor": "gate:offline",
            "reason": "all checks passed",
            "review_cycle": 0,
            "evidence": {},
            "hash": "1" * 64,
        },
    ]


GATE: dict[str, Any] = {
    "policy_digest": "sha256:" + "cd" * 32,
    "verdict": "passed",
    "checks": [
        {
            "name": "saving",
            "value": 0.2308,
            "limit": 0.02,
            "verdict": "passed",
            "reason": "saves 23.08 % of cost, at least 2 %",
        },
        {
            "name": "quality",
            "value": None,
            "limit": -0.02,
            "verdict": "inconclusive",
            "reason": "the log can't tell",
        },
    ],
}


def rollout_report(**given: Any) -> dict[str, Any]:
    path = [
        {
            "units": units,
            "assigned_at_us": NOW_US - 7_200_000_000 + units * 4_000_000,
            "estimate": 0.004 * math.sin(units / 90),
            "low": 0.004 * math.sin(units / 90) - 1.2 / math.sqrt(units),
            "high": 0.004 * math.sin(units / 90) + 1.2 / math.sqrt(units),
        }
        for units in range(200, 1_700, 15)
    ]
    arms = [
        {
            "arm": arm,
            "sessions": sessions,
            "scored": sessions - 10,
            "turns": sessions * 12,
            "errors": 3,
            "refusals": 1,
            "quality_mean": quality,
            "cost_per_session_microusd": cost,
        }
        for arm, sessions, quality, cost in (
            ("canary", 850, 0.812, 310_000.4),
            ("stable", 9_000, None, None),
            ("control", 846, 0.815, 402_000.9),
        )
    ]
    document: dict[str, Any] = {
        "at_us": NOW_US,
        "units": 1_685,
        "stage_units": 400,
        "canary_units": 840,
        "waiting_units": 35,
        "unscored_units": 21,
        "estimate": path[-1]["estimate"],
        "low": path[-1]["low"],
        "high": path[-1]["high"],
        "running_low": path[-1]["low"],
        "running_high": path[-1]["high"],
        "e_value": 0.7,
        "is_worse": False,
        "is_not_inferior": False,
        "quality_words": "undecided",
        "arms": arms,
        "guardrails": [
            {
                "name": "error rate",
                "kind": "hard",
                "verdict": "passed",
                "action": "none",
                "reason": "error rate 0.4 % in the last 20 canary sessions, limit 20.0 %",
                "value": 0.004,
                "limit": 0.2,
                "units": 840,
            },
            {
                "name": "telemetry share",
                "kind": "measurement",
                "verdict": "error",
                "action": "hold",
                "reason": "telemetry came for 60 of the last 100 canary sessions",
                "value": 0.6,
                "limit": 0.8,
                "units": 100,
            },
        ],
        "path": path,
    }
    return document | given


def rollout_document(**given: Any) -> dict[str, Any]:
    started_us = NOW_US - 7_200_000_000
    document: dict[str, Any] = {
        "rollout_id": "r-1",
        "channel": "prod",
        "version": 2,
        "stable_version": 1,
        "state": "canary",
        "finished": False,
        "stage": 3,
        "canary_weights": [100, 500, 1_000, 2_500, 5_000],
        "sentence": "undecided: difference −0.3 points, 95 % CS −3.2…+2.6, margin −2.0; n=1,685",
        "step": "wait",
        "plan": {
            "margin": 0.02,
            "tolerance": 0.0,
            "alpha": 0.05,
            "min_units": 200,
            "min_canary_units": 30,
        },
        "started_by": "person:grace",
        "started_at_us": started_us,
        "stage_started_at_us": started_us + 5_000_000_000,
        "ended_at_us": None,
        "end_reason": "",
        "completed_at_us": None,
        "looked_at_us": NOW_US,
        "gateways": {
            "serial": 12,
            "live": ["edge/one", "edge/two", "edge/three"],
            "behind": ["edge/two"],
            "rejected": ["edge/three (signature unknown)"],
            "stale": ["edge/old"],
        },
        "report": rollout_report(),
        "log": [
            {
                "at_us": started_us + index * 2_500_000_000,
                "what": f"stage {index + 1}",
                "actor": "rollout:controller",
                "reason": "on to the next stage",
                "serial": 10 + index,
            }
            for index in range(3)
        ],
        "rollback_complete": False,
        "is_part": False,
    }
    return document | given


def judge_document(**given: Any) -> dict[str, Any]:
    """What ``GET /v1/judge`` answers."""
    document: dict[str, Any] = {
        "model": "claude-haiku-4-5",
        "off_because": "",
        "day": "2026-11-23",
        "spent_microusd": 1_200_000,
        "budget_microusd": 5_000_000,
        "left_microusd": 3_800_000,
        "by_path": [
            {"org_path": "engineering/payments", "spent_microusd": 1_100_000},
            {"org_path": "", "spent_microusd": 100_000},
        ],
        "on_its_way": 12,
        "quality_measure": "judge_faithfulness",
        "labels": [
            {
                "rubric": "faithfulness",
                "source": "labels.csv",
                "labels": 310,
                "sessions": 120,
                "labellers": 3,
                "mean": 0.81,
                "newest_at_us": NOW_US,
            }
        ],
    }
    return document | given


def calibration_document() -> dict[str, Any]:
    """What ``GET /v1/judge/calibration`` answers: a judge that may decide, and one that may not."""
    interval = {"estimate": 0.61, "low": 0.47, "high": 0.74}
    fine: dict[str, Any] = {
        "rubric": "faithfulness",
        "version": "1+claude-haiku-4-5+0123456789abcdef",
        "judged_sessions": 4_210,
        "unscored": {"off_menu": 3, "refusal": 1},
        "cost_microusd": 41_000_000,
        "agreement": {
            "items": 310, "sessions": 120, "kappa": interval, "bad_share": 0.14,
            "judged_bad_share": 0.17,
        },
        "mean": {"mean": {"estimate": 0.83, "low": 0.79, "high": 0.87}},
        "drift": {"items": 90, "flips": 2, "is_alarm": False},
        "refusals": [],
        "may_decide": True,
    }  # fmt: skip
    adrift = fine | {
        "rubric": "tool_use",
        "unscored": {},
        "agreement": {
            "items": 0, "sessions": 0, "kappa": None, "bad_share": None, "judged_bad_share": None,
        },
        "mean": None,
        "drift": {"items": 90, "flips": 31, "is_alarm": True},
        "refusals": ["0 of its sessions are labelled, fewer than 100"],
        "may_decide": False,
    }  # fmt: skip
    limits = {"min_kappa": 0.4, "min_labelled_sessions": 100, "max_flip_share": 0.05}
    return {"rows": [fine, adrift], "limits": limits, "next": None}
