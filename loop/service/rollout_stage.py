"""Rollouts in the loop: what sessions came to, the controller's look, explorations, renewals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loop.domain.errors import BadInput, Conflict, NotFound, Refused, Unavailable
from loop.domain.lifecycle import Actor, ActorKind
from loop.domain.policies import BUCKETS, Publication
from loop.domain.scores import QUALITY
from loop.lake import Lake
from loop.service.assemble import Parts
from loop.service.settings import Settings
from routing_policies.rollout_records import (
    ArrivedDecisions,
    CostReference,
    JudgeReading,
    RolloutPlan,
    RolloutStatus,
    SessionOutcome,
)

logger = logging.getLogger("turnwise")
STABLE_ARM = "stable"
TOOL_USE = "tool_use"  # the evaluator
RENEWER = Actor(ActorKind.ROLLOUT, "renewal")
_OUTCOMES = """
WITH assigned AS (
    SELECT session_id, arg_min(arm, at_us) AS arm, arg_min(serial, at_us) AS serial,
        min(at_us) AS assigned_at_us, arg_min(gateway, at_us) AS gateway,
        count(DISTINCT decision_id) FILTER (upstream_status IS NOT NULL) AS gateway_answers,
        count(DISTINCT decision_id) FILTER (upstream_status >= 500) AS gateway_failures
    FROM decisions WHERE rollout_id = ? GROUP BY session_id
), spent AS (
    SELECT session_id,
        count(*) AS turns,
        count(*) FILTER (status = 'error') AS errors,
        count(*) FILTER (status = 'refused') AS refusals,
        CASE WHEN count(*) = count(cost_microusd) THEN CAST(sum(cost_microusd) AS BIGINT) END
            AS cost_microusd,
        avg(duration_ms) AS duration_ms, arg_min(developer, started_at_us) AS developer
    FROM turns WHERE session_id IN (SELECT session_id FROM assigned) GROUP BY session_id
), judged AS (
    SELECT session_id, any_value(value) FILTER (evaluator = ?) AS quality,
        any_value(value) FILTER (evaluator = ?) AS tool_use
    FROM scores WHERE session_id IN (SELECT session_id FROM assigned) GROUP BY session_id
)
SELECT assigned.*, coalesce(turns, 0) AS turns, coalesce(errors, 0) AS errors,
    coalesce(refusals, 0) AS refusals, cost_microusd, duration_ms,
    coalesce(developer, '') AS developer, quality, tool_use
FROM assigned LEFT JOIN spent USING (session_id) LEFT JOIN judged USING (session_id)
"""
_ARRIVED = """
SELECT instance, count(DISTINCT decision_id) AS decisions, max(at_us) AS newest_at_us
FROM decisions WHERE rollout_id = ? GROUP BY instance
"""
_COST_DAYS = 7
_COST_CAP_QUANTILE = 0.99
_MIN_COST_SESSIONS = 100
# Sessions whole and priced; the mean is of what is capped, as the test's outcomes are.
_COSTS = """
WITH spent AS (
    SELECT session_id, sum(cost_microusd) AS cost FROM turns WHERE started_at_us >= ?
    GROUP BY session_id HAVING count(*) = count(cost_microusd)
), capped AS (SELECT count(*) AS sessions, quantile_cont(cost, ?) AS cap FROM spent)
SELECT any_value(sessions) AS sessions, CAST(any_value(cap) AS DOUBLE) AS cap,
    CAST(avg(least(cost, cap)) AS DOUBLE) AS mean
FROM spent, capped
"""


def read_outcomes(lake: Lake, rollout_id: str) -> list[SessionOutcome]:
    """Every session that was decided within the rollout, with what is known of it by now."""
    rows = lake.query(_OUTCOMES, [rollout_id, QUALITY, TOOL_USE])
    return [SessionOutcome(rollout_id=rollout_id, **row) for row in rows]


def read_publications(parts: Parts) -> dict[int, Publication]:
    """Every publication of the channel, by serial."""
    records = parts.versions.publications(parts.settings.channel)
    return {record.publication.serial: record.publication for record in records}


def read_arrived(lake: Lake, rollout_id: str) -> ArrivedDecisions:
    """What has arrived of the gateways' log."""
    rows = lake.query(_ARRIVED, [rollout_id])
    return ArrivedDecisions(
        {row["instance"]: row["decisions"] for row in rows},
        max((row["newest_at_us"] for row in rows), default=0),
    )


def read_cost_reference(lake: Lake, now_us: int) -> CostReference | None:
    """What sessions of the last 7 days cost; ``None`` when fewer than 100 of them are priced."""
    since_us = now_us - _COST_DAYS * 86_400_000_000
    found = lake.query(_COSTS, [since_us, _COST_CAP_QUANTILE])
    if not found or (found[0]["sessions"] or 0) < _MIN_COST_SESSIONS or not found[0]["mean"]:
        return None
    return CostReference(found[0]["mean"], found[0]["cap"])


