"""Approval: by a second person or a written rule, and only of what was looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loop.control.store import connect, metadata
from loop.domain.errors import BadInput, Conflict, Refused
from loop.domain.estimates import Interval, OutcomeEstimate, PolicyEstimate
from loop.domain.lifecycle import Actor, ActorKind, State
from loop.domain.policies import Condition, RoutingPolicy, Rule
from routing_policies.offline_gate import GateReport, judge_estimate
from routing_policies.review import (
    AutoApprovalRule,
    approve,
    approve_by_rule,
    record_gate,
    reject,
    submit,
)
from routing_policies.version_store import VersionStore

ANN = Actor(ActorKind.PERSON, "ann")
BOB = Actor(ActorKind.PERSON, "bob")
POLICY = RoutingPolicy(
    "short", (Rule("short", (Condition("prompt_tokens", "<", 900),), "claude-haiku-4-5"),)
)
ESTIMATE = PolicyEstimate(
    policy_digest=POLICY.digest,
    sessions=500,
    turns=9000,
    logged_cost_microusd=1_000_000,
    incumbent_cost_microusd=1_000_000,
    candidate_cost_microusd=700_000,
    naive_cost_microusd=500_000,
    rerouted_turns=4000,
    reach=(),
    quality=OutcomeEstimate(None, Interval(0.0, -0.01, 0.01), None, 500, 300.0, 1.0),
)
RULE = AutoApprovalRule("cheap-and-safe", "ann", min_saving_share=0.1, min_quality_low=-0.02)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VersionStore]:
    engine = connect(f"sqlite:///{tmp_path}/control.db")
    metadata.create_all(engine)
    yield VersionStore(engine)
    engine.dispose()


@pytest.fixture
def version(store: VersionStore) -> int:
    """Proposed by ann."""
    return store.propose(POLICY, ANN)


def reviewed(store: VersionStore, version: int, report: GateReport | None = None) -> int:
    record_gate(store, version, report or judge_estimate(ESTIMATE))
    return submit(store, version, ANN, "please look")


def test_the_gates_report_is_kept_as_evidence(store: VersionStore, version: int) -> None:
    report = judge_estimate(ESTIMATE)
    record_gate(store, version, report)
    move = store.transitions(version)[-1]
    assert move.to_state is State.GATE_PASSED
    assert move.evidence == report.to_document()
    assert move.reason == "all 6 checks kept their limits"


@pytest.mark.parametrize(
    ("estimate", "state"),
    [
        (replace(ESTIMATE, candidate_cost_microusd=2_000_000), State.GATE_FAILED),
        (replace(ESTIMATE, sessions=3), State.GATE_INCONCLUSIVE),
        (replace(ESTIMATE, sessions=0), State.PROPOSED),
    ],
    ids=["failed", "inconclusive", "error moves nothing"],
)
def test_a_version_goes_where_the_gate_sends_it(
    store: VersionStore, version: int, estimate: PolicyEstimate, state: State
) -> None:
    record_gate(store, version, judge_estimate(estimate))
    assert store.get(version).state is state


def test_a_report_about_another_policy_is_refused(store: VersionStore, version: int) -> None:
    other = judge_estimate(replace(ESTIMATE, policy_digest="sha256:other"))
    with pytest.raises(Refused, match="another policy"):
        record_gate(store, version, other)
    assert store.get(version).state is State.PROPOSED


def test_a_second_person_approves(store: VersionStore, version: int) -> None:
    cycle = reviewed(store, version)
    assert approve(store, version, BOB, review_cycle=cycle, reason="fine").review_cycle == cycle
    assert store.get(version).state is State.APPROVED


@pytest.mark.parametrize("name", ["ann", "Ann", " ANN "])
def test_nobody_approves_their_own(store: VersionStore, version: int, name: str) -> None:
    cycle = reviewed(store, version)
    with pytest.raises(Refused):
        approve(store, version, Actor(ActorKind.PERSON, name), review_cycle=cycle, reason="mine")
    assert store.get(version).state is State.IN_REVIEW


def test_an_approval_of_an_earlier_review_cannot_land(store: VersionStore, version: int) -> None:
    earlier = reviewed(store, version)
    store.move(version, State.PROPOSED, BOB, "measure it on this week")
    current = reviewed(store, version)
    with pytest.raises(Conflict):
        approve(store, version, BOB, review_cycle=earlier, reason="fine")
    with pytest.raises(Conflict):
        approve_by_rule(
            store,
            version,
            RULE,
            report=judge_estimate(ESTIMATE),
            estimate=ESTIMATE,
            review_cycle=earlier,
        )
    assert store.get(version).state is State.IN_REVIEW
    approve(store, version, BOB, review_cycle=current, reason="fine")


def test_only_persons_approve_as_persons(store: VersionStore, version: int) -> None:
    cycle = reviewed(store, version)
    rule = Actor(ActorKind.APPROVAL_RULE, "anything")
    with pytest.raises(Refused):
        approve(store, version, rule, review_cycle=cycle, reason="because")


def test_a_person_rejects(store: VersionStore, version: int) -> None:
    cycle = reviewed(store, version)
    reject(store, version, BOB, review_cycle=cycle, reason="not this quarter")
    assert store.get(version).state is State.REJECTED


def test_a_rules_approval_keeps_its_text_and_numbers(store: VersionStore, version: int) -> None:
    cycle = reviewed(store, version)
    report = judge_estimate(ESTIMATE)
    move = approve_by_rule(
        store, version, RULE, report=report, estimate=ESTIMATE, review_cycle=cycle
    )
    assert store.get(version).state is State.APPROVED
    assert move.reason == (
        "approve when the gate passed, the saving is at least 10.0 % and the quality "
        "difference's 95 % interval starts at −2.0 points or above (rule cheap-and-safe, "
        "written by ann); here: saving 30.0 %, quality from −1.0 points"
    )
    assert move.evidence["rule"]["name"] == "cheap-and-safe"


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (replace(ESTIMATE, candidate_cost_microusd=920_000), "8.0 %, below 10.0 %"),
        (
            replace(
                ESTIMATE,
                quality=replace(ESTIMATE.quality, difference=Interval(0.0, -0.03, 0.03)),
            ),
            "as low as −3.0 points",
        ),
        (
            replace(ESTIMATE, quality=replace(ESTIMATE.quality, difference=None)),
            "the gate said inconclusive",
        ),
        (replace(ESTIMATE, policy_digest="sha256:other"), "sha256:other"),
    ],
)
def test_a_rule_that_does_not_hold_leaves_it_to_a_person(
    store: VersionStore, version: int, estimate: PolicyEstimate, words: str
) -> None:
    cycle = reviewed(store, version)
    with pytest.raises(Refused) as refused:
        approve_by_rule(
            store,
            version,
            RULE,
            report=judge_estimate(estimate),
            estimate=estimate,
            review_cycle=cycle,
        )
    assert words in str(refused.value)
    assert store.get(version).state is State.IN_REVIEW


@pytest.mark.parametrize(
    ("name", "saving", "low"), [("", 0.1, 0.0), ("x", 1.1, 0.0), ("x", 0.1, -2.0)]
)
def test_rules_without_a_name_or_sensible_limits_are_refused(
    name: str, saving: float, low: float
) -> None:
    with pytest.raises(BadInput):
        AutoApprovalRule(name, "ann", saving, low)
