"""Clusters of low-scoring sessions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClusterFeature:
    """What sets a cluster apart: its mean of a feature against the mean of all sessions."""

    name: str
    cluster_mean: float
    overall_mean: float


@dataclass(frozen=True, slots=True)
class SessionCluster:
    """Sessions that went badly in a similar way. ``cost_microusd`` is what they were charged."""

    cluster_id: str
    label: str
    session_ids: tuple[str, ...]
    mean_score: float
    cost_microusd: int
    cost_share: float
    features: tuple[ClusterFeature, ...]
    exemplars: tuple[str, ...]  # session ids, nearest to the centre first
    clustered_at_us: int = 0
