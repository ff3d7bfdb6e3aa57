"""The compiled form of a policy's rules finds what trying them one after another finds."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.policies import Condition, RouteRequest, RoutingPolicy, Rule, decide
from tests.fakes.policy_strategies import policies, requests

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "in": lambda left, right: left in right,
}
paths = st.text("a/", max_size=6)


def holds(policy: RoutingPolicy, condition: Condition, request: RouteRequest) -> bool:
    name = policy.measure if condition.field == "input_tokens" else condition.field
    actual = getattr(request, name)
    if name == "org_path" and condition.op == "==":
        return bool(actual == condition.value or actual.startswith(f"{condition.value}/"))
    return COMPARE[condition.op](actual, condition.value)


def first_match(policy: RoutingPolicy, request: RouteRequest) -> Rule | None:
    """The plain form, as docs/policies.md says it."""
    for rule in policy.rules:
        if all(holds(policy, condition, request) for condition in rule.when):
            return rule
    return None


@settings(max_examples=150)
@given(policies(), st.lists(requests, min_size=1, max_size=20))
def test_it_finds_the_same_rule(policy: RoutingPolicy, several: list[RouteRequest]) -> None:
    for request in several:
        assert policy.compiled_rules.first_match(request) is first_match(policy, request)


@given(policies(), requests, st.data())
def test_it_finds_the_same_rule_on_a_threshold(
    policy: RoutingPolicy, request: RouteRequest, data: st.DataObject
) -> None:
    conditions = [condition for rule in policy.rules for condition in rule.when]
    for condition in data.draw(st.permutations(conditions)):
        name = policy.measure if condition.field == "input_tokens" else condition.field
        value = condition.value
        if isinstance(value, tuple):
            value = data.draw(st.sampled_from(value)) if value else ""
        request = replace(request, **{name: value})
        assert policy.compiled_rules.first_match(request) is first_match(policy, request)


@settings(max_examples=500)
@given(st.lists(paths, min_size=1, max_size=4), paths)
def test_nodes_of_the_organisation_are_matched_as_prefixes(nodes: list[str], path: str) -> None:
    rules = tuple(
        Rule(f"rule-{number}", (Condition("org_path", "==", node),), "m")
        for number, node in enumerate(nodes)
    )
    policy = RoutingPolicy(name="org", rules=rules)
    request = RouteRequest("m", org_path=path)
    assert policy.compiled_rules.first_match(request) is first_match(policy, request)


@given(policies(), requests)
def test_a_changed_copied_or_sent_policy_decides_by_its_own_rules(
    policy: RoutingPolicy, request: RouteRequest
) -> None:
    for other in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy)):
        assert other == policy
        assert decide(other, request) == decide(policy, request)
    reversed_rules = replace(policy, rules=policy.rules[::-1])
    assert reversed_rules.compiled_rules.first_match(request) is first_match(
        reversed_rules, request
    )
