"""Judges sessions of the lake by the evaluators, without writing anything.

What this module does to a task is the same in whichever process it is done.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evaluators.contract import Evaluator, digest_config, digest_trace, identity_of
from evaluators.registry import evaluate_safely
from evaluators.session_features import profile_session
from evaluators.session_quality import QUALITY_WEIGHTS, combine
from loop.domain.clusters import SessionProfile
from loop.domain.scores import QUALITY, JudgementIdentity, Score
from loop.domain.turns import SessionTrace
from loop.lake import Lake
from loop.lake.score_table import Judgement

QUALITY_VERSION = "1"


@dataclass(frozen=True, slots=True)
class JudgingTask:
    """Sessions to judge, what they were judged as before, and the digests of their rows."""

    rows_digests: Mapping[str, str]
    stored: Mapping[str, Mapping[str, Judgement]]


@dataclass(frozen=True, slots=True)
class Judged:
    """The scores that were missing. ``unchanged`` sessions had none to make; ``unscored`` ones have
    no quality, whether it was made now or before."""

    scores: list[Score]
    profiles: list[SessionProfile]
    unchanged: int
    unscored: int


def wanted_identities(evaluators: Sequence[Evaluator]) -> tuple[JudgementIdentity, ...]:
    """What each session is to be judged as: by each evaluator, and ``quality`` last."""
    return (*map(identity_of, evaluators), _quality_identity(evaluators))


def identity_key(identity: JudgementIdentity) -> list[str]:
    return [identity.evaluator, identity.version, identity.config_digest]


def is_unscored(stored: Mapping[str, Judgement]) -> bool:
    return QUALITY in stored and stored[QUALITY].value is None


def judge_sessions(lake: Lake, evaluators: Sequence[Evaluator], task: JudgingTask) -> Judged:
    """Reads the sessions and judges each by the evaluators that have not judged what is stored."""
    wanted = wanted_identities(evaluators)
    scores: list[Score] = []
    profiles: list[SessionProfile] = []
    unchanged = unscored = 0
    for trace in lake.load_traces(task.rows_digests):
        stored = task.stored.get(trace.session_id, {})
        made = _judge_anew(trace, evaluators, wanted, stored)
        unchanged += not made
        quality = made[-1].value if made else stored[QUALITY].value
        unscored += quality is None
        digest = task.rows_digests[trace.session_id]
        scores += [replace(score, rows_digest=digest) for score in made]
        if len(made) == len(wanted):
            # While the texts are at hand; the others are described by the clustering.
            at_us = made[-1].scored_at_us
            profiles.append(profile_session(trace, made, profiled_at_us=at_us))
    return Judged(scores, profiles, unchanged, unscored)


def _quality_identity(evaluators: Sequence[Evaluator]) -> JudgementIdentity:
    """Of the combined score: it changes with those that it combines."""
    combined = [
        identity_key(identity_of(evaluator))
        for evaluator in evaluators
        if evaluator.name in QUALITY_WEIGHTS
    ]
    return JudgementIdentity(QUALITY, QUALITY_VERSION, digest_config(QUALITY_WEIGHTS, combined))


def _judge_anew(
    trace: SessionTrace,
    evaluators: Sequence[Evaluator],
    wanted: Sequence[JudgementIdentity],
    stored: Mapping[str, Judgement],
) -> list[Score]:
    """The scores that are missing, with ``quality`` if any of them, or it, is."""
    digest = digest_trace(trace)

    def is_there(identity: JudgementIdentity) -> bool:
        judgement = stored.get(identity.evaluator)
        return (
            judgement is not None
            and judgement.identity == identity
            and judgement.input_digest == digest
        )

    now_us = time.time_ns() // 1000
    scores = [
        replace(evaluate_safely(evaluator, trace), scored_at_us=now_us)
        for evaluator, identity in zip(evaluators, wanted, strict=False)
        if not is_there(identity)
    ]
    if not scores and is_there(wanted[-1]):
        return []
    values: dict[str, float | None] = {evaluator.name: None for evaluator in evaluators}
    values |= {name: stored[name].value for name in values if name in stored}
    values |= {score.evaluator: score.value for score in scores}
    return [*scores, _combine(trace, values, wanted[-1], now_us)]


def _combine(
    trace: SessionTrace,
    values: Mapping[str, float | None],
    identity: JudgementIdentity,
    now_us: int,
) -> Score:
    value = combine(values)
    return Score(
        session_id=trace.session_id,
        evaluator=QUALITY,
        evaluator_version=identity.version,
        config_digest=identity.config_digest,
        value=value,
        unscored_reason="" if value is not None else "no evaluator could score this session",
        coverage=sum(value is not None for value in values.values()) / len(values),
        scored_at_us=now_us,
        input_digest=digest_trace(trace),
    )
