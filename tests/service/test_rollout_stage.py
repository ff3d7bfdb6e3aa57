"""What a rollout is told of its sessions, from the tables, and the plan that it starts under."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loop.domain.errors import BadInput
from loop.lake import Lake
from loop.service.rollout_stage import plan_of, read_cost_reference, read_outcomes
from loop.service.settings import Settings
from tests.lake.lake_records import NOON_US, decision, score, turn


def test_a_sessions_outcome_is_read_from_decisions_turns_and_scores(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path / "lake"))
    first = replace(
        decision(1), session_id="s1", rollout_id="rollout-2", serial=4, arm="canary", at_us=NOON_US
    )
    decisions = [
        replace(first, upstream_status=200, gateway="kong"),
        replace(first, decision_id="later", at_us=NOON_US + 5, arm="stable", upstream_status=529),
        replace(first, decision_id="unknown", at_us=NOON_US + 6, upstream_status=None),
        replace(first, decision_id="silent", session_id="s2", arm="control", upstream_status=None),
        replace(first, decision_id="other", session_id="s3", rollout_id="rollout-9"),
    ]
    lake.write_decisions([*decisions, decisions[0]], journal="j", position=1)
    lake.write_turns(
        [
            turn(1, "s1", duration_ms=1_000),
            turn(2, "s1", duration_ms=3_000, status="error"),
            turn(3, "s1", duration_ms=None, status="refused"),
            turn(4, "s3"),
        ],
        [],
        revision=1,
    )
    lake.write_scores(
        [
            score("s1", evaluator="quality", value=0.75),
            score("s1", evaluator="tool_use", value=0.5),
        ]
    )
    seen, silent = sorted(read_outcomes(lake, "rollout-2"), key=lambda one: one.session_id)
    assert (seen.arm, seen.serial, seen.assigned_at_us, seen.gateway) == (
        "canary",
        4,
        NOON_US,
        "kong",
    )
    assert (seen.gateway_answers, seen.gateway_failures) == (2, 1)
    assert (seen.turns, seen.errors, seen.refusals) == (3, 1, 1)
    assert (seen.quality, seen.tool_use, seen.duration_ms) == (0.75, 0.5, 2_000.0)
    assert (seen.cost_microusd, seen.developer) == (306, "dana@example.com")
    assert (silent.turns, silent.cost_microusd, silent.quality) == (0, None, None)
    assert (silent.developer, silent.duration_ms, silent.gateway_answers) == ("", None, 0)


def test_what_sessions_cost_before_is_known_only_of_enough_priced_ones(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path / "lake"))
    assert read_cost_reference(lake, NOON_US) is None
    cheap = [
        turn(1, f"s{number}", started_at_us=NOON_US, cost_microusd=1_000) for number in range(99)
    ]
    dear = turn(1, "dear", started_at_us=NOON_US, cost_microusd=10**9)
    old = turn(1, "old", started_at_us=NOON_US - 8 * 86_400_000_000, cost_microusd=10**9)
    unpriced = turn(1, "unpriced", started_at_us=NOON_US, cost_microusd=None)
    lake.write_turns([*cheap, old, unpriced], [], revision=1)
    assert read_cost_reference(lake, NOON_US + 10) is None
    lake.write_turns([dear], [], revision=2)
    found = read_cost_reference(lake, NOON_US + 10)
    assert found is not None
    assert 1_000 <= found.mean_microusd < found.cap_microusd < 10**9


def test_a_plan_is_the_settings_with_what_one_rollout_changes() -> None:
    settings = Settings(rollout_stages=("2.5", "50"), rollout_margin=0.04)
    plan = plan_of(settings)
    assert (plan.canary_weights, plan.margin) == ((250, 5000), 0.04)
    changed = plan_of(settings, {"margin": 0.01, "caps": {"max_canary_sessions": 9}})
    assert (changed.margin, changed.caps.max_canary_sessions) == (0.01, 9)
    assert changed.canary_weights == plan.canary_weights
    with pytest.raises(BadInput):
        plan_of(settings, {"speed": 1})
