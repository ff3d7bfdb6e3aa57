"""Scores sessions that changed, and clusters those that went badly."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from evaluators import default_evaluators
from evaluators.contract import Evaluator
from evaluators.session_quality import quality_of
from loop.control.stage_progress import StageLog
from loop.domain.scores import Score
from loop.domain.turns import SessionTrace
from loop.lake import Lake

QUALITY = "quality"
QUALITY_VERSION = "1"
SESSIONS_PER_BATCH = 200
"""Bounds the memory of one pass: traces of so many sessions are held at a time."""


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    sessions: int
    unscored: int  # sessions without any scored value
    revision: int


def evaluate_changed(
    lake: Lake,
    stage_log: StageLog,
    *,
    evaluators: Sequence[Evaluator] = (),
    everything: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationReport:
    """Evaluates every session that changed since the last pass (or all), and writes the scores.

    The pass is idempotent: it can end at any point and be run again.
    """
    evaluators = evaluators or default_evaluators()
    progress = stage_log.read("evaluate")
    revision = lake.max_revision()
    session_ids = sorted(lake.sessions_changed_since(-1 if everything else progress.revision))
    done = unscored = 0
    for start in range(0, len(session_ids), SESSIONS_PER_BATCH):
        chunk = session_ids[start : start + SESSIONS_PER_BATCH]
        scores: list[Score] = []
        for trace in lake.load_traces(chunk):
            session_scores = evaluate_session(trace, evaluators)
            unscored += not session_scores[-1].is_scored
            scores += session_scores
        lake.write_scores(scores)
        done += len(chunk)
        on_progress(done, len(session_ids))
    if session_ids:
        now_us = time.time_ns() // 1000
        stage_log.record("evaluate", revision=revision, at_us=now_us, done=done)
    return EvaluationReport(done, unscored, revision)


def evaluate_session(trace: SessionTrace, evaluators: Sequence[Evaluator]) -> list[Score]:
    """The scores of each evaluator, and last their combination as ``quality``."""
    now_us = time.time_ns() // 1000
    digest = hashlib.sha256(repr(trace).encode()).hexdigest()[:16]
    scores = [
        replace(evaluator.evaluate(trace), scored_at_us=now_us, input_digest=digest)
        for evaluator in evaluators
    ]
    value = quality_of(scores)
    coverage = sum(score.is_scored for score in scores) / len(scores)
    quality = Score(
        session_id=trace.session_id,
        evaluator=QUALITY,
        evaluator_version=QUALITY_VERSION,
        value=value,
        unscored_reason="" if value is not None else "no evaluator could score this session",
        coverage=coverage,
        scored_at_us=now_us,
        input_digest=digest,
    )
    return [*scores, quality]
