"""Names for clusters by a model, where there is one. Everything works without.

A name never decides anything: ids, labels, ranks and scopes don't read it. It is kept with the
cluster's id from run to run and marked with who gave it, so that a page can say that a machine
did. A namer gets what the pages show of a cluster, and no text of any session (as Clio does it:
names come from aggregates, of clusters that are not too small).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from loop.domain.clusters import SessionCluster
from loop.domain.errors import TurnwiseError

FEWEST_NAMED = 5  # sessions: a smaller cluster's label could tell of one person's work
NAME_CHARS = 60


@dataclass(frozen=True, slots=True)
class ClusterBrief:
    """All that a namer sees of a cluster: no id, no session, no person, no repository."""

    label: str
    terms: tuple[str, ...]
    raised: tuple[tuple[str, float, float], ...]  # feature, its mean here, its mean overall
    contrast: str
    sessions: int
    mean_score: float


class ClusterNamer(Protocol):
    """Gives a short name to what a brief describes.

    ``identity`` names model, prompt and version: a name of another identity is given anew.
    ``name`` returns at most ``NAME_CHARS`` characters, or ``""`` if it has no name to offer; it
    raises :class:`~loop.domain.errors.TurnwiseError` when it can't be asked (no budget, no answer).
    """

    @property
    def identity(self) -> str: ...

    def name(self, brief: ClusterBrief) -> str: ...


@dataclass(frozen=True, slots=True)
class Naming:
    """``failed`` counts the clusters that a namer gave no usable name to."""

    clusters: list[SessionCluster]
    named: int = 0
    failed: int = 0


def name_clusters(clusters: Sequence[SessionCluster], namer: ClusterNamer) -> Naming:
    """The clusters with names where they had none by this namer. A failure leaves a cluster
    without a name, and the others are named all the same."""
    answer, named, failed = [], 0, 0
    for cluster in clusters:
        is_named = cluster.named_by == namer.identity and cluster.name
        if is_named or cluster.kind != "group" or len(cluster.session_ids) < FEWEST_NAMED:
            answer.append(cluster)
            continue
        try:
            name = " ".join(namer.name(brief_of(cluster)).split())
        except TurnwiseError:
            name = ""
        if name and len(name) <= NAME_CHARS and name.isprintable():
            answer.append(replace(cluster, name=name, named_by=namer.identity))
            named += 1
        else:
            answer.append(cluster)
            failed += 1
    return Naming(answer, named, failed)


def brief_of(cluster: SessionCluster) -> ClusterBrief:
    raised = [f for f in cluster.features if f.cluster_mean > f.overall_mean]
    return ClusterBrief(
        label=cluster.label,
        terms=cluster.terms,
        raised=tuple((f.name, f.cluster_mean, f.overall_mean) for f in raised),
        contrast=cluster.contrast,
        sessions=len(cluster.session_ids),
        mean_score=cluster.mean_score,
    )
