"""How much of the log each rule of a policy touches, under each reading of "input size"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from loop.domain.estimates import RuleReach
from loop.domain.money import PriceBook
from loop.domain.policies import MEASURES, RoutingPolicy
from optimizers.replay import Replayer
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.routing import match_rules, routes
from optimizers.turn_frame import TurnFrame

DEAD_SHARE = 0.005  # a rule that matches fewer turns than this can't matter


def rule_reach(
    policy: RoutingPolicy,
    frame: TurnFrame,
    price_book: PriceBook | None = None,
    assumptions: ReplayAssumptions | None = None,
) -> tuple[RuleReach, ...]:
    """The reach of every rule and of the default, measure by measure.

    Dollars are as billed. With a price book, each rule's marginal cost is found by replaying the
    policy without it.
    """
    replayer = Replayer(frame, price_book, assumptions) if price_book else None
    return reach_of(policy, frame, replayer)


def reach_of(
    policy: RoutingPolicy, frame: TurnFrame, replayer: Replayer | None
) -> tuple[RuleReach, ...]:
    """As :func:`rule_reach`, on a replayer that is at hand."""
    names = [*(rule.rule_id for rule in policy.rules), "default"]
    cost = frame.cost_microusd
    tokens = frame.total_billed_tokens
    all_turns, all_sessions = max(1, len(frame)), max(1, frame.n_sessions)
    all_cost, all_tokens = max(1, int(cost.sum())), max(1, int(tokens.sum()))
    routed = routes(policy, frame).rule
    marginal = _marginal_costs(policy, replayer) if replayer else [None] * len(names)
    reach = []
    for measure in MEASURES:
        matched = match_rules(replace(policy, measure=measure), frame)
        is_own = measure == policy.measure
        for index, name in enumerate(names):
            here = matched == index
            goes_there = routed == index
            reach.append(
                RuleReach(
                    rule_id=name,
                    measure=measure,
                    turns=int(here.sum()),
                    turn_share=float(here.sum() / all_turns),
                    cost_share=float(cost[here].sum() / all_cost),
                    routed_turn_share=float(goes_there.sum() / all_turns) if is_own else None,
                    routed_cost_share=float(cost[goes_there].sum() / all_cost) if is_own else None,
                    marginal_cost_microusd=marginal[index] if is_own else None,
                    session_share=len(np.unique(frame.session[here])) / all_sessions,
                    token_share=float(tokens[here].sum() / all_tokens),
                )
            )
    return tuple(reach)


def describe_reach(policy: RoutingPolicy, reach: Sequence[RuleReach]) -> tuple[str, ...]:
    """One sentence per rule under the policy's own measure, naming dead and losing rules; for a
    dead rule, a second sentence says what it would match if input size were read otherwise."""
    sentences = []
    for own in (item for item in reach if item.measure == policy.measure):
        shares = [(own.turn_share, "turns"), (own.cost_share, "dollars")]
        if own.session_share is not None and own.token_share is not None:
            shares[1:1] = [(own.session_share, "sessions"), (own.token_share, "tokens")]
        sentence = f"{own.rule_id} matches {_listed(shares)}, input size read as {own.measure}"
        if own.routed_turn_share is not None and own.routed_cost_share is not None:
            routed = [(own.routed_turn_share, "turns"), (own.routed_cost_share, "dollars")]
            sentence += f"; it routes {_listed(routed)}"
        is_dead = own.rule_id != "default" and own.turn_share < DEAD_SHARE
        if is_dead:
            sentence += ": a dead rule"
        if own.marginal_cost_microusd is not None and own.marginal_cost_microusd > 0:
            dollars = own.marginal_cost_microusd / 1e6
            sentence += f": a losing rule, it costs ${dollars:,.2f} more than staying"
        sentences.append(sentence + ".")
        if is_dead:
            others = [
                f"{_percent(item.turn_share)} as {item.measure}"
                for item in reach
                if item.rule_id == own.rule_id and item.measure != policy.measure
            ]
            sentences.append(f"{own.rule_id} would match {', '.join(others)}.")
    return tuple(sentences)


def _listed(shares: Sequence[tuple[float, str]]) -> str:
    parts = [f"{_percent(share)} of {name}" for share, name in shares]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _marginal_costs(policy: RoutingPolicy, replayer: Replayer) -> list[int | None]:
    whole = replayer.replay(policy)
    costs: list[int | None] = []
    lesser = [
        replace(policy, rules=tuple(rule for rule in policy.rules if rule is not left_out))
        for left_out in policy.rules
    ]
    for without in (*lesser, replace(policy, default_model="")):
        other = replayer.replay(without)
        both = whole.is_priced & other.is_priced
        difference = whole.candidate_turn_cost_microusd - other.candidate_turn_cost_microusd
        costs.append(int(difference[both].sum()))
    return costs


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if 0 < share < 0.1 else f"{100 * share:.1f} %"
