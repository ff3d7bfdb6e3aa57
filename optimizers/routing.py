"""``decide()`` over whole columns: the routes that a policy gives every turn of a frame.

Equal to walking :func:`loop.domain.policies.decide` turn by turn, keeping the last route of each
``unit_key``; a property test holds the two together. The work is arranged in *blocks*: runs of
turns that keep the route of their first turn. Rules are matched at block starts only; where a
context ceiling is crossed inside a block, the rest of it goes to the requested models. A least run
makes each route depend on the ones before it: there the turns of all segments are taken step by
step, the first of each, then the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from loop.domain.policies import Condition, Route, RoutingPolicy
from optimizers.turn_columns import Integers as Codes
from optimizers.turn_columns import blend, code_type, recode
from optimizers.turn_frame import TurnFrame

GUARD_RULE = "guard:max_context_tokens"
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
    requested = frame.requested_model.codes
    # The requested models lead the vocabulary, so that their codes are the frame's own.
    named = [*(item.model for item in policy.rules), policy.default_model, ""]
    code = np.array([models.index(name) if name else -1 for name in named], code_type(len(models)))
    if policy.guards.min_run_requests > 1 and policy.unit in ("user_turn", "request"):
        rule, model = _least_runs(policy, frame, models, code, starts)
        return _routes(policy, models, model, rule)
    if starts is None:
        rule = match_rules(policy, frame)
    else:
        start_rows = starts if order is None else order[starts]
        lengths = np.diff(np.append(starts, len(frame)))
        rule = np.repeat(match_rules(policy, frame, start_rows), lengths)
    if order is not None:
        requested = requested[order]
    model = recode(rule, code)
    if (code < 0).any():
        model = blend(model < 0, requested.astype(code.dtype), model)
    above = _above_ceilings(policy, frame, models, model, order)
    if len(above):
        if starts is not None:
            above = _to_block_ends(above, starts, lengths)
        rule[above] = len(policy.rules) + 1
        model[above] = requested[above]
    if order is not None:
        model, rule = _restore(model, order), _restore(rule, order)
    return _routes(policy, models, model, rule)


def _routes(policy: RoutingPolicy, models: tuple[str, ...], model: Codes, rule: Codes) -> Routes:
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
    matched = np.full(count, len(policy.rules), code_type(len(policy.rules) + 2))
    for index in range(len(policy.rules) - 1, -1, -1):
        conditions = policy.rules[index].when
        if not conditions:
            matched[:] = index
            continue
        holds = _holds(policy, frame, conditions[0], rows)
        for condition in conditions[1:]:
            holds &= _holds(policy, frame, condition, rows)
        matched = blend(holds, index, matched)
    return matched


def _holds(
    policy: RoutingPolicy, frame: TurnFrame, condition: Condition, rows: Codes | None
) -> NDArray[np.bool_]:
    name = policy.measure if condition.field == "input_tokens" else condition.field
    if name == "turn_index" or name.endswith("_tokens"):
        if name == "turn_index":
            chosen = frame.turn_index if rows is None else frame.turn_index[rows]
        else:
            chosen = frame.measure(name, policy.estimator, rows)
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


def _blocks(policy: RoutingPolicy, frame: TurnFrame) -> tuple[Codes | None, Codes | None]:
    """The order in which routes are kept (``None``: row order) and where its blocks start
    (``None``: at every row)."""
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
    if policy.unit == "request" and not policy.guards.tool_loop_lock:
        return None, None
    may_change = frame.starts_user_turn if policy.unit == "user_turn" else ~frame.in_tool_loop
    if policy.unit == "user_turn" and policy.guards.tool_loop_lock:
        may_change = may_change & ~frame.in_tool_loop
    is_start = may_change.copy()
    is_start[_starts(frame.segment)] = True
    return None, np.flatnonzero(is_start)


def _least_runs(
    policy: RoutingPolicy,
    frame: TurnFrame,
    models: tuple[str, ...],
    code: Codes,
    starts: Codes | None,
) -> tuple[Codes, Codes]:
    """The rule and the model of every turn where a model that was gone to stays for a while.

    ``code`` holds the model of each rule and of the default, -1 for the requested one, and last
    the guard's; ``starts`` the rows at which the unit and the lock allow a change.
    """
    n, guard = len(frame), len(policy.rules) + 1
    proposed = np.zeros(n, code_type(guard + 1))
    if not n:
        return proposed, np.zeros(0, code.dtype)
    may_change = np.ones(n, bool) if starts is None else np.zeros(n, bool)
    if starts is None:
        proposed[:] = match_rules(policy, frame)
    else:
        may_change[starts] = True
        proposed[starts] = match_rules(policy, frame, starts)
    no_limit = np.iinfo(np.int64).max
    limits = policy.guards.max_context_tokens
    ceiling = np.array([limits.get(name, no_limit) for name in models], np.int64)
    has_large = int(frame.total_input_tokens.max()) > int(ceiling.min())
    # All first turns of segments lie together, then all second ones, the longest segment first:
    # so those of a step go on from the head of the step before.
    segment_starts = np.flatnonzero(frame.turn_index == 0)
    lengths = np.diff(np.append(segment_starts, n))
    longest_first = segment_starts[np.argsort(-lengths, kind="stable")]
    counts = np.bincount(frame.turn_index)
    edges = np.append(0, np.cumsum(counts)).tolist()
    step_of = np.repeat(np.arange(len(counts)), counts)
    rows = longest_first.astype(np.int32)[np.arange(n) - np.repeat(edges[:-1], counts)]
    rows += step_of.astype(np.int32)
    proposed, may_change = proposed[rows], may_change[rows]
    requested = frame.requested_model.codes.astype(code.dtype)[rows]
    total = frame.total_input_tokens[rows] if has_large else frame.total_input_tokens
    model, rule = np.empty(n, code.dtype), proposed.copy()
    run = np.zeros(0, np.int64)
    for first, end in pairwise(edges):
        step, before = slice(first, end), slice(first - len(run), first - len(run) + end - first)
        if first:
            run = run[: end - first]
            is_kept = ~may_change[step] | (run < policy.guards.min_run_requests)
            rule[step] = np.where(is_kept, rule[before], proposed[step])
        chosen = code[rule[step]]
        chosen = np.where(chosen < 0, requested[step], chosen)
        if has_large:
            is_above = total[step] > ceiling[chosen]
            rule[step][is_above] = guard
            chosen[is_above] = requested[step][is_above]
        model[step] = chosen
        run = np.where(chosen == model[before], run + 1, 1) if first else np.ones(end, np.int64)
    return _restore(rule, rows), _restore(model, rows)


def _starts(unit: Codes) -> Codes:
    if len(unit) == 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.r_[True, unit[1:] != unit[:-1]])


def _above_ceilings(
    policy: RoutingPolicy,
    frame: TurnFrame,
    models: tuple[str, ...],
    model: Codes,
    order: Codes | None,
) -> Codes:
    """Where, in the order of ``model``, a request is above the ceiling of the model it got."""
    limits = policy.guards.max_context_tokens
    ceilings = {code: limits[name] for code, name in enumerate(models) if name in limits}
    nothing = np.zeros(0, np.int64)
    if not ceilings:
        return nothing
    total = frame.total_input_tokens if order is None else frame.total_input_tokens[order]
    large = np.flatnonzero(total > min(ceilings.values()))
    if len(large) == 0:
        return nothing
    of_large, is_above = model[large], np.zeros(len(large), bool)
    for code, ceiling in ceilings.items():
        is_above |= (of_large == code) & (total[large] > ceiling)
    return large[is_above]


def _to_block_ends(crossing: Codes, starts: Codes, lengths: Codes) -> Codes:
    """The rows from each block's first crossing to the block's end: an overruled route is kept."""
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
