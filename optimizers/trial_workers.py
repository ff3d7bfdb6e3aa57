"""Policies evaluated in processes of their own, as many at once as there are workers.

The search's process draws the policies and is the only writer of the study; workers hold the data
and give numbers back. A batch is answered in its own order, so that the same seed and number of
workers give the same trials.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from loop.domain.errors import TurnwiseError, Unavailable
from loop.domain.money import PriceBook
from loop.domain.policies import Publication, RoutingPolicy
from optimizers.objectives import Evaluation, SavingUnderQuality
from optimizers.off_policy import EstimationLimits, OutcomeLog
from optimizers.output_lengths import OutputLengths
from optimizers.replay import Replayer
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.turn_frame import TurnFrame

Evaluate = Callable[[Sequence[RoutingPolicy]], list[Evaluation]]
_LOSSES = 3
_GRACE_SECONDS = 5.0


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
    lengths: OutputLengths
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
            Replayer(self.train, self.price_book, self.assumptions, self.lengths),
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
    """Worker processes, each at the end of a pipe; one that is lost is replaced, a few times."""

    def __init__(self, path: Path, workers: int) -> None:
        self._path = path
        self._losses = 0
        self._workers = [_Worker(path) for _ in range(workers)]

    def evaluate(self, policies: Sequence[RoutingPolicy]) -> list[Evaluation]:
        count = len(self._workers)
        shares = [policies[place::count] for place in range(count)]
        for place, share in enumerate(shares):
            self._ask(place, share)
        found: list[Evaluation | None] = [None] * len(policies)
        for place, share in enumerate(shares):
            found[place::count] = self._answer(place, share)
        return [evaluation for evaluation in found if evaluation is not None]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def _ask(self, place: int, share: Sequence[RoutingPolicy]) -> None:
        # A worker that is gone already is found out when its answer is read.
        with suppress(OSError):
            self._workers[place].connection.send(share)

    def _answer(self, place: int, share: Sequence[RoutingPolicy]) -> list[Evaluation]:
        while True:
            try:
                answer = self._workers[place].connection.recv()
            except (EOFError, OSError) as error:
                self._losses += 1
                self._workers[place].close()
                if self._losses >= _LOSSES:
                    raise Unavailable(
                        f"The search lost its worker processes {self._losses} times.",
                        fix="Most often memory is short: use fewer workers.",
                    ) from error
                self._workers[place] = _Worker(self._path)
                self._ask(place, share)
                continue
            if isinstance(answer, TurnwiseError):
                raise answer
            evaluations: list[Evaluation] = answer
            return evaluations


class _Worker:
    """A process that answers lists of policies with lists of evaluations."""

    def __init__(self, path: Path) -> None:
        # Not forked: the service has threads, and a fork would copy their locks as they stand.
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, str(path)), daemon=True)
        self._process.start()
        theirs.close()

    def close(self) -> None:
        self.connection.close()
        self._process.join(_GRACE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


def _serve(connection: Connection, path: str) -> None:
    """A worker's whole life; it ends when the search's process closes its end or is gone."""
    # The file was written by the process that started this one, into a folder of its own.
    job: EvaluationJob = pickle.loads(Path(path).read_bytes())  # noqa: S301
    objective = job.objective()
    with suppress(EOFError, OSError):
        while True:
            policies: Sequence[RoutingPolicy] = connection.recv()
            try:
                connection.send([objective.evaluate(policy) for policy in policies])
            except TurnwiseError as error:
                connection.send(error)
