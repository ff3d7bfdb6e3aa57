"""The routing policy document and ``decide()``, the one decision function.

The gateways' clients, the replay and the optimizer all call :func:`decide`, so what was estimated
is what is served. A policy is data (``docs/policies.md`` specifies the document): rules of small
structured conditions, a named *measure* of input size, a *unit* over which a route is kept,
guards, and an estimator for gateways that must judge a request before it is served.

Everything here is total and deterministic: any request that parses gets exactly one route.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from loop.domain.budget_pauses import BudgetPause
from loop.domain.compiled_rules import CompiledRules

POLICY_SCHEMA = "turnwise.policy/1"
PUBLICATION_SCHEMA = "turnwise.publication/1"
BUCKETS = 10_000
AUXILIARY_UNIT = "~auxiliary"

Measure = Literal["total_input_tokens", "uncached_input_tokens", "new_tokens", "prompt_tokens"]
Unit = Literal["session", "agent", "user_turn", "request"]
Operator = Literal["<", "<=", ">", ">=", "==", "!=", "in"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
UNITS: tuple[Unit, ...] = get_args(Unit)
NUMBER_FIELDS: tuple[str, ...] = (*MEASURES, "input_tokens", "turn_index")
TEXT_FIELDS: tuple[str, ...] = (
    "requested_model",
    "request_class",
    "agent_name",
    "org_path",
    "repository",
    "effort",
)


@dataclass(frozen=True, slots=True)
class Condition:
    """``field op value``. ``input_tokens`` means the policy's own measure; the four measures may
    also be named. ``org_path`` with ``==`` matches the node and everything below it."""

    field: str
    op: Operator
    value: int | float | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule whose conditions all hold sets the model. No conditions: always."""

    rule_id: str
    when: tuple[Condition, ...]
    model: str
    effort: str = ""  # "" leaves it as requested


@dataclass(frozen=True, slots=True)
class Estimator:
    """How a gateway estimates tokens from the characters of a request body."""

    kind: Literal["chars"] = "chars"
    chars_per_token: float = 3.3
    image_tokens: int = 1600


@dataclass(frozen=True, slots=True)
class Guards:
    """``max_context_tokens`` per model: above it a request keeps the requested model.
    ``tool_loop_lock``: never change the model between a tool call and its result.
    ``min_run_requests``: a model that a unit went to serves it at least so many requests."""

    max_context_tokens: Mapping[str, int] = field(default_factory=dict)
    tool_loop_lock: bool = True
    min_run_requests: int = 0


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """An immutable policy. ``default_model`` "" means: leave the requested model."""

    name: str
    rules: tuple[Rule, ...]
    measure: Measure = "total_input_tokens"
    unit: Unit = "session"
    default_model: str = ""
    description: str = ""
    estimator: Estimator = Estimator()
    guards: Guards = Guards()
    compiled_rules: CompiledRules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled_rules", CompiledRules(self.rules, self.measure))

    @property
    def digest(self) -> str:
        """``sha256:`` and the hash of the canonical document."""
        return "sha256:" + hashlib.sha256(self.to_json().encode()).hexdigest()

    def models(self) -> tuple[str, ...]:
        """Every model the policy can route to, sorted."""
        named = {rule.model for rule in self.rules} | {self.default_model}
        return tuple(sorted(named - {""}))

    def to_document(self) -> dict[str, Any]:
        return {
            "schema": POLICY_SCHEMA,
            "name": self.name,
            "description": self.description,
            "measure": self.measure,
            "unit": self.unit,
            "rules": [
                {
                    "id": rule.rule_id,
                    "when": [
                        {
                            "field": condition.field,
                            "op": condition.op,
                            "value": list(condition.value)
                            if isinstance(condition.value, tuple)
                            else condition.value,
                        }
                        for condition in rule.when
                    ],
                    "set": {"model": rule.model, "effort": rule.effort},
                }
                for rule in self.rules
            ],
            "default": {"model": self.default_model},
            "estimator": asdict(self.estimator),
            "guards": {
                "max_context_tokens": dict(self.guards.max_context_tokens),
                "tool_loop_lock": self.guards.tool_loop_lock,
                # Left out where it says nothing: documents of before keep their digests.
                **(
                    {"min_run_requests": self.guards.min_run_requests}
                    if self.guards.min_run_requests
                    else {}
                ),
            },
        }

    def to_json(self) -> str:
        """Canonical: sorted keys, no spaces, UTF-8 as it is."""
        return canonical_json(self.to_document())


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """What is known of a request when its route is chosen."""

    requested_model: str
    session_id: str = ""
    agent_id: str = ""
    agent_name: str = ""
    request_class: str = "main"
    org_path: str = ""
    repository: str = ""
    effort: str = ""
    turn_index: int = 0  # position among the requests of its session and agent
    total_input_tokens: int = 0
    uncached_input_tokens: int = 0
    new_tokens: int = 0
    prompt_tokens: int = 0
    starts_user_turn: bool = True  # the last message is a human's
    in_tool_loop: bool = False  # the last message carries tool results


