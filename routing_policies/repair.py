"""Fits a request's parameters to another model than the one that the client wrote it for.

Models refuse each other's parameters: Haiku 4.5 answers 400 to adaptive thinking and to effort,
Opus 4.7 to a thinking budget and to sampling parameters, and a client that meets such a 400
drops effort for good. So a gateway that changes the model must change these too, and must be able
to go back. What each model takes is data: ``model_capabilities.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from loop.domain.errors import Refused

EFFORT_BETA = "effort-2025-11-24"
FAST_BETA = "fast-mode-2026-02-01"
PER_TURN_BETAS = ("per-turn-control-2026-07-01", "mid-conversation-tool-changes-2026-07-01")
EFFORT_ORDER = ("low", "medium", "high", "xhigh", "max")
MIN_THINKING_TOKENS = 1024  # the API's own minimum
THINKING_TOKENS = 31_999  # what Claude Code itself asks of a model with a thinking budget
SAMPLING_PARAMETERS = ("temperature", "top_p", "top_k")
_NAME_SUFFIX = re.compile(r"(\[\w+\]|-\d{8}|-latest)+$")
_TABLE = Path(__file__).parent / "model_capabilities.json"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one model family accepts. ``thinking``: the modes beside none at all."""

    thinking: tuple[str, ...]
    efforts: tuple[str, ...]
    max_output_tokens: int
    context_tokens: int
    sampling_parameters: bool
    fast_mode: bool
    per_turn_control: bool  # system messages and settings in the middle of a conversation


@dataclass(frozen=True, slots=True)
class Repaired:
    """The body to send, the ``anthropic-beta`` header to send, and what was done, by name."""

    body: dict[str, Any]
    betas: str
    fixes: tuple[str, ...]


@cache
def capability_table() -> Mapping[str, Capabilities]:
    """The shipped table, by model name prefix."""
    rows = json.loads(_TABLE.read_text())["models"]
    return {
        prefix: Capabilities(
            tuple(row["thinking"]),
            tuple(row["efforts"]),
            row["max_output_tokens"],
            row["context_tokens"],
            row["sampling_parameters"],
            row["fast_mode"],
            row["per_turn_control"],
        )
        for prefix, row in rows.items()
    }


def capabilities_of(model: str) -> Capabilities | None:
    """By the longest fitting prefix; dated and bracketed names count as their family."""
    name = _NAME_SUFFIX.sub("", model)
    table = capability_table()
    fitting = [prefix for prefix in table if name == prefix or name.startswith(f"{prefix}-")]
    return table[max(fitting, key=len)] if fitting else None


def repair(body: Mapping[str, Any], betas: str, model: str, effort: str = "") -> Repaired:
    """The request for ``model`` with ``effort`` ("" leaves the effort as requested).

    ``body`` is not changed. A model that the table does not know gets the parameters as they are.
    Raises :class:`Refused` when a part of the body has no form that the model accepts.
    """
    fitted = {**body, "model": model}
    target = capabilities_of(model)
    flags = [flag.strip() for flag in betas.split(",") if flag.strip()]
    if effort:
        fitted["output_config"] = {**_object(body.get("output_config")), "effort": effort}
    fixes = [f"effort_set:{effort}"] if effort else []
    if target is not None:
        steps: tuple[_Step, ...] = (
            _fit_messages,
            _fit_max_tokens,
            _fit_thinking,
            _fit_effort,
            _fit_sampling,
            _fit_speed,
        )
        for step in steps:
            fixes += step(fitted, flags, target)
    elif effort and EFFORT_BETA not in flags:
        flags.append(EFFORT_BETA)
    return Repaired(fitted, ",".join(flags), tuple(fixes))


_Step = Callable[[dict[str, Any], list[str], Capabilities], list[str]]


def _fit_messages(body: dict[str, Any], flags: list[str], target: Capabilities) -> list[str]:
    """System messages inside the conversation become reminders in user messages."""
    messages = body.get("messages")
    if target.per_turn_control or not isinstance(messages, list):
        return []
    fixes = []
    fitted = []
    for message in messages:
        if not isinstance(message, dict):
            fitted.append(message)
            continue
        plain = {key: value for key, value in message.items() if key != "output_config"}
        if len(plain) < len(message):
            fixes.append("message_output_config_dropped")
        if message.get("role") == "system":
            plain = {"role": "user", "content": [_reminder(item) for item in _blocks(message)]}
            fixes.append("system_message_to_reminder")
        fitted.append(plain)
    if fixes:
        body["messages"] = fitted
    for flag in PER_TURN_BETAS:
        if flag in flags:
            flags.remove(flag)
            fixes.append(f"beta_dropped:{flag}")
    return sorted(set(fixes))


