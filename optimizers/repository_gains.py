"""Where a cheaper model loses little: each repository's gain of the incumbent over it, from a log.

Repositories differ more than sizes do in how much the model matters, but each has few sessions: its
own difference is drawn towards that of all, the more the fewer they are (empirical Bayes; the
variance between repositories by the method of moments, DerSimonian and Laird, 1986).
"""

from __future__ import annotations

import numpy as np

from loop.domain.policies import RoutingPolicy
from optimizers.off_policy import OutcomeLog, effective_size
from optimizers.session_means import Floats

_LEAST_SESSIONS = 2.0  # effective, on either side, for a repository to have a difference of its own


def repository_gains(log: OutcomeLog, cheaper: RoutingPolicy) -> dict[str, float]:
    """What the incumbent's mean outcome is above that of ``cheaper`` (everything to one model), by
    repository; empty where the log can't answer for both, or repositories do not differ by more
    than chance."""
    if not log.is_answerable:
        return {}
    theirs, ours = log.weigh(cheaper), log.incumbent_weights
    if theirs.refusals or ours.refusals:
        return {}
    frame = log.log.frame
    column = frame.repository
    repository = column.codes[frame.session_starts()]
    overall = _mean(log.log.outcome, ours.weights) - _mean(log.log.outcome, theirs.weights)
    names, gains, variances = [], [], []
    for code in np.unique(repository).tolist():
        here = repository == code
        mine, other = ours.weights[here], theirs.weights[here]
        sizes = effective_size(mine), effective_size(other)
        if not column.values[code] or min(sizes) < _LEAST_SESSIONS:
            continue
        outcome = log.log.outcome[here]
        names.append(column.values[code])
        gains.append(_mean(outcome, mine) - _mean(outcome, other))
        variances.append(sum(float(log.log.outcome.var()) / size for size in sizes))
    if len(names) < 2 or log.log.outcome.var() == 0.0:
        return {}
    gain, variance = np.array(gains), np.array(variances)
    between = _between(gain, variance)
    if between == 0.0:
        return {}
    drawn = overall + between / (between + variance) * (gain - overall)
    return dict(zip(names, drawn.tolist(), strict=True))


def _mean(outcome: Floats, weights: Floats) -> float:
    return float(outcome @ weights / weights.sum())


def _between(gain: Floats, variance: Floats) -> float:
    """The variance of true gains between repositories: what their spread is above chance."""
    weight = 1.0 / variance
    centre = float(gain @ weight / weight.sum())
    spread = float(weight @ np.square(gain - centre))
    scale = float(weight.sum() - np.square(weight).sum() / weight.sum())
    return max(0.0, (spread - (len(gain) - 1)) / scale) if scale > 0 else 0.0
