"""The simulated fleet: reproducible, truthful about what it did, and patient with its collector."""

from __future__ import annotations

import ast
import asyncio
import inspect
import socket
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pytest

from loop.domain.errors import BadInput, Refused, Unavailable
from loop.domain.policies import Condition, RoutingPolicy, Rule
from loop.service.simulation import Fleet, FleetParameters, FleetReport, ModelApi, expected_quality
from loop.service.simulation.http_connection import HttpConnection
from loop.service.simulation.parameters import HAIKU, OPUS, ModelSkill
from tests.fakes.asgi_server import running_server
from tests.service.simulated_collector import CollectingServer

NOW_US = 1_795_000_000_000_000
DAY_US = 86_400_000_000
PARAMETERS = FleetParameters()
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with running_server(ModelApi(PARAMETERS)) as url:
        yield url


def run_fleet(
    api: str,
    parameters: FleetParameters = PARAMETERS,
    *,
    count: int = 12,
    seed: int = 1,
    concurrency: int = 6,
    collector: CollectingServer | None = None,
) -> tuple[FleetReport, CollectingServer]:
    collector = collector or CollectingServer()
    with running_server(collector) as otlp:
        fleet = Fleet(parameters, api, otlp, seed)
        window = (NOW_US - DAY_US, NOW_US)
        report = asyncio.run(fleet.run_sessions(count, *window, concurrency))
    return report, collector


def in_order(collector: CollectingServer) -> list[str]:
    """Every record but the ids that the API counts up, in an order of its own."""
    return sorted(repr((r.kind, r.name, r.at_us, r.attributes)) for r in collector.records())


def test_one_seed_gives_one_fleet_whatever_the_concurrency() -> None:
    runs = []
    for concurrency in (1, 6):
        with running_server(ModelApi(PARAMETERS)) as api:
            runs.append(run_fleet(api, concurrency=concurrency))
    (first, seen), (second, seen_again) = runs
    assert first.outcomes == second.outcomes
    assert in_order(seen) == in_order(seen_again)


def test_another_seed_gives_other_sessions(api: str) -> None:
    first, _ = run_fleet(api, seed=11)
    second, _ = run_fleet(api, seed=12)
    ids = {outcome.session_id for outcome in first.outcomes}
    assert ids.isdisjoint(outcome.session_id for outcome in second.outcomes)


def test_a_fleet_never_repeats_a_session() -> None:
    fleet = Fleet(PARAMETERS, "http://127.0.0.1:1", "http://127.0.0.1:1", seed=5)
    plans = fleet.plan(50, 0, DAY_US) + fleet.plan(50, 0, DAY_US)
    assert len({plan.session_id for plan in plans}) == 100
    assert all(0 <= plan.start_at_us < DAY_US for plan in plans)


def test_an_empty_window_is_bad_input() -> None:
    fleet = Fleet(PARAMETERS, "http://127.0.0.1:1", "http://127.0.0.1:1")
    with pytest.raises(BadInput):
        fleet.plan(1, NOW_US, NOW_US)


def test_the_report_adds_up(api: str) -> None:
    report, _ = run_fleet(api, count=30, seed=21)
    assert report.sessions == 30
    assert report.failures == 0
    assert report.turns <= report.requests
    assert sum(sessions for _, sessions in report.solved_by_model.values()) == 30
    assert report.exports % 3 == 0
    for outcome in report.outcomes:
        if outcome.solved:
            assert outcome.claimed_success


def test_progress_is_told_after_each_session(api: str) -> None:
    told: list[tuple[int, int]] = []
    with running_server(CollectingServer()) as otlp:
        fleet = Fleet(PARAMETERS, api, otlp, seed=31)
        asyncio.run(
            fleet.run_sessions(
                5, NOW_US - DAY_US, NOW_US, 2, lambda done, total: told.append((done, total))
            )
        )
    assert told == [(n, 5) for n in range(1, 6)]


def test_refused_telemetry_is_sent_again_byte_for_byte(api: str) -> None:
    collector = CollectingServer(refusals=4)
    report, _ = run_fleet(api, count=3, seed=41, concurrency=1, collector=collector)
    assert report.resends == 4
    assert report.exports == 3
    assert all(sent in collector.accepted for sent in collector.refused)


