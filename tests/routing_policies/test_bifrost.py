"""Policies as Bifrost's rules: the same route as decide(), and pushed so that twice is once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.domain.errors import Refused, Unavailable
from loop.domain.policies import (
    Condition,
    Decision,
    Guards,
    RouteRequest,
    RoutingPolicy,
    Rule,
    decide,
)
from routing_policies.edge_stamps import request_stamps
from routing_policies.exports.bifrost import HEADERS, bifrost_rules
from routing_policies.gateways.bifrost_push import Pushed, push_rules
from tests.fakes.asgi_server import running_server
from tests.fakes.bifrost import CREATE, FakeBifrost
from tests.fakes.policy_service import size_policy

OPUS, HAIKU, SONNET = "claude-opus-4-7", "claude-haiku-4-5", "claude-sonnet-4-6"
NUMBERS = [name for name in HEADERS if name.endswith("tokens")]
TEXTS = [name for name in HEADERS if name not in NUMBERS]
texts = st.sampled_from(["", "main", OPUS, HAIKU, "acme", "acme/pay", "acme/pay-roll", 'a "b" ü'])
counts = st.integers(0, 200_000)
numbers = st.builds(
    Condition,
    st.sampled_from([*NUMBERS, "input_tokens"]),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    counts | st.floats(0, 200_000, allow_nan=False),
)
words = st.builds(Condition, st.sampled_from(TEXTS), st.sampled_from(["==", "!="]), texts)
among = st.builds(
    Condition, st.sampled_from(TEXTS), st.just("in"), st.lists(texts, min_size=1).map(tuple)
)
models = st.sampled_from(["", OPUS, HAIKU, SONNET])


@st.composite
def policies(draw: st.DrawFn) -> RoutingPolicy:
    when = st.lists(numbers | words | among, max_size=3).map(tuple)
    rules = [
        Rule(f"r{number}", draw(when), draw(models)) for number in range(draw(st.integers(0, 4)))
    ]
    ceilings = draw(st.dictionaries(st.sampled_from([OPUS, HAIKU]), counts, max_size=2))
    return RoutingPolicy(
        name="any",
        rules=tuple(rules),
        measure=draw(st.sampled_from(NUMBERS)),
        unit="request",
        default_model=draw(models),
        guards=Guards(ceilings, tool_loop_lock=False),
    )


requests = st.builds(
    RouteRequest,
    requested_model=st.sampled_from([OPUS, HAIKU]),
    agent_name=texts,
    request_class=st.sampled_from(["main", "subagent", "auxiliary"]),
    org_path=texts,
    repository=texts,
    total_input_tokens=counts,
    uncached_input_tokens=counts,
    new_tokens=counts,
    prompt_tokens=counts,
)


def decision_of(request: RouteRequest) -> Decision:
    """As the edge proxy knows it when it stamps."""
    names = {item.name for item in fields(Decision)}
    known = {name: value for name, value in asdict(request).items() if name in names}
    rest = {"serial": 1, "policy_version": 1, "policy_digest": "", "bucket": 0, "propensity": 1.0}
    return Decision(
        decision_id="tw_1", at_us=0, arm="stable", rule_id="r", routed_model="", **known, **rest
    )


def routed(rules: tuple[dict[str, Any], ...], request: RouteRequest) -> str:
    """As Bifrost documents it: the first rule in order of priority whose expression is true."""
    stamps = request_stamps(decision_of(request))
    headers = {name.decode(): value.decode() for name, value in stamps}
    for rule in sorted(rules, key=lambda rule: rule["priority"]):
        if cel.evaluate(rule["cel_expression"], {"headers": headers}):
            (target,) = rule["targets"]
            return target.get("model") or request.requested_model
    return request.requested_model


@given(policies(), requests)
def test_the_rules_route_as_decide_does(policy: RoutingPolicy, request: RouteRequest) -> None:
    written = bifrost_rules(policy, name="turnwise")
    assert routed(written.rules, request) == decide(policy, request).model


@pytest.mark.parametrize("op", ["==", "!="])
def test_a_node_is_with_what_is_below_it_where_it_is_asked_for_alone(op: str) -> None:
    policy = RoutingPolicy(
        name="any",
        rules=(Rule("r", (Condition("org_path", op, "acme"),), HAIKU),),
        measure="total_input_tokens",
        unit="request",
    )
    below = RouteRequest(requested_model=OPUS, org_path="acme/pay")
    assert decide(policy, below).model == HAIKU
    assert routed(bifrost_rules(policy, name="turnwise").rules, below) == HAIKU


@given(policies())
def test_each_rule_is_one_that_the_api_takes(policy: RoutingPolicy) -> None:
    of_team = bifrost_rules(policy, name="t", arm="canary", scope="team", scope_id="t-1")
    for rule in [*bifrost_rules(policy, name="t").rules, *of_team.rules]:
        assert not list(CREATE.iter_errors(rule))
    assert all('"x-tw-arm"] == "canary"' in rule["cel_expression"] for rule in of_team.rules)


def test_what_bifrost_can_not_say_is_said() -> None:
    policy = RoutingPolicy("p", (Rule("r", (), HAIKU, effort="low"),), unit="session")
    notes = " ".join(bifrost_rules(policy, name="t").notes)
    for lost in ("not fitted", "kept for the session", "tool loop", "effort"):
        assert lost in notes
    late = Rule("late", (Condition("turn_index", ">", 3),), HAIKU)
    with pytest.raises(Refused, match="turn_index"):
        bifrost_rules(RoutingPolicy("p", (late,)), name="t")


@pytest.fixture
def bifrost() -> Iterator[tuple[FakeBifrost, str]]:
    fake = FakeBifrost(token="of-a-test")
    with running_server(fake.app) as url:
        yield fake, url


def push(url: str, policy: RoutingPolicy, **options: Any) -> Pushed:
    wanted = bifrost_rules(policy, name="turnwise prod")
    return push_rules(wanted, name="turnwise prod", url=url, token="of-a-test", **options)


def test_pushing_twice_changes_nothing_and_other_rules_stay(
    bifrost: tuple[FakeBifrost, str],
) -> None:
    fake, url = bifrost
    target = [{"provider": "openai", "weight": 1}]
    other = {"name": "turnwise production", "cel_expression": "false", "targets": target}
    kept = fake.add({**other, "scope": "global", "priority": 7})

    assert push(url, size_policy(10_000), dry_run=True) == Pushed(created=2)
    assert fake.calls == []
    assert push(url, size_policy(10_000)) == Pushed(created=2)
    assert push(url, size_policy(10_000)) == Pushed(unchanged=2)
    assert fake.calls == ["POST", "POST"]

    fake.calls.clear()
    assert push(url, size_policy(5_000)) == Pushed(updated=2)  # the digest is in each
    assert "5000.0" in fake.in_order()[0]["cel_expression"]
    pass_all = RoutingPolicy("pass", (), default_model="")
    assert push(url, pass_all) == Pushed(deleted=2)
    assert list(fake.rules) == [kept]


def test_rules_that_are_no_longer_wanted_go_last(bifrost: tuple[FakeBifrost, str]) -> None:
    fake, url = bifrost
    push(url, size_policy(10_000))
    fake.calls.clear()
    renamed = RoutingPolicy("n", (Rule("other", (), HAIKU),))
    assert push(url, renamed) == Pushed(created=1, deleted=2)
    assert fake.calls[0] == "POST"
    assert [rule["name"] for rule in fake.in_order()] == ["turnwise prod 000 other"]


def test_a_refusal_and_an_absence_are_said(bifrost: tuple[FakeBifrost, str]) -> None:
    _, url = bifrost
    wanted = bifrost_rules(size_policy(10), name="t")
    with pytest.raises(Refused, match="401"):
        push_rules(wanted, name="t", url=url, token="wrong")
    with pytest.raises(Unavailable):
        push_rules(wanted, name="t", url="http://127.0.0.1:9")