def plan_of(settings: Settings, changes: Mapping[str, Any] | None = None) -> RolloutPlan:
    """The plan that the settings write down, with ``changes`` to its document. Raises
    :class:`BadInput`."""
    try:
        percents = [float(stage) for stage in settings.rollout_stages]
    except ValueError as error:
        raise BadInput(
            f"TURNWISE_ROLLOUT_STAGES={','.join(settings.rollout_stages)!r} are no percents."
        ) from error
    plan = RolloutPlan(
        canary_weights=tuple(round(percent * BUCKETS / 100) for percent in percents),
        margin=settings.rollout_margin,
        stage_dwell_seconds=settings.rollout_dwell_seconds,
        maturation_seconds=settings.rollout_maturation_seconds,
        horizon_seconds=settings.rollout_horizon_seconds,
    )
    return RolloutPlan.from_document({**plan.to_document(), **(changes or {})})


def start_rollout(
    parts: Parts,
    version: int,
    actor: Actor,
    reason: str,
    *,
    changes: Mapping[str, Any] | None = None,
    override_quarantine: bool = False,
) -> RolloutStatus:
    """Starts a rollout under the plan of the settings, with ``changes`` to its document."""
    plan = plan_of(parts.settings, changes)
    if plan.others.cost is not None and plan.others.cost_reference is None:
        reference = read_cost_reference(parts.lake, parts.versions.now_us())
        plan = replace(plan, others=replace(plan.others, cost_reference=reference))
    return parts.rollouts.start(
        version, plan, actor, reason, override_quarantine=override_quarantine
    )


def roll_back_version(parts: Parts, version: int, actor: Actor, reason: str) -> None:
    parts.rollouts.roll_back_version(version, actor, reason)


def steer(parts: Parts, rollout_id: str, verb: str, actor: Actor, reason: str) -> RolloutStatus:
    """Pauses, resumes or rolls back. Raises :class:`NotFound` for another verb."""
    verbs: Mapping[str, Callable[[str, Actor, str], RolloutStatus]] = {
        "pause": parts.rollouts.pause,
        "resume": parts.rollouts.resume,
        "rollback": parts.rollouts.roll_back,
    }
    if verb not in verbs:
        raise NotFound(f"A rollout has no verb {verb!r}.", fix=f"One of {', '.join(verbs)}.")
    return verbs[verb](rollout_id, actor, reason)


def tick(parts: Parts) -> bool:
    """One look at every rollout that is not finished."""
    open_rollouts = parts.rollouts.open_rollouts()
    for status in open_rollouts:
        outcomes: list[SessionOutcome] | None
        arrived: ArrivedDecisions | None
        try:
            outcomes = read_outcomes(parts.lake, status.rollout_id)
            arrived = read_arrived(parts.lake, status.rollout_id)
        except Unavailable:
            outcomes = arrived = None  # the controller holds, and falls back when it lasts
        try:
            reading = _judge_of(parts, outcomes or ())
            looked = parts.rollouts.tick(status.rollout_id, outcomes, reading, arrived)
        except (Conflict, Unavailable) as error:
            logger.info("%s: %s; looking again later", status.rollout_id, error)
            continue
        parts.stage_log.record(
            "rollout",
            revision=0,
            at_us=time.time_ns() // 1000,
            done=1,
            note=f"{looked.rollout_id}: {looked.sentence}",
        )
    return False


def _judge_of(parts: Parts, outcomes: Sequence[SessionOutcome]) -> JudgeReading | None:
    if parts.settings.quality_measure == QUALITY:
        return None
    from loop.service.quality_source import read_arms  # the evaluators take long to load

    return read_arms(parts, outcomes)


def renew(parts: Parts) -> bool:
    """Publishes the same content again before the publication in force expires."""
    lifetime = parts.settings.publication_lifetime_seconds
    renewed = parts.versions.renew(parts.settings.channel, RENEWER, not_after_seconds=lifetime)
    return renewed is not None


def publish_exploration(
    parts: Parts, arms: Mapping[int, float], actor: Actor, reason: str
) -> Publication:
    """Publishes versions as random arms beside the active one, so that the log can answer.

    ``arms`` maps versions to their shares of sessions; the active version keeps the rest. Raises
    :class:`Refused` while a canary runs, :class:`BadInput` when nothing is left for the active one.
    """
    channel = parts.settings.channel
    canary = parts.versions.canary_version(channel)
    if canary is not None:
        raise Refused(
            f"Version {canary.version} is in canary: an exploration would end its comparison.",
            fix="Wait for its end.",
        )
    active = parts.versions.active_version(channel)
    if active is None:
        raise Conflict(f"Channel {channel} has no active version.")
    weights = {version: round(share * BUCKETS) for version, share in arms.items()}
    rest = BUCKETS - sum(weights.values())
    if rest <= 0 or active.version in weights:
        raise BadInput(
            f"The shares leave {rest / BUCKETS:.0%} of sessions for the active version.",
            fix="Name other versions than the active one, with shares that sum to less than 1.",
        )
    chosen = [(f"explore-{version}", weight, version) for version, weight in weights.items()]
    return parts.versions.publish(
        channel,
        [*chosen, (STABLE_ARM, rest, active.version)],
        salt=f"exploration-{parts.versions.current_serial(channel) + 1}",
        actor=actor,
        reason=reason,
        not_after_seconds=parts.settings.publication_lifetime_seconds,
    )
