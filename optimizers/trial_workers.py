"""Policies evaluated in processes of their own, as many at once as there are workers.

The search's process draws the policies and is the only writer of the study; workers hold the data
and give numbers back. A batch is answered in its own order, so that the same seed and number of
workers give the same trials.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from loop.domain.errors import Unavailable
from loop.domain.money import PriceBook
from loop.domain.policies import Publication, RoutingPolicy
from optimizers.objectives import Evaluation, SavingUnderQuality
from optimizers.off_policy import EstimationLimits, OutcomeLog
from optimizers.replay import Replayer
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.turn_frame import TurnFrame

Evaluate = Callable[[Sequence[RoutingPolicy]], list[Evaluation]]
_LOSSES = 3


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationJob:
    """All that it takes to evaluate policies: cost on ``train``, quality on ``selection``,
    or on the ``unseen`` part of it for policies that ``train`` had a hand in.

    Without ``asks_quality`` cost alone counts.
    """

    train: TurnFrame
    selection: TurnFrame
    unseen: TurnFrame
    price_book: PriceBook
    assumptions: ReplayAssumptions
    incumbent: RoutingPolicy
    publications: Mapping[int, Publication]
    session_quality: Mapping[str, float]
    limits: EstimationLimits
    asks_quality: bool
    margin: float
    min_cell_sessions: int

    def objective(self) -> SavingUnderQuality:
        log, unseen = (
            OutcomeLog(part, self.publications, self.session_quality, self.incumbent, self.limits)
            if self.asks_quality
            else None
            for part in (self.selection, self.unseen)
        )
        return SavingUnderQuality(
            Replayer(self.train, self.price_book, self.assumptions),
            self.incumbent,
            log,
            unseen,
            self.margin,
            self.min_cell_sessions,
        )


@contextmanager
def evaluation_of(job: EvaluationJob, workers: int = 1) -> Iterator[Evaluate]:
    """Evaluates policies in this process, or in ``workers`` others when there are several."""
    if workers <= 1:
        objective = job.objective()
        yield lambda policies: [objective.evaluate(policy) for policy in policies]
        return
    with tempfile.TemporaryDirectory(prefix="turnwise-search-") as folder:
        path = Path(folder) / "job"
        path.write_bytes(pickle.dumps(job))
        pool = _Pool(path, workers)
        try:
            yield pool.evaluate
        finally:
            pool.close()


class _Pool:
    """Worker processes that are replaced when one is lost, a few times."""

    def __init__(self, path: Path, workers: int) -> None:
        self._path = path
        self._workers = workers
        self._losses = 0
        self._executor = self._start()

    def evaluate(self, policies: Sequence[RoutingPolicy]) -> list[Evaluation]:
        while True:
            try:
                return list(self._executor.map(_evaluate, policies))
            except (BrokenProcessPool, OSError) as error:
                # A pool that breaks while it starts another worker says so by an OSError.
                self._losses += 1
                self.close()
                if self._losses >= _LOSSES:
                    raise Unavailable(
                        f"The search lost its worker processes {self._losses} times.",
                        why=str(error),
                        fix="Most often memory is short: use fewer workers.",
                    ) from error
                self._executor = self._start()

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        # Not forked: the service has threads, and a fork would copy their locks as they stand.
        return ProcessPoolExecutor(
            self._workers, get_context("spawn"), initializer=_prepare, initargs=(str(self._path),)
        )


_objective: SavingUnderQuality | None = None  # of this worker process


def _prepare(path: str) -> None:
    global _objective
    # The file was written by the process that started this one, into a folder of its own.
    job: EvaluationJob = pickle.loads(Path(path).read_bytes())  # noqa: S301
    _objective = job.objective()


def _evaluate(policy: RoutingPolicy) -> Evaluation:
    if _objective is None:
        raise Unavailable("A worker was asked before it was ready.")
    return _objective.evaluate(policy)