@dataclass(frozen=True, slots=True)
class Route:
    """``rule_id`` is ``default`` when no rule matched, ``guard:<name>`` when a guard overruled.

    ``as_requested``: the policy named no model, so a kept route follows what each request asks.
    ``run_requests``: how many requests of the unit went to this model one after another, this one
    included. Neither is part of what was chosen; whoever keeps a route keeps both.
    """

    model: str
    rule_id: str
    effort: str = ""
    as_requested: bool = field(default=False, compare=False)
    run_requests: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant inside one publication. Weights are in 1/10,000 and sum to 10,000."""

    name: str
    weight: int
    policy_version: int
    policy: RoutingPolicy


@dataclass(frozen=True, slots=True)
class Publication:
    """What gateways pull: arms under one serial. A rollback is a new serial with old content."""

    serial: int
    channel: str
    arms: tuple[Arm, ...]
    salt: str
    issued_at_us: int
    not_after_us: int
    rollout_id: str = ""
    kill: bool = False  # pass every request through as requested
    pauses: tuple[BudgetPause, ...] = ()  # used-up budgets: what they cover is answered 402

    def to_document(self) -> dict[str, Any]:
        pauses = [pause.to_document() for pause in self.pauses]
        return {
            **({"pauses": pauses} if pauses else {}),
            "schema": PUBLICATION_SCHEMA,
            "serial": self.serial,
            "channel": self.channel,
            "rollout_id": self.rollout_id,
            "salt": self.salt,
            "issued_at_us": self.issued_at_us,
            "not_after_us": self.not_after_us,
            "kill": self.kill,
            "arms": [
                {
                    "name": arm.name,
                    "weight": arm.weight,
                    "policy_version": arm.policy_version,
                    "policy_digest": arm.policy.digest,
                    "policy": arm.policy.to_document(),
                }
                for arm in self.arms
            ],
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What a gateway chose for one request, with everything that replay and estimation need.

    ``propensity`` is the probability of the arm, written when it was drawn, never re-estimated.
    """

    decision_id: str  # the request_id that the gateway stamped on the response
    at_us: int
    session_id: str
    agent_id: str
    serial: int
    policy_version: int
    policy_digest: str
    arm: str
    bucket: int
    propensity: float
    rule_id: str
    requested_model: str
    routed_model: str
    rollout_id: str = ""
    total_input_tokens: int = 0
    uncached_input_tokens: int = 0
    new_tokens: int = 0
    prompt_tokens: int = 0
    request_class: str = "main"
    agent_name: str = ""
    gateway: str = ""
    instance: str = ""
    fixes: tuple[str, ...] = ()  # parameter repairs made to the body
    upstream_status: int | None = None
    org_path: str = ""  # as a header of the request named it
    repository: str = ""


def canonical_json(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def bucket_of(salt: str, key: str) -> int:
    """A session's bucket, 0 to 9,999: the first 8 hex digits of SHA-1(salt + "." + key) mod 10000.

    The same in every gateway language; the vector is ``bucket_of("s1", "abc") == 9688``.
    """
    digest = hashlib.sha1(f"{salt}.{key}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) % BUCKETS


def choose_arm(publication: Publication, session_id: str) -> tuple[Arm, int]:
    """The arm of a session and its bucket. Arms lie one after another in their given order."""
    bucket = bucket_of(publication.salt, session_id)
    edge = 0
    for arm in publication.arms:
        edge += arm.weight
        if bucket < edge:
            return arm, bucket
    return publication.arms[-1], bucket


def decide(policy: RoutingPolicy, request: RouteRequest, previous: Route | None = None) -> Route:
    """The route of one request under one policy.

    ``previous`` is the route of the last request of the same unit (session, agent), which the
    caller keeps; it holds until the unit allows a change. The context ceiling overrules all.
    """
    kept = previous if previous and _is_kept(policy, request, previous) else None
    if kept is None:
        route = _match(policy, request)
    elif kept.as_requested:
        route = replace(kept, model=request.requested_model)
    else:
        route = kept
    ceiling = policy.guards.max_context_tokens.get(route.model)
    if ceiling is not None and request.total_input_tokens > ceiling:
        route = Route(request.requested_model, "guard:max_context_tokens", as_requested=True)
    if previous is None:
        return route
    run = previous.run_requests + 1 if previous.model == route.model else 1
    return Route(route.model, route.rule_id, route.effort, route.as_requested, run)


def unit_key(policy: RoutingPolicy, request: RouteRequest) -> tuple[str, str]:
    """What a route is kept under: the session, or the session and agent.

    Auxiliary requests (titles, quota checks) have a unit of their own: they are tiny and may come
    first, so a session kept on their route would be routed by its title.
    """
    if request.request_class == "auxiliary":
        return (request.session_id, AUXILIARY_UNIT)
    if policy.unit == "session":
        return (request.session_id, "")
    return (request.session_id, request.agent_id)


def _is_kept(policy: RoutingPolicy, request: RouteRequest, previous: Route) -> bool:
    if policy.unit in ("session", "agent"):
        return True
    if previous.run_requests < policy.guards.min_run_requests:
        return True
    if policy.guards.tool_loop_lock and request.in_tool_loop:
        return True
    return policy.unit == "user_turn" and not request.starts_user_turn


def _match(policy: RoutingPolicy, request: RouteRequest) -> Route:
    rule = policy.compiled_rules.first_match(request)
    if rule is not None:
        model = rule.model or request.requested_model
        return Route(model, rule.rule_id, rule.effort, as_requested=not rule.model)
    model = policy.default_model or request.requested_model
    return Route(model, "default", as_requested=not policy.default_model)
