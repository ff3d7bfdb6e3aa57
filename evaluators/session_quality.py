"""One quality number per session, for rollouts and estimation.

A fixed weighted mean over the evaluators that could score the session: outcomes and honesty count
double what tidy tool use does. Weights are a convention, written down in ``docs/scores.md``, not
fitted to anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from loop.domain.scores import Score

QUALITY_WEIGHTS = {"faithfulness": 0.4, "code_correctness": 0.4, "tool_use": 0.2}


def quality_of(scores: Sequence[Score]) -> float | None:
    """The session's quality in [0, 1], or ``None`` if no weighted evaluator scored it.

    ``scores`` are those of one session; where an evaluator appears twice, the last counts.
    """
    values = {
        score.evaluator: score.value
        for score in scores
        if score.evaluator in QUALITY_WEIGHTS and score.value is not None
    }
    weight = sum(QUALITY_WEIGHTS[name] for name in values)
    if not weight:
        return None
    total = sum(QUALITY_WEIGHTS[name] * value for name, value in values.items())
    return round(total / weight, 6)
