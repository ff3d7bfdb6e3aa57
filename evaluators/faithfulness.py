"""Faithfulness: does what the assistant says agree with what its tools returned?

Claims that can be checked (``claims``) against the tool results before them
(``claim_evidence``). High-precision flags, no general detector of untruth: what the grammar
doesn't know is not judged.
"""

from __future__ import annotations

from evaluators.claim_evidence import judge_claim
from evaluators.claims import read_claims
from evaluators.contract import digest_config, scored, unscored
from evaluators.session_evidence import read_evidence
from evaluators.text_language import is_foreign
from loop.domain.scores import Finding, FindingVerdict, Score
from loop.domain.turns import SessionTrace

# What a claim of each verdict costs, as a share of its weight.
PENALTIES: dict[FindingVerdict, float] = {
    "supported": 0.0,
    "narrow": 0.25,
    "unverified": 0.5,
    "stale": 0.6,
    "contradicted": 1.0,
}
FINAL_WEIGHT = 1.0  # a claim in the last text before the human speaks: what the human is told
INTERIM_WEIGHT = 0.5  # a claim on the way, which later work may overtake
OTHER_LANGUAGE = "a text in another language"
READ_ONLY = "The claims of English texts are read, and of no others."
NOT_ENGLISH = "The texts are in another language than English."


class Faithfulness:
    """1 minus the weighted share of claims that the evidence doesn't bear out.

    Unscored without a readable text, without a checkable claim, or without any tool result.
    Coverage is the checkable share of the claims' weight.
    """

    name = "faithfulness"
    version = "3"
    config_digest = digest_config(PENALTIES, FINAL_WEIGHT, INTERIM_WEIGHT)

    def evaluate(self, trace: SessionTrace) -> Score:
        evidence = read_evidence(trace)
        if not evidence.statements:
            reason = (
                "The assistant's texts are redacted."
                if evidence.texts_hidden
                else "No text of the assistant was seen."
            )
            return unscored(self, trace, reason)
        findings: list[Finding] = []
        total = checkable = lost = 0.0
        for statement in evidence.statements:
            claims = read_claims(statement.text)
            weight = FINAL_WEIGHT if statement.is_last else INTERIM_WEIGHT
            if not claims and statement.is_last and is_foreign(statement.text):
                findings.append(
                    Finding("not_checkable", OTHER_LANGUAGE, READ_ONLY, statement.turn_id)
                )
                total += weight
            for claim in claims:
                judged = judge_claim(claim, statement, evidence)
                findings.append(
                    Finding(
                        judged.verdict,
                        claim.words,
                        judged.reason,
                        statement.turn_id,
                        tuple(step.tool.call.tool_use_id or step.turn_id for step in judged.steps),
                    )
                )
                total += weight
                penalty = PENALTIES.get(judged.verdict)
                if penalty is not None:
                    checkable += weight
                    lost += weight * penalty
        if not findings:
            return unscored(self, trace, "No claim that tool results could bear out.")
        if not evidence.steps:
            return unscored(
                self, trace, "No tool result to check the claims against.", findings=findings
            )
        if not checkable:
            foreign = all(finding.claim == OTHER_LANGUAGE for finding in findings)
            reason = NOT_ENGLISH if foreign else "The evidence for every claim is missing."
            return unscored(self, trace, reason, findings=findings)
        return scored(
            self,
            trace,
            1.0 - lost / checkable,
            coverage=checkable / total,
            findings=findings,
        )
