"""Reads policy and publication documents, and refuses what could not be decided.

The writers are ``to_document`` on the records themselves (``loop.domain.policies``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from loop.domain.budget_pauses import MAX_LISTED, BudgetPause
from loop.domain.errors import BadInput
from loop.domain.policies import (
    BUCKETS,
    MEASURES,
    NUMBER_FIELDS,
    POLICY_SCHEMA,
    PUBLICATION_SCHEMA,
    TEXT_FIELDS,
    UNITS,
    Arm,
    Condition,
    Estimator,
    Guards,
    Measure,
    Operator,
    Publication,
    RoutingPolicy,
    Rule,
    Unit,
)


def parse_policy(document: object) -> RoutingPolicy:
    """Reads a policy document.

    Raises :class:`BadInput` naming the path of the first thing that is wrong; a document that
    parses can be decided for every request.
    """
    root = _object(document, "policy")
    if root.get("schema") != POLICY_SCHEMA:
        raise _bad("schema", f"must be {POLICY_SCHEMA!r}, not {root.get('schema')!r}")
    _only(
        root,
        "policy",
        [
            "schema",
            "name",
            "description",
            "measure",
            "unit",
            "rules",
            "default",
            "estimator",
            "guards",
        ],
    )
    rules = tuple(
        _parse_rule(item, f"rules[{index}]")
        for index, item in enumerate(_list(root.get("rules"), "rules"))
    )
    seen = [rule.rule_id for rule in rules]
    for rule_id in seen:
        if seen.count(rule_id) > 1 or rule_id == "default" or rule_id.startswith("guard:"):
            raise _bad("rules", f"the rule id {rule_id!r} is taken")
    default = _object(root.get("default", {}), "default")
    _only(default, "default", ["model"])
    return RoutingPolicy(
        name=_text(root.get("name"), "name"),
        description=_text(root.get("description", ""), "description", empty=True),
        measure=cast(Measure, _choice(root.get("measure"), MEASURES, "measure")),
        unit=cast(Unit, _choice(root.get("unit"), UNITS, "unit")),
        rules=rules,
        default_model=_text(default.get("model", ""), "default.model", empty=True),
        estimator=_parse_estimator(root.get("estimator", {})),
        guards=_parse_guards(root.get("guards", {})),
    )


def parse_publication(document: object) -> Publication:
    """Reads a publication payload; raises :class:`BadInput`, also on a digest that is wrong."""
    root = _object(document, "publication")
    if root.get("schema") != PUBLICATION_SCHEMA:
        raise _bad("schema", f"must be {PUBLICATION_SCHEMA!r}, not {root.get('schema')!r}")
    arms = []
    for index, item in enumerate(_list(root.get("arms"), "arms")):
        path = f"arms[{index}]"
        arm = _object(item, path)
        policy = parse_policy(arm.get("policy"))
        if arm.get("policy_digest") != policy.digest:
            raise _bad(f"{path}.policy_digest", "is not the digest of the policy beside it")
        arms.append(
            Arm(
                _text(arm.get("name"), f"{path}.name"),
                _integer(arm.get("weight"), f"{path}.weight"),
                _integer(arm.get("policy_version"), f"{path}.policy_version"),
                policy,
            )
        )
    if sum(arm.weight for arm in arms) != BUCKETS or any(arm.weight < 0 for arm in arms):
        raise _bad("arms", f"weights must be 0 or more and sum to {BUCKETS}")
    return Publication(
        serial=_integer(root.get("serial"), "serial"),
        channel=_text(root.get("channel"), "channel"),
        arms=tuple(arms),
        salt=_text(root.get("salt"), "salt"),
        issued_at_us=_integer(root.get("issued_at_us"), "issued_at_us"),
        not_after_us=_integer(root.get("not_after_us"), "not_after_us"),
        rollout_id=_text(root.get("rollout_id", ""), "rollout_id", empty=True),
        kill=_boolean(root.get("kill", False), "kill"),
        pauses=tuple(
            _parse_pause(item, f"pauses[{index}]")
            for index, item in enumerate(_list(root.get("pauses", []), "pauses"))
        ),
    )


def _parse_pause(item: object, path: str) -> BudgetPause:
    pause = _object(item, path)
    texts: dict[str, Any] = {
        name: _text(pause.get(name, ""), f"{path}.{name}", empty=True)
        for name in ("org_path", "developer", "repository", "model")
    }
    lists: dict[str, Any] = {}
    for name in ("device_ids", "session_ids"):
        listed = _list(pause.get(name, []), f"{path}.{name}")
        if len(listed) > MAX_LISTED:
            raise _bad(f"{path}.{name}", f"holds more than {MAX_LISTED}")
        lists[name] = tuple(_text(part, f"{path}.{name}") for part in listed)
    return BudgetPause(
        budget_id=_text(pause.get("budget_id"), f"{path}.budget_id"),
        message=_text(pause.get("message"), f"{path}.message"),
        everything=_boolean(pause.get("everything", False), f"{path}.everything"),
        **texts,
        **lists,
    )


def _parse_rule(item: object, path: str) -> Rule:
    rule = _object(item, path)
    _only(rule, path, ["id", "when", "set"])
    settings = _object(rule.get("set"), f"{path}.set")
    _only(settings, f"{path}.set", ["model", "effort"])
    return Rule(
        rule_id=_text(rule.get("id"), f"{path}.id"),
        when=tuple(
            _parse_condition(part, f"{path}.when[{index}]")
            for index, part in enumerate(_list(rule.get("when", []), f"{path}.when"))
        ),
        model=_text(settings.get("model", ""), f"{path}.set.model", empty=True),
        effort=_text(settings.get("effort", ""), f"{path}.set.effort", empty=True),
    )


def _parse_condition(item: object, path: str) -> Condition:
    condition = _object(item, path)
    _only(condition, path, ["field", "op", "value"])
    name = _choice(condition.get("field"), (*NUMBER_FIELDS, *TEXT_FIELDS), f"{path}.field")
    op = cast(Operator, _choice(condition.get("op"), get_args(Operator), f"{path}.op"))
    value = condition.get("value")
    if name in NUMBER_FIELDS:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if op == "in" or not number or value != value or value in (float("inf"), float("-inf")):
            raise _bad(f"{path}.value", f"{name} is compared with a finite number")
        return Condition(name, op, cast(float, value))
    if op == "in":
        texts = tuple(_text(part, f"{path}.value") for part in _list(value, f"{path}.value"))
        return Condition(name, op, texts)
    if op not in ("==", "!="):
        raise _bad(f"{path}.op", f"{name} is a text: ==, != and in are the operators")
    return Condition(name, op, _text(value, f"{path}.value", empty=True))


def _parse_estimator(item: object) -> Estimator:
    estimator = _object(item, "estimator")
    _only(estimator, "estimator", ["kind", "chars_per_token", "image_tokens"])
    _choice(estimator.get("kind", "chars"), ("chars",), "estimator.kind")
    ratio = estimator.get("chars_per_token", Estimator().chars_per_token)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0.5 <= ratio <= 20:
        raise _bad("estimator.chars_per_token", "lies between 0.5 and 20")
    tokens = _integer(estimator.get("image_tokens", 1600), "estimator.image_tokens")
    return Estimator("chars", float(ratio), tokens)


def _parse_guards(item: object) -> Guards:
    guards = _object(item, "guards")
    _only(guards, "guards", ["max_context_tokens", "tool_loop_lock", "min_run_requests"])
    ceilings = _object(guards.get("max_context_tokens", {}), "guards.max_context_tokens")
    return Guards(
        {
            model: _integer(tokens, f"guards.max_context_tokens.{model}")
            for model, tokens in ceilings.items()
        },
        _boolean(guards.get("tool_loop_lock", True), "guards.tool_loop_lock"),
        _integer(guards.get("min_run_requests", 0), "guards.min_run_requests"),
    )


def _bad(path: str, problem: str) -> BadInput:
    return BadInput(f"{path}: {problem}.", fix="docs/policies.md specifies the document.")


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(path, f"must be an object, not {type(value).__name__}")
    return value


def _only(value: Mapping[str, Any], path: str, allowed: Sequence[str]) -> None:
    unknown = sorted(set(value) - set(allowed))
    if unknown:
        raise _bad(path, f"unknown key {unknown[0]!r}")


def _list(value: object, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(path, f"must be a list, not {type(value).__name__}")
    return value


def _text(value: object, path: str, *, empty: bool = False) -> str:
    if not isinstance(value, str) or (not value and not empty):
        raise _bad(path, "must be a text")
    return value


def _integer(value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _bad(path, "must be a whole number of 0 or more")
    return value


def _boolean(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _bad(path, "must be true or false")
    return value


def _choice(value: object, allowed: Sequence[str], path: str) -> str:
    if value not in allowed:
        raise _bad(path, f"must be one of {', '.join(allowed)}, not {value!r}")
    return cast(str, value)
