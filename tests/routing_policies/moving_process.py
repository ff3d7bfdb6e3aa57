"""A process that makes one transition and stops inside its transaction, to be killed there.

``python -m tests.routing_policies.moving_process DATABASE_URL NOW_US VERB OUTCOMES`` (a pickle).
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import event

from loop.control.store import connect
from loop.domain.lifecycle import State
from routing_policies.rollout import RolloutController
from routing_policies.rollout_records import SessionOutcome
from routing_policies.version_store import VersionStore
from tests.fakes.rollout_world import ANN, BOB, GATE, PLAN, policy_named

STOPPED = "inside the transaction"
Act = Callable[[VersionStore, RolloutController, Sequence[SessionOutcome]], Any]

# Of version 2, each from the state that the one before leaves.
ACTS: dict[str, Act] = {
    "propose": lambda store, _, __: store.propose(policy_named("candidate"), ANN),
    "gate": lambda store, _, __: store.move(2, State.GATE_PASSED, GATE, "fine"),
    "submit": lambda store, _, __: store.move(2, State.IN_REVIEW, ANN, "look"),
    "approve": lambda store, _, __: store.move(2, State.APPROVED, BOB, "fine", review_cycle=1),
    "start": lambda _, controller, __: controller.start(2, PLAN, BOB, "try it"),
    "pause": lambda _, controller, __: controller.pause("rollout-2", ANN, "wait"),
    "resume": lambda _, controller, __: controller.resume("rollout-2", ANN, "go on"),
    "look": lambda _, controller, outcomes: controller.tick("rollout-2", outcomes),
    "roll back": lambda _, controller, __: controller.roll_back("rollout-2", ANN, "enough"),
}


def stop_before_the_last_write(engine: Any, stdin: Any) -> None:
    """Moves write their record before the publication that belongs to them; whichever comes last
    in a transaction, the process waits before its commit."""
    writes = 0

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal writes
        moves = ("INSERT INTO policy_transitions", "INSERT INTO publications")
        writes += statement.startswith(moves)

    def commit(_connection: Any) -> None:
        if writes:
            print(STOPPED, flush=True)
            stdin.read()

    event.listen(engine, "before_cursor_execute", execute)
    event.listen(engine, "commit", commit)


if __name__ == "__main__":
    url, now_us, verb, outcomes_path = sys.argv[1:]
    engine = connect(url)
    store = VersionStore(engine, now_us=lambda: int(now_us))
    stop_before_the_last_write(engine, sys.stdin)
    ACTS[verb](store, RolloutController(store), pickle.loads(Path(outcomes_path).read_bytes()))
