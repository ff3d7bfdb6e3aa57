"""The offline gate in the loop: what it judges a version on, and what becomes of the verdict."""

from __future__ import annotations

import logging

from loop.domain.errors import Refused
from loop.domain.estimates import PolicyEstimate
from loop.domain.lifecycle import State
from loop.domain.policies import RoutingPolicy
from loop.service.assemble import Parts
from loop.service.gate_limits import GateRules, read_gate_rules
from loop.service.logged_turns import load_frame
from loop.service.optimization_stage import incumbent_of
from loop.service.quality_source import quality_measure, read_quality
from loop.service.rollout_stage import read_publications
from loop.service.session_facts import labels_of, read_wait_seconds
from loop.service.settings import Settings
from optimizers.assignment_log import with_set_efforts
from optimizers.output_lengths import fit_output_lengths
from optimizers.policy_estimates import estimate_policy
from optimizers.session_evidence import SessionEvidence
from routing_policies import review
from routing_policies.offline_gate import GateReport, judge_estimate

logger = logging.getLogger("turnwise")


def gate_version(parts: Parts, version: int) -> GateReport:
    """Judges a version, records the verdict, and hands what passed to review.

    What a search proposed is judged on its untouched later sessions, anything else on the whole
    log. Where the settings hold an approval rule, it decides on what passed; otherwise, and where
    it objects, a person does.
    """
    record = parts.versions.get(version)
    rules = read_gate_rules(parts.settings)
    estimate = _estimate_for_gate(parts, record.policy, record.run_id, rules)
    report = judge_estimate(estimate, rules.limits, rules.by_path, quality_measure(parts))
    if report.verdict == "inconclusive" and record.state is State.GATE_INCONCLUSIVE:
        return report  # nothing new to record
    review.record_gate(parts.versions, version, report)
    if report.verdict == "passed":
        cycle = review.submit(parts.versions, version, review.GATE, "the gate passed it")
        rule = approval_rule(parts.settings)
        if rule is not None:
            try:
                review.approve_by_rule(
                    parts.versions,
                    version,
                    rule,
                    report=report,
                    estimate=estimate,
                    review_cycle=cycle,
                )
            except Refused as refusal:
                logger.info("%s", refusal)
    return report


def approval_rule(settings: Settings) -> review.AutoApprovalRule | None:
    """The written rule of the settings; ``None`` when nobody answers for one."""
    if not settings.auto_approve_written_by:
        return None
    return review.AutoApprovalRule(
        name="settings",
        written_by=settings.auto_approve_written_by,
        min_saving_share=settings.auto_approve_min_saving_share,
        min_quality_low=-settings.auto_approve_max_quality_loss,
    )


def _estimate_for_gate(
    parts: Parts, policy: RoutingPolicy, run_id: str, rules: GateRules
) -> PolicyEstimate:
    if run_id:
        run = parts.runs.load(run_id)
        looked_at = {part.name for part in run.test.slices} if run.test else set()
        if run.found == policy and run.test is not None and looked_at >= set(rules.by_path):
            return run.test
    publications = read_publications(parts)
    frame = with_set_efforts(load_frame(parts), publications)
    incumbent = incumbent_of(parts)
    evidence = SessionEvidence(
        frame,
        publications,
        read_quality(parts, parts.lake, quality_measure(parts)),
        incumbent,
        wait_seconds=read_wait_seconds(parts.lake),
        labels=labels_of(parts.lake),
    )
    return estimate_policy(
        policy,
        frame,
        parts.price_book,
        incumbent=incumbent,
        evidence=evidence,
        lengths=fit_output_lengths(frame, publications),
        org_paths=tuple(rules.by_path),
    )
