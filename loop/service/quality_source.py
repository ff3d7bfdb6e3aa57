"""Which score counts as a session's quality, and whether it may.

The deterministic quality always may. A judge's score may only while its identity has agreed with
people enough (:mod:`evaluators.calibration.standing`); then sessions carry corrected values, whose
mean is what people would have said, not what the judge said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluators.calibration.prediction_powered import CorrectedMean
from evaluators.calibration.standing import (
    CalibrationLimits,
    Standing,
    judge_standings,
    judged_items,
    mean_of,
    rectified_sessions,
)
from evaluators.judge.requests import judge_identity
from evaluators.judge.rubrics import RUBRICS
from loop.domain.errors import BadInput
from loop.domain.estimates import Interval
from loop.domain.scores import QUALITY, QualityMeasure
from loop.lake import Lake
from loop.service import session_facts
from loop.service.assemble import Parts
from loop.service.settings import Settings
from routing_policies.rollout_records import CANARY, CONTROL, JudgeReading, SessionOutcome


def quality_measure(parts: Parts) -> QualityMeasure:
    """The measure that the settings name. Raises :class:`BadInput` for one that is none."""
    name = parts.settings.quality_measure
    if name == QUALITY:
        return QualityMeasure()
    standing = _standing(parts, name)
    if standing is None:
        return QualityMeasure(name, "", (f"{name} has judged nothing yet",))
    refusals = tuple(f"{name} may not decide anything: {why}" for why in standing.refusals)
    return QualityMeasure(name, standing.version, refusals)


def read_quality(parts: Parts, lake: Lake, measure: QualityMeasure) -> dict[str, float]:
    """The quality of every session that has one; of none where the measure may not be used.

    By a judge these are corrected values (``evaluators.calibration.prediction_powered.rectify``):
    single ones may lie outside [0, 1], their mean is right.
    """
    if measure.refusals:
        return {}
    if measure.evaluator == QUALITY:
        return session_facts.read_quality(lake)
    return _corrected(parts, measure)


def calibration_limits(settings: Settings) -> CalibrationLimits:
    return CalibrationLimits(
        min_kappa=settings.judge_min_kappa,
        min_labelled_sessions=settings.judge_min_labelled_sessions,
        max_flip_share=settings.judge_max_flip_share,
    )


def read_arms(parts: Parts, outcomes: Sequence[SessionOutcome]) -> JudgeReading | None:
    """What the judge that quality is measured by says of a rollout's canary and control; ``None``
    where quality is the deterministic one."""
    measure = quality_measure(parts)
    if measure.evaluator == QUALITY:
        return None
    if measure.refusals:
        return JudgeReading(measure)
    rubric = next(one for one in RUBRICS.values() if one.evaluator == measure.evaluator)
    calls = [
        call
        for call in parts.judge_calls.judged(rubric.name)
        if call.version == measure.version and call.purpose == "sample"
    ]
    labels = parts.labels.current(rubric.name)
    means, sessions = [], 0
    for arm in (CANARY, CONTROL):
        members = {outcome.session_id for outcome in outcomes if outcome.arm == arm}
        own = [call for call in calls if call.session_id in members]
        sessions += len({call.session_id for call in own})
        means.append(mean_of(judged_items(own, labels)))
    return JudgeReading(measure, _difference(means[0], means[1]), sessions)


def _difference(canary: CorrectedMean | None, control: CorrectedMean | None) -> Interval | None:
    """Of two independent means; the half widths add up as errors do."""
    if canary is None or control is None:
        return None
    estimate = canary.mean.estimate - control.mean.estimate
    half = math.hypot(*(one.mean.high - one.mean.estimate for one in (canary, control)))
    return Interval(estimate, estimate - half, estimate + half)


def _standing(parts: Parts, measure: str) -> Standing | None:
    """Of the identity that judges now: an earlier one's agreement says nothing of it."""
    rubric = next((one for one in RUBRICS.values() if one.evaluator == measure), None)
    if rubric is None:
        raise BadInput(
            f"TURNWISE_QUALITY_MEASURE={measure!r} is no measure of quality.",
            fix=f"One of {QUALITY}, {', '.join(one.evaluator for one in RUBRICS.values())}.",
        )
    identity = judge_identity(rubric, parts.settings.judge_model)
    calls = [c for c in parts.judge_calls.judged(rubric.name) if c.identity == identity.digest]
    labels = parts.labels.current(rubric.name)
    found = judge_standings(calls, labels, calibration_limits(parts.settings))
    return found[0] if found else None


def _corrected(parts: Parts, measure: QualityMeasure) -> dict[str, float]:
    rubric = next(one for one in RUBRICS.values() if one.evaluator == measure.evaluator)
    calls = [c for c in parts.judge_calls.judged(rubric.name) if c.version == measure.version]
    return rectified_sessions(calls, parts.labels.current(rubric.name))
