"""What the evidence says of one claim."""

from __future__ import annotations

from dataclasses import dataclass

from evaluators.evidence import SessionEvidence, Step
from loop.domain.scores import FindingVerdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """``steps`` are the tool calls that it rests on."""

    verdict: FindingVerdict
    reason: str
    steps: tuple[Step, ...] = ()


def unless_gap(evidence: SessionEvidence, after: int, before: int, found: Judgement) -> Judgement:
    """``found``, unless something between the two positions was not seen."""
    if evidence.has_gap(after, before):
        return Judgement(
            "not_checkable",
            "Something in between was not seen (a redacted command, a call without an event, a "
            "subagent outside the trace).",
            found.steps,
        )
    return found
