"""Simulated sessions through the real gateway and the real collector: the product sees the truth.

What is real here: edge proxy, policy client, collector, journal, drainer, lake, evaluators.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from collectors.drainer import Drainer
from collectors.journal import Journal
from collectors.otlp_http import otlp_app
from evaluators import default_evaluators
from loop.domain.policies import Condition, Decision, RoutingPolicy, Rule
from loop.domain.scores import Score
from loop.domain.turns import SessionTrace, Turn
from loop.lake import Lake
from loop.ledger.prices import load_price_book
from loop.service.simulation import Fleet, FleetParameters, FleetReport, ModelApi
from loop.service.simulation.parameters import HAIKU, OPUS
from routing_policies.client import PolicyClient
from routing_policies.edge_proxy import edge_app
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import activate, policy_service

NOW_US = 1_795_000_000_000_000
DAY_US = 86_400_000_000
SMALL_TOKENS = 100


@dataclass(frozen=True)
class Journey:
    report: FleetReport
    decisions: list[Decision]
    turns: list[Turn]
    traces: list[SessionTrace]


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    folder: Path = tmp_path_factory.mktemp("journey")
    condition = Condition("input_tokens", "<", SMALL_TOKENS)
    policy = RoutingPolicy(
        "small prompts to haiku",
        (Rule("small", (condition,), HAIKU),),
        measure="prompt_tokens",
        default_model=OPUS,
    )
    usual = FleetParameters()
    boastful = replace(usual.skills[OPUS], unfaithful_share=0.5)
    parameters = replace(
        usual, skills={**usual.skills, OPUS: boastful}, drift={OPUS: -0.5}, overload_share=0.02
    )
    decisions: list[Decision] = []
    journal = Journal(folder / "journal")
    with (
        policy_service(folder) as service,
        running_server(ModelApi(parameters)) as api,
        running_server(otlp_app(journal)) as otlp,
    ):
        activate(service.store, policy)
        client = PolicyClient(service.url, service.trusted, instance="edge-1")
        client.poll_once(wait_seconds=0)
        with running_server(edge_app(client, api, decisions.append)) as edge:
            fleet = Fleet(parameters, edge, otlp, seed=8)
            report = asyncio.run(fleet.run_sessions(40, NOW_US - DAY_US, NOW_US, 4))
        client.stop()
    lake = Lake.open(str(folder / "lake"))
    drainer = Drainer(journal, lake, load_price_book())
    drainer.drain_once()
    drainer.close()
    journal.close()
    sessions = [outcome.session_id for outcome in report.outcomes]
    return Journey(report, decisions, lake.turns_of(sessions), lake.load_traces(sessions))


def test_the_gateway_repairs_what_it_rewrites(journey: Journey) -> None:
    assert journey.report.failures == 0
    for outcome in journey.report.outcomes:
        expected = HAIKU if outcome.prompt_chars / 3.3 < SMALL_TOKENS else OPUS
        assert outcome.served_models == (expected,)


def test_every_turn_arrives_and_joins_its_decision(journey: Journey) -> None:
    served = [turn for turn in journey.turns if turn.status == "ok"]
    assert len(served) == journey.report.turns
    decisions = {decision.decision_id: decision for decision in journey.decisions}
    for turn in served:
        assert decisions[turn.request_id].routed_model == turn.served_model
        assert turn.cost_microusd is not None
        assert turn.org_path.startswith("simulated/")
        assert turn.developer.startswith("sim-dev-")
        assert turn.repository.startswith("https://github.com/simulated/")


def test_the_savings_show_in_recomputed_cost_only(journey: Journey) -> None:
    rewritten = [turn for turn in journey.turns if turn.served_model == HAIKU]
    ours = sum(turn.cost_microusd or 0 for turn in rewritten)
    clients = sum(turn.client_cost_microusd or 0 for turn in rewritten)
    assert clients == pytest.approx(5 * ours, rel=0.001)


def scores_by_session(journey: Journey, evaluator: str) -> dict[str, Score]:
    (judge,) = [judge for judge in default_evaluators() if judge.name == evaluator]
    return {trace.session_id: judge.evaluate(trace) for trace in journey.traces}


def test_evaluators_tell_solved_from_unsolved(journey: Journey) -> None:
    scores = scores_by_session(journey, "code_correctness")
    outcomes = [outcome for outcome in journey.report.outcomes if outcome.kind != "lookup"]
    assert {outcome.solved for outcome in outcomes} == {True, False}
    for outcome in outcomes:
        value = scores[outcome.session_id].value
        assert value is not None
        assert (value > 0.5) == outcome.solved


def test_a_claim_against_the_tests_is_contradicted(journey: Journey) -> None:
    scores = scores_by_session(journey, "faithfulness")
    claimed = [
        outcome
        for outcome in journey.report.outcomes
        if outcome.kind != "lookup" and outcome.claimed_success
    ]
    assert {outcome.solved for outcome in claimed} == {True, False}
    for outcome in claimed:
        assert scores[outcome.session_id].value == (1.0 if outcome.solved else 0.0)
