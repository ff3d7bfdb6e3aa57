"""What the API, the command line and the pages read about clusters."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loop.access.view import View
from loop.domain.clusters import SessionCluster
from loop.domain.errors import NotFound
from loop.domain.scores import QUALITY
from loop.lake import Lake
from loop.service.session_readings import whole_sessions

_OVER_ALL = {"cost_share": None, "features": (), "lifts": (), "policy_check": None, "contrast": ""}
"""What tells of other parts' sessions, and what a part of the organization sees instead."""
_COUNTS = f"""
    SELECT count(*) FILTER (value IS NOT NULL) AS scored,
        count(*) FILTER (value IS NULL) AS unscored
    FROM scores WHERE evaluator = '{QUALITY}'"""  # noqa: S608


def list_clusters(lake: Lake, view: View) -> dict[str, Any]:
    """The latest clusters, those that lose the most first, outliers last; and over how many
    sessions scores were given at all (``None`` for a part of the organization)."""
    clusters = lake.latest_clusters()
    listed = {name for cluster in clusters for name in cluster.session_ids}
    whole = whole_sessions(lake, listed, view)
    rows = [cluster_row(c, view) for c in clusters if whole.issuperset(c.session_ids)]
    counts = lake.query(_COUNTS)[0] if view.sees_all else {"scored": None, "unscored": None}
    return {
        "rows": rows,
        "next": None,
        "scored_sessions": counts["scored"],
        "unscored_sessions": counts["unscored"],
    }


def find_cluster(lake: Lake, cluster_id: str, view: View) -> SessionCluster:
    """A cluster of the latest clustering that the view admits as a whole.

    Raises :class:`NotFound`; of one that is gone, it says what came out of it.
    """
    clusters = lake.latest_clusters()
    for cluster in clusters:
        if cluster.cluster_id == cluster_id:
            if whole_sessions(lake, cluster.session_ids, view).issuperset(cluster.session_ids):
                return cluster
            break
    heirs = [c.cluster_id for c in clusters if cluster_id in c.parents] if view.sees_all else []
    raise NotFound(
        f"There is no cluster {cluster_id!r}.",
        why=f"It went into {', '.join(heirs)}." if heirs else "",
        fix="`turnwise cluster list` names those of the latest clustering.",
    )


def show_cluster(lake: Lake, cluster_id: str, view: View) -> dict[str, Any]:
    return cluster_row(find_cluster(lake, cluster_id, view), view)


def cluster_row(cluster: SessionCluster, view: View) -> dict[str, Any]:
    row = asdict(cluster) | {"sessions": len(cluster.session_ids)}
    del row["centre"]
    return row if view.sees_all else row | _OVER_ALL
