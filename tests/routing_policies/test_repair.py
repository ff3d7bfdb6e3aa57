"""Parameter repair: what each model refuses is gone, and nothing else has changed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import Refused
from routing_policies.repair import (
    EFFORT_BETA,
    EFFORT_ORDER,
    capabilities_of,
    capability_table,
    repair,
)
from tests.fakes.anthropic_api import refusal_of

RECORDINGS = Path(__file__).parent / "recordings"
OPUS, HAIKU, SONNET = "claude-opus-4-7", "claude-haiku-4-5", "claude-sonnet-4-6"


def recorded(name: str) -> tuple[dict[str, Any], str]:
    document = json.loads((RECORDINGS / f"{name}.json").read_text())
    return document["body"], document["headers"]["anthropic-beta"]


def test_a_recorded_opus_request_becomes_what_the_client_sends_to_haiku() -> None:
    body, betas = recorded("opus_4_7_second_turn")
    before = copy.deepcopy(body)
    fitted = repair(body, betas, HAIKU)
    assert body == before
    assert fitted.body["model"] == HAIKU
    assert fitted.body["thinking"] == {
        "type": "enabled",
        "budget_tokens": 31_999,
        "display": "omitted",
    }
    assert "output_config" not in fitted.body
    assert EFFORT_BETA not in fitted.betas
    assert fitted.fixes == (
        "thinking:enabled:31999",
        "effort_dropped",
        f"beta_dropped:{EFFORT_BETA}",
    )
    changed = {"model", "thinking", "output_config"}
    for name in set(before) - changed:
        assert fitted.body[name] == before[name]
    others = [flag for flag in betas.split(",") if flag != EFFORT_BETA]
    assert fitted.betas.split(",") == others


def test_a_recorded_request_of_the_newest_client_can_go_down() -> None:
    body, betas = recorded("opus_5_5_first_turn")
    fitted = repair(body, betas, HAIKU)
    assert refusal_of(fitted.body, fitted.betas) == ""
    assert [message["role"] for message in fitted.body["messages"]] == ["user", "user"]
    moved = fitted.body["messages"][1]
    assert "output_config" not in moved
    (block,) = moved["content"]
    assert block["text"].startswith("<system-reminder>\n# Environment")
    assert block["cache_control"] == {"type": "ephemeral"}
    assert fitted.body["max_tokens"] == 64_000
    assert "per-turn-control" not in fitted.betas


def test_a_haiku_request_can_go_up() -> None:
    body = {
        "model": HAIKU,
        "messages": [],
        "max_tokens": 32_000,
        "thinking": {"type": "enabled", "budget_tokens": 31_999, "display": "omitted"},
        "temperature": 0.2,
    }
    fitted = repair(body, "claude-code-20250219", OPUS, effort="medium")
    assert fitted.body["thinking"] == {"type": "adaptive", "display": "omitted"}
    assert fitted.body["output_config"] == {"effort": "medium"}
    assert fitted.betas == f"claude-code-20250219,{EFFORT_BETA}"
    assert "temperature" not in fitted.body
    assert refusal_of(fitted.body, fitted.betas) == ""


def test_the_effort_is_lowered_to_what_the_model_has() -> None:
    body = {"model": OPUS, "messages": [], "output_config": {"effort": "xhigh", "format": "x"}}
    fitted = repair(body, EFFORT_BETA, SONNET)
    assert fitted.body["output_config"] == {"effort": "high", "format": "x"}
    assert fitted.fixes == ("effort:high",)


def test_a_small_answer_leaves_no_room_to_think() -> None:
    body = {
        "model": OPUS,
        "messages": [],
        "max_tokens": 1_024,
        "thinking": {"type": "adaptive"},
        "context_management": {
            "edits": [{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]
        },
    }
    fitted = repair(body, "", HAIKU)
    assert "thinking" not in fitted.body
    assert fitted.body["context_management"]["edits"] == [{"type": "clear_tool_uses_20250919"}]
    assert fitted.fixes == ("thinking_dropped", "clear_thinking_dropped")


def test_a_model_that_the_table_does_not_know_gets_the_request_as_it_is() -> None:
    body, betas = recorded("opus_4_7_second_turn")
    fitted = repair(body, betas, "some-other-model")
    assert fitted.body == {**body, "model": "some-other-model"}
    assert (fitted.betas, fitted.fixes) == (betas, ())


def test_what_has_no_form_that_the_model_accepts_is_refused() -> None:
    message = {"role": "system", "content": [{"type": "tool_change", "add": []}]}
    with pytest.raises(Refused):
        repair({"model": "claude-opus-5-5", "messages": [message]}, "", HAIKU)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("claude-haiku-4-5", HAIKU),
        ("claude-haiku-4-5-20251001", HAIKU),
        ("claude-opus-4-7[1m]", OPUS),
        ("claude-opus-4-7-20260401[1m]", OPUS),
        ("claude-opus-4-70", None),
        ("gpt-5", None),
    ],
)
def test_a_model_is_known_by_its_family(name: str, family: str | None) -> None:
    assert capabilities_of(name) == (capability_table()[family] if family else None)


bodies = st.fixed_dictionaries(
    {
        "model": st.sampled_from([OPUS, HAIKU, SONNET]),
        "messages": st.lists(
            st.sampled_from(
                [
                    {"role": "user", "content": "x"},
                    {"role": "assistant", "content": [{"type": "text", "text": "y"}]},
                    {"role": "system", "content": "z", "output_config": {"effort": "low"}},
                ]
            ),
            max_size=4,
        ),
        "max_tokens": st.integers(1, 128_000),
    },
    optional={
        "thinking": st.sampled_from(
            [
                {"type": "adaptive"},
                {"type": "disabled"},
                {"type": "enabled", "budget_tokens": 5_000},
            ]
        ),
        "output_config": st.fixed_dictionaries({"effort": st.sampled_from(EFFORT_ORDER)}),
        "temperature": st.just(1.0),
    },
)


@settings(deadline=None)
@given(bodies, st.sampled_from([OPUS, HAIKU, SONNET]), st.sampled_from(["", "low", "max"]))
def test_what_was_repaired_is_accepted_and_stays_as_it_is(
    body: dict[str, Any], model: str, effort: str
) -> None:
    betas = f"a,{EFFORT_BETA}" if "output_config" in body else "a"
    fitted = repair(body, betas, model, effort)
    assert refusal_of(fitted.body, fitted.betas) == ""
    again = repair(fitted.body, fitted.betas, model)
    assert (again.body, again.betas, again.fixes) == (fitted.body, fitted.betas, ())
