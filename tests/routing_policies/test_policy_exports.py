"""A policy as other systems' rules: the same model where they can say it, else plain words."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cel
import pytest
from hypothesis import given, settings

from loop.domain.errors import Conflict, NotFound, Refused
from loop.domain.policies import Condition, Guards, RouteRequest, RoutingPolicy, Rule, decide
from routing_policies.policy_exports import export_policy, to_cel, to_portkey
from routing_policies.policy_history import export_history
from tests.fakes.policy_strategies import policies, requests
from tests.fakes.rollout_world import BOB, RolloutWorld, scratch_engine

OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
POLICY = RoutingPolicy(
    name="Short to Haiku",
    rules=(
        Rule("pay", (Condition("org_path", "==", "acme/pay"),), OPUS),
        Rule(
            "short",
            (
                Condition("input_tokens", "<", 10_000),
                Condition("requested_model", "in", (OPUS, "claude-sonnet-4-6")),
            ),
            HAIKU,
            "low",
        ),
    ),
    measure="new_tokens",
    guards=Guards({HAIKU: 150_000}),
)


@settings(deadline=None, max_examples=150)
@given(policies(), requests)
def test_the_cel_expression_gives_the_model_that_decide_gives(
    policy: RoutingPolicy, request: RouteRequest
) -> None:
    made = to_cel(policy).document
    variables = asdict(request)
    assert cel.evaluate(made["expression"], variables) == decide(policy, request).model
    for rule, row in zip(policy.rules, made["rules"], strict=True):
        alone = replace(policy, rules=(rule,), guards=Guards())
        matches = decide(alone, request).rule_id == rule.rule_id
        assert cel.evaluate(row["when"], variables) == matches


def portkey_model(config: dict[str, Any], metadata: dict[str, str], model: str) -> str:
    """The conditional router as Portkey's documentation gives it, for the operators used here."""
    import re

    def holds(query: dict[str, Any]) -> bool:
        ((key, test),) = query.items()
        if key == "$and":
            return all(map(holds, test))
        ((operator, value),) = test.items()
        found = model if key == "params.model" else metadata.get(key.removeprefix("metadata."))
        if found is None:
            return False
        if operator == "$in":
            return found in value
        if operator == "$regex":
            return re.search(value, found) is not None
        compare = {"$lt": float.__lt__, "$gt": float.__gt__, "$lte": float.__le__}
        return bool(compare[operator](float(found), float(value)))

    chosen = next(
        (one["then"] for one in config["strategy"]["conditions"] if holds(one["query"])),
        config["strategy"]["default"],
    )
    target = next(one for one in config["targets"] if one["name"] == chosen)
    return str(target.get("override_params", {}).get("model", model))


@pytest.mark.parametrize(
    ("org_path", "new_tokens", "total_input_tokens", "requested"),
    [
        ("acme/web", 9_999, 50_000, OPUS),
        ("acme/web", 10_000, 50_000, OPUS),
        ("acme/web", 10, 150_001, OPUS),
        ("acme/pay", 10, 20_000, OPUS),
        ("acme/pay/cards", 10, 20_000, "claude-sonnet-4-6"),
        ("acme/payroll", 10, 20_000, OPUS),
        ("acme/web", 10, 20_000, "another"),
    ],
)
def test_a_portkey_config_routes_as_the_policy_does(
    org_path: str, new_tokens: int, total_input_tokens: int, requested: str
) -> None:
    request = RouteRequest(
        requested_model=requested,
        session_id="s",
        org_path=org_path,
        new_tokens=new_tokens,
        total_input_tokens=total_input_tokens,
    )
    metadata = {
        "tw_org_path": org_path,
        "tw_new_tokens": str(new_tokens),
        "tw_total_input_tokens": str(total_input_tokens),
    }
    made = to_portkey(POLICY)
    assert portkey_model(made.document, metadata, requested) == decide(POLICY, request).model
    assert made.needs[0].endswith("tw_new_tokens, tw_org_path, tw_total_input_tokens")


def test_what_cannot_be_said_is_said() -> None:
    policy = replace(
        POLICY,
        rules=(
            *POLICY.rules,
            Rule("late", (Condition("turn_index", ">", 5),), HAIKU),
            Rule("keep", (), ""),
        ),
        guards=replace(POLICY.guards, min_run_requests=3),
    )
    for system in ("cel", "portkey"):
        missing = export_policy(policy, system).not_expressed
        assert "unit session: each request is decided by itself, no route is kept" in missing
        assert "rule short: effort low is not set" in missing
        assert any(line.startswith("tool_loop_lock") for line in missing)
        assert any(line.startswith("min_run_requests") for line in missing)
        assert any("are not fitted" in line for line in missing)
    with pytest.raises(Refused, match="late"):
        export_policy(policy, "bifrost")
    assert len(export_policy(POLICY, "bifrost").document["governance"]["routing_rules"]) == 3
    with pytest.raises(NotFound, match="terraform"):
        export_policy(policy, "terraform")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_history_has_a_commit_for_each_transition(tmp_path: Path) -> None:
    engine = scratch_engine(tmp_path / "control.db")
    world = RolloutWorld(engine)
    world.start()

    def export(folder: Path) -> tuple[int, str]:
        moves = [{**one.to_document(), "hash": one.hash} for one in world.store.transitions()]
        documents = {
            version.version: version.policy.to_document() for version in world.store.list_versions()
        }
        made = export_history(folder, documents, json.loads(json.dumps(moves)))
        return made.commits, made.head

    commits, _ = export(tmp_path / "one")
    assert commits == len(world.store.transitions()) == 7
    assert git(tmp_path / "one", "log", "-1", "--format=%cn|%ct|%s") == (
        f"person:bob|{world.now_us // 1_000_000}|Version 2: approved → canary"
    )
    assert git(tmp_path / "one", "status", "--porcelain") == ""
    policy = json.loads((tmp_path / "one" / "policies" / "2" / "policy.json").read_text())
    assert policy == world.store.get(2).policy.to_document()
    world.controller.pause("rollout-2", BOB, "wait")
    again = export(tmp_path / "one")
    assert again[0] == 1
    assert export(tmp_path / "one") == (0, again[1])
    assert export(tmp_path / "two")[1] == again[1]  # the same record, the same commits
    state = json.loads((tmp_path / "two" / "policies" / "2" / "state.json").read_text())
    assert state["state"] == "paused"
    engine.dispose()
    other = scratch_engine(tmp_path / "other.db")
    world = RolloutWorld(other)
    world.wait(5)
    for _ in range(8):
        world.approved(f"p{world.now_us}")
        world.wait(1)
    with pytest.raises(Conflict, match="another registry"):
        export(tmp_path / "one")
    other.dispose()
