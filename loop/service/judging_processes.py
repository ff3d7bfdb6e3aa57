"""Processes that read and judge sessions, so that the service's own stays free for its callers.

They write nothing: what they find goes back to the process that asked, the one writer of scores.
Each ends when the pipe that it is asked through does, so with its parent, however that ends. What a
process fails at for whatever reason, the one that asked does by itself.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Protocol

from evaluators import default_evaluators
from evaluators.contract import Evaluator
from loop.domain.errors import TurnwiseError
from loop.domain.scores import JudgementIdentity
from loop.lake import Lake
from loop.lake.object_store import ObjectStore
from loop.service.session_judging import Judged, JudgingTask, judge_sessions, wanted_identities

logger = logging.getLogger("turnwise")
NICENESS = 5
"""What is received goes before what is judged."""
_GRACE_SECONDS = 5.0


class Judges(Protocol):
    """Those who judge: up to ``capacity`` tasks are asked before the first answer is taken."""

    @property
    def capacity(self) -> int: ...

    def ask(self, task: JudgingTask) -> None: ...

    def take(self) -> Judged:
        """The answer to the task that was asked first of those without one."""


class OwnProcess:
    """Judges where it is asked."""

    capacity = 1

    def __init__(self, lake: Lake, evaluators: Sequence[Evaluator]) -> None:
        self._lake = lake
        self._evaluators = evaluators
        self._tasks: deque[JudgingTask] = deque()

    def ask(self, task: JudgingTask) -> None:
        self._tasks.append(task)

    def take(self) -> Judged:
        return judge_sessions(self._lake, self._evaluators, self._tasks.popleft())


class JudgingProcesses:
    """Several processes by the installed evaluators. Not safe to use from several threads."""

    def __init__(self, lake: Lake, count: int) -> None:
        self._lake = lake
        self.capacity = count
        wanted = wanted_identities(default_evaluators())
        self._idle = deque(_Process(lake.store, wanted) for _ in range(count))
        self._asked: deque[tuple[JudgingTask, _Process | None]] = deque()

    def ask(self, task: JudgingTask) -> None:
        process = self._idle.popleft() if self._idle else None
        if process is not None and not process.send(task):
            process = None
        self._asked.append((task, process))

    def take(self) -> Judged:
        task, process = self._asked.popleft()
        answer = process.receive() if process is not None else None
        if answer is None or process is None:
            return judge_sessions(self._lake, default_evaluators(), task)
        self._idle.append(process)
        if isinstance(answer, TurnwiseError):
            raise answer
        return answer

    def close(self) -> None:
        for process in [*self._idle, *(process for _, process in self._asked)]:
            if process is not None:
                process.close()


@contextmanager
def judging_processes(lake: Lake, count: int) -> Iterator[JudgingProcesses]:
    processes = JudgingProcesses(lake, count)
    try:
        yield processes
    finally:
        processes.close()


class _Process:
    """One process at the end of a pipe; it closes by itself where it is lost."""

    def __init__(self, store: ObjectStore, wanted: Sequence[JudgementIdentity]) -> None:
        self._connection, theirs = Pipe()
        number = theirs.fileno()
        # -P: the folder that the service is started in must not lend its modules.
        command = [sys.executable, "-P", "-m", "loop.service.judging_processes", str(number)]
        self._process = subprocess.Popen(command, pass_fds=[number], stdin=subprocess.DEVNULL)
        theirs.close()
        self._send((store, tuple(wanted)))

    def send(self, task: JudgingTask) -> bool:
        """Whether it could be asked."""
        return self._send(task)

    def receive(self) -> Judged | TurnwiseError | None:
        """Its answer; ``None`` where it is lost."""
        try:
            answer: Judged | TurnwiseError = self._connection.recv()
        except (EOFError, OSError) as error:
            self._lose(error)
            return None
        return answer

    def close(self) -> None:
        """Ends it, whatever it is at: it holds nothing that is not in the lake."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _send(self, message: object) -> bool:
        try:
            self._connection.send(message)
        except OSError as error:
            self._lose(error)
            return False
        return True

    def _lose(self, error: Exception) -> None:
        logger.warning("a process that judges sessions is lost (%r); judging without it", error)
        self.close()


def main() -> None:
    """The whole life of a process; it ends when the one that asks closes its end or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends this one
    os.nice(NICENESS)
    with Connection(int(sys.argv[1])) as connection, suppress(EOFError, OSError):
        store, wanted = connection.recv()
        evaluators = default_evaluators()
        if wanted_identities(evaluators) != wanted:
            return  # what is installed was changed while the parent ran: it judges as it began
        lake = Lake.on(store)
        # Nothing here makes cycles in number, and each look for them goes over all texts.
        gc.freeze()
        gc.set_threshold(200_000, 20, 50)
        while True:
            task: JudgingTask = connection.recv()
            try:
                answer: Judged | TurnwiseError = judge_sessions(lake, evaluators, task)
            except TurnwiseError as error:
                answer = error
            connection.send(answer)


if __name__ == "__main__":
    main()
