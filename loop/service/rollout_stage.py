"""Rollouts in the loop: what sessions came to, the controller's look, explorations, renewals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from loop.domain.errors import BadInput, Conflict, NotFound, Refused, Unavailable
from loop.domain.lifecycle import Actor, ActorKind
from loop.domain.policies import BUCKETS, Publication
from loop.domain.scores import QUALITY
from loop.lake import Lake
from loop.service.assemble import Parts
from loop.service.settings import Settings
from routing_policies.rollout_records import (
    JudgeReading,
    RolloutPlan,
    RolloutStatus,
    SessionOutcome,
)

logger = logging.getLogger("turnwise")
STABLE_ARM = "stable"
RENEWER = Actor(ActorKind.ROLLOUT, "renewal")
_OUTCOMES = """
WITH assigned AS (
    SELECT session_id, arg_min(arm, at_us) AS arm, arg_min(serial, at_us) AS serial,
        min(at_us) AS assigned_at_us
    FROM decisions WHERE rollout_id = ? GROUP BY session_id
), spent AS (
    SELECT session_id,
        count(*) AS turns,
        count(*) FILTER (status = 'error') AS errors,
        count(*) FILTER (status = 'refused') AS refusals,
        CASE WHEN count(*) = count(cost_microusd) THEN CAST(sum(cost_microusd) AS BIGINT) END
            AS cost_microusd
    FROM turns WHERE session_id IN (SELECT session_id FROM assigned) GROUP BY session_id
), quality AS (
    SELECT session_id, value AS quality FROM scores WHERE evaluator = ?
)
SELECT assigned.*, coalesce(turns, 0) AS turns, coalesce(errors, 0) AS errors,
    coalesce(refusals, 0) AS refusals, cost_microusd, quality
FROM assigned LEFT JOIN spent USING (session_id) LEFT JOIN quality USING (session_id)
"""


def read_outcomes(lake: Lake, rollout_id: str) -> list[SessionOutcome]:
    """Every session that was decided within the rollout, with what is known of it by now."""
    rows = lake.query(_OUTCOMES, [rollout_id, QUALITY])
    return [SessionOutcome(rollout_id=rollout_id, **row) for row in rows]


def read_publications(parts: Parts) -> dict[int, Publication]:
    """Every publication of the channel, by serial."""
    records = parts.versions.publications(parts.settings.channel)
    return {record.publication.serial: record.publication for record in records}


def plan_of(settings: Settings) -> RolloutPlan:
    """The plan that the settings write down. Raises :class:`BadInput`."""
    try:
        percents = [float(stage) for stage in settings.rollout_stages]
    except ValueError as error:
        raise BadInput(
            f"TURNWISE_ROLLOUT_STAGES={','.join(settings.rollout_stages)!r} are no percents."
        ) from error
    return RolloutPlan(
        canary_weights=tuple(round(percent * BUCKETS / 100) for percent in percents),
        margin=settings.rollout_margin,
        stage_dwell_seconds=settings.rollout_dwell_seconds,
        maturation_seconds=settings.rollout_maturation_seconds,
        horizon_seconds=settings.rollout_horizon_seconds,
    )


def start_rollout(parts: Parts, version: int, actor: Actor, reason: str) -> RolloutStatus:
    return parts.rollouts.start(version, plan_of(parts.settings), actor, reason)


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
        try:
            outcomes = read_outcomes(parts.lake, status.rollout_id)
        except Unavailable:
            outcomes = None  # the controller holds, and falls back when it lasts
        try:
            reading = _judge_of(parts, outcomes or ())
            looked = parts.rollouts.tick(status.rollout_id, outcomes, reading)
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
