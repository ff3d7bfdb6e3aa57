"""A candidate on parts of the sessions: who would pay for the others' saving.

A mean over all hides a team or a language that the candidate serves worse. Each slice gets its own
paired difference in quality; as many slices are looked at, what counts as *worse* is Holm's
step-down adjustment (Holm, 1979) of the one-sided p values, which holds the chance of one false
alarm over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loop.domain.estimates import SliceEstimate
from loop.domain.policies import RoutingPolicy
from optimizers.off_policy import OutcomeLog, effective_size
from optimizers.turn_columns import TextColumn
from optimizers.turn_frame import TurnFrame

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]
MOST_PER_DIMENSION = 12
"""The largest parts of each dimension are looked at: every further one weakens the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """A part of the frame's sessions: a mask of shape ``(s,)``."""

    dimension: str
    name: str
    chosen: Booleans


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values in the given order."""
    count = len(p_values)
    adjusted = [0.0] * count
    highest = 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = highest
    return tuple(adjusted)


def slices_of(
    frame: TurnFrame,
    policy: RoutingPolicy,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    org_paths: Sequence[str] = (),
) -> tuple[Slice, ...]:
    """The business units, repositories and bands of size of a frame, and more by ``labels``:
    for each dimension (such as ``language``) the name of each session, by session id.

    Business units are the top level of the organization path, or the second where the top level
    has one value. Bands are the thirds of the session's first request in the policy's measure.
    ``org_paths`` adds named nodes with all below them. A dimension of one value is left out.
    """
    first = frame.session_starts()
    named: dict[str, list[str]] = {
        "business_unit": _units(_texts(frame.org_path, first)),
        "repository": _texts(frame.repository, first),
        "size_band": _bands(frame.measure(policy.measure, policy.estimator)[first]),
    }
    for dimension, of_session in (labels or {}).items():
        named[dimension] = [of_session.get(name, "") for name in frame.session_ids]
    found = [item for dimension, names in named.items() for item in _parts(dimension, names)]
    paths = _texts(frame.org_path, first)
    for node in org_paths:
        inside = [path == node or path.startswith(f"{node}/") for path in paths]
        found.append(Slice("org_path", node, np.array(inside, bool)))
    return tuple(found)


def estimate_slices(
    slices: Sequence[Slice],
    policy: RoutingPolicy,
    frame: TurnFrame,
    log: OutcomeLog,
    theirs_microusd: Integers,
    ours_microusd: Integers,
) -> tuple[SliceEstimate, ...]:
    """Each slice's saving by replay (costs per turn of the frame, 0 on both sides where unpriced)
    and its difference in quality, adjusted for their number."""
    answers = _can_answer(log, policy)
    place = np.searchsorted(np.array(frame.session_ids, object), log.log.frame.session_ids)
    found: list[SliceEstimate] = []
    for part in slices:
        rows = part.chosen[frame.session]
        ours = int(ours_microusd[rows].sum())
        saving = 1.0 - int(theirs_microusd[rows].sum()) / ours if ours else None
        plain = SliceEstimate(
            part.dimension, part.name, int(part.chosen.sum()), 0, 0.0, saving, None
        )
        chosen = part.chosen[place.astype(np.int64)]
        found.append(_estimate(plain, chosen, policy, log) if answers else plain)
    asked = [number for number, item in enumerate(found) if item.p_worse is not None]
    adjusted = holm([found[number].p_worse or 0.0 for number in asked])
    for number, p_value in zip(asked, adjusted, strict=True):
        found[number] = replace(found[number], p_worse_holm=p_value)
    return tuple(found)


def _can_answer(log: OutcomeLog, policy: RoutingPolicy) -> bool:
    return log.is_answerable and not (log.weigh(policy).refusals or log.incumbent_weights.refusals)


def _estimate(
    plain: SliceEstimate, chosen: Booleans, policy: RoutingPolicy, log: OutcomeLog
) -> SliceEstimate:
    theirs = log.weigh(policy).weights[chosen]
    ours = log.incumbent_weights.weights[chosen]
    size = effective_size(theirs)
    sized = replace(plain, scored_sessions=int(chosen.sum()), effective_sample_size=size)
    if min(size, effective_size(ours)) < log.limits.min_slice_sessions:
        return sized
    difference = log.means_of(chosen).compare(theirs, ours).difference
    return replace(sized, difference=difference.interval, p_worse=difference.p_below_zero)


def _texts(column: TextColumn, rows: Integers) -> list[str]:
    return [column.values[code] for code in column.codes[rows].tolist()]


def _units(paths: list[str]) -> list[str]:
    top = [path.split("/", 1)[0] for path in paths]
    if len(set(top)) > 1:
        return top
    return ["/".join(path.split("/", 2)[:2]) for path in paths]


def _bands(tokens: Integers) -> list[str]:
    if len(tokens) == 0:
        return []
    low, high = (int(edge) for edge in np.quantile(tokens, (1 / 3, 2 / 3)))
    names = (f"under {low:,}", f"{low:,} to {high:,}", f"{high:,} and over")
    return [names[int(size >= low) + int(size >= high)] for size in tokens.tolist()]


def _parts(dimension: str, names: list[str]) -> list[Slice]:
    known = sorted({name for name in names if name}, key=lambda name: (-names.count(name), name))
    if len(known) < 2:
        return []
    column = np.array(names, object)
    return [Slice(dimension, name, column == name) for name in known[:MOST_PER_DIMENSION]]
