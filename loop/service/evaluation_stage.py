"""Scores sessions that changed, and clusters those that went badly."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from evaluators import default_evaluators
from evaluators.contract import Evaluator, digest_trace
from evaluators.registry import evaluate_safely
from evaluators.session_quality import quality_of
from loop.control.stage_progress import StageLog
from loop.domain.scores import QUALITY, Score
from loop.domain.turns import SessionTrace
from loop.lake import Lake

QUALITY_VERSION = "1"
SESSIONS_PER_BATCH = 200
"""Bounds the memory of one pass: traces of so many sessions are held at a time."""


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    sessions: int
    unscored: int  # sessions without any scored value
    revision: int
    unchanged: int = 0  # of ``sessions``: those whose scores were up to date


def evaluate_changed(
    lake: Lake,
    stage_log: StageLog,
    *,
    evaluators: Sequence[Evaluator] = (),
    everything: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationReport:
    """Evaluates every session that changed since the last pass (or all), and writes the scores.

    A session whose trace and evaluators are those of the scores that it has is not scored again,
    so the pass can end at any point, be run again, and costs only what is new.
    """
    evaluators = evaluators or default_evaluators()
    progress = stage_log.read("evaluate")
    revision = lake.max_revision()
    session_ids = sorted(lake.sessions_changed_since(-1 if everything else progress.revision))
    done = unscored = unchanged = 0
    for start in range(0, len(session_ids), SESSIONS_PER_BATCH):
        chunk = session_ids[start : start + SESSIONS_PER_BATCH]
        current = lake.scores_of(chunk)
        stored = _judgements(current)
        valueless = {s.session_id for s in current if s.evaluator == QUALITY and not s.is_scored}
        scores: list[Score] = []
        for trace in lake.load_traces(chunk):
            if _wanted(trace, evaluators) <= stored.get(trace.session_id, frozenset()):
                unchanged += 1
                unscored += trace.session_id in valueless
                continue
            session_scores = evaluate_session(trace, evaluators)
            unscored += not session_scores[-1].is_scored
            scores += session_scores
        lake.write_scores(scores)
        done += len(chunk)
        on_progress(done, len(session_ids))
    if session_ids:
        now_us = time.time_ns() // 1000
        stage_log.record("evaluate", revision=revision, at_us=now_us, done=done)
    return EvaluationReport(done, unscored, revision, unchanged)


_Judgement = tuple[str, str, str]  # evaluator, version, digest of the trace


def _judgements(scores: Collection[Score]) -> dict[str, set[_Judgement]]:
    found: dict[str, set[_Judgement]] = {}
    for score in scores:
        judgement = (score.evaluator, score.evaluator_version, score.input_digest)
        found.setdefault(score.session_id, set()).add(judgement)
    return found


def _wanted(trace: SessionTrace, evaluators: Sequence[Evaluator]) -> set[_Judgement]:
    digest = digest_trace(trace)
    named = [(evaluator.name, evaluator.version, digest) for evaluator in evaluators]
    return {*named, (QUALITY, QUALITY_VERSION, digest)}


def evaluate_session(trace: SessionTrace, evaluators: Sequence[Evaluator]) -> list[Score]:
    """The scores of each evaluator, and last their combination as ``quality``."""
    now_us = time.time_ns() // 1000
    scores = [
        replace(evaluate_safely(evaluator, trace), scored_at_us=now_us) for evaluator in evaluators
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
        input_digest=digest_trace(trace),
    )
    return [*scores, quality]
