"""The policy document and decide(): round trips, totality, buckets, kept routes, guards."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput
from loop.domain.policies import (
    BUCKETS,
    Arm,
    Condition,
    Guards,
    Publication,
    Route,
    RouteRequest,
    RoutingPolicy,
    Rule,
    bucket_of,
    canonical_json,
    choose_arm,
    decide,
    unit_key,
)
from loop.domain.policy_documents import parse_policy, parse_publication
from tests.fakes.policy_strategies import policies, requests

OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
DIGEST_OF_BEFORE = "sha256:7ed6b9e27cf03e696c0b0019b8696159a8d9d773580928578f5be7357d753fdb"


def size_policy(**changes: Any) -> RoutingPolicy:
    rule = Rule("short", (Condition("input_tokens", "<", 10_000),), HAIKU)
    return RoutingPolicy(name="size", rules=(rule,), default_model=OPUS, **changes)


def publication(*weights: int, salt: str = "s1") -> Publication:
    arms = tuple(
        Arm(f"arm-{number}", weight, number + 1, size_policy())
        for number, weight in enumerate(weights)
    )
    return Publication(7, "prod", arms, salt, 1, 2, "r1")


@settings(deadline=None)
@given(policies())
def test_a_policy_survives_its_document(policy: RoutingPolicy) -> None:
    again = parse_policy(json.loads(policy.to_json()))
    assert again == policy
    assert again.digest == policy.digest
    assert again.to_json() == policy.to_json()


@settings(deadline=None)
@given(policies(), requests, st.none() | st.just(Route(OPUS, "default")))
def test_decide_is_total_and_deterministic(
    policy: RoutingPolicy, request: RouteRequest, previous: Route | None
) -> None:
    route = decide(policy, request, previous)
    assert route == decide(policy, request, previous)
    assert route.model in {*policy.models(), request.requested_model, OPUS}
    named = {rule.rule_id for rule in policy.rules} | {"default", "guard:max_context_tokens"}
    assert route.rule_id in named


@settings(deadline=None)
@given(policies(), st.data())
def test_a_policy_that_parses_decides_whatever_is_asked(
    policy: RoutingPolicy, data: st.DataObject
) -> None:
    publication = Publication(1, "prod", (Arm("stable", BUCKETS, 1, policy),), "s", 1, 2)
    document = json.loads(canonical_json(publication.to_document()))
    assert parse_publication(document) == publication
    assert decide(parse_publication(document).arms[0].policy, data.draw(requests)).model


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "turnwise.policy/2"),
        (("name",), ""),
        (("measure",), "tokens"),
        (("unit",), "turn"),
        (("rules",), {}),
        (("rules", 0, "id"), "default"),
        (("rules", 0, "id"), "guard:x"),
        (("rules", 0, "when", 0, "field"), "price"),
        (("rules", 0, "when", 0, "op"), "~"),
        (("rules", 0, "when", 0, "op"), "in"),
        (("rules", 0, "when", 0, "value"), "10000"),
        (("rules", 0, "when", 0, "value"), True),
        (("rules", 0, "when", 0, "value"), float("nan")),
        (("rules", 0, "set", "model"), 7),
        (("rules", 0, "set", "models"), HAIKU),
        (("default", "model"), None),
        (("estimator", "chars_per_token"), 0),
        (("estimator", "kind"), "tiktoken"),
        (("guards", "max_context_tokens"), {HAIKU: -1}),
        (("guards", "tool_loop_lock"), "yes"),
        (("guards", "min_run_requests"), -1),
        (("guards", "min_run_requests"), 2.5),
        (("guards", "min_run_requests"), True),
        (("colour",), "red"),
    ],
)
def test_a_wrong_document_is_refused_by_the_path_of_its_fault(
    path: tuple[str | int, ...], value: object
) -> None:
    document: Any = copy.deepcopy(size_policy().to_document())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(BadInput) as caught:
        parse_policy(document)
    assert str(path[0]) in caught.value.what


@pytest.mark.parametrize("document", [None, [], "x", {}, {"schema": "turnwise.policy/1"}])
def test_what_is_no_policy_is_refused(document: object) -> None:
    with pytest.raises(BadInput):
        parse_policy(document)


def test_a_publication_with_an_exchanged_policy_is_refused() -> None:
    document = publication(10_000).to_document()
    document["arms"][0]["policy"]["default"]["model"] = HAIKU
    with pytest.raises(BadInput, match="digest"):
        parse_publication(document)


@pytest.mark.parametrize("weights", [(), (9_999,), (10_001,), (-1, 10_001)])
def test_weights_must_make_a_whole(weights: tuple[int, ...]) -> None:
    with pytest.raises(BadInput):
        parse_publication(publication(*weights).to_document())


def test_the_bucket_vector() -> None:
    assert bucket_of("s1", "abc") == 9688


@settings(deadline=None)
@given(st.text(max_size=8), st.text(max_size=40))
def test_every_key_has_one_bucket(salt: str, key: str) -> None:
    salt, key = (text.encode("utf-8", "replace").decode() for text in (salt, key))
    assert 0 <= bucket_of(salt, key) < BUCKETS
    assert bucket_of(salt, key) == bucket_of(salt, key)


@settings(deadline=None)
@given(st.integers(0, 1_000_000))
def test_buckets_are_uniform(seed: int) -> None:
    cells = [0] * 20
    for number in range(10_000):
        cells[bucket_of(f"salt-{seed}", f"session-{number}") * 20 // BUCKETS] += 1
    # Chi-squared with 19 degrees of freedom: beyond 70 once in 10 million salts.
    assert sum((cell - 500) ** 2 / 500 for cell in cells) < 70


@settings(deadline=None)
@given(st.integers(0, 5_000), st.integers(0, 5_000), st.text(min_size=1, max_size=10))
def test_a_ramp_only_adds_sessions(one: int, other: int, salt: str) -> None:
    """Canary from bucket 0 up, control from bucket 9,999 down: each keeps whom it had."""
    salt = salt.encode("utf-8", "replace").decode()
    low, high = sorted((one, other))

    def members(weight: int, arm: str) -> set[str]:
        ramp = publication(weight, BUCKETS - 2 * weight, weight, salt=salt)
        keys = (f"session-{number}" for number in range(300))
        return {key for key in keys if choose_arm(ramp, key)[0].name == arm}

    for arm in ("arm-0", "arm-2"):
        assert members(low, arm) <= members(high, arm)


def test_an_arm_of_weight_zero_gets_nobody() -> None:
    split = publication(0, 10_000, 0)
    assert {choose_arm(split, f"s{number}")[0].name for number in range(500)} == {"arm-1"}


def request(tokens: int = 0, model: str = OPUS, **changes: Any) -> RouteRequest:
    return RouteRequest(model, session_id="s", total_input_tokens=tokens, **changes)


def test_the_first_rule_that_holds_decides() -> None:
    policy = size_policy()
    assert decide(policy, request(9_999)) == Route(HAIKU, "short")
    assert decide(policy, request(10_000)) == Route(OPUS, "default")


def test_the_measure_decides_what_input_means() -> None:
    asked = request(50_000, new_tokens=500)
    assert decide(size_policy(), asked).model == OPUS
    assert decide(size_policy(measure="new_tokens"), asked).model == HAIKU


@pytest.mark.parametrize(
    ("unit", "asked", "kept"),
    [
        ("session", request(50_000), True),
        ("agent", request(50_000), True),
        ("user_turn", request(50_000, starts_user_turn=False), True),
        ("user_turn", request(50_000, starts_user_turn=True), False),
        ("request", request(50_000, starts_user_turn=False), False),
        ("request", request(50_000, starts_user_turn=False, in_tool_loop=True), True),
    ],
)
def test_a_route_is_kept_for_its_unit(unit: Any, asked: RouteRequest, kept: bool) -> None:
    previous = decide(size_policy(unit=unit), request(1))
    route = decide(size_policy(unit=unit), asked, previous)
    assert (route.model == HAIKU) is kept


def test_the_tool_loop_lock_can_be_taken_off() -> None:
    policy = size_policy(unit="request", guards=Guards(tool_loop_lock=False))
    asked = request(50_000, in_tool_loop=True)
    assert decide(policy, asked, Route(HAIKU, "short")).model == OPUS


def test_the_context_ceiling_overrules_even_a_kept_route() -> None:
    policy = size_policy(guards=Guards({HAIKU: 150_000}))
    kept = decide(policy, request(1))
    assert decide(policy, request(150_000), kept) == kept
    over = decide(policy, request(150_001), kept)
    assert over == Route(OPUS, "guard:max_context_tokens")


def test_a_model_stays_for_the_least_run() -> None:
    """Sizes that a policy of single requests would send to and fro."""
    sizes = [1, 50_000, 1, 50_000, 50_000, 50_000, 1, 1]
    guards = Guards(tool_loop_lock=False)

    def models(least: int) -> list[str]:
        policy = size_policy(unit="request", guards=replace(guards, min_run_requests=least))
        route, found = None, []
        for tokens in sizes:
            route = decide(policy, request(tokens), route)
            found.append(route.model)
        return found

    assert models(0) == models(1) == [HAIKU if size == 1 else OPUS for size in sizes]
    assert models(3) == [HAIKU] * 3 + [OPUS] * 3 + [HAIKU] * 2
    assert models(4) == [HAIKU] * 4 + [OPUS] * 4
    assert models(100) == [HAIKU] * 8


def test_a_person_who_changes_the_model_begins_a_run() -> None:
    rule = Rule("long", (Condition("input_tokens", ">", 10_000),), HAIKU)
    guards = Guards(tool_loop_lock=False, min_run_requests=2)
    policy = RoutingPolicy("long", (rule,), unit="request", guards=guards)
    one = decide(policy, request(1))
    other = decide(policy, request(50_000, "claude-sonnet-4-6"), one)
    assert (other.model, other.run_requests) == ("claude-sonnet-4-6", 1)
    third = decide(policy, request(50_000, "claude-sonnet-4-6"), other)
    assert (third.model, third.run_requests) == ("claude-sonnet-4-6", 2)
    assert decide(policy, request(50_000), third).model == HAIKU


def test_a_document_of_before_the_least_run_keeps_its_digest() -> None:
    document = size_policy().to_document()
    assert "min_run_requests" not in document["guards"]
    assert size_policy().digest == DIGEST_OF_BEFORE
    document["guards"]["min_run_requests"] = 0
    assert parse_policy(document).digest == DIGEST_OF_BEFORE
    document["guards"]["min_run_requests"] = 3
    assert parse_policy(document).digest != DIGEST_OF_BEFORE


def test_a_kept_route_that_names_no_model_follows_the_request() -> None:
    policy = RoutingPolicy(name="as-requested", rules=())
    first = decide(policy, request(model=OPUS))
    assert decide(policy, request(model=HAIKU), first).model == HAIKU


def test_auxiliary_requests_have_a_unit_of_their_own() -> None:
    policy = size_policy()
    main, title = request(), request(request_class="auxiliary")
    assert unit_key(policy, main) != unit_key(policy, title)
    subagent = replace(main, agent_id="a1")
    assert unit_key(policy, main) == unit_key(policy, subagent)
    agents = size_policy(unit="agent")
    assert unit_key(agents, main) != unit_key(agents, subagent)


def test_an_organization_matches_itself_and_what_lies_below() -> None:
    rule = Rule("pay", (Condition("org_path", "==", "acme/pay"),), HAIKU)
    policy = RoutingPolicy(name="org", rules=(rule,), default_model=OPUS)
    routed = {
        path: decide(policy, request(org_path=path)).model
        for path in ("acme/pay", "acme/pay/core", "acme/payments", "acme", "")
    }
    assert [path for path, model in routed.items() if model == HAIKU] == [
        "acme/pay",
        "acme/pay/core",
    ]
