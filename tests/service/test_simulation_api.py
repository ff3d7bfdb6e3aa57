"""The simulated model API: the contract, the prompt cache's arithmetic, and who solves what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.domain.turns import TokenUsage
from loop.service.simulation import FleetParameters, ModelApi, model_api_process
from loop.service.simulation.parameters import HAIKU, OPUS
from loop.service.simulation.prompt_cache import Boundary, PromptCache, boundaries_of
from loop.service.simulation.skill import difficulty, solve_probability
from loop.service.simulation.tasks import kind_of, make_task, path_in
from tests.contracts.messages_api import HEADERS, MessagesApiContract, body_for
from tests.fakes.asgi_server import running_server

MINUTE_US = 60_000_000


@pytest.fixture(scope="module")
def messages_api() -> Iterator[str]:
    with running_server(ModelApi(FleetParameters(overload_share=0.0))) as url:
        yield url


class TestModelApi(MessagesApiContract):
    def test_an_unknown_model_is_not_found(self, messages_api: str) -> None:
        response = self.post(messages_api, body_for("claude-unheard-of"))
        self._is_error(response, 404, "not_found_error")

    def test_a_request_without_a_key_is_refused(self, messages_api: str) -> None:
        headers = {"anthropic-version": "2023-06-01"}
        response = self.post(messages_api, body_for(OPUS), headers)
        self._is_error(response, 401, "authentication_error")

    def test_an_input_beyond_the_context_is_refused(self, messages_api: str) -> None:
        body = body_for(HAIKU, system="x" * 800_000)
        assert "200000 maximum" in self.post(messages_api, body).json()["error"]["message"]

    def test_it_also_runs_in_a_process_of_its_own(self) -> None:
        with model_api_process(FleetParameters()) as url:
            assert self.post(url, body_for(OPUS)).status_code == 200
        with pytest.raises(httpx.TransportError):
            self.post(url, body_for(OPUS))


def test_an_overloaded_answer_is_never_repeated_at_once() -> None:
    with running_server(ModelApi(FleetParameters(overload_share=1.0))) as url:
        statuses = [
            httpx.post(
                f"{url}/v1/messages", json=body_for(OPUS), headers=HEADERS, trust_env=False
            ).status_code
            for _ in range(4)
        ]
    assert statuses[0] == 529
    assert 200 in statuses


def conversation_body(turns: int, session_id: str, at_us: int, tail: str = "") -> dict[str, Any]:
    """A request after ``turns`` tool calls, marked as the client marks it."""
    mark = {"type": "ephemeral"}
    system = [{"type": "text", "text": "s" * 30_000, "cache_control": mark}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "Fix x() in billing/pages.py."}]}
    ]
    for turn in range(turns):
        call = {"type": "tool_use", "id": f"t{turn}", "name": "Read", "input": {"n": turn}}
        result = {"type": "tool_result", "tool_use_id": f"t{turn}", "content": "r" * 1000}
        messages.append({"role": "assistant", "content": [call]})
        messages.append({"role": "user", "content": [result]})
    messages[-1]["content"][-1]["cache_control"] = mark
    if tail:
        messages[-1]["content"].append({"type": "text", "text": tail})
    user = {"session_id": session_id, "simulated_at_us": at_us}
    return {
        "model": OPUS,
        "max_tokens": 1000,
        "system": system,
        "messages": messages,
        "metadata": {"user_id": json.dumps(user)},
    }


def usage_of(cache: PromptCache, turns: int, at_us: int, *, tail: str = "") -> TokenUsage:
    boundaries = boundaries_of(conversation_body(turns, "s", at_us, tail), 3.3)
    return cache.usage_of("s", OPUS, boundaries, at_us)


@given(
    steps=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9 * MINUTE_US)), max_size=12),
    tail=st.sampled_from(["", "a question"]),
)
def test_no_token_is_lost_or_charged_twice(steps: list[tuple[int, int]], tail: str) -> None:
    cache, now_us = PromptCache(4096), 0
    for turns, wait_us in steps:
        now_us += wait_us
        boundaries = boundaries_of(conversation_body(turns, "s", now_us, tail), 3.3)
        usage = cache.usage_of("s", OPUS, boundaries, now_us)
        assert usage.total_input_tokens == boundaries[-1].tokens
        assert min(usage.input_tokens, usage.cache_read_tokens, usage.new_tokens) >= 0


@given(turns=st.integers(0, 5), wait_us=st.integers(0, 20 * MINUTE_US))
def test_the_first_request_writes_and_the_next_reads_what_it_wrote(
    turns: int, wait_us: int
) -> None:
    cache = PromptCache(4096)
    first = usage_of(cache, turns, 0)
    assert first.cache_read_tokens == 0
    assert first.cache_creation_5m_tokens == first.total_input_tokens
    second = usage_of(cache, turns + 1, wait_us)
    is_warm = wait_us < 5 * MINUTE_US
    assert second.cache_read_tokens == (first.cache_creation_5m_tokens if is_warm else 0)


def test_every_read_renews_the_prefix() -> None:
    cache = PromptCache(4096)
    for request in range(5):
        usage = usage_of(cache, 2, request * 4 * MINUTE_US)
    assert usage.cache_read_tokens == usage.total_input_tokens


def test_a_changed_prefix_reads_only_what_is_the_same() -> None:
    cache = PromptCache(4096)
    usage_of(cache, 3, 0)
    body = conversation_body(3, "s", 0)
    body["messages"][0]["content"][0]["text"] = "Something else in billing/pages.py."
    boundaries = boundaries_of(body, 3.3)
    usage = cache.usage_of("s", OPUS, boundaries, 1)
    assert usage.cache_read_tokens == boundaries[0].tokens  # the system prompt


def test_models_and_sessions_have_caches_of_their_own() -> None:
    cache = PromptCache(4096)
    boundaries = boundaries_of(conversation_body(1, "s", 0), 3.3)
    cache.usage_of("s", OPUS, boundaries, 0)
    assert cache.usage_of("s", HAIKU, boundaries, 1).cache_read_tokens == 0
    assert cache.usage_of("t", OPUS, boundaries, 1).cache_read_tokens == 0
    assert cache.usage_of("s", OPUS, boundaries, 1).cache_read_tokens == boundaries[-1].tokens


def test_a_short_prefix_is_not_cached() -> None:
    cache = PromptCache(4096)
    boundaries = [Boundary(4095, b"a", "5m")]
    cache.usage_of("s", OPUS, boundaries, 0)
    assert cache.usage_of("s", OPUS, boundaries, 1) == TokenUsage(input_tokens=4095)


def test_an_hour_long_entry_outlives_five_minutes() -> None:
    cache = PromptCache(4096)
    boundaries = [Boundary(10_000, b"a", "1h")]
    assert cache.usage_of("s", OPUS, boundaries, 0).cache_creation_1h_tokens == 10_000
    assert cache.usage_of("s", OPUS, boundaries, 50 * MINUTE_US).cache_read_tokens == 10_000


@given(number=st.integers(0, 100_000))
def test_a_prompt_tells_a_reader_what_it_asks(number: int) -> None:
    parameters = FleetParameters()
    task = make_task(parameters, number)
    assert kind_of(task.text) == task.kind
    assert path_in(task.text) == task.path
    low, high = (
        parameters.change_prompt_chars if task.kind == "change" else parameters.small_prompt_chars
    )
    assert low - 20 <= len(task.text) <= high


@given(number=st.integers(0, 100_000), drift=st.floats(-1, 1), attempt=st.integers(1, 2))
def test_probabilities_stay_probabilities(number: int, drift: float, attempt: int) -> None:
    parameters = replace(FleetParameters(), drift={HAIKU: drift})
    hardness = difficulty(make_task(parameters, number).text, parameters)
    assert 0 <= hardness <= 1
    for model in (OPUS, HAIKU):
        assert 0 <= solve_probability(model, hardness, parameters, attempt=attempt) <= 1


def test_haiku_is_as_good_on_small_tasks_and_much_worse_on_large_ones() -> None:
    parameters = FleetParameters()
    by_kind: dict[str, list[float]] = {"fix": [], "change": []}
    for number in range(2000):
        task = make_task(parameters, number)
        if task.kind in by_kind:
            hardness = difficulty(task.text, parameters)
            gap = solve_probability(OPUS, hardness, parameters) - solve_probability(
                HAIKU, hardness, parameters
            )
            by_kind[task.kind].append(gap)
    assert abs(sum(by_kind["fix"]) / len(by_kind["fix"])) < 0.02
    assert sum(by_kind["change"]) / len(by_kind["change"]) > 0.5
