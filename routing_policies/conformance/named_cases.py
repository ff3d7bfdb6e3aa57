"""Cases written by hand, expectation and all: each is one sentence of docs/policies.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loop.domain.policies import Route, RouteRequest
from routing_policies.conformance.cases import Case

OPUS, HAIKU, SONNET = "claude-opus-4-7", "claude-haiku-4-5", "claude-sonnet-4-6"

BUCKETS: list[Case] = [
    {"salt": "s1", "key": "abc", "expected": 9688},
    # The rest is sha1sum's: nothing, two blocks of SHA-1, and texts of several bytes a character.
    {"salt": "", "key": "", "expected": 5336},
    {"salt": "s1", "key": "x" * 60, "expected": 9931},
    {"salt": "größe", "key": "会話-1", "expected": 7733},
]


def _arm(key: str, arms: list[list[Any]], expected: str, bucket: int) -> Case:
    return {
        "salt": "s1",
        "key": key,
        "arms": arms,
        "expected": {"arm": expected, "bucket": bucket},
    }


_ROLLOUT = [["canary", 1_000], ["stable", 8_000], ["control", 1_000]]
ARMS: list[Case] = [
    _arm("abc", _ROLLOUT, "control", 9688),
    _arm("abc", _ROLLOUT[::-1], "canary", 9688),
    _arm("s-3", _ROLLOUT, "stable", 1169),
    # An arm reaches up to its edge and not over it.
    _arm("abc", [["below", 9_688], ["above", 312]], "above", 9688),
    _arm("abc", [["below", 9_689], ["above", 311]], "below", 9688),
    _arm("abc", [["below", 0], ["above", 10_000]], "above", 9688),
]


def _rule(name: str, model: str, *when: tuple[str, str, Any], effort: str = "") -> Case:
    conditions = [{"field": field, "op": op, "value": value} for field, op, value in when]
    return {"id": name, "when": conditions, "set": {"model": model, "effort": effort}}


def policy(
    *rules: Case,
    default: str = "",
    measure: str = "total_input_tokens",
    unit: str = "request",
    ceilings: dict[str, int] | None = None,
    lock: bool = True,
    min_run: int = 0,
) -> Case:
    return {
        "schema": "turnwise.policy/1",
        "name": "conformance",
        "description": "",
        "measure": measure,
        "unit": unit,
        "rules": list(rules),
        "default": {"model": default},
        "estimator": {"kind": "chars", "chars_per_token": 3.3, "image_tokens": 1600},
        "guards": {
            "max_context_tokens": ceilings or {},
            "tool_loop_lock": lock,
            **({"min_run_requests": min_run} if min_run else {}),
        },
    }


# Whether 9, 10 and 11 are each ``op`` 10.
_COMPARISONS: dict[str, tuple[bool, bool, bool]] = {
    "<": (True, False, False),
    "<=": (True, True, False),
    ">": (False, False, True),
    ">=": (False, True, True),
    "==": (False, True, False),
    "!=": (True, False, True),
}
SHORT = _rule("short", HAIKU, ("input_tokens", "<", 10_000))
POLICIES: dict[str, Case] = {
    "no rules": policy(),
    "only what is needed": {
        "schema": "turnwise.policy/1",
        "name": "bare",
        "measure": "new_tokens",
        "unit": "request",
        "rules": [{"id": "all", "set": {}}],
    },
    "short": policy(SHORT, default=OPUS),
    "short by session": policy(SHORT, default=OPUS, unit="session"),
    "short by agent": policy(SHORT, default=OPUS, unit="agent"),
    "short by user turn": policy(SHORT, default=OPUS, unit="user_turn"),
    "short without lock": policy(SHORT, default=OPUS, lock=False),
    "three at least": policy(SHORT, default=OPUS, lock=False, min_run=3),
    "three at least, with a ceiling": policy(
        SHORT, lock=False, min_run=3, ceilings={HAIKU: 150_000}
    ),
    "as requested by session": policy(unit="session"),
    "new tokens": policy(SHORT, default=OPUS, measure="new_tokens"),
    "prompt tokens": policy(SHORT, default=OPUS, measure="prompt_tokens"),
    "uncached": policy(SHORT, default=OPUS, measure="uncached_input_tokens"),
    "ceiling": policy(default=HAIKU, ceilings={HAIKU: 150_000}),
    "ceiling by session": policy(default=HAIKU, unit="session", ceilings={HAIKU: 150_000}),
    "org": policy(_rule("pay", HAIKU, ("org_path", "==", "acme/pay"))),
    "not org": policy(_rule("others", HAIKU, ("org_path", "!=", "acme/pay"))),
    "org in": policy(_rule("two", HAIKU, ("org_path", "in", ["acme/pay", "acme/ads"]))),
    "in": policy(_rule("big", HAIKU, ("requested_model", "in", [OPUS, SONNET]))),
    "in nothing": policy(_rule("never", HAIKU, ("requested_model", "in", []))),
    "two conditions": policy(
        _rule("both", HAIKU, ("turn_index", ">=", 3), ("request_class", "==", "subagent")),
        _rule("always", SONNET, effort="low"),
    ),
    "effort only": policy(_rule("calm", "", ("effort", "==", "xhigh"), effort="medium")),
    "fraction": policy(_rule("half", HAIKU, ("new_tokens", "<=", 10.5))),
    "other measure": policy(
        _rule("both", HAIKU, ("input_tokens", ">", 100), ("total_input_tokens", "==", 7_000)),
        measure="new_tokens",
    ),
    **{f"{op} 10": policy(_rule("yes", HAIKU, ("turn_index", op, 10))) for op in _COMPARISONS},
    "== text": policy(_rule("yes", HAIKU, ("repository", "==", "shop"))),
    "!= text": policy(_rule("yes", HAIKU, ("repository", "!=", "shop"))),
}


def _decision(
    name: str,
    policy_name: str,
    route: Route,
    previous: Route | None = None,
    key: tuple[str, str] = ("s", ""),
    **request: Any,
) -> Case:
    facts = {"requested_model": OPUS, "session_id": "s", "agent_id": "a", **request}
    return {
        "name": name,
        "policy": policy_name,
        "request": asdict(RouteRequest(**facts)),
        "previous": asdict(previous) if previous else None,
        "expected": {"route": asdict(route), "unit_key": list(key)},
    }


_ALONE = ("s", "a")
_SHORT, _DEFAULT = Route(HAIKU, "short"), Route(OPUS, "default")
_AGAIN = Route(OPUS, "default", run_requests=2)
_ASKED = Route(OPUS, "default", as_requested=True)
_GUARDED = Route(OPUS, "guard:max_context_tokens", as_requested=True)

DECISIONS: list[Case] = [
    _decision("without rules the requested model stays", "no rules", _ASKED, key=_ALONE),
    _decision("below the threshold", "short", _SHORT, key=_ALONE, total_input_tokens=9_999),
    _decision("on the threshold", "short", _DEFAULT, key=_ALONE, total_input_tokens=10_000),
    _decision("a request is kept on nothing", "short", _SHORT, _DEFAULT, key=_ALONE),
    _decision("but inside a tool loop", "short", _AGAIN, _DEFAULT, key=_ALONE, in_tool_loop=True),
    _decision(
        "unless the lock is off",
        "short without lock",
        _SHORT,
        _DEFAULT,
        key=_ALONE,
        in_tool_loop=True,
    ),
    _decision("a session is kept", "short by session", _AGAIN, _DEFAULT),
    _decision("a session begins", "short by session", _SHORT),
    _decision("an agent is kept for itself", "short by agent", _AGAIN, _DEFAULT, key=_ALONE),
    _decision(
        "auxiliary requests have their own unit",
        "short by session",
        _SHORT,
        key=("s", "~auxiliary"),
        request_class="auxiliary",
    ),
    _decision(
        "a user turn is kept until the next",
        "short by user turn",
        _AGAIN,
        _DEFAULT,
        key=_ALONE,
        starts_user_turn=False,
    ),
    _decision("the next user turn is free", "short by user turn", _SHORT, _DEFAULT, key=_ALONE),
    _decision(
        "a kept route without a model follows the request",
        "as requested by session",
        Route(SONNET, "default", as_requested=True),
        _ASKED,
        requested_model=SONNET,
    ),
    _decision(
        "a run that is too short goes on",
        "three at least",
        Route(OPUS, "default", run_requests=3),
        Route(OPUS, "default", run_requests=2),
        key=_ALONE,
    ),
    _decision(
        "one that is long enough may end",
        "three at least",
        Route(HAIKU, "short", run_requests=1),
        Route(OPUS, "default", run_requests=3),
        key=_ALONE,
    ),
    _decision(
        "a run counts on under another rule",
        "three at least",
        Route(HAIKU, "short", run_requests=4),
        Route(HAIKU, "other", run_requests=3),
        key=_ALONE,
    ),
    _decision(
        "a ceiling ends any run",
        "three at least, with a ceiling",
        Route(OPUS, "guard:max_context_tokens", as_requested=True),
        Route(HAIKU, "short"),
        key=_ALONE,
        total_input_tokens=150_001,
    ),
    _decision(
        "what it began holds for a run, too",
        "three at least, with a ceiling",
        Route(OPUS, "guard:max_context_tokens", as_requested=True, run_requests=2),
        Route(OPUS, "guard:max_context_tokens", as_requested=True),
        key=_ALONE,
    ),
    _decision(
        "a run as requested follows the request and begins anew",
        "three at least, with a ceiling",
        Route(SONNET, "default", as_requested=True),
        Route(OPUS, "default", as_requested=True, run_requests=2),
        key=_ALONE,
        requested_model=SONNET,
    ),
    _decision("a measure", "new tokens", _SHORT, key=_ALONE, new_tokens=9_999, turn_index=3),
    _decision("another", "prompt tokens", _DEFAULT, key=_ALONE, prompt_tokens=10_000),
    _decision("a third", "uncached", _DEFAULT, key=_ALONE, uncached_input_tokens=10_000),
    _decision(
        "input_tokens is the policy's measure, beside others",
        "other measure",
        Route(HAIKU, "both"),
        key=_ALONE,
        new_tokens=101,
        total_input_tokens=7_000,
    ),
    _decision(
        "up to the ceiling",
        "ceiling",
        Route(HAIKU, "default"),
        key=_ALONE,
        total_input_tokens=150_000,
    ),
    _decision("above the ceiling", "ceiling", _GUARDED, key=_ALONE, total_input_tokens=150_001),
    _decision(
        "the ceiling overrules a kept route",
        "ceiling by session",
        _GUARDED,
        Route(HAIKU, "default"),
        total_input_tokens=150_001,
    ),
    *(
        _decision(f"{name}: {path!r}", name, route, key=_ALONE, org_path=path)
        for name, path, route in (
            ("org", "acme/pay", Route(HAIKU, "pay")),
            ("org", "acme/pay/eu", Route(HAIKU, "pay")),
            ("org", "acme/payments", _ASKED),
            ("org", "acme", _ASKED),
            ("org", "", _ASKED),
            ("not org", "acme/pay", _ASKED),
            ("not org", "acme/pay/eu", Route(HAIKU, "others")),
            ("org in", "acme/ads", Route(HAIKU, "two")),
            ("org in", "acme/ads/eu", _ASKED),
        )
    ),
    _decision(
        "a rule that sets nothing",
        "only what is needed",
        Route(OPUS, "all", as_requested=True),
        key=_ALONE,
    ),
    _decision(
        "the lock holds where nothing is said",
        "only what is needed",
        Route(HAIKU, "kept", run_requests=2),
        Route(HAIKU, "kept"),
        key=_ALONE,
        in_tool_loop=True,
    ),
    *(
        _decision(
            f"{turn_index} {op} 10",
            f"{op} 10",
            Route(HAIKU, "yes") if holds else _ASKED,
            key=_ALONE,
            turn_index=turn_index,
        )
        for op, row in _COMPARISONS.items()
        for turn_index, holds in zip((9, 10, 11), row, strict=True)
    ),
    _decision("the text", "== text", Route(HAIKU, "yes"), key=_ALONE, repository="shop"),
    _decision("no prefix of a text", "== text", _ASKED, key=_ALONE, repository="shop/x"),
    _decision("not the text", "!= text", _ASKED, key=_ALONE, repository="shop"),
    _decision("another text", "!= text", Route(HAIKU, "yes"), key=_ALONE, repository="Shop"),
    _decision("in a list", "in", Route(HAIKU, "big"), key=_ALONE),
    _decision(
        "not in the list",
        "in",
        Route(HAIKU, "default", as_requested=True),
        key=_ALONE,
        requested_model=HAIKU,
    ),
    _decision("in an empty list", "in nothing", _ASKED, key=_ALONE),
    _decision(
        "all conditions hold",
        "two conditions",
        Route(HAIKU, "both"),
        key=_ALONE,
        turn_index=3,
        request_class="subagent",
    ),
    _decision("one condition fails", "two conditions", Route(SONNET, "always", "low"), key=_ALONE),
    _decision(
        "effort without a model",
        "effort only",
        Route(OPUS, "calm", "medium", as_requested=True),
        key=_ALONE,
        effort="xhigh",
    ),
    _decision("a fraction above", "fraction", Route(HAIKU, "half"), key=_ALONE, new_tokens=10),
    _decision("a fraction below", "fraction", _ASKED, key=_ALONE, new_tokens=11),
]


def _repair(body: Case, model: str, expected: Case, betas: str = "", effort: str = "") -> Case:
    return {"body": body, "betas": betas, "model": model, "effort": effort, "expected": expected}


def _question(**parameters: Any) -> Case:
    return {"model": OPUS, "messages": [{"role": "user", "content": "Hi"}], **parameters}


_IMAGE = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
REPAIRS: list[Case] = [
    _repair(
        _question(
            max_tokens=64_001,
            thinking={"type": "adaptive"},
            output_config={"effort": "xhigh"},
        ),
        HAIKU,
        {
            "outcome": "repaired",
            "body": {
                "model": HAIKU,
                "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": 64_000,
                "thinking": {"type": "enabled", "budget_tokens": 31_999},
            },
            "betas": "claude-code-20250219",
            "fixes": [
                "max_tokens:64000",
                "thinking:enabled:31999",
                "effort_dropped",
                "beta_dropped:effort-2025-11-24",
            ],
        },
        betas="claude-code-20250219,effort-2025-11-24",
    ),
    _repair(
        _question(temperature=0.5),
        "local/model",
        {
            "outcome": "repaired",
            "body": {**_question(temperature=0.5), "model": "local/model"},
            "betas": "",
            "fixes": [],
        },
    ),
    _repair(
        _question(speed="fast"),
        HAIKU,
        {
            "outcome": "repaired",
            "body": {**_question(), "model": HAIKU},
            "betas": "claude-code-20250219",
            "fixes": ["speed_dropped", "beta_dropped:fast-mode-2026-02-01"],
        },
        betas="claude-code-20250219,fast-mode-2026-02-01",
    ),
    _repair(
        _question(speed="fast"),
        "claude-opus-5-5",
        {
            "outcome": "repaired",
            "body": {**_question(speed="fast"), "model": "claude-opus-5-5"},
            "betas": "fast-mode-2026-02-01",
            "fixes": [],
        },
        betas="fast-mode-2026-02-01",
    ),
    _repair(
        {"model": OPUS, "messages": [{"role": "system", "content": [_IMAGE]}]},
        HAIKU,
        {"outcome": "Refused"},
    ),
]
