"""Which ratio of output lengths a replay uses for which turns, fitted or assumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from loop.domain.estimates import LengthRatio
from optimizers.routing import Routes
from optimizers.turn_columns import Integers

if TYPE_CHECKING:
    from optimizers.replay import Replayer, ReplayResult


def length_uses(replayer: Replayer, result: ReplayResult) -> tuple[LengthRatio, ...]:
    """The ratios that a replay used, the most used first, each with its number of turns."""
    model = replayer.codes_of(result.routes)
    found = [
        *_model_ratios(replayer, model, np.flatnonzero(result.is_rerouted & result.is_priced)),
        *(
            replace(ratio, turns=len(rows))
            for ratio, _, rows in effort_ratios(replayer, result.routes, model)
        ),
    ]
    return tuple(sorted(found, key=lambda ratio: (-ratio.turns, ratio.key)))


def _model_ratios(replayer: Replayer, model: Integers, moved: Integers) -> Iterator[LengthRatio]:
    frame, facts = replayer.frame, replayer.assumptions
    cells = np.stack([frame.request_class.codes[moved], replayer.served[moved], model[moved]])
    kinds, counts = np.unique(cells, axis=1, return_counts=True)
    for (of_class, served, target), turns in zip(kinds.T.tolist(), counts.tolist(), strict=True):
        name = frame.request_class.values[of_class]
        here, there = replayer.models[served], replayer.models[target]
        ratio = replayer.lengths.of_models(name, here, there) or LengthRatio(
            name, here, there, "", "", facts.answer_ratio(there) / facts.answer_ratio(here),
            None, None, "assumed",
        )  # fmt: skip
        yield replace(ratio, turns=turns)


def effort_ratios(
    replayer: Replayer, routed: Routes, model: Integers
) -> Iterator[tuple[LengthRatio, int, Integers]]:
    """The turns that would be served at another effort than they were, by class, model and
    effort, with the ratio that holds for them; 1 is assumed where the log tells none. Models
    that take no effort are left out."""
    frame, facts = replayer.frame, replayer.assumptions
    asked, logged = frame.effort, frame.logged_effort
    if logged is asked and not any(routed.efforts):
        return
    values = tuple(dict.fromkeys((*asked.values, *logged.values, *routed.efforts)))
    place = {name: code for code, name in enumerate(values)}
    requested = np.array([place[name] for name in asked.values], np.int64)[asked.codes]
    served = np.array([place[name] for name in logged.values], np.int64)[logged.codes]
    by_rule = np.array([place[name] if name else -1 for name in routed.efforts], np.int64)
    wanted = by_rule[routed.rule]
    wanted = np.where(wanted < 0, requested, wanted)
    rows = np.flatnonzero((wanted != served) & replayer.is_billable)
    cells = np.stack(
        [
            frame.request_class.codes[rows], model[rows], served[rows], wanted[rows],
            served[rows] == requested[rows], wanted[rows] == requested[rows],
        ]
    )  # fmt: skip
    kinds, kind = np.unique(cells, axis=1, return_inverse=True)
    for at, (of_class, code, before, after, was_asked, is_asked) in enumerate(kinds.T.tolist()):
        name, on = frame.request_class.values[of_class], replayer.models[code]
        if on in facts.models_without_effort:
            continue
        old, new = values[before], values[after]
        ratio = (
            replayer.lengths.of_efforts(name, on, old, new)
            or replayer.lengths.of_efforts(
                name, on, "" if was_asked else old, "" if is_asked else new
            )
            or LengthRatio(name, on, on, old, new, 1.0, None, None, "assumed")
        )
        yield ratio, code, rows[kind.reshape(-1) == at]


def describe_lengths(ratios: tuple[LengthRatio, ...]) -> list[str]:
    """One sentence for each ratio that a replay used."""
    return [_words(ratio) for ratio in ratios]


def _words(ratio: LengthRatio) -> str:
    if ratio.from_model != ratio.to_model:
        change = f"{ratio.to_model} for {ratio.from_model}"
    else:
        efforts = [name or "that asked for" for name in (ratio.to_effort, ratio.from_effort)]
        change = f"{ratio.to_model} at effort {efforts[0]} for {efforts[1]}"
    head = f"{ratio.request_class or 'unnamed'} turns, {change}: {ratio.ratio:.2f} output tokens"
    turns = f"{ratio.turns:,} {'turn' if ratio.turns == 1 else 'turns'}"
    if ratio.low is None or ratio.high is None:
        return f"{head} for one, assumed: the log has too few turns of both to tell ({turns})."
    sessions = " and ".join(f"{count:,}" for count in ratio.sessions)
    basis = {
        "randomised": "sessions that drew their policy",
        "matched": "sessions matched by repository and place, not drawn: people chose",
    }[ratio.basis]
    return (
        f"{head} for one (95 % {ratio.low:.2f} to {ratio.high:.2f}), from {sessions} {basis} "
        f"({turns})."
    )