def test_telemetry_that_is_rejected_for_good_is_an_error(api: str) -> None:
    collector = CollectingServer(refusals=1, status_when_refusing=401)
    with pytest.raises(Refused):
        run_fleet(api, count=1, collector=collector)


def test_an_absent_gateway_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(Unavailable, match=str(port)):
        run_fleet(f"http://127.0.0.1:{port}", count=2)


def test_only_plain_http_is_spoken() -> None:
    with pytest.raises(BadInput):
        HttpConnection("https://example.com")


def test_a_request_that_the_model_refuses_shows_as_a_failure(api: str) -> None:
    """Parameters that nobody repaired: the session ends unsolved, with the error recorded."""
    strict = replace(PARAMETERS.skills[OPUS], efforts=())
    with running_server(ModelApi(replace(PARAMETERS, skills={OPUS: strict}))) as url:
        report, collector = run_fleet(url, count=4)
    assert report.failures == 4
    assert report.solve_rate == 0
    names = [record.name for record in collector.records()]
    assert names.count("claude_code.api_error") == 4


def test_drift_reaches_a_running_api(api: str) -> None:
    sober, _ = run_fleet(api, count=20, seed=51)
    drifted, _ = run_fleet(api, replace(PARAMETERS, drift={OPUS: -1.0}), count=20, seed=51)
    assert sober.solve_rate > 0.7
    assert drifted.solve_rate == 0.0


def test_the_fleet_solves_what_the_ground_truth_expects(api: str) -> None:
    """Sessions of both kinds through the real path, against the closed form."""
    for model in (OPUS, HAIKU):
        parameters = replace(PARAMETERS, requested_model=model)
        count = 250
        report, _ = run_fleet(api, parameters, count=count, seed=61, concurrency=12)
        truth = expected_quality(None, parameters, samples=count, seed=61)
        spread = (truth.solve_rate * (1 - truth.solve_rate) / count) ** 0.5
        assert abs(report.solve_rate - truth.solve_rate) < 4 * spread
        assert truth.model_shares == {model: 1.0}


def small_to_haiku(threshold: int) -> RoutingPolicy:
    condition = Condition("input_tokens", "<", threshold)
    rule = Rule("small", (condition,), HAIKU)
    return RoutingPolicy("small to haiku", (rule,), measure="prompt_tokens", default_model=OPUS)


def test_the_truth_ranks_policies_as_they_were_built() -> None:
    everything = RoutingPolicy("all haiku", (Rule("all", (), HAIKU),))
    opus, good, bad = (
        expected_quality(policy, PARAMETERS, samples=3000)
        for policy in (None, small_to_haiku(50), everything)
    )
    assert opus.solve_rate - good.solve_rate < 0.02
    assert opus.solve_rate - bad.solve_rate > 0.2
    assert 0.5 < good.model_shares[HAIKU] < 0.7


def test_the_literal_classic_rule_matches_nothing() -> None:
    rule = Rule("classic", (Condition("total_input_tokens", "<", 10_000),), HAIKU)
    found = expected_quality(RoutingPolicy("classic", (rule,)), PARAMETERS, samples=500)
    assert found.model_shares == {OPUS: 1.0}


def documented_fields() -> Iterator[tuple[str, str]]:
    """Each parameter's name and the docstring below it."""
    source = Path(inspect.getsourcefile(FleetParameters) or "").read_text()
    for record in ast.parse(source).body:
        if isinstance(record, ast.ClassDef):
            for field, text in pairwise(record.body):
                if isinstance(field, ast.AnnAssign):
                    assert isinstance(field.target, ast.Name)
                    assert isinstance(text, ast.Expr), f"{field.target.id} has no docstring"
                    yield field.target.id, " ".join(ast.literal_eval(text.value).split())


@pytest.mark.parametrize(("name", "meaning"), list(documented_fields()))
def test_each_parameter_is_documented_as_in_the_code(name: str, meaning: str) -> None:
    lines = (DOCS / "simulation.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"| `{name}` |")]
    assert meaning in line


def test_the_docs_name_every_parameter_once() -> None:
    names = [field.name for record in (FleetParameters, ModelSkill) for field in fields(record)]
    assert sorted(name for name, _ in documented_fields()) == sorted(names)
