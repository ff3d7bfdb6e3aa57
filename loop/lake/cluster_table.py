"""Clusters: each clustering is written whole; the latest is current. Profiles of sessions, which
they are made from: appended, the latest of each session is current."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from loop.domain.clusters import (
    ClusterFeature,
    ClusterLift,
    NamedShare,
    PolicyCheck,
    SessionCluster,
    SessionProfile,
)
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_rows
from loop.lake.rows import plain, to_arrow
from loop.lake.schemas import CLUSTERS, FEATURE, LIFT, POLICY_CHECK, PROFILES, SHARE

_LISTS = ("session_ids", "exemplars", "parents", "terms")
_NESTED = ("features", "lifts", "policy_check", "centre")
_FIELDS = tuple(name for name in CLUSTERS.record_names() if name not in ("day", *_NESTED, *_LISTS))
_FEATURE = tuple(field.name for field in FEATURE)
_LIFT = tuple(field.name for field in LIFT)
_CHECK = tuple(field.name for field in POLICY_CHECK)
_SHARE = tuple(field.name for field in SHARE)
_OF_PROFILE = ("session_id", "profile_version", "scored_at_us", "profiled_at_us")
# What the rows of version 1 read as: they were written before these were worked out.
_BEFORE = {
    "kind": "group",
    "lost_cost_microusd": 0,
    "state": "new",
    "contrast": "",
    "name": "",
    "named_by": "",
}


class ClusterTable:
    """The only writer of ``clusters`` and ``profiles``."""

    def __init__(self, clusters: DeltaLog, profiles: DeltaLog, queries: LakeQueries) -> None:
        self._clusters = clusters
        self._profiles = profiles
        self._queries = queries

    def write(self, clusters: Sequence[SessionCluster]) -> None:
        """Stores one clustering; an empty one supersedes the last as well."""
        rows = [_to_row(cluster) for cluster in clusters] or [_no_clusters()]
        self._clusters.append(to_arrow(CLUSTERS, rows))

    def latest(self) -> list[SessionCluster]:
        """The clusters of the latest clustering: those that lose the most first, outliers last."""
        table = self._queries.run(
            """SELECT * FROM clusters ORDER BY kind IS NOT DISTINCT FROM 'outliers',
            lost_cost_microusd DESC NULLS LAST, len(session_ids) DESC, cluster_id"""
        )
        return [_to_cluster(row) for row in to_rows(table)]

    def write_profiles(self, profiles: Sequence[SessionProfile]) -> None:
        rows = []
        for profile in profiles:
            row = plain(profile, _OF_PROFILE)
            row["features"] = [plain(share, _SHARE) for share in profile.features]
            row |= {"words": list(profile.words), "languages": list(profile.languages)}
            rows.append(row)
        self._profiles.append(to_arrow(PROFILES, rows))


def to_profile(row: dict[str, Any]) -> SessionProfile:
    """A profile from a row of the view ``profiles``."""
    return SessionProfile(
        **{name: row[name] for name in _OF_PROFILE},
        features=tuple(NamedShare(**share) for share in row["features"] or ()),
        words=tuple(map(sys.intern, row["words"] or ())),
        languages=tuple(map(sys.intern, row["languages"] or ())),
    )


def _to_row(cluster: SessionCluster) -> dict[str, Any]:
    row = plain(cluster, _FIELDS) | {name: list(getattr(cluster, name)) for name in _LISTS}
    check = cluster.policy_check
    return row | {
        "features": [plain(feature, _FEATURE) for feature in cluster.features],
        "lifts": [plain(lift, _LIFT) for lift in cluster.lifts],
        "policy_check": plain(check, _CHECK) if check else None,
        "centre": [plain(share, _SHARE) for share in cluster.centre],
    }


def _no_clusters() -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(CLUSTERS.record_names())
    return nothing | {"cluster_id": "", "clustered_at_us": time.time_ns() // 1000}


def _to_cluster(row: dict[str, Any]) -> SessionCluster:
    lists: dict[str, Any] = {name: tuple(row[name] or ()) for name in _LISTS}
    plain_fields = {name: row[name] for name in _FIELDS}
    for name, value in _BEFORE.items():
        if plain_fields[name] is None:
            plain_fields[name] = value
    return SessionCluster(
        **plain_fields,
        **lists,
        features=tuple(ClusterFeature(**feature) for feature in row["features"]),
        lifts=tuple(ClusterLift(**lift) for lift in row["lifts"] or ()),
        policy_check=PolicyCheck(**row["policy_check"]) if row["policy_check"] else None,
        centre=tuple(NamedShare(**share) for share in row["centre"] or ()),
    )
