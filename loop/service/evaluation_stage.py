"""Scores sessions that changed, or that an evaluator has not judged yet, and only those."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass

from evaluators import default_evaluators
from evaluators.contract import Evaluator, digest_config
from loop.control.stage_progress import StageLog
from loop.domain.errors import Unavailable
from loop.domain.scores import JudgementIdentity
from loop.lake import Lake
from loop.lake.score_table import Judgement
from loop.lake.session_survey import SessionRows
from loop.service.assemble import Parts
from loop.service.judging_processes import Judges, OwnProcess, judging_processes
from loop.service.maintenance import writing_allowed
from loop.service.session_judging import (
    Judged,
    JudgingTask,
    identity_key,
    is_unscored,
    wanted_identities,
)

SURVEYED_SESSIONS = 2_000
"""Sessions of which sizes and judgements are held at a time; never their texts."""
BATCH_CHARS = 24_000_000
BATCH_TURNS = 12_000
"""Traces are held up to these sizes, shared by the processes, or of one session in each: they bound
the memory of a pass."""
SHARED_TURNS = 10_000
"""Fewer turns to judge, by the first sessions looked at, are not worth the start of processes."""


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    sessions: int
    unscored: int  # sessions without any scored value
    revision: int
    unchanged: int = 0  # of ``sessions``: those whose scores were up to date


def evaluate(parts: Parts, *, everything: bool = False) -> EvaluationReport:
    """:func:`evaluate_changed` as the service does it: not while the lake is maintained, and no
    further than the batches on their way once the service is to stop."""

    def may_write() -> AbstractContextManager[bool]:
        if parts.stopping.is_set():
            return nullcontext(False)
        return writing_allowed(parts.settings.data_dir)

    with parts.work.running("evaluation"):
        return evaluate_changed(
            parts.lake,
            parts.stage_log,
            everything=everything,
            processes=parts.settings.evaluate_processes,
            may_write=may_write,
            on_progress=parts.work.note_count("sessions"),
        )


def evaluate_changed(
    lake: Lake,
    stage_log: StageLog,
    *,
    evaluators: Sequence[Evaluator] = (),
    everything: bool = False,
    processes: int = 1,
    may_write: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EvaluationReport:
    """Evaluates every session that changed since the last pass (or all), and writes the scores.

    An evaluator judges a session only where it has not judged what is stored of it now under the
    same identity. So a pass can end at any point and be run again, costs only what is new, and a
    new version of one evaluator makes no other judge again. Where an identity is new, all sessions
    are looked at. ``may_write`` is entered for each batch, from reading the sessions to writing
    their scores; where it says no, the pass ends there and the next one does what is left. With
    several ``processes`` much work is shared by so many, which judge by the installed evaluators
    (not by ``evaluators``, where those are given); this one alone writes.

    Raises :class:`Unavailable` where no evaluator is installed.
    """
    judges = evaluators or default_evaluators()
    if not judges:
        raise Unavailable(
            "No evaluator is installed, so nothing can be scored.",
            why="This environment names none under turnwise.evaluators: it was made by a version "
            "before evaluators were entry points, or not by installing turnwise.",
            fix="Install turnwise into it again, then start the service again.",
        )
    wanted = wanted_identities(judges)
    known_as = f"judged as {digest_config([identity_key(identity) for identity in wanted])}"
    progress = stage_log.read("evaluate")
    # Read before the list of sessions: what is stored from here on is seen by the next pass.
    revision = lake.max_revision()
    everything = everything or progress.note != known_as
    session_ids = lake.sessions_changed_since(-1 if everything else progress.revision)
    shared_by = 1 if evaluators else processes
    with ExitStack() as open_until_the_end:
        done = _Pass(lake, OwnProcess(lake, judges), len(session_ids), may_write, on_progress)
        open_until_the_end.callback(done.release)
        for start in range(0, len(session_ids), SURVEYED_SESSIONS):
            group = session_ids[start : start + SURVEYED_SESSIONS]
            judged = lake.judgements_of(group)
            stale = done.pass_over(group, judged, lake.survey(group), wanted)
            turns = sum(rows.turns for rows in stale)
            if shared_by > 1 and turns * (len(session_ids) - start) >= SHARED_TURNS * len(group):
                done.finish()
                done.judges = open_until_the_end.enter_context(judging_processes(lake, shared_by))
                shared_by = 1
            for batch in _batches(stale, done.judges.capacity):
                if not done.judge(batch, judged):
                    done.finish()
                    return done.report(progress.revision)
        done.finish()
    if session_ids or progress.note != known_as:
        now_us = time.time_ns() // 1000
        stage_log.record(
            "evaluate", revision=revision, at_us=now_us, done=done.sessions, note=known_as
        )
    return done.report(revision)


class _Pass:
    """The batches on their way, each in its block of writing, and what became of all before."""

    def __init__(
        self,
        lake: Lake,
        judges: Judges,
        total: int,
        may_write: Callable[[], AbstractContextManager[bool]],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.judges = judges
        self.sessions = 0
        self._lake = lake
        self._total = total
        self._may_write = may_write
        self._on_progress = on_progress
        self._unscored = self._unchanged = 0
        self._waiting: deque[tuple[int, ExitStack]] = deque()

    def pass_over(
        self,
        group: Sequence[str],
        judged: Mapping[str, Mapping[str, Judgement]],
        survey: Sequence[SessionRows],
        wanted: Collection[JudgementIdentity],
    ) -> list[SessionRows]:
        """Counts the sessions that need nothing, and returns the others."""
        stale = []
        for rows in survey:
            stored = judged.get(rows.session_id, {})
            if _is_judged(stored, wanted, rows):
                self._unchanged += 1
                self._unscored += is_unscored(stored)
            else:
                stale.append(rows)
        if len(stale) < len(group):
            self._count(len(group) - len(stale))
        return stale

    def judge(
        self, batch: Sequence[SessionRows], judged: Mapping[str, Mapping[str, Judgement]]
    ) -> bool:
        """Lets a batch be judged, and writes one before it where all are busy; whether it may."""
        task = JudgingTask(
            {rows.session_id: rows.digest for rows in batch},
            {rows.session_id: judged.get(rows.session_id, {}) for rows in batch},
        )
        answer = self._take() if len(self._waiting) >= self.judges.capacity else None
        with ExitStack() as block:
            allowed = block.enter_context(self._may_write())
            if allowed:
                self.judges.ask(task)  # before the other is written: so nobody waits for that
                self._waiting.append((len(batch), block.pop_all()))
        if answer:
            self._write(*answer)
        return allowed

    def finish(self) -> None:
        """Waits for the batches on their way and writes them."""
        while self._waiting:
            self._write(*self._take())

    def release(self) -> None:
        """Ends the blocks that a failure left open."""
        while self._waiting:
            self._waiting.popleft()[1].close()

    def report(self, revision: int) -> EvaluationReport:
        return EvaluationReport(self.sessions, self._unscored, revision, self._unchanged)

    def _take(self) -> tuple[int, ExitStack, Judged]:
        judged = self.judges.take()
        return (*self._waiting.popleft(), judged)

    def _write(self, sessions: int, block: ExitStack, judged: Judged) -> None:
        with block:
            self._lake.write_scores(judged.scores)
            if judged.profiles:
                self._lake.write_profiles(judged.profiles)
        self._unchanged += judged.unchanged
        self._unscored += judged.unscored
        self._count(sessions)

    def _count(self, sessions: int) -> None:
        self.sessions += sessions
        self._on_progress(self.sessions, self._total)


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


def _batches(stale: Sequence[SessionRows], shared_by: int) -> Iterator[list[SessionRows]]:
    batch: list[SessionRows] = []
    chars = turns = 0
    most_chars, most_turns = BATCH_CHARS // shared_by, BATCH_TURNS // shared_by
    for rows in stale:
        if batch and (chars + rows.chars > most_chars or turns + rows.turns > most_turns):
            yield batch
            batch, chars, turns = [], 0, 0
        batch.append(rows)
        chars += rows.chars
        turns += rows.turns
    if batch:
        yield batch
