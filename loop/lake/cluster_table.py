"""Clusters: each clustering is written whole; the latest is current."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from loop.domain.clusters import ClusterFeature, SessionCluster
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_rows
from loop.lake.rows import plain, to_arrow
from loop.lake.schemas import CLUSTERS, FEATURE

_LISTS = ("session_ids", "exemplars")
_FIELDS = tuple(
    name for name in CLUSTERS.record_names() if name not in ("day", "features", *_LISTS)
)
_FEATURE = tuple(field.name for field in FEATURE)


class ClusterTable:
    """The only writer of ``clusters``."""

    def __init__(self, log: DeltaLog, queries: LakeQueries) -> None:
        self._log = log
        self._queries = queries

    def write(self, clusters: Sequence[SessionCluster]) -> None:
        """Stores one clustering; an empty one supersedes the last as well."""
        rows = [_to_row(cluster) for cluster in clusters] or [_no_clusters()]
        self._log.append(to_arrow(CLUSTERS, rows))

    def latest(self) -> list[SessionCluster]:
        """The clusters of the latest clustering, the dearest first."""
        table = self._queries.run("SELECT * FROM clusters ORDER BY cost_microusd DESC, cluster_id")
        return [_to_cluster(row) for row in to_rows(table)]


def _to_row(cluster: SessionCluster) -> dict[str, Any]:
    row = plain(cluster, _FIELDS) | {name: list(getattr(cluster, name)) for name in _LISTS}
    return row | {"features": [plain(feature, _FEATURE) for feature in cluster.features]}


def _no_clusters() -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(CLUSTERS.record_names())
    return nothing | {"cluster_id": "", "clustered_at_us": time.time_ns() // 1000}


def _to_cluster(row: dict[str, Any]) -> SessionCluster:
    lists: dict[str, Any] = {name: tuple(row[name]) for name in _LISTS}
    return SessionCluster(
        **{name: row[name] for name in _FIELDS},
        **lists,
        features=tuple(ClusterFeature(**feature) for feature in row["features"]),
    )
