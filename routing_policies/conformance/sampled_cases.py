"""Cases drawn at random from a seed; what is expected of them is what our own code answers.

The values come from small pools, so that thresholds are met exactly as often as they are missed.
"""

from __future__ import annotations

from dataclasses import asdict
from random import Random
from typing import Any

from loop.domain.policies import MEASURES, NUMBER_FIELDS, TEXT_FIELDS, UNITS, Route, RouteRequest
from routing_policies.conformance.cases import Case
from routing_policies.conformance.named_cases import HAIKU, OPUS, SONNET, policy

_MODELS = (OPUS, HAIKU, SONNET, "claude-opus-5-5", "claude-haiku-5-5", "local/model")
_TEXTS = (
    "",
    "acme",
    "acme/pay",
    "acme/pay/eu",
    "acme/payments",
    "main",
    "subagent",
    "größe/会",
    OPUS,
)
_NUMBERS = (0, 1, 3, 9_999, 10_000, 150_000)
_LIMITS = (*_NUMBERS, -1, 0.5, 9_999.5, 2e9)
_EFFORTS = ("", "low", "medium", "high", "xhigh", "max", "unheard-of")
_WORDS = ("Fix the test.", "größer als 会話", "x" * 60, 'a "quoted"\n\tline \\ \x01', "", " ")
_TOOLS = ({"name": "Read", "input_schema": {"type": "object", "properties": {}}}, {"name": "会"})


def sampled_bucket(random: Random) -> Case:
    letters = "abcXYZ019-_.é会"
    key = "".join(random.choice(letters) for _ in range(random.randrange(130)))
    return {"salt": random.choice(["s1", "rollout-7", "ü"]), "key": key}


def sampled_arms(random: Random) -> Case:
    edges = sorted(random.randrange(10_001) for _ in range(random.randrange(4)))
    steps = zip([0, *edges], [*edges, 10_000], strict=True)
    arms = [[f"arm-{number}", high - low] for number, (low, high) in enumerate(steps)]
    return {**sampled_bucket(random), "arms": arms}


def sampled_policy(random: Random) -> Case:
    return policy(
        *(_rule(random, number) for number in range(random.randrange(6))),
        default=random.choice(["", *_MODELS]),
        measure=random.choice(MEASURES),
        unit=random.choice(UNITS),
        ceilings={
            model: random.choice(_NUMBERS) for model in random.sample(_MODELS, random.randrange(3))
        },
        lock=random.random() < 0.5,
    )


def sampled_decision(random: Random, policy_name: str) -> Case:
    request = RouteRequest(
        requested_model=random.choice(_MODELS),
        session_id=random.choice(["s", "会話"]),
        agent_id=random.choice(["", "a"]),
        agent_name=random.choice(_TEXTS),
        request_class=random.choice(["main", "subagent", "auxiliary"]),
        org_path=random.choice(_TEXTS),
        repository=random.choice(_TEXTS),
        effort=random.choice(_EFFORTS),
        turn_index=random.choice(_NUMBERS),
        total_input_tokens=random.choice(_NUMBERS),
        uncached_input_tokens=random.choice(_NUMBERS),
        new_tokens=random.choice(_NUMBERS),
        prompt_tokens=random.choice(_NUMBERS),
        starts_user_turn=random.random() < 0.5,
        in_tool_loop=random.random() < 0.5,
    )
    previous = Route(
        random.choice(_MODELS), "rule-0", random.choice(_EFFORTS), random.random() < 0.3
    )
    return {
        "name": "sampled",
        "policy": policy_name,
        "request": asdict(request),
        "previous": asdict(previous) if random.random() < 0.5 else None,
    }


def add_runs(random: Random, policies: dict[str, Case], decisions: list[Case]) -> None:
    """Gives some policies a least run and every kept route its length. Drawn apart, so that the
    cases of before stay what they were."""
    for document in policies.values():
        if random.random() < 0.4:
            document["guards"]["min_run_requests"] = random.choice([1, 2, 3])
    for case in decisions:
        if case["previous"]:
            case["previous"]["run_requests"] = random.choice([1, 1, 2, 3, 4])


def sampled_features(random: Random) -> Case:
    headers = {
        name: value
        for name, value in (
            ("x-claude-code-session-id", "c4bad49d-1e0b-46bf-a3b2-ca55eb8c6b41"),
            ("x-claude-code-agent-id", "agent-1"),
            ("x-claude-code-agent-type", "Explore"),
            ("x-claude-code-request-class", random.choice(["main", "workflow", "compaction", "?"])),
            ("x-tw-org", "acme/pay"),
            ("x-tw-repo", "acme/shop"),
        )
        if random.random() < 0.4
    }
    return {
        "body": sampled_body(random),
        "headers": headers,
        "estimator": random.choice([[3.3, 1600], [4.0, 0], [2.75, 85]]),
    }


