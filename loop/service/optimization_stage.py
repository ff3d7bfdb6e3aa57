"""Searches and the gate in the loop: what they read, and what becomes of their results."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loop.domain.errors import BadInput, Refused, TurnwiseError
from loop.domain.estimates import PolicyEstimate
from loop.domain.lifecycle import Actor, ActorKind, State
from loop.domain.policies import Publication, RoutingPolicy
from loop.domain.runs import OptimizationRun, Trial
from loop.service.assemble import Parts
from loop.service.logged_turns import load_frame
from loop.service.session_facts import labels_of, read_quality, read_wait_seconds
from loop.service.settings import Settings
from optimizers.policy_estimates import estimate_policy
from optimizers.routing_search import SearchSettings, search
from optimizers.session_evidence import SessionEvidence
from routing_policies import review
from routing_policies.offline_gate import GateLimits, GateReport, judge_estimate
from routing_policies.version_store import AS_REQUESTED

logger = logging.getLogger("turnwise")
OPTIMIZER = "routing-search"
SAVE_EVERY_TRIALS = 10
MAX_TRIALS = 100_000


@dataclass(slots=True)
class _Options:
    trials: int
    seconds: float
    seed: int
    margin: float
    propose: bool
    trials_done: list[Trial] = field(default_factory=list)


def start_run(parts: Parts, document: Mapping[str, Any]) -> str:
    """Begins a search in a thread of its own and returns its id; its record shows how it goes.

    Raises :class:`BadInput` for an option that can't be used.
    """
    options = _read_options(document)
    run_id = f"run-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    begun = OptimizationRun(
        run_id=run_id,
        state="running",
        started_at_us=time.time_ns() // 1000,
        finished_at_us=None,
        seed=options.seed,
        incumbent=incumbent_of(parts),
        table_versions=parts.lake.versions(),
        trials=(),
        found=None,
        outcome="searching",
    )
    parts.runs.save(begun)
    worker = threading.Thread(target=_run, args=(parts, begun, options), name=run_id, daemon=True)
    worker.start()
    return run_id


def incumbent_of(parts: Parts) -> RoutingPolicy:
    """The policy in force for those outside of any exploration or canary."""
    active = parts.versions.active_version(parts.settings.channel)
    return active.policy if active else AS_REQUESTED


def read_publications(parts: Parts) -> dict[int, Publication]:
    records = parts.versions.publications(parts.settings.channel)
    return {record.publication.serial: record.publication for record in records}


def gate_version(parts: Parts, version: int) -> GateReport:
    """Judges a version, records the verdict, and hands what passed to review.

    What a search proposed is judged on its untouched later sessions, anything else on the whole
    log. Where the settings hold an approval rule, it decides on what passed; otherwise, and where
    it objects, a person does.
    """
    record = parts.versions.get(version)
    estimate = _estimate_for_gate(parts, record.policy, record.run_id)
    report = judge_estimate(estimate, gate_limits(parts.settings))
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


def gate_limits(settings: Settings) -> GateLimits:
    return GateLimits(
        max_quality_loss=settings.gate_max_quality_loss,
        min_effective_sample_size=settings.gate_min_effective_sample_size,
        min_saving_share=settings.gate_min_saving_share,
        min_sessions=settings.gate_min_sessions,
    )


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


def _estimate_for_gate(parts: Parts, policy: RoutingPolicy, run_id: str) -> PolicyEstimate:
    if run_id:
        run = parts.runs.load(run_id)
        if run.found == policy and run.test is not None:
            return run.test
    frame = load_frame(parts)
    incumbent = incumbent_of(parts)
    evidence = SessionEvidence(
        frame,
        read_publications(parts),
        read_quality(parts.lake),
        incumbent,
        wait_seconds=read_wait_seconds(parts.lake),
        labels=labels_of(parts.lake),
    )
    return estimate_policy(policy, frame, parts.price_book, incumbent=incumbent, evidence=evidence)


def _run(parts: Parts, begun: OptimizationRun, options: _Options) -> None:
    try:
        finished = _search(parts, begun, options)
        for estimate in (finished.selection, finished.test):
            if estimate is not None:
                parts.lake.write_estimate(finished.run_id, estimate)
        if options.propose and finished.found is not None:
            parts.versions.propose(
                finished.found,
                Actor(ActorKind.OPTIMIZER, OPTIMIZER),
                run_id=finished.run_id,
                channel=parts.settings.channel,
            )
        # Last: who sees the run finished finds what came of it, too.
        parts.runs.save(finished)
        parts.stage_log.record(
            "optimize", revision=0, at_us=time.time_ns() // 1000, done=1, note=finished.outcome
        )
    except TurnwiseError as error:
        _record_failure(parts, begun, str(error))
    except Exception as error:
        # The edge of a thread: without this the run would seem to go on for ever.
        _record_failure(parts, begun, f"{type(error).__name__}: {error}")
        raise


def _record_failure(parts: Parts, begun: OptimizationRun, why: str) -> None:
    now_us = time.time_ns() // 1000
    parts.runs.save(replace(begun, state="failed", finished_at_us=now_us, outcome=why))


def _search(parts: Parts, begun: OptimizationRun, options: _Options) -> OptimizationRun:
    def note(trial: Trial) -> None:
        options.trials_done.append(trial)
        if len(options.trials_done) % SAVE_EVERY_TRIALS == 0:
            parts.runs.save(replace(begun, trials=tuple(options.trials_done)))

    lake = parts.lake.at(begun.table_versions)
    return search(
        load_frame(parts, versions=begun.table_versions),
        parts.price_book,
        incumbent=begun.incumbent,
        publications=read_publications(parts),
        session_quality=read_quality(lake),
        session_wait_seconds=read_wait_seconds(lake),
        session_labels=labels_of(lake),
        settings=SearchSettings(
            trials=options.trials,
            seconds=options.seconds,
            seed=options.seed,
            quality_margin=options.margin,
        ),
        run_id=begun.run_id,
        table_versions=begun.table_versions,
        progress=note,
    )


def _read_options(document: Mapping[str, Any]) -> _Options:
    def number(name: str, default: float, low: float, high: float) -> float:
        value = document.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(f"{name} must be a number, not {value!r}.")
        if not low <= value <= high:
            raise BadInput(f"{name} must lie between {low:g} and {high:g}.")
        return value

    def whole(name: str, default: int, low: int, high: int) -> int:
        value = number(name, default, low, high)
        if value != int(value):
            raise BadInput(f"{name} must be a whole number, not {value!r}.")
        return int(value)

    propose = document.get("propose", False)
    if not isinstance(propose, bool):
        raise BadInput(f"propose must be true or false, not {propose!r}.")
    return _Options(
        trials=whole("trials", 200, 1, MAX_TRIALS),
        seconds=float(number("seconds", 300.0, 0.1, 86_400)),
        seed=whole("seed", 0, 0, 2**31 - 1),
        margin=float(number("margin", 0.02, 0.0, 1.0)),
        propose=propose,
    )
