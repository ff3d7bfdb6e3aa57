"""Scores: a value in [0, 1], or *unscored* with its reason. Never edited, only superseded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loop.domain.errors import BadInput

QUALITY = "quality"
"""The evaluator's name of the score that combines the others: one number per session."""

FindingVerdict = Literal[
    "supported", "contradicted", "stale", "unverified", "narrow", "not_checkable", "noted"
]


@dataclass(frozen=True, slots=True)
class QualityMeasure:
    """Which score of sessions counts as their quality, and why it may not (``refusals``).

    ``evaluator`` is :data:`QUALITY` or a judge's; of a judge only scores of ``version`` count.
    """

    evaluator: str = QUALITY
    version: str = ""
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing an evaluator saw, with a pointer to its evidence.

    ``evidence`` names where to look: tool use ids, turn ids or prompt ids.
    """

    verdict: FindingVerdict
    claim: str  # the words claimed, or the name of the check
    reason: str
    turn_id: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceUsed:
    """How much of one kind of evidence the evaluator had: ``seen`` whole or in part, ``missing``
    what is known to have been there and was redacted or not sent."""

    kind: str  # answers | prompts | tool inputs | tool results, or a plug-in's own word
    seen: int
    missing: int


@dataclass(frozen=True, slots=True)
class JudgementIdentity:
    """What makes two judgements comparable: scores of different identities are never mixed.

    ``config_digest`` covers whatever changes the outcome and is not in the code that ``version``
    names: weights, thresholds, a judge's model, prompt and rubric.
    """

    evaluator: str
    version: str
    config_digest: str


@dataclass(frozen=True, slots=True)
class Score:
    """One judgement of one session by one evaluator version.

    Exactly one of ``value`` and ``unscored_reason`` is given. ``coverage`` is the share of what
    the evaluator looked for that it had evidence to judge.
    """

    session_id: str
    evaluator: str
    evaluator_version: str
    value: float | None
    unscored_reason: str = ""
    coverage: float = 0.0
    findings: tuple[Finding, ...] = ()
    scored_at_us: int = 0
    input_digest: str = ""  # of what was read of the session: same digest, nothing to do again
    config_digest: str = ""
    evidence_used: tuple[EvidenceUsed, ...] = ()
    cost_microusd: int | None = 0  # of making this judgement; None where it is not known
    rows_digest: str = ""  # of the stored rows that the trace was read from; "" outside a lake
    inclusion_probability: float | None = None  # of being judged; None where all are

    def __post_init__(self) -> None:
        if (self.value is None) == (self.unscored_reason == ""):
            raise BadInput(
                "A score has either a value or a reason for having none.",
                why=f"value={self.value!r}, unscored_reason={self.unscored_reason!r}",
            )
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise BadInput(f"A score lies between 0 and 1, not at {self.value!r}.")

        if self.cost_microusd is not None and self.cost_microusd < 0:
            raise BadInput(f"A judgement can't cost {self.cost_microusd} micro-dollars.")

    @property
    def is_scored(self) -> bool:
        return self.value is not None

    @property
    def identity(self) -> JudgementIdentity:
        return JudgementIdentity(self.evaluator, self.evaluator_version, self.config_digest)