def sampled_repair(random: Random) -> Case:
    flags = ["effort-2025-11-24", "claude-code-20250219", "per-turn-control-2026-07-01"]
    return {
        "body": sampled_body(random),
        "betas": random.choice([",", ", "]).join(random.sample(flags, random.randrange(4))),
        "model": random.choice([*_MODELS, "claude-haiku-4-5-20251001", "claude-opus-4-7[1m]"]),
        "effort": random.choice(_EFFORTS),
    }


def sampled_body(random: Random) -> Case:
    """A request body as clients write it, and a little beyond."""
    optional: dict[str, Any] = {
        "system": random.choice([random.choice(_WORDS), [_text(random)], []]),
        "tools": random.sample(_TOOLS, random.randrange(3)),
        "max_tokens": random.choice([500, 1_024, 1_025, 32_000, 128_000]),
        "thinking": random.choice(
            [
                {"type": "adaptive", "display": "omitted"},
                {"type": "enabled", "budget_tokens": random.choice([1_024, 31_999, 200_000])},
                {"type": "disabled"},
            ]
        ),
        "output_config": {"effort": random.choice(_EFFORTS[1:])},
        "context_management": {
            "edits": random.sample(
                [{"type": "clear_thinking_20251015", "keep": "all"}, {"type": "clear_tool_uses"}],
                random.randrange(3),
            )
        },
        "temperature": 1,
        "top_k": 5,
        "metadata": {
            "user_id": random.choice(
                [
                    '{"device_id":"d","session_id":"0f5c"}',
                    "user_1_account__session_c4bad49d-1e0b-46bf-a3b2-ca55eb8c6b41",
                    "someone",
                ]
            )
        },
        "stream": True,
    }
    body = {name: value for name, value in optional.items() if random.random() < 0.6}
    messages = [_message(random, number) for number in range(random.randrange(1, 6))]
    return {"model": random.choice(_MODELS), "messages": messages, **body}


def _rule(random: Random, number: int) -> Case:
    conditions = [_condition(random) for _ in range(random.randrange(4))]
    settings = {"model": random.choice(["", *_MODELS]), "effort": random.choice(_EFFORTS)}
    return {"id": f"rule-{number}", "when": conditions, "set": settings}


def _condition(random: Random) -> Case:
    if random.random() < 0.5:
        op = random.choice(["<", "<=", ">", ">=", "==", "!="])
        return {
            "field": random.choice(NUMBER_FIELDS),
            "op": op,
            "value": random.choice(_LIMITS),
        }
    field = random.choice(TEXT_FIELDS)
    if random.random() < 0.4:
        return {"field": field, "op": "in", "value": random.sample(_TEXTS[1:], random.randrange(4))}
    return {"field": field, "op": random.choice(["==", "!="]), "value": random.choice(_TEXTS)}


def _message(random: Random, number: int) -> Case:
    role = "user" if number % 2 == 0 else "assistant"
    if number and random.random() < 0.1:
        return {"role": "system", "content": random.choice(["Be brief.", [_text(random)]])}
    if random.random() < 0.3:
        return {"role": role, "content": random.choice(_WORDS)}
    blocks = [_block(random, role) for _ in range(random.randrange(1, 4))]
    extra = {"output_config": {"effort": "low"}} if random.random() < 0.1 else {}
    return {"role": role, "content": blocks, **extra}


def _block(random: Random, role: str) -> Case:
    kind = random.randrange(5)
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    if role == "assistant" and kind == 0:
        return {"type": "thinking", "thinking": random.choice(_WORDS), "signature": "c2ln"}
    if role == "assistant" and kind < 3:
        values = {
            "path": random.choice(_WORDS),
            "limit": 20,
            "all": True,
            "none": None,
            "l": [1, {}],
        }
        return {"type": "tool_use", "id": "t1", "name": "Read", "input": values}
    if kind == 1:
        return image
    if kind == 2:
        content = random.choice([random.choice(_WORDS), [_text(random), image]])
        return {"type": "tool_result", "tool_use_id": "t1", "content": content}
    return _text(random)


def _text(random: Random) -> Case:
    reminder = "<system-reminder>now</system-reminder>"
    text = {"type": "text", "text": random.choice([*_WORDS, reminder])}
    return {**text, "cache_control": {"type": "ephemeral"}} if random.random() < 0.3 else text
