"""Where a cluster happens, in terms of what is known before a session begins.

A cluster is picked by its outcome. What another policy would have done can't be estimated on its
sessions alone: whoever looks only at what went badly sees it go better under anything else
(regression to the mean). So a scope is a property of sessions that no policy can change, such as
the repository, and holds the good sessions with that property, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

FEWEST_SESSIONS = 5  # of the cluster with a value, before it is looked at
_Z = 1.959964
UNKNOWN = ("", "unattributed")


@dataclass(frozen=True, slots=True)
class OverRepresented:
    """``values`` that occur in a cluster more often than elsewhere, surely so.

    ``members`` of the cluster's ``of`` sessions have one of them, and so have ``others`` of the
    sessions outside.
    """

    values: tuple[str, ...]
    members: int
    of: int
    others: int


def find_over_represented(
    members: Collection[str], value_of: Mapping[str, str]
) -> OverRepresented | None:
    """The values whose ratio of shares, cluster against all other sessions, lies above 1 with its
    whole 95 % interval (of the log ratio; Katz et al. 1978, half a session added to each cell);
    ``None`` when there is none. Sessions without a known value count as others.
    """
    inside = Counter(value_of[name] for name in members if name in value_of)
    total = Counter(value_of.values())
    in_cluster = inside.total()
    outside = total.total() - in_cluster
    found = []
    for value, count in inside.items():
        if value in UNKNOWN or count < FEWEST_SESSIONS or not outside:
            continue
        a, b = count + 0.5, total[value] - count + 0.5
        ratio = (a / (in_cluster + 1)) / (b / (outside + 1))
        error = math.sqrt(1 / a - 1 / (in_cluster + 1) + 1 / b - 1 / (outside + 1))
        if math.log(ratio) - _Z * error > 0:
            found.append(value)
    if not found:
        return None
    shared = sum(inside[value] for value in found)
    others = sum(total[value] for value in found) - shared
    return OverRepresented(tuple(sorted(found)), shared, in_cluster, others)
