"""When a search ends: small rules that look at its progress and give a reason, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """Where a search stands after a trial. ``best_saving_share``: of its feasible trials."""

    trials: int
    elapsed_seconds: float
    best_saving_share: float | None
    trials_since_best: int
    spent_usd: float = 0.0


StoppingRule = Callable[[SearchProgress], str]


def after_trials(count: int) -> StoppingRule:
    return lambda now: f"after {now.trials} trials" if now.trials >= count else ""


def after_seconds(seconds: float) -> StoppingRule:
    return lambda now: (
        f"after {now.elapsed_seconds:.0f} seconds" if now.elapsed_seconds >= seconds else ""
    )


def after_dollars(usd: float) -> StoppingRule:
    """Ends when the processor time that it used has cost so much."""
    return lambda now: f"after spending ${now.spent_usd:.4f}" if now.spent_usd >= usd else ""


def without_gain(trials: int) -> StoppingRule:
    """Ends when the best saving has stood for so many trials."""
    return lambda now: (
        f"after {now.trials_since_best} trials without a gain"
        if now.trials_since_best >= trials
        else ""
    )


def when_requested(stop_requested: Callable[[], bool]) -> StoppingRule:
    return lambda _: "on request" if stop_requested() else ""


def first_of(*rules: StoppingRule) -> StoppingRule:
    """The reason of the first rule that has one."""

    def ends(now: SearchProgress) -> str:
        return next((reason for rule in rules if (reason := rule(now))), "")

    return ends
