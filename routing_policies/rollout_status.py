"""A rollout as people and pages see it."""

from __future__ import annotations

from collections.abc import Sequence

from routing_policies.acknowledgements import Acknowledgement
from routing_policies.rollout_records import RolloutStatus, Step, StepKind
from routing_policies.rollout_standing import Standing, gateways_against

_VERBS: dict[StepKind, str] = {
    "wait": "waiting",
    "hold": "holding",
    "advance": "advancing",
    "promote": "promoting",
    "roll_back": "rolling back",
}


def status_of(
    standing: Standing, acknowledgements: Sequence[Acknowledgement], now_us: int
) -> RolloutStatus:
    """Everything about one rollout, from what is recorded."""
    row, end = standing.row, standing.end
    serial = standing.final_serial if standing.has_ended else standing.stage_serial
    completed_at_us = standing.completed_at_us
    sentence = row.sentence
    if end is not None:
        tail = "" if completed_at_us else "; waiting for the gateways to acknowledge"
        sentence = f"{standing.state.replace('_', ' ')}: {end.reason}{tail}"
    elif standing.pause:
        sentence = sentence_of(standing, Step("hold", standing.pause))
    return RolloutStatus(
        rollout_id=row.rollout_id,
        channel=row.channel,
        version=row.version,
        stable_version=standing.stable_version,
        state=standing.state,
        finished=standing.has_ended and completed_at_us is not None,
        stage=standing.stage + 1,
        canary_weights=row.plan.canary_weights,
        sentence=sentence,
        step=row.step,
        plan=row.plan.to_document(),
        started_by=str(row.started_by),
        started_at_us=standing.started_at_us,
        stage_started_at_us=standing.stage_started_at_us,
        ended_at_us=end.at_us if end else None,
        end_reason=end.reason if end else "",
        completed_at_us=completed_at_us,
        looked_at_us=row.looked_at_us,
        gateways=gateways_against(serial, acknowledgements, row.plan, now_us),
        report=row.report,
        log=standing.log(),
    )


def sentence_of(standing: Standing, step: Step) -> str:
    """A look in one sentence: the stage, what is done, and why."""
    plan, stage = standing.row.plan, standing.stage
    return (
        f"stage {stage + 1} of {len(plan.canary_weights)} "
        f"({plan.canary_weights[stage] / 100:g} % canary), {_VERBS[step.kind]}: {step.reason}"
    )
