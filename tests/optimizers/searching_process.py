"""A search in a process of its own, to be killed: ``python searching_process.py URL TRIALS``.

Prints the number of every trial that it has told to the study.
"""

from __future__ import annotations

import sys

from randomised_logs import HAIKU, OPUS, all_to, randomised_log
from turn_strategies import PRICES

from loop.domain.runs import OptimizationRun, Trial
from optimizers.routing_search import SearchSettings, search

SETTINGS = SearchSettings(quality_margin=0.1, min_cell_sessions=20, seed=5)


def run_search(
    url: str, settings: SearchSettings, progress: object = None, sessions: int = 240
) -> OptimizationRun:
    log = randomised_log(50, sessions)
    return search(
        log.frame,
        PRICES,
        incumbent=all_to(OPUS),
        models=(OPUS, HAIKU),
        publications=log.publications,
        session_quality=log.quality,
        settings=settings,
        run_id="run-a",
        study_url=url,
        progress=progress,  # type: ignore[arg-type]
    )


def _tell(trial: Trial) -> None:
    print(trial.number, flush=True)


if __name__ == "__main__":
    from dataclasses import replace

    run_search(sys.argv[1], replace(SETTINGS, trials=int(sys.argv[2])), _tell)
