"""Scores sessions that changed, or that an evaluator has not judged yet, and only those."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from evaluators import default_evaluators
from evaluators.contract import Evaluator, digest_config, digest_trace, identity_of
from evaluators.registry import evaluate_safely
from evaluators.session_features import profile_session
from evaluators.session_quality import QUALITY_WEIGHTS, combine
from loop.control.stage_progress import StageLog
from loop.domain.clusters import SessionProfile
from loop.domain.scores import QUALITY, JudgementIdentity, Score
from loop.domain.turns import SessionTrace
from loop.lake import Lake
from loop.lake.score_table import Judgement
from loop.lake.session_survey import SessionRows

QUALITY_VERSION = "1"
SURVEYED_SESSIONS = 5_000
"""Sessions of which sizes and judgements are held at a time; never their texts."""
BATCH_CHARS = 24_000_000
BATCH_TURNS = 12_000
"""Traces are held up to these sizes, or of one session: they bound the memory of a pass."""


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
    may_write: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationReport:
    """Evaluates every session that changed since the last pass (or all), and writes the scores.

    An evaluator judges a session only where it has not judged what is stored of it now under the
    same identity. So a pass can end at any point and be run again, costs only what is new, and a
    new version of one evaluator makes no other judge again. Where an identity is new, all sessions
    are looked at. ``may_write`` is entered for each batch, from reading the sessions to writing
    their scores; where it says no, the pass ends there and the next one does what is left.
    """
    evaluators = evaluators or default_evaluators()
    wanted = (*map(identity_of, evaluators), quality_identity(evaluators))
    known_as = f"judged as {digest_config([identity_key(identity) for identity in wanted])}"
    progress = stage_log.read("evaluate")
    # Read before the list of sessions: what is stored from here on is seen by the next pass.
    revision = lake.max_revision()
    everything = everything or progress.note != known_as
    session_ids = lake.sessions_changed_since(-1 if everything else progress.revision)
    done = unscored = unchanged = 0
    for start in range(0, len(session_ids), SURVEYED_SESSIONS):
        group = session_ids[start : start + SURVEYED_SESSIONS]
        judged = lake.judgements_of(group)
        surveyed = {rows.session_id: rows for rows in lake.survey(group)}
        stale = [
            rows
            for rows in surveyed.values()
            if not _is_judged(judged.get(rows.session_id, {}), wanted, rows)
        ]
        for batch in _batches(stale):
            with may_write() as allowed:
                if not allowed:
                    return EvaluationReport(done, unscored, progress.revision, unchanged)
                scores: list[Score] = []
                profiles: list[SessionProfile] = []
                for trace in lake.load_traces(batch):
                    stored = judged.setdefault(trace.session_id, {})
                    made = _judge_anew(trace, evaluators, wanted, stored)
                    unchanged += not made
                    rows = surveyed[trace.session_id]
                    scores += [replace(score, rows_digest=rows.digest) for score in made]
                    stored.update({score.evaluator: _judgement(score) for score in made})
                    if len(made) == len(wanted):
                        # While the texts are at hand; the others are described by the clustering.
                        at_us = made[-1].scored_at_us
                        profiles.append(profile_session(trace, made, profiled_at_us=at_us))
                lake.write_scores(scores)
                if profiles:
                    lake.write_profiles(profiles)
            done += len(batch)
            on_progress(done, len(session_ids))
        unchanged += len(surveyed) - len(stale)
        unscored += sum(_is_unscored(judged.get(session_id, {})) for session_id in surveyed)
        done = start + len(group)
        on_progress(done, len(session_ids))
    if session_ids or progress.note != known_as:
        now_us = time.time_ns() // 1000
        stage_log.record("evaluate", revision=revision, at_us=now_us, done=done, note=known_as)
    return EvaluationReport(done, unscored, revision, unchanged)


def quality_identity(evaluators: Sequence[Evaluator]) -> JudgementIdentity:
    """Of the combined score: it changes with those that it combines."""
    combined = [
        identity_key(identity_of(evaluator))
        for evaluator in evaluators
        if evaluator.name in QUALITY_WEIGHTS
    ]
    return JudgementIdentity(QUALITY, QUALITY_VERSION, digest_config(QUALITY_WEIGHTS, combined))


def identity_key(identity: JudgementIdentity) -> list[str]:
    return [identity.evaluator, identity.version, identity.config_digest]


def _is_judged(
    stored: Mapping[str, Judgement], wanted: Collection[JudgementIdentity], rows: SessionRows
) -> bool:
    """Whether each of the judgements wanted is there and was made of the rows as they are."""
    for identity in wanted:
        judgement = stored.get(identity.evaluator)
        if judgement is None or judgement.identity != identity:
            return False
        if judgement.rows_digest != rows.digest:
            return False
    return True


def _batches(stale: Sequence[SessionRows]) -> Iterator[list[str]]:
    batch: list[str] = []
    chars = turns = 0
    for rows in stale:
        if batch and (chars + rows.chars > BATCH_CHARS or turns + rows.turns > BATCH_TURNS):
            yield batch
            batch, chars, turns = [], 0, 0
        batch.append(rows.session_id)
        chars += rows.chars
        turns += rows.turns
    if batch:
        yield batch


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


def _judgement(score: Score) -> Judgement:
    return Judgement(score.identity, score.input_digest, score.rows_digest, score.value)


def _is_unscored(stored: Mapping[str, Judgement]) -> bool:
    return QUALITY in stored and stored[QUALITY].value is None
