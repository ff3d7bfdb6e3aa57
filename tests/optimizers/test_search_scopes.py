"""A search in a part of the sessions changes nothing elsewhere, and is judged on all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from randomised_logs import HAIKU, OPUS, all_to, randomised_log
from turn_strategies import PRICES, routing_policies

from loop.domain.policies import Route, RouteRequest, RoutingPolicy, decide
from optimizers.routing_search import SearchSettings, search
from optimizers.search_scopes import SearchScope
from optimizers.session_splits import split_sessions
from optimizers.turn_columns import encode_texts

SCOPE = SearchScope(("shop", "site"), "cluster-1", "it happens there")
REQUESTS = st.builds(
    RouteRequest,
    requested_model=st.sampled_from([OPUS, HAIKU]),
    request_class=st.sampled_from(["main", "subagent"]),
    total_input_tokens=st.integers(0, 400_000),
    uncached_input_tokens=st.integers(0, 50_000),
    new_tokens=st.integers(0, 50_000),
    prompt_tokens=st.integers(0, 5_000),
    turn_index=st.integers(0, 5),
    starts_user_turn=st.booleans(),
)


def routes_of(policy: RoutingPolicy, requests: list[RouteRequest]) -> list[tuple[str, str]]:
    previous: Route | None = None
    found = []
    for request in requests:
        previous = decide(policy, request, previous)
        found.append((previous.model, previous.effort))
    return found


@settings(max_examples=80, deadline=None)
@given(routing_policies(), routing_policies(), st.lists(REQUESTS, min_size=1, max_size=5))
def test_outside_of_the_scope_the_policy_in_force_decides(
    policy: RoutingPolicy, incumbent: RoutingPolicy, requests: list[RouteRequest]
) -> None:
    outside = [replace(request, repository="elsewhere") for request in requests]
    scoped = SCOPE.restrict(policy, incumbent)
    assert routes_of(scoped, outside) == routes_of(incumbent, outside)


@settings(max_examples=50, deadline=None)
@given(routing_policies(), st.lists(REQUESTS, min_size=1, max_size=5))
def test_inside_the_policy_found_decides(
    policy: RoutingPolicy, requests: list[RouteRequest]
) -> None:
    inside = [replace(request, repository="site") for request in requests]
    scoped = SCOPE.restrict(policy, RoutingPolicy("as-requested", ()))
    assert routes_of(scoped, inside) == routes_of(policy, inside)
    assert scoped.default_model == ""


def test_the_test_is_on_all_later_sessions_and_the_choice_on_those_in_scope() -> None:
    log = randomised_log(21, 1_600)
    count = log.frame.n_sessions
    of_session = ["shop" if number % 2 else "other" for number in range(count)]
    column = encode_texts([of_session[number] for number in log.frame.session.tolist()])
    frame = replace(log.frame, repository=column)
    scope = SearchScope(("shop",), "cluster-1", "why")
    run = search(
        frame,
        PRICES,
        incumbent=all_to(OPUS),
        models=(OPUS, HAIKU),
        publications=log.publications,
        session_quality=log.quality,
        settings=SearchSettings(trials=25, quality_margin=0.1, min_cell_sessions=0, scope=scope),
        run_id="run-1",
    )
    split = split_sessions(frame)
    in_scope = np.array([name == "shop" for name in of_session])
    assert run.selection is not None, run.outcome
    assert run.test is not None
    assert run.selection.sessions == int((split.selection & in_scope).sum())
    assert run.test.sessions == int(split.test.sum())
    assert SearchScope.from_document(run.settings["scope"]) == scope
    for trial in run.trials:
        assert all(
            rule.when[0].value == ("shop",)
            for rule in trial.policy.rules
            if not rule.rule_id.startswith("in force")
        )
        assert trial.policy.default_model == OPUS
    assert "in shop" in run.outcome
    # Only half of the sessions can save anything.
    assert run.test.saving_share < run.selection.saving_share
