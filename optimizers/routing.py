"""``decide()`` over whole columns: the routes that a policy gives every turn of a frame.

Equal to walking :func:`loop.domain.policies.decide` turn by turn, keeping the last route of each
``unit_key``; a property test holds the two together. The work is arranged in *blocks*: runs of
turns that keep the route of their first turn. Rules are matched at block starts only; where a
context ceiling is crossed inside a block, the rest of it goes to the requested models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loop.domain.policies import Condition, Route, RoutingPolicy
from optimizers.turn_frame import TurnFrame

Codes = NDArray[np.int64]
GUARD_RULE = "guard:max_context_tokens"
_NO_CEILING = np.iinfo(np.int64).max
_COMPARE = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """One route per turn: ``models[model[row]]``, set by ``rule_ids[rule[row]]``."""

    model: Codes
    rule: Codes
    models: tuple[str, ...]
    rule_ids: tuple[str, ...]  # the policy's rules in order, then default, then the guard
    efforts: tuple[str, ...]  # one per rule id

    def at(self, row: int) -> Route:
        rule = self.rule[row]
        return Route(self.models[self.model[row]], self.rule_ids[rule], self.efforts[rule])


def routes(policy: RoutingPolicy, frame: TurnFrame) -> Routes:
    """Routes every turn; linear in turns."""
    models = tuple(dict.fromkeys((*frame.requested_model.values, *policy.models())))
    order, starts = _blocks(policy, frame)
    start_rows = starts if order is None else order[starts]
    start_rule = match_rules(policy, frame, start_rows)
    lengths = np.diff(np.append(starts, len(frame)))
    rule = np.repeat(start_rule, lengths)
    requested = frame.requested_model.codes
    total = frame.total_input_tokens
    if order is not None:
        requested, total = requested[order], total[order]
    # The requested models lead the vocabulary, so that their codes are the frame's own.
    named = [*(item.model for item in policy.rules), policy.default_model, ""]
    code = np.array([models.index(name) if name else -1 for name in named], np.int64)
    model = code[rule]
    model = np.where(model < 0, requested, model) if (code[start_rule] < 0).any() else model
    if policy.guards.max_context_tokens:
        limits = policy.guards.max_context_tokens
        ceiling = np.array([limits.get(name, _NO_CEILING) for name in models], np.int64)
        above = _from_first(total > ceiling[model], starts, lengths)
        rule[above] = len(policy.rules) + 1
        model[above] = requested[above]
    if order is not None:
        model, rule = _restore(model, order), _restore(rule, order)
    return Routes(
        model,
        rule,
        models,
        (*(item.rule_id for item in policy.rules), "default", GUARD_RULE),
        (*(item.effort for item in policy.rules), "", ""),
    )


def match_rules(policy: RoutingPolicy, frame: TurnFrame, rows: Codes | None = None) -> Codes:
    """The index of the first rule that each turn matches by itself, ``len(rules)`` for none.

    Units and guards play no part. ``rows`` limits it to some turns; shape ``(len(rows),)``.
    """
    count = len(frame) if rows is None else len(rows)
    matched = np.full(count, len(policy.rules), np.int64)
    for index in range(len(policy.rules) - 1, -1, -1):
        holds = np.ones(count, bool)
        for condition in policy.rules[index].when:
            holds &= _holds(policy, frame, condition, rows)
        matched[holds] = index
    return matched


def _holds(
    policy: RoutingPolicy, frame: TurnFrame, condition: Condition, rows: Codes | None
) -> NDArray[np.bool_]:
    name = policy.measure if condition.field == "input_tokens" else condition.field
    if name == "turn_index" or name.endswith("_tokens"):
        numbers = (
            frame.turn_index if name == "turn_index" else frame.measure(name, policy.estimator)
        )
        chosen = numbers if rows is None else numbers[rows]
        return np.asarray(_COMPARE[condition.op](chosen, condition.value), bool)
    column = getattr(frame, name)
    wanted = condition.value
    if condition.op == "in":
        table = [value in wanted for value in column.values]  # type: ignore[operator]
    elif condition.op == "!=":
        table = [value != wanted for value in column.values]
    elif name == "org_path":
        table = [v == wanted or v.startswith(f"{wanted}/") for v in column.values]
    else:
        table = [value == wanted for value in column.values]
    codes = column.codes if rows is None else column.codes[rows]
    holds: NDArray[np.bool_] = np.array(table, bool)[codes]
    return holds


def _blocks(policy: RoutingPolicy, frame: TurnFrame) -> tuple[Codes | None, Codes]:
    """The order in which routes are kept (``None``: row order) and where its blocks start."""
    n = len(frame)
    order: Codes | None = None
    if policy.unit == "session":
        unit = frame.session
        auxiliary = frame.request_class.equals("auxiliary")
        if auxiliary.any():
            unit = unit * 2 + auxiliary
            by_time = np.arange(n) if frame.time_order is None else frame.time_order
            order = by_time[np.argsort(unit[by_time], kind="stable")]
        elif frame.time_order is not None:
            order = frame.time_order
        if order is not None:
            unit = unit[order]
        return order, _starts(unit)
    if policy.unit == "agent":
        return None, _starts(frame.segment)
    is_start = np.zeros(n, bool)
    is_start[_starts(frame.segment)] = True
    may_change = frame.starts_user_turn.copy() if policy.unit == "user_turn" else np.ones(n, bool)
    if policy.guards.tool_loop_lock:
        may_change &= ~frame.in_tool_loop
    return None, np.flatnonzero(is_start | may_change)


def _starts(unit: Codes) -> Codes:
    if len(unit) == 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])


def _from_first(crosses: NDArray[np.bool_], starts: Codes, lengths: Codes) -> Codes:
    """The rows from each block's first crossing to the block's end: an overruled route is kept."""
    crossing = np.flatnonzero(crosses)
    block = np.searchsorted(starts, crossing, side="right") - 1
    is_first = np.r_[True, block[1:] != block[:-1]][: len(block)]
    first, end = crossing[is_first], (starts + lengths)[block[is_first]]
    counts = end - first
    offset = np.repeat(first - np.r_[0, np.cumsum(counts)[:-1]][: len(counts)], counts)
    rows: Codes = np.arange(counts.sum()) + offset
    return rows


def _restore(values: Codes, order: Codes) -> Codes:
    restored = np.empty_like(values)
    restored[order] = values
    return restored
