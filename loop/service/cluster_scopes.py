"""What a search may look at when it is begun from a cluster."""

from __future__ import annotations

from evaluators.cluster_scopes import find_over_represented
from loop.access.view import ALL_ROWS
from loop.domain.errors import Refused
from loop.domain.scores import QUALITY
from loop.lake import Lake
from loop.service.cluster_readings import find_cluster
from optimizers.search_scopes import SearchScope

_EARLIER = f"""
    WITH started AS (
        SELECT session_id, min(started_at_us) AS at_us,
            arg_min(repository, started_at_us) AS repository
        FROM turns GROUP BY session_id
    ), ranked AS (SELECT *, percent_rank() OVER (ORDER BY at_us) AS place FROM started)
    SELECT session_id, repository FROM ranked JOIN scores USING (session_id)
    WHERE scores.evaluator = '{QUALITY}' AND scores.value IS NOT NULL AND place < ?"""  # noqa: S608
EARLIER_SHARE = 0.75
"""The sessions that a scope is found on. A search tests its policy on the later ones: had these
chosen the scope, too, they would no longer be untouched."""


def scope_of_cluster(lake: Lake, cluster_id: str) -> SearchScope:
    """The repositories in which a cluster happens more often than elsewhere, by the earlier
    sessions: known before a session begins, unlike what makes the cluster.

    Raises :class:`NotFound`, and :class:`Refused` where no repository stands out.
    """
    cluster = find_cluster(lake, cluster_id, ALL_ROWS)
    rows = lake.query(_EARLIER, [EARLIER_SHARE])
    repository_of = {row["session_id"]: row["repository"] for row in rows}
    found = find_over_represented(cluster.session_ids, repository_of)
    if found is None:
        raise Refused(
            f"{cluster_id} can't be the scope of a search.",
            why="No repository has it surely more often than the others, and its sessions were "
            "picked for their outcome: estimates on them alone favour any change.",
            fix="Search all sessions: `turnwise optimize`.",
        )
    reason = (
        f"{found.members} of the {found.of} earlier sessions of {cluster_id} lie there, beside "
        f"{found.others} others"
    )
    return SearchScope(found.values, cluster_id, reason)
