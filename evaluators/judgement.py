"""What the evidence says of one claim."""

from __future__ import annotations

from dataclasses import dataclass

from evaluators.evidence import Step
from loop.domain.scores import FindingVerdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """``steps`` are the tool calls that it rests on."""

    verdict: FindingVerdict
    reason: str
    steps: tuple[Step, ...] = ()
