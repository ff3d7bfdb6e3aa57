"""A policy as rules of other systems, with what they can't say.

A policy's rules are restricted to what compiles to CEL, so that nobody is locked in. What a system
can't express is never left out quietly: every export lists it, in words. In none of them is the
routing kept per session, a guard enforced or a parameter fitted, unless it says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loop.domain.errors import NotFound
from loop.domain.policies import NUMBER_FIELDS, Condition, RoutingPolicy, Rule
from routing_policies.exports.bifrost import bifrost_rules

_PORTKEY_OPERATORS = {
    "<": "$lt",
    "<=": "$lte",
    ">": "$gt",
    ">=": "$gte",
    "==": "$eq",
    "!=": "$ne",
    "in": "$in",
}
AS_REQUESTED = "as-requested"


@dataclass(frozen=True, slots=True)
class PolicyExport:
    """``document`` is what the system reads; ``not_expressed`` what it says less than the policy;
    ``needs`` what must be there for it to mean the same."""

    system: str
    document: Any
    not_expressed: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        return {
            "system": self.system,
            "document": self.document,
            "not_expressed": list(self.not_expressed),
            "needs": list(self.needs),
        }


def export_policy(policy: RoutingPolicy, system: str, name: str = "") -> PolicyExport:
    """One of :data:`FORMATS`; ``name`` names the policy in the other system. Raises
    :class:`NotFound` for another format."""
    make = FORMATS.get(system)
    if make is None:
        raise NotFound(
            f"There is no export as {system!r}.", fix=f"One of {', '.join(sorted(FORMATS))}."
        )
    return make(policy, name or policy.name)


def to_cel(policy: RoutingPolicy, _name: str = "") -> PolicyExport:
    """One expression whose value is the model that serves, and each rule's condition by itself.

    Variables are the fields of ``docs/policies.md``: the numbers as int, the rest as string. The
    context ceilings are in the expression; https://cel.dev.
    """
    rules = [
        {
            "id": rule.rule_id,
            "when": _cel_rule(policy, rule),
            "model": rule.model or "requested_model",
            "effort": rule.effort,
        }
        for rule in policy.rules
    ]
    expression = _cel_model(policy, policy.default_model)
    for rule in reversed(policy.rules):
        chosen = _cel_model(policy, rule.model)
        expression = f"{_cel_rule(policy, rule)} ? {chosen} : ({expression})"
    return PolicyExport(
        "cel",
        {"expression": expression, "rules": rules},
        (*_unkept(policy), *_efforts(policy), *_REPAIR),
    )


def to_portkey(policy: RoutingPolicy, _name: str = "") -> PolicyExport:
    """A conditional config (https://portkey.ai/docs): the first query that holds names a target.

    Sizes and texts are read from ``x-portkey-metadata``, since Portkey counts no tokens.
    """
    conditions: list[dict[str, Any]] = []
    models, missing = [], list(_unkept(policy))
    for rule in policy.rules:
        query = [_portkey_query(policy, condition) for condition in rule.when]
        ceiling = policy.guards.max_context_tokens.get(rule.model)
        if ceiling is not None:
            over = {"metadata.tw_total_input_tokens": {"$gt": ceiling}}
            conditions.append({"query": {"$and": [*query, over]}, "then": AS_REQUESTED})
        always = [{"params.model": {"$regex": "."}}]
        conditions.append({"query": {"$and": query or always}, "then": rule.model or AS_REQUESTED})
        models.append(rule.model)
    if policy.default_model in policy.guards.max_context_tokens:
        missing.append(f"the context ceiling of {policy.default_model} as the default")
    named = sorted({*models, policy.default_model} - {""})
    targets: list[dict[str, Any]] = [{"name": AS_REQUESTED, "provider": "anthropic"}]
    targets += [
        {"name": model, "provider": "anthropic", "override_params": {"model": model}}
        for model in named
    ]
    document = {
        "strategy": {
            "mode": "conditional",
            "conditions": conditions,
            "default": policy.default_model or AS_REQUESTED,
        },
        "targets": targets,
    }
    used = sorted({key for one in conditions for key in _keys_of(one["query"])})
    return PolicyExport(
        "portkey",
        document,
        (*missing, *_efforts(policy), *_REPAIR),
        (
            f"metadata of each request in x-portkey-metadata: {', '.join(used)}",
            "an API key, and anthropic-beta and anthropic-version in forward_headers, per target",
        )
        if used
        else (),
    )


def to_bifrost(policy: RoutingPolicy, name: str = "") -> PolicyExport:
    """Routing rules of Bifrost, as ``routing_policies.exports.bifrost`` writes them. Raises
    :class:`Refused` for a rule that can't be written."""
    made = bifrost_rules(policy, name=name or policy.name)
    return PolicyExport(
        "bifrost",
        {"governance": {"routing_rules": list(made.rules)}},
        tuple(note.rstrip(".") for note in made.notes),
        ("the edge proxy before it, with TURNWISE_EDGE_MODE=stamp",),
    )


FORMATS: Mapping[str, Callable[[RoutingPolicy, str], PolicyExport]] = {
    "cel": to_cel,
    "portkey": to_portkey,
    "bifrost": to_bifrost,
}

_REPAIR = ("parameters (thinking, effort, max_tokens …) are not fitted to the model that serves",)


def _unkept(policy: RoutingPolicy) -> list[str]:
    found = []
    if policy.unit != "request":
        found.append(f"unit {policy.unit}: each request is decided by itself, no route is kept")
    if policy.guards.tool_loop_lock:
        found.append("tool_loop_lock: the model may change between a tool call and its result")
    if policy.guards.min_run_requests:
        found.append("min_run_requests: the model may change after any request")
    return found


def _efforts(policy: RoutingPolicy) -> list[str]:
    return [
        f"rule {rule.rule_id}: effort {rule.effort} is not set"
        for rule in policy.rules
        if rule.effort
    ]


def _field(policy: RoutingPolicy, condition: Condition) -> str:
    return policy.measure if condition.field == "input_tokens" else condition.field


def _cel_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _cel_number(value: float) -> tuple[str, bool]:
    """The literal, and whether what it is compared with must be a double too."""
    whole = float(value).is_integer() and abs(value) < 2**63
    return (str(int(value)), False) if whole else (repr(float(value)), True)


def _cel_rule(policy: RoutingPolicy, rule: Rule) -> str:
    terms = [_cel_condition(_field(policy, one), one) for one in rule.when]
    return " && ".join(terms) or "true"


def _cel_condition(name: str, condition: Condition) -> str:
    value = condition.value
    if condition.field in NUMBER_FIELDS and not isinstance(value, str | tuple):
        literal, is_double = _cel_number(value)
        variable = f"double({name})" if is_double else name
        return f"{variable} {condition.op} {literal}"
    if isinstance(value, tuple):
        return f"{name} in [{', '.join(map(_cel_text, value))}]"
    text = str(value)
    if name == "org_path" and condition.op == "==":
        return f"({name} == {_cel_text(text)} || {name}.startsWith({_cel_text(text + '/')}))"
    return f"{name} {condition.op} {_cel_text(text)}"


def _cel_model(policy: RoutingPolicy, model: str) -> str:
    if not model:
        return "requested_model"
    ceiling = policy.guards.max_context_tokens.get(model)
    if ceiling is None:
        return _cel_text(model)
    return f"(total_input_tokens > {ceiling} ? requested_model : {_cel_text(model)})"


def _portkey_query(policy: RoutingPolicy, condition: Condition) -> dict[str, Any]:
    name, value = _field(policy, condition), condition.value
    key = "params.model" if name == "requested_model" else f"metadata.tw_{name}"
    if name == "org_path" and condition.op == "==":
        return {key: {"$regex": f"^{re.escape(str(value))}(/|$)"}}
    given = list(value) if isinstance(value, tuple) else value
    return {key: {_PORTKEY_OPERATORS[condition.op]: given}}


def _keys_of(query: Mapping[str, Any]) -> list[str]:
    keys = [key for one in query["$and"] for key in one]
    return [key.removeprefix("metadata.") for key in keys if key.startswith("metadata.")]
