"""Clusters from run to run: which one goes on, which is new, what it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from evaluators.cluster_points import Matrix
from loop.domain.clusters import ClusterState, SessionCluster

SAME_CLUSTER = 0.5  # Jaccard over shared sessions above which a cluster keeps its id
SAME_CENTRE = 0.9  # cosine of the centres above which it does where no session is shared
PARENT_SHARE = 0.5  # of the smaller one's shared sessions: what makes an old cluster a parent


def match_ids(
    previous: Sequence[SessionCluster], new: Sequence[SessionCluster]
) -> list[SessionCluster]:
    """``new`` with the ids of ``previous`` where a cluster goes on, its name, and its lineage.

    One-to-one assignment of the largest total Jaccard index over the sessions that both runs
    hold (Kuhn 1955), accepted above ``SAME_CLUSTER``; where the runs share none, of the centres'
    cosine, above ``SAME_CENTRE``. Outliers match outliers only. Other clusters keep their own id:
    ``split`` if they came out of one older cluster that others came out of, too, ``merged`` if out
    of several, else ``new``. ``merged`` is also said of one that goes on and took others in.
    """
    shared = _overlap(previous, new)
    likeness, least = (_jaccard(previous, new, shared), SAME_CLUSTER)
    if not shared.any():
        likeness, least = _cosines(previous, new), SAME_CENTRE
    carried = _assign(previous, new, likeness, least)
    parents = _parents(previous, new, shared)
    matched: list[SessionCluster] = []
    taken = {cluster.cluster_id for cluster in previous}
    for column, cluster in enumerate(new):
        origin = carried.get(column)
        own = cluster.cluster_id
        if origin is not None:
            own = previous[origin].cluster_id
        elif own in taken:
            own = digest_members([own, *cluster.session_ids], cluster.clustered_at_us)
        taken.add(own)
        old = previous[origin] if origin is not None else None
        others = [row for row in parents[column] if row != origin]
        matched.append(
            replace(
                cluster,
                cluster_id=own,
                state=_state(origin, others, parents),
                parents=tuple(previous[row].cluster_id for row in others),
                name=old.name if old else "",
                named_by=old.named_by if old else "",
            )
        )
    return matched


def digest_members(session_ids: Sequence[str], clustered_at_us: int) -> str:
    """An id for a new cluster. The time is part of it: the id of one that is gone, or that drifted
    away from these sessions, is not given again."""
    joined = "\n".join([str(clustered_at_us), *sorted(session_ids)]).encode("utf-8", "replace")
    return f"cluster-{hashlib.blake2b(joined, digest_size=6).hexdigest()}"


def _overlap(previous: Sequence[SessionCluster], new: Sequence[SessionCluster]) -> Matrix:
    """How many sessions each old and each new cluster share, shape ``(old, new)``."""
    column_of = {name: column for column, c in enumerate(new) for name in c.session_ids}
    counts = np.zeros((len(previous), len(new)))
    for row, cluster in enumerate(previous):
        for name in cluster.session_ids:
            column = column_of.get(name)
            if column is not None:
                counts[row, column] += 1
    return counts


def _jaccard(
    previous: Sequence[SessionCluster], new: Sequence[SessionCluster], shared: Matrix
) -> Matrix:
    """Over the sessions that both runs hold: those of either run alone say nothing of the other."""
    rows, columns = shared.sum(axis=1, keepdims=True), shared.sum(axis=0, keepdims=True)
    union = rows + columns - shared
    indices = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    alike: Matrix = np.where(_same_kind(previous, new), indices, 0.0)
    return alike


def _cosines(previous: Sequence[SessionCluster], new: Sequence[SessionCluster]) -> Matrix:
    names = sorted({share.name for c in (*previous, *new) for share in c.centre})
    place = {name: column for column, name in enumerate(names)}

    def centres(clusters: Sequence[SessionCluster]) -> Matrix:
        matrix = np.zeros((len(clusters), len(names)))
        for row, cluster in enumerate(clusters):
            for share in cluster.centre:
                matrix[row, place[share.name]] = share.value
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        units: Matrix = np.divide(matrix, norms, out=np.zeros_like(matrix), where=norms > 0)
        return units

    alike: Matrix = np.where(_same_kind(previous, new), centres(previous) @ centres(new).T, 0.0)
    return alike


def _same_kind(
    previous: Sequence[SessionCluster], new: Sequence[SessionCluster]
) -> NDArray[np.bool_]:
    old = np.array([c.kind == "outliers" for c in previous], bool)
    now = np.array([c.kind == "outliers" for c in new], bool)
    same: NDArray[np.bool_] = old[:, None] == now[None, :]
    return same


def _assign(
    previous: Sequence[SessionCluster],
    new: Sequence[SessionCluster],
    likeness: Matrix,
    least: float,
) -> dict[int, int]:
    """The old cluster's place for each new one's that goes on."""
    if not previous or not new:
        return {}
    rows, columns = linear_sum_assignment(-likeness)
    return {
        int(column): int(row)
        for row, column in zip(rows, columns, strict=True)
        if likeness[row, column] > least
    }


def _parents(
    previous: Sequence[SessionCluster], new: Sequence[SessionCluster], shared: Matrix
) -> list[list[int]]:
    """The old groups that each new group came from, in their order."""
    if not previous or not new:
        return [[] for _ in new]
    smaller = np.minimum(shared.sum(axis=1, keepdims=True), shared.sum(axis=0, keepdims=True))
    share = np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)
    for row, cluster in enumerate(previous):
        if cluster.kind == "outliers":
            share[row] = 0.0
    for column, cluster in enumerate(new):
        if cluster.kind == "outliers":
            share[:, column] = 0.0
    return [list(np.flatnonzero(share[:, column] > PARENT_SHARE)) for column in range(len(new))]


def _state(origin: int | None, others: list[int], parents: list[list[int]]) -> ClusterState:
    if len(others) > 1 or (origin is not None and others):
        return "merged"
    if origin is not None:
        return "stable"
    if others and sum(others[0] in rows for rows in parents) > 1:
        return "split"
    return "new"
