"""A policy as routing rules of Bifrost, over the headers that the edge proxy stamps.

Bifrost's rules are CEL expressions over headers; the first that matches wins, a missing header
matches nothing. They keep no routes and fit no parameters: :attr:`BifrostRules.notes` says what of
a policy is lost. A rule that can't be written at all refuses the export, since the rules after it
would then serve what was meant for it.

Written for the routing API of Bifrost 2 (``/api/routing/rules``), from its published OpenAPI.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from loop.domain.errors import Refused
from loop.domain.policies import Condition, RoutingPolicy, Rule

HEADERS = {
    "total_input_tokens": "x-tw-total-input-tokens",
    "uncached_input_tokens": "x-tw-uncached-input-tokens",
    "new_tokens": "x-tw-new-tokens",
    "prompt_tokens": "x-tw-prompt-tokens",
    "requested_model": "x-tw-requested-model",
    "request_class": "x-tw-request-class",
    "agent_name": "x-tw-agent",
    "org_path": "x-tw-org",
    "repository": "x-tw-repo",
}
_NUMBERS = ("total_input_tokens", "uncached_input_tokens", "new_tokens", "prompt_tokens")


@dataclass(frozen=True, slots=True)
class BifrostRules:
    """``rules`` as the API takes them, in their order; ``notes``: what they do not say."""

    rules: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def bifrost_rules(
    policy: RoutingPolicy,
    *,
    name: str,
    provider: str = "anthropic",
    arm: str = "",
    scope: str = "global",
    scope_id: str = "",
    first_priority: int = 0,
) -> BifrostRules:
    """The rules of ``policy``; with ``arm`` they hold for the sessions of that arm only.

    ``name`` begins each rule's name and tells the rules of one policy from all others. Raises
    :class:`Refused` naming the rule and the condition that Bifrost can't express.
    """
    written: list[tuple[str, list[str], str]] = []
    for rule in policy.rules:
        when = [_condition(policy, rule, condition) for condition in rule.when]
        written += _guarded(policy, rule.rule_id, when, rule.model)
    if policy.default_model:
        written += _guarded(policy, "default", [], policy.default_model)
    of_arm = [f"{_header('x-tw-arm')} == {_text(arm)}"] if arm else []
    rules = []
    for position, (rule_id, when, model) in enumerate(written):
        target = {"provider": provider, "weight": 1} | ({"model": model} if model else {})
        rules.append(
            {
                "name": f"{name} {position:03d} {rule_id}",
                "description": f"{policy.name}, {policy.digest}: written by turnwise",
                "enabled": True,
                "cel_expression": " && ".join([*of_arm, *when]) or "true",
                "targets": [target],
                "fallbacks": [],
                "scope": scope,
                **({"scope_id": scope_id} if scope_id else {}),
                "priority": first_priority + position,
            }
        )
    return BifrostRules(tuple(rules), _notes(policy))


def _guarded(
    policy: RoutingPolicy, rule_id: str, when: list[str], model: str
) -> list[tuple[str, list[str], str]]:
    """The rule, and before it the context ceiling of its model, which keeps the requested one."""
    ceiling = policy.guards.max_context_tokens.get(model) if model else None
    if ceiling is None:
        return [(rule_id, when, model)]
    above = f"int({_header(HEADERS['total_input_tokens'])}) > {ceiling}"
    return [(f"{rule_id} guard:max_context_tokens", [*when, above], ""), (rule_id, when, model)]


def _condition(policy: RoutingPolicy, rule: Rule, condition: Condition) -> str:
    field = policy.measure if condition.field == "input_tokens" else condition.field
    if field not in HEADERS:
        raise Refused(
            f"Rule {rule.rule_id!r} can't be a rule of Bifrost.",
            why=f"It looks at {field}, which is in no header.",
            fix="Let the edge proxy rewrite the model (TURNWISE_EDGE_MODE=rewrite_and_stamp).",
        )
    header = _header(HEADERS[field])
    if field in _NUMBERS:
        return f"double({header}) {condition.op} {_number(condition.value)}"
    if field == "org_path" and condition.op == "==":
        node = str(condition.value)
        return _present(
            field, f"({header} == {_text(node)} || {header}.startsWith({_text(node + '/')}))"
        )
    values = condition.value if isinstance(condition.value, tuple) else (str(condition.value),)
    among = f"{header} in [{', '.join(_text(value) for value in values)}]"
    # An empty text is a header that is not there.
    test = _present(field, among)
    if "" in values:
        test = f"({_absent(field)} || {test})"
    return f"!({test})" if condition.op == "!=" else test


def _present(field: str, test: str) -> str:
    return f"({_text(HEADERS[field])} in headers && {test})"


def _absent(field: str) -> str:
    return f"!({_text(HEADERS[field])} in headers)"


def _header(name: str) -> str:
    return f"headers[{_text(name)}]"


def _number(value: object) -> str:
    return repr(float(value)) if isinstance(value, int | float) else "0.0"


def _text(value: str) -> str:
    """A CEL string of what the edge proxy would stamp for ``value``."""
    return json.dumps(quote(value, safe="/:"))


def _notes(policy: RoutingPolicy) -> tuple[str, ...]:
    notes = ["Parameters are not fitted to the routed model; what it refuses is answered 400."]
    if policy.unit != "request":
        notes.append(f"A route is not kept for the {policy.unit}: each request is routed anew.")
    if policy.guards.tool_loop_lock:
        notes.append("The model may change inside a tool loop.")
    if policy.guards.min_run_requests:
        notes.append("A model may serve a unit fewer requests than the policy's least run.")
    if any(rule.effort for rule in policy.rules):
        notes.append("An effort that a rule sets is not set.")
    return tuple(notes)
