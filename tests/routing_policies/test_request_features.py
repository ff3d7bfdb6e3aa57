"""Features of recorded and of made-up requests, under each measure of input size."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.policies import Estimator, RouteRequest, bucket_of
from routing_policies.request_features import human_prompt, read_features

RECORDINGS = Path(__file__).parent / "recordings"
CHARS = Estimator(chars_per_token=4.0, image_tokens=1_500)
QUESTION = "What does discount() return for a gold customer?"


def recorded(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    document = json.loads((RECORDINGS / f"{name}.json").read_text())
    return document["body"], {key.lower(): value for key, value in document["headers"].items()}


def read(body: Any, **headers: str) -> RouteRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_features(body, named, CHARS)


def test_the_second_request_of_a_recorded_session() -> None:
    body, headers = recorded("opus_4_7_second_turn")
    found = read_features(body, headers, CHARS)
    assert found.requested_model == "claude-opus-4-7"
    assert found.session_id == "bfbbfdac-29ab-4db6-b2bb-51ff79b985fe"
    assert found.effort == "xhigh"
    assert (found.request_class, found.turn_index) == ("main", 1)
    assert (found.in_tool_loop, found.starts_user_turn) == (True, False)
    # The whole body has 89,529 bytes, JSON syntax included.
    assert 20_000 < found.total_input_tokens < 89_529 / 4
    # New is the one tool result of 528 characters; its block is the last cache breakpoint.
    assert found.new_tokens == 132
    assert found.uncached_input_tokens == 0
    assert found.prompt_tokens == len(QUESTION) // 4


def test_the_first_request_of_a_recorded_session() -> None:
    body, headers = recorded("opus_4_7_second_turn")
    body["messages"] = body["messages"][:1]
    body["messages"][0]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    found = read_features(body, headers, CHARS)
    assert (found.starts_user_turn, found.in_tool_loop, found.turn_index) == (True, False, 0)
    assert found.new_tokens == found.total_input_tokens
    assert found.uncached_input_tokens == 0
    assert human_prompt(body["messages"]) == QUESTION


def test_a_system_message_inside_the_conversation_is_read_through() -> None:
    body, headers = recorded("opus_5_5_first_turn")
    assert [message["role"] for message in body["messages"]] == ["user", "system"]
    found = read_features(body, headers, CHARS)
    assert (found.starts_user_turn, found.in_tool_loop) == (True, False)
    assert found.effort == "medium"
    assert human_prompt(body["messages"]) == QUESTION
    assert found.uncached_input_tokens == 0


def conversation(*messages: tuple[str, Any], **more: Any) -> dict[str, Any]:
    rows = [{"role": role, "content": content} for role, content in messages]
    return {"model": "m", "messages": rows, "tools": [{"name": "Read"}], **more}


def text(words: str, *, cached: bool = False) -> dict[str, Any]:
    mark = {"cache_control": {"type": "ephemeral"}} if cached else {}
    return {"type": "text", "text": words, **mark}


TOOL_USE = {"type": "tool_use", "id": "t", "name": "Read", "input": {}}
TOOL_RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "r" * 400}


def test_uncached_is_what_lies_after_the_last_breakpoint() -> None:
    body = conversation(
        ("user", [text("a" * 400, cached=True), text("b" * 40)]), system=[text("s" * 4_000)]
    )
    assert read(body).uncached_input_tokens == 10
    body["messages"][0]["content"][1]["cache_control"] = {"type": "ephemeral"}
    assert read(body).uncached_input_tokens == 0
    bare = conversation(("user", "b" * 40), system="s" * 4_000)
    assert read(bare).uncached_input_tokens == read(bare).total_input_tokens >= 1_010


def test_a_breakpoint_inside_a_tool_result_counts() -> None:
    result = {**TOOL_RESULT, "content": [text("r" * 400, cached=True)]}
    body = conversation(("user", "q"), ("assistant", [TOOL_USE]), ("user", [result, text("x" * 8)]))
    assert read(body).uncached_input_tokens == 2


def test_images_have_a_flat_price() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 1_000_000}}
    found = read(conversation(("user", [image, text("look")])))
    assert 1_500 < found.total_input_tokens < 1_520


@pytest.mark.parametrize(
    ("messages", "prompt", "starts", "loops"),
    [
        ([("user", "fix it")], "fix it", True, False),
        ([("user", [text("one"), text("two")])], "two", True, False),
        ([("user", [text("<system-reminder>x</system-reminder>"), text("go")])], "go", True, False),
        (
            [("user", "fix it"), ("assistant", [TOOL_USE]), ("user", [TOOL_RESULT])],
            "fix it",
            False,
            True,
        ),
        (
            [
                ("user", "fix it"),
                ("assistant", [TOOL_USE]),
                ("user", [TOOL_RESULT, text("<system-reminder>late</system-reminder>")]),
            ],
            "fix it",
            False,
            True,
        ),
        (
            [
                ("user", "fix it"),
                ("assistant", [TOOL_USE]),
                ("user", [TOOL_RESULT]),
                ("assistant", "done"),
                ("user", "and now the tests"),
            ],
            "and now the tests",
            True,
            False,
        ),
        (
            [
                ("user", "look around"),
                ("assistant", "started"),
                ("user", "<task-notification>done</task-notification>"),
            ],
            "look around",
            True,
            False,
        ),
        ([("user", "go"), ("assistant", "prefill")], "go", False, False),
    ],
)
def test_whose_turn_it_is(
    messages: list[tuple[str, Any]], prompt: str, starts: bool, loops: bool
) -> None:
    body = conversation(*messages)
    found = read(body)
    assert human_prompt(body["messages"]) == prompt
    assert (found.starts_user_turn, found.in_tool_loop) == (starts, loops)


def test_new_tokens_are_those_after_the_last_answer() -> None:
    body = conversation(
        ("user", "q" * 4_000), ("assistant", "a" * 4_000), ("user", "n" * 400), system="s" * 400
    )
    assert read(body).new_tokens == 100


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        ('{"device_id": "d", "account_uuid": "", "session_id": "s-1"}', "s-1"),
        (
            "user_0a1b_account__session_bfbbfdac-29ab-4db6-b2bb-51ff79b985fe",
            "bfbbfdac-29ab-4db6-b2bb-51ff79b985fe",
        ),
    ],
)
def test_the_session_is_found_in_either_form_of_the_metadata(user_id: str, session: str) -> None:
    body = conversation(("user", "x"), metadata={"user_id": user_id})
    assert read(body).session_id == session
    assert read(body, x_claude_code_session_id="header").session_id == "header"


def test_a_conversation_without_a_session_keeps_its_own_key() -> None:
    first = conversation(("user", "fix it"))
    later = conversation(("user", "fix it"), ("assistant", "done"), ("user", "thanks"))
    other = conversation(("user", "fix that"))
    assert read(first).session_id == read(later).session_id
    assert read(first).session_id != read(other).session_id


def test_headers_name_the_agent_and_the_organization() -> None:
    found = read(
        conversation(("user", "x")),
        x_claude_code_agent_id="a1",
        x_claude_code_agent_type="Explore",
        x_tw_org="acme/pay",
        x_tw_repo="shop",
    )
    assert (found.agent_id, found.agent_name) == ("a1", "Explore")
    assert found.request_class == "subagent"
    assert (found.org_path, found.repository) == ("acme/pay", "shop")


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("main", "main"),
        ("subagent", "subagent"),
        ("workflow", "subagent"),
        ("compaction", "auxiliary"),
        ("auxiliary", "auxiliary"),
        ("side_reply", "auxiliary"),
        ("something-new", "main"),
    ],
)
def test_the_client_s_hint_gives_the_class(hint: str, expected: str) -> None:
    found = read(conversation(("user", "x")), x_claude_code_request_class=hint)
    assert found.request_class == expected


def test_a_request_without_tools_is_auxiliary() -> None:
    body = conversation(("user", "Summarize this conversation in 5 words"))
    del body["tools"]
    assert read(body).request_class == "auxiliary"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["model", "messages", "system", "tools", "metadata", "output_config", "stream"]
        ),
        json_values,
    )
)
def test_a_body_that_no_client_would_send_is_read_all_the_same(body: dict[str, Any]) -> None:
    found = read(body)
    assert found.total_input_tokens >= 0
    assert 0 <= bucket_of("s", found.session_id) < 10_000


@settings(deadline=None)
@given(st.data())
def test_a_damaged_recording_is_read_all_the_same(data: st.DataObject) -> None:
    body = copy.deepcopy(DAMAGED)
    message = data.draw(st.sampled_from(body["messages"]))
    message[data.draw(st.sampled_from(["role", "content"]))] = data.draw(json_values)
    body[data.draw(st.sampled_from(sorted(body)))] = data.draw(json_values)
    found = read(body)
    assert found.new_tokens <= found.total_input_tokens
    assert found.uncached_input_tokens <= found.total_input_tokens


DAMAGED = conversation(
    ("user", [text("fix it", cached=True)]),
    ("assistant", [TOOL_USE]),
    ("user", [TOOL_RESULT]),
    system=[text("s")],
    metadata={"user_id": "{}"},
    output_config={"effort": "high"},
)


def test_a_lone_surrogate_does_no_harm() -> None:
    body = json.loads(
        '{"model": "m\\ud800", "messages": [{"role": "user", "content": "\\udfff"}],'
        ' "metadata": {"user_id": "{\\"session_id\\": \\"a\\\\ud800\\"}"}}'
    )
    found = read(body)
    assert 0 <= bucket_of("s", found.session_id) < 10_000
    assert found.requested_model.encode()
