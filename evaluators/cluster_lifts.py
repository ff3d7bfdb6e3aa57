"""How much more often things occur in clusters than elsewhere, with intervals.

Intervals are percentiles of a bootstrap over sessions (Poisson weights: Hanley and MacGibbon
2006), the clusters held fixed. What the clusters were made from differs between them by
construction: an interval says how well a size is known, and is no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluators.cluster_points import Integers, Matrix
from loop.domain.clusters import ClusterLift

DRAWS = 400
_DRAWS_AT_ONCE = 25  # bounds memory: so many weights a session are held at a time
LEAST_SHARE = 0.02  # in the cluster; rarer things are not listed
LEAST_SESSIONS = 3  # of the cluster that must have it
MOST_LISTED = 12
LOSS = "quality lost per dollar"


@dataclass(frozen=True, slots=True)
class Trait:
    """Something that sessions have more or less of: a column of values in [0, 1]."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class _Lifts:
    """Of shape ``(…, clusters, traits + 1)``, the overall shares without the clusters; the last
    column is the loss, per dollar instead of per session."""

    lift: Matrix
    share: Matrix
    overall_share: Matrix


def measure_lifts(
    traits: Sequence[Trait],
    values: Matrix,
    labels: Integers,
    lost: Matrix,
    cost: Matrix,
    *,
    seed: int,
) -> list[list[ClusterLift]]:
    """The lifts of each cluster: that of the loss first, then of its traits, the surest first.

    ``values`` of shape ``(n, traits)`` lie in [0, 1]; ``labels`` name each of the n scored
    sessions' cluster, below 0 for none; ``lost`` is each one's lost quality times its ``cost``.
    """
    ones = np.ones((len(labels), 1))
    columns = np.hstack([values, lost[:, None], cost[:, None], ones])
    count = int(labels.max(initial=-1)) + 1
    groups = [np.flatnonzero(labels == number) for number in range(count)]
    rest = np.flatnonzero(labels < 0)
    found = _measure(columns, groups, rest, np.ones((1, len(labels))))
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, DRAWS, _DRAWS_AT_ONCE):
        shape = (min(_DRAWS_AT_ONCE, DRAWS - start), len(labels))
        weights = generator.poisson(1.0, shape).astype(np.float64)
        drawn.append(_measure(columns, groups, rest, weights).lift)
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975), axis=0)
    every = [*traits, Trait("loss", LOSS)]
    answer = []
    for number, rows in enumerate(groups):
        lifts = [
            ClusterLift(
                trait.kind,
                trait.name,
                float(found.share[0, number, place]),
                float(found.overall_share[0, place]),
                float(found.lift[0, number, place]),
                float(low[number, place]),
                float(high[number, place]),
            )
            for place, trait in enumerate(every)
        ]
        having = (values[rows] > 0).sum(axis=0)
        listed = [
            lift
            for lift, sessions in zip(lifts[:-1], having, strict=True)
            if lift.cluster_share >= LEAST_SHARE and sessions >= LEAST_SESSIONS
        ]
        listed.sort(key=lambda lift: (-max(lift.low, 1 / max(lift.high, 1e-9)), lift.name))
        answer.append([*(lifts[-1:] if cost[rows].any() else ()), *listed[:MOST_LISTED]])
    return answer


def _measure(
    columns: Matrix, groups: Sequence[Integers], rest: Integers, weights: Matrix
) -> _Lifts:
    """Lifts under each row of ``weights``, of shape ``(draws, n)``. The last three columns are
    lost dollars, dollars and 1."""
    here = np.stack([weights[:, rows] @ columns[rows] for rows in groups], axis=1)
    overall = here.sum(axis=1) + weights[:, rest] @ columns[rest]
    share = _per_unit(here)
    overall_share = _per_unit(overall)
    base = np.broadcast_to(overall_share[:, None, :], share.shape)
    lift = np.divide(share, base, out=np.ones_like(share), where=base > 0)
    return _Lifts(lift, share, overall_share)


def _per_unit(sums: Matrix) -> Matrix:
    """Traits per session, lost dollars per dollar."""
    traits, lost, cost, sessions = np.split(sums, [-3, -2, -1], axis=-1)
    parts = np.concatenate([traits, lost], axis=-1)
    units = np.concatenate([np.broadcast_to(sessions, traits.shape), cost], axis=-1)
    ratios: Matrix = np.divide(parts, units, out=np.zeros_like(parts), where=units > 0)
    return ratios
