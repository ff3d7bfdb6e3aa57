"""What the LiteLLM plugin does to a request. `make test-litellm` runs it inside LiteLLM itself."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.domain.policies import Decision
from routing_policies.client import PolicyClient
from routing_policies.gateways.litellm_requests import (
    RAW_MODEL_NAME,
    allowed_models,
    decision_id_of,
    headers_of,
    response_headers,
    route_data,
    stamp,
)
from tests.fakes.policy_service import activate, policy_service, size_policy

OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
EVERY_MODEL = allowed_models(SimpleNamespace(models=[], team_models=[]))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyClient]:
    with policy_service(tmp_path_factory.mktemp("service")) as service:
        activate(service.store, size_policy(10_000))
        client = PolicyClient(service.url, service.trusted, gateway="litellm")
        client.poll_once(0)
        yield client


def data_of(characters: int = 300, **changes: Any) -> dict[str, Any]:
    """A request as LiteLLM gives it to callbacks."""
    headers = {"X-Claude-Code-Session-Id": "s-1", "anthropic-beta": "a,effort-2025-11-24"}
    betas = {"anthropic-beta": "a,effort-2025-11-24", "anthropic-version": "2023-06-01"}
    return {
        "model": OPUS,
        "max_tokens": 32_000,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "xhigh"},
        "temperature": 1,
        "messages": [{"role": "user", "content": "x" * characters}],
        "proxy_server_request": {"headers": headers, "body": {"model": OPUS}},
        "provider_specific_header": [{"custom_llm_provider": "anthropic", "extra_headers": betas}],
        **changes,
    }


def route(data: dict[str, Any], client: PolicyClient, is_allowed: Any) -> Decision | None:
    async def may_use(model: str) -> bool:
        return is_allowed(model)

    return asyncio.run(route_data(data, client, may_use))


def routed(data: dict[str, Any], client: PolicyClient, is_allowed: Any = EVERY_MODEL) -> Decision:
    decision = route(data, client, is_allowed)
    assert decision is not None
    return decision


def test_a_short_request_is_fitted_to_haiku(client: PolicyClient) -> None:
    data = data_of()
    decision = routed(data, client)
    assert (data["model"], decision.routed_model, decision.rule_id) == (HAIKU, HAIKU, "short")
    assert data["thinking"] == {"type": "enabled", "budget_tokens": 31_999}
    assert "output_config" not in data
    assert decision.session_id == "s-1"
    (scoped,) = data["provider_specific_header"]
    assert scoped["extra_headers"] == {"anthropic-beta": "a", "anthropic-version": "2023-06-01"}


def test_a_long_request_is_left_as_it_is(client: PolicyClient) -> None:
    data = data_of(100_000)
    before = copy.deepcopy(data)
    assert routed(data, client).routed_model == OPUS
    assert data == before


@pytest.mark.parametrize(
    ("models", "team_models", "may"),
    [
        ([], [], True),
        (None, None, True),
        ([OPUS, HAIKU], [], True),
        ([OPUS], [], False),
        ([], [OPUS], False),
        ([OPUS, HAIKU], [OPUS], False),
        (["all-team-models"], [OPUS], False),
        (["all-team-models"], [HAIKU], True),
        (["all-proxy-models"], [], True),
        (["claude-*"], ["*"], True),
        (["some-access-group"], [], False),
        (["no-default-models"], [], False),
    ],
)
def test_the_lists_of_a_key_and_its_team_both_count(
    client: PolicyClient, models: Any, team_models: Any, may: bool
) -> None:
    is_allowed = allowed_models(SimpleNamespace(models=models, team_models=team_models))
    data = data_of()
    before = copy.deepcopy(data)
    decision = routed(data, client, is_allowed)
    assert decision.routed_model == data["model"] == (HAIKU if may else OPUS)
    if not may:
        assert decision.rule_id == "guard:not_allowed"
        assert data == before


def test_what_has_no_form_that_the_model_accepts_keeps_its_model(client: PolicyClient) -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    data = data_of(messages=[{"role": "system", "content": [image]}])
    before = copy.deepcopy(data)
    assert routed(data, client).rule_id == "guard:untranslatable"
    assert data == before


def test_the_decision_is_stamped_beside_what_stands_there(client: PolicyClient) -> None:
    data = data_of(litellm_metadata={"tags": ["mine"], "spend_logs_metadata": {"team": "pay"}})
    decision = routed(data, client)
    assert response_headers(data) is None
    stamp(data, decision)
    metadata = data["litellm_metadata"]
    assert metadata[RAW_MODEL_NAME] is True
    assert metadata["tags"] == ["mine", "policy:1", "arm:stable"]
    assert metadata["spend_logs_metadata"]["team"] == "pay"
    assert metadata["spend_logs_metadata"]["turnwise.policy.rule"] == "short"
    assert decision_id_of(data) == decision.decision_id
    assert response_headers(data) == {
        "request-id": decision.decision_id,
        "x-turnwise-policy": "1",
        "x-turnwise-arm": "stable",
    }


def test_a_header_that_the_effort_needs_is_added(client: PolicyClient) -> None:
    data = data_of(100_000, model=HAIKU, provider_specific_header=None)
    data["proxy_server_request"]["headers"] = {}
    assert routed(data, client).routed_model == OPUS
    assert data["extra_headers"] == {"anthropic-beta": "effort-2025-11-24"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
names = st.sampled_from([*sorted(data_of()), "litellm_metadata", "metadata", "system", "tools"])


@given(changes=st.dictionaries(names, json_values, max_size=5))
def test_no_request_is_failed_by_the_plugin(client: PolicyClient, changes: Any) -> None:
    data = {**data_of(), **changes}
    decision = route(data, client, EVERY_MODEL)
    if decision is None:
        assert not isinstance(data["model"], str)
        return
    stamp(data, decision)
    assert data["model"] == decision.routed_model
    assert decision_id_of(data) == decision.decision_id
    assert isinstance(headers_of(data), dict)
