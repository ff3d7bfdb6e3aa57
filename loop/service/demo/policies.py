"""The policy documents that the demo's operator proposes by hand."""

from __future__ import annotations

from typing import Any

from optimizers.classic import classic_policy


def small_prompts_to_haiku(name: str, limit: int) -> dict[str, Any]:
    document = classic_policy("prompt_tokens").to_document()
    rule = {
        "id": "small-prompt",
        "when": [{"field": "input_tokens", "op": "<", "value": limit}],
        "set": {"model": "claude-haiku-4-5", "effort": ""},
    }
    return document | {
        "name": name,
        "description": f"SIMULATED: sessions that begin with under {limit} prompt tokens to haiku",
        "unit": "session",
        "rules": [rule],
        "default": {"model": ""},
    }


def everything_to_haiku() -> dict[str, Any]:
    document = small_prompts_to_haiku("everything-to-haiku", 1_000_000)
    return document | {"description": "SIMULATED: every session to haiku"}
