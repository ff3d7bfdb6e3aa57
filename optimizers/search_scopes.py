"""A search for a part of the sessions: what it may look at, and what its policies may change.

The part is told by what is known before a session begins, never by its outcome. The search costs
and constrains policies on that part; its policies change nothing elsewhere; and the estimate that
the gate reads is over *all* later sessions, so that it is of the population and not of the part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from loop.domain.policies import Condition, RoutingPolicy, Rule
from optimizers.policy_space import PolicySpace
from optimizers.session_splits import Booleans
from optimizers.turn_frame import TurnFrame

IN_FORCE = "in force: "
OTHERWISE = "otherwise"


@dataclass(frozen=True, slots=True)
class SearchScope:
    """The sessions of ``repositories``; ``cluster_id`` and ``reason`` say why these."""

    repositories: tuple[str, ...]
    cluster_id: str = ""
    reason: str = ""

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> SearchScope | None:
        if document is None:
            return None
        return cls(tuple(document["repositories"]), document["cluster_id"], document["reason"])

    @property
    def words(self) -> str:
        return f"in {', '.join(self.repositories)}"

    def sessions(self, frame: TurnFrame) -> Booleans:
        """Which sessions begin in the scope, shape ``(s,)``."""
        first = frame.repository.codes[frame.session_starts()]
        values = frame.repository.values
        codes = [values.index(name) for name in self.repositories if name in values]
        return np.isin(first, codes)

    def restrict(self, policy: RoutingPolicy, incumbent: RoutingPolicy) -> RoutingPolicy:
        """``policy`` inside the scope, ``incumbent`` outside.

        What a policy has once (unit, lock, estimator, the ceiling of a model) is the incumbent's
        where it routes anything: nothing may change outside. A ceiling that the incumbent's routes
        might meet becomes a condition of the rules that go to its model: above it the incumbent
        decides.
        """
        within = (Condition("repository", "in", self.repositories),)
        ceilings = dict(policy.guards.max_context_tokens)
        as_requested = any(not rule.model for rule in incumbent.rules)
        met = {model for model in ceilings if as_requested or model in incumbent.models()}
        below = {
            model: (Condition("total_input_tokens", "<=", ceilings.pop(model)),) for model in met
        }
        rules = [
            replace(rule, when=(*within, *below.get(rule.model, ()), *rule.when))
            for rule in policy.rules
        ]
        default = policy.default_model
        rules.append(Rule(OTHERWISE, (*within, *below.get(default, ())), default))
        rules += [
            replace(
                rule,
                rule_id=IN_FORCE + rule.rule_id,
                when=tuple(_named(part, incumbent.measure) for part in rule.when),
            )
            for rule in incumbent.rules
        ]
        routes = bool(incumbent.rules or incumbent.default_model)
        kept = incumbent if routes else policy
        return replace(
            policy,
            rules=tuple(rules),
            unit=kept.unit,
            default_model=incumbent.default_model,
            description=f"{policy.description} Only {self.words}.".strip(),
            estimator=kept.estimator,
            guards=replace(
                kept.guards,
                max_context_tokens={**ceilings, **incumbent.guards.max_context_tokens},
            ),
        )


@dataclass(frozen=True, slots=True)
class ScopedSpace(PolicySpace):
    """The policies of a space, each inside the scope only."""

    scope: SearchScope = field(default_factory=lambda: SearchScope(()))
    incumbent: RoutingPolicy = field(default_factory=lambda: RoutingPolicy("as-requested", ()))

    @classmethod
    def of(cls, space: PolicySpace, scope: SearchScope, incumbent: RoutingPolicy) -> ScopedSpace:
        parts = {part.name: getattr(space, part.name) for part in fields(PolicySpace)}
        return cls(**parts, scope=scope, incumbent=incumbent)

    def policy(self, parameters: Mapping[str, Any]) -> RoutingPolicy:
        return self.scope.restrict(PolicySpace.policy(self, parameters), self.incumbent)


def _named(condition: Condition, measure: str) -> Condition:
    """``input_tokens`` means the measure of the policy that the condition is in."""
    return replace(condition, field=measure) if condition.field == "input_tokens" else condition
