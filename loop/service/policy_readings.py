"""What the API, the command line and the pages read about policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from loop.access.view import View
from loop.domain.lifecycle import State, Transition
from loop.domain.policies import Condition, RoutingPolicy, Rule
from routing_policies.transitions import PolicyVersion

_MEASURE_WORDS = {
    "total_input_tokens": "total input tokens",
    "uncached_input_tokens": "uncached input tokens",
    "new_tokens": "new tokens (uncached and cache writes)",
    "prompt_tokens": "prompt tokens",
}
_UNIT_WORDS = {
    "session": "decided once per session",
    "agent": "decided once per session and agent",
    "user_turn": "decided at each user turn",
    "request": "decided at each request",
}


def version_row(version: PolicyVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        "name": version.policy.name,
        "digest": version.digest,
        "state": str(version.state),
        "proposer": str(version.proposer),
        "created_at_us": version.created_at_us,
        "run_id": version.run_id,
        "parent_version": version.parent_version,
        "review_cycle": version.review_cycle,
        "measure": version.policy.measure,
        "unit": version.policy.unit,
        "words": policy_words(version.policy),
    }


def transition_row(transition: Transition) -> dict[str, Any]:
    start = transition.from_state
    return {
        "at_us": transition.at_us,
        "version": transition.version,
        "from": str(start) if start else "",
        "to": str(transition.to_state),
        "actor": str(transition.actor),
        "reason": transition.reason,
        "review_cycle": transition.review_cycle,
        "evidence": dict(transition.evidence),
        "hash": transition.hash,
    }


def gate_of(transitions: Iterable[Transition]) -> dict[str, Any] | None:
    """The newest gate report among a version's transitions."""
    verdicts = (State.GATE_PASSED, State.GATE_FAILED, State.GATE_INCONCLUSIVE)
    reports = [dict(move.evidence) for move in transitions if move.to_state in verdicts]
    return reports[-1] if reports else None


def policy_words(policy: RoutingPolicy) -> list[str]:
    """The policy in sentences, one per rule."""
    lines = [_rule_words(policy, rule) for rule in policy.rules]
    rest = "Otherwise" if lines else "Always"
    target = policy.default_model or "the requested model"
    lines.append(f"{rest}: {target}; {_UNIT_WORDS[policy.unit]}.")
    if policy.guards.min_run_requests > 1:
        lines.append(
            f"A model that was changed to stays for {policy.guards.min_run_requests} requests."
        )
    for model, ceiling in sorted(policy.guards.max_context_tokens.items()):
        lines.append(f"Never to {model} above {ceiling:,} total input tokens.")
    return lines


def diff_words(before: RoutingPolicy, after: RoutingPolicy) -> list[str]:
    """What changes from one policy to another; one line that says so when nothing does."""
    changes = [
        f"{name}: {old} → {new}" for name, old, new in _settings(before, after) if old != new
    ]
    old_rules = {rule.rule_id: _rule_words(before, rule) for rule in before.rules}
    new_rules = {rule.rule_id: _rule_words(after, rule) for rule in after.rules}
    for rule_id in [*old_rules, *(name for name in new_rules if name not in old_rules)]:
        old_words, new_words = old_rules.get(rule_id), new_rules.get(rule_id)
        if old_words is None:
            changes.append(f"new rule {rule_id}: {new_words}")
        elif new_words is None:
            changes.append(f"rule {rule_id} goes: {old_words}")
        elif old_words != new_words:
            changes.append(f"rule {rule_id}: {old_words} → {new_words}")
    if not changes and list(old_rules) != list(new_rules):
        changes.append("the rules stand in another order")
    return changes or ["Nothing changes."]


def _settings(before: RoutingPolicy, after: RoutingPolicy) -> Iterator[tuple[str, str, str]]:
    """Name, old and new value in words of what stands beside the rules."""
    old, new = _settings_words(before), _settings_words(after)
    for name in sorted({*old, *new}):
        yield name, old.get(name, "none"), new.get(name, "none")


def _settings_words(policy: RoutingPolicy) -> dict[str, str]:
    ceilings = policy.guards.max_context_tokens
    return {
        "measure": _MEASURE_WORDS[policy.measure],
        "unit": _UNIT_WORDS[policy.unit],
        "otherwise": policy.default_model or "the requested model",
        "tool loop lock": "on" if policy.guards.tool_loop_lock else "off",
        "least run": f"{max(1, policy.guards.min_run_requests)} requests",
        "characters per token": f"{policy.estimator.chars_per_token:g}",
        "tokens per image": f"{policy.estimator.image_tokens:,}",
    } | {f"context ceiling of {model}": f"{tokens:,}" for model, tokens in ceilings.items()}


def _rule_words(policy: RoutingPolicy, rule: Rule) -> str:
    when = " and ".join(_condition_words(policy, condition) for condition in rule.when)
    effort = f" at effort {rule.effort}" if rule.effort else ""
    return f"{when or 'any request'}: {rule.model or 'the requested model'}{effort}"


def _condition_words(policy: RoutingPolicy, condition: Condition) -> str:
    name = policy.measure if condition.field == "input_tokens" else condition.field
    words = _MEASURE_WORDS.get(name, name.replace("_", " "))
    value = condition.value
    if isinstance(value, tuple):
        return f"{words} in {', '.join(value)}"
    shown = f"{value:,}" if isinstance(value, int | float) else str(value)
    return f"{words} {condition.op} {shown}"


def concerns(policy: RoutingPolicy, view: View) -> bool:
    """Whether a view may know a policy: none of its rules names another part of the organization.

    The names of other parts, and what is meant for them, are theirs.
    """
    if view.spans is None:
        return True
    named = [
        value
        for rule in policy.rules
        for condition in rule.when
        if condition.field == "org_path"
        for value in (condition.value if isinstance(condition.value, tuple) else [condition.value])
    ]
    return all(
        any(f"{value}/".startswith(f"{span.path}/") for span in view.spans) for value in named
    )
