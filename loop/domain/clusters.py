"""Clusters of low-scoring sessions, and the profiles of sessions that they are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ClusterKind = Literal["group", "outliers"]
ClusterState = Literal["new", "stable", "split", "merged"]
PolicyVerdict = Literal["explained", "in part", "not explained", "can't tell"]


@dataclass(frozen=True, slots=True)
class NamedShare:
    """A feature of a session, or a mean of one, in [0, 1]."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class SessionProfile:
    """What clustering knows of a session: enough to place it without its trace.

    ``features`` are those that are not 0, ``words`` distinct words of its prompts and of the
    claims that did not hold. The profile stands for the session as of the ``quality`` score given
    at ``scored_at_us``, under the ``profile_version`` of the code that made it.
    """

    session_id: str
    profile_version: str
    scored_at_us: int
    features: tuple[NamedShare, ...]
    words: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    profiled_at_us: int = 0


@dataclass(frozen=True, slots=True)
class ClusterFeature:
    """What sets a cluster apart: its mean of a feature against the mean of all sessions."""

    name: str
    cluster_mean: float
    overall_mean: float


@dataclass(frozen=True, slots=True)
class ClusterLift:
    """How many times as often something occurs in a cluster as in all scored sessions.

    ``low`` to ``high`` is a 95 % percentile interval by bootstrap over sessions, the cluster held
    fixed: it says nothing of how sure the grouping is. ``kind``: ``feature``, ``repository``,
    ``model``, ``language``, or ``loss`` (quality lost per dollar).
    """

    kind: str
    name: str
    cluster_share: float
    overall_share: float
    lift: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """Whether a cluster is explained by the policy version that routed its sessions.

    ``ratio`` is the chance of a scored session under ``policy_version`` to be in the cluster
    against the chance under the others (``low`` to ``high``: 95 %); ``excess_share`` the share of
    the cluster that would not be there at the others' rate. ``is_randomised``: the versions served
    sessions drawn by chance at the same time; otherwise time or people may explain it as well.
    """

    verdict: PolicyVerdict
    reason: str
    policy_version: int | None = None
    is_randomised: bool = False
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    excess_share: float | None = None


@dataclass(frozen=True, slots=True)
class SessionCluster:
    """Sessions that went badly in a similar way. ``cost_microusd`` is what they were charged.

    ``lost_cost_microusd`` is the sum of lost quality times cost over its sessions: what was paid
    for nothing, if quality were worth its price. ``stability`` is the mean Jaccard index of the
    cluster with its best match over random parts of the sessions (Hennig 2007). ``parents`` are
    clusters of the run before that went into it; ``state`` says how. ``name`` is given by a model,
    ``named_by`` says which; both are empty without one. ``kind`` ``outliers`` is what is like
    nothing else, not a way to fail.
    """

    cluster_id: str
    label: str
    session_ids: tuple[str, ...]
    mean_score: float
    cost_microusd: int
    cost_share: float
    features: tuple[ClusterFeature, ...]
    exemplars: tuple[str, ...]  # session ids, nearest to the centre first
    clustered_at_us: int = 0
    kind: ClusterKind = "group"
    lost_cost_microusd: int = 0
    stability: float | None = None
    state: ClusterState = "new"
    parents: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    contrast: str = ""  # against the nearest other cluster, in words
    lifts: tuple[ClusterLift, ...] = ()
    policy_check: PolicyCheck | None = None
    centre: tuple[NamedShare, ...] = ()  # means of the features that are not 0
    name: str = ""
    named_by: str = ""