def _fit_max_tokens(body: dict[str, Any], flags: list[str], target: Capabilities) -> list[str]:
    asked = body.get("max_tokens")
    if not isinstance(asked, int) or asked <= target.max_output_tokens:
        return []
    body["max_tokens"] = target.max_output_tokens
    return [f"max_tokens:{target.max_output_tokens}"]


def _fit_thinking(body: dict[str, Any], flags: list[str], target: Capabilities) -> list[str]:
    thinking = body.get("thinking")
    if not isinstance(thinking, dict):
        return []
    mode = thinking.get("type")
    if mode not in ("adaptive", "enabled"):
        return []
    asked, max_tokens = thinking.get("budget_tokens"), body.get("max_tokens")
    fits = mode == "adaptive" or (
        isinstance(asked, int) and isinstance(max_tokens, int) and asked < max_tokens
    )
    if mode in target.thinking and fits:
        return []
    rest = {key: value for key, value in thinking.items() if key not in ("type", "budget_tokens")}
    if "adaptive" in target.thinking:
        body["thinking"] = {"type": "adaptive", **rest}
        return ["thinking:adaptive"]
    ceiling = max_tokens - 1 if isinstance(max_tokens, int) else 0
    budget = min(THINKING_TOKENS, ceiling)
    if "enabled" in target.thinking and budget >= MIN_THINKING_TOKENS:
        body["thinking"] = {"type": "enabled", "budget_tokens": budget, **rest}
        return [f"thinking:enabled:{budget}"]
    del body["thinking"]
    return ["thinking_dropped", *_drop_thinking_edits(body)]


def _drop_thinking_edits(body: dict[str, Any]) -> list[str]:
    """Clearing old thinking is refused where there is none."""
    management = _object(body.get("context_management"))
    edits = management.get("edits")
    if not isinstance(edits, list):
        return []
    kept = [
        edit
        for edit in edits
        if not str(_object(edit).get("type", "")).startswith("clear_thinking")
    ]
    if len(kept) == len(edits):
        return []
    if kept:
        body["context_management"] = {**management, "edits": kept}
    else:
        del body["context_management"]
    return ["clear_thinking_dropped"]


def _fit_effort(body: dict[str, Any], flags: list[str], target: Capabilities) -> list[str]:
    config = _object(body.get("output_config"))
    effort = config.get("effort")
    fixes = []
    if isinstance(effort, str) and effort not in target.efforts:
        rest = {key: value for key, value in config.items() if key != "effort"}
        lower = [known for known in target.efforts if _rank(known) <= _rank(effort)]
        if lower:
            rest["effort"] = max(lower, key=_rank)
            fixes.append(f"effort:{rest['effort']}")
        else:
            fixes.append("effort_dropped")
        if rest:
            body["output_config"] = rest
        else:
            del body["output_config"]
    if not target.efforts and EFFORT_BETA in flags:
        flags.remove(EFFORT_BETA)
        fixes.append(f"beta_dropped:{EFFORT_BETA}")
    if _object(body.get("output_config")).get("effort") and EFFORT_BETA not in flags:
        flags.append(EFFORT_BETA)
        fixes.append(f"beta_added:{EFFORT_BETA}")
    return fixes


def _fit_sampling(body: dict[str, Any], flags: list[str], target: Capabilities) -> list[str]:
    if target.sampling_parameters:
        return []
    present = [name for name in SAMPLING_PARAMETERS if name in body]
    for name in present:
        del body[name]
    return [f"{name}_dropped" for name in present]


def _fit_speed(body: dict[str, Any], flags: list[str], target: Capabilities) -> list[str]:
    if target.fast_mode:
        return []
    fixes = []
    if body.get("speed") == "fast":
        del body["speed"]
        fixes.append("speed_dropped")
    if FAST_BETA in flags:
        flags.remove(FAST_BETA)
        fixes.append(f"beta_dropped:{FAST_BETA}")
    return fixes


def _rank(effort: str) -> int:
    return EFFORT_ORDER.index(effort) if effort in EFFORT_ORDER else len(EFFORT_ORDER)


def _reminder(block: Any) -> dict[str, Any]:
    text = block.get("text") if isinstance(block, dict) else None
    if not isinstance(text, str):
        raise Refused(
            "A system message in the conversation holds more than text.",
            why="The model that the policy names knows no such block.",
        )
    return {**block, "text": f"<system-reminder>\n{text}\n</system-reminder>"}


def _blocks(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else []


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
