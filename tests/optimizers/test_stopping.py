"""Each rule ends a search for its own reason, and the first reason wins."""

from __future__ import annotations

import pytest

from optimizers.stopping import (
    SearchProgress,
    StoppingRule,
    after_dollars,
    after_seconds,
    after_trials,
    first_of,
    when_requested,
    without_gain,
)

NOW = SearchProgress(
    trials=40, elapsed_seconds=12.4, best_saving_share=0.2, trials_since_best=15, spent_usd=0.25
)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (after_trials(40), "after 40 trials"),
        (after_trials(41), ""),
        (after_seconds(12.0), "after 12 seconds"),
        (after_seconds(13.0), ""),
        (without_gain(15), "after 15 trials without a gain"),
        (without_gain(16), ""),
        (after_dollars(0.25), "after spending $0.2500"),
        (after_dollars(0.3), ""),
        (when_requested(lambda: True), "on request"),
        (when_requested(lambda: False), ""),
        (first_of(after_trials(99), without_gain(1), after_seconds(1)), "after 15 trials without"),
        (first_of(), ""),
    ],
)
def test_a_rule_gives_its_reason_or_none(rule: StoppingRule, reason: str) -> None:
    given = rule(NOW)
    assert given.startswith(reason)
    assert bool(given) == bool(reason)
