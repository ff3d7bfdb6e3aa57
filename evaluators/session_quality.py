"""One quality number per session, for rollouts and estimation.

A fixed weighted mean over the evaluators that could score the session: outcomes and honesty count
double what tidy tool use does. Weights are a convention, written down in ``docs/scores.md``, not
fitted to anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loop.domain.scores import Score

QUALITY_WEIGHTS = {"faithfulness": 0.4, "code_correctness": 0.4, "tool_use": 0.2}


def quality_of(scores: Iterable[Score]) -> float | None:
    """The session's quality in [0, 1], or ``None`` if no weighted evaluator scored it.

    ``scores`` are those of one session; where an evaluator appears twice, the last counts.
    """
    return combine({score.evaluator: score.value for score in scores})


def combine(values: Mapping[str, float | None]) -> float | None:
    """:func:`quality_of` from values by evaluator; ``None`` is unscored."""
    weight = total = 0.0
    for name, share in QUALITY_WEIGHTS.items():
        value = values.get(name)
        if value is not None:
            weight += share
            total += share * value
    return round(total / weight, 6) if weight else None
