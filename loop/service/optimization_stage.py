"""Searches in the loop: what they read, what becomes of their results, and how they go on after
the process that ran them is gone."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from loop.domain.errors import BadInput, TurnwiseError
from loop.domain.lifecycle import Actor, ActorKind
from loop.domain.policies import RoutingPolicy
from loop.domain.runs import OptimizationRun, Trial
from loop.service.assemble import Parts
from loop.service.cluster_scopes import scope_of_cluster
from loop.service.gate_limits import read_gate_rules
from loop.service.logged_turns import load_frame
from loop.service.quality_source import quality_measure, read_quality
from loop.service.rollout_stage import read_publications
from loop.service.session_facts import labels_of, read_wait_seconds
from optimizers.routing_search import SearchSettings, search
from optimizers.search_scopes import SearchScope
from optimizers.studies import SAMPLERS, SamplerName
from routing_policies.version_store import AS_REQUESTED

logger = logging.getLogger("turnwise")
OPTIMIZER = "routing-search"
SAVE_EVERY_TRIALS = 10
MAX_TRIALS = 100_000
ALIVE_EVERY_SECONDS = 10.0


@dataclass(slots=True)
class _Options:
    document: Mapping[str, Any]
    propose: bool
    trials: int
    seconds: float
    seed: int
    margin: float
    sampler: SamplerName
    patience: int
    max_usd: float
    min_cell_sessions: int
    cluster: str = ""
    trials_done: list[Trial] = field(default_factory=list)

    def settings(self, parts: Parts, scope: SearchScope | None = None) -> SearchSettings:
        return SearchSettings(
            trials=self.trials,
            seconds=self.seconds,
            seed=self.seed,
            sampler=self.sampler,
            workers=parts.settings.optimize_workers,
            patience=self.patience,
            max_usd=self.max_usd,
            usd_per_worker_hour=parts.settings.optimize_usd_per_worker_hour,
            quality_margin=self.margin,
            min_cell_sessions=self.min_cell_sessions,
            scope=scope,
        )


def start_run(parts: Parts, document: Mapping[str, Any]) -> str:
    """Begins a search in a thread of its own and returns its id; its record shows how it goes.

    Raises :class:`BadInput` for an option that can't be used, and :class:`NotFound` or
    :class:`Refused` for a cluster that can't be a scope.
    """
    options = _read_options(document)
    scope = scope_of_cluster(parts.lake, options.cluster) if options.cluster else None
    run_id = f"run-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    begun = OptimizationRun(
        run_id=run_id,
        state="running",
        started_at_us=_now_us(),
        finished_at_us=None,
        seed=options.seed,
        incumbent=incumbent_of(parts),
        table_versions=parts.lake.versions(),
        trials=(),
        found=None,
        outcome="searching",
        settings=options.settings(parts, scope).to_document(),
    )
    parts.runs.begin(begun, options.document, _now_us())
    _start(parts, begun, options)
    return run_id


def resume_runs(parts: Parts) -> bool:
    """Goes on with a run whose process has been silent for a minute, on the table versions and
    with the study that it had; whether there was one."""
    taken = parts.runs.take_over(_now_us())
    if taken is None:
        return False
    run_id, document = taken
    logger.warning("the run %s was cut off; going on with it", run_id)
    _start(parts, parts.runs.load(run_id), _read_options(document))
    return True


def incumbent_of(parts: Parts) -> RoutingPolicy:
    """The policy in force for those outside of any exploration or canary."""
    active = parts.versions.active_version(parts.settings.channel)
    return active.policy if active else AS_REQUESTED


def _start(parts: Parts, begun: OptimizationRun, options: _Options) -> None:
    worker = threading.Thread(
        target=_run, args=(parts, begun, options), name=begun.run_id, daemon=True
    )
    worker.start()


def _run(parts: Parts, begun: OptimizationRun, options: _Options) -> None:
    try:
        with _marked_alive(parts, begun.run_id):
            _search_and_store(parts, begun, options)
    except TurnwiseError as error:
        _record_failure(parts, begun, str(error))
    except Exception as error:
        # The edge of a thread: without this the run would seem to go on for ever.
        _record_failure(parts, begun, f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _marked_alive(parts: Parts, run_id: str) -> Iterator[None]:
    done = threading.Event()

    def mark() -> None:
        while not done.wait(ALIVE_EVERY_SECONDS):
            try:
                parts.runs.mark_alive(run_id, _now_us())
            except Exception:
                # The edge of a thread: the database may be back for the next mark.
                logger.exception("could not note that the run %s goes on", run_id)

    thread = threading.Thread(target=mark, name=f"{run_id}-alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _search_and_store(parts: Parts, begun: OptimizationRun, options: _Options) -> None:
    finished = _search(parts, begun, options)
    for estimate in (finished.selection, finished.test):
        if estimate is not None:
            parts.lake.write_estimate(finished.run_id, estimate)
    if options.propose and finished.found is not None:
        parts.versions.propose(
            finished.found,
            Actor(ActorKind.OPTIMIZER, OPTIMIZER),
            run_id=finished.run_id,
            channel=parts.settings.channel,
        )
    # Last: who sees the run finished finds what came of it, too.
    parts.runs.save(finished)
    parts.stage_log.record("optimize", revision=0, at_us=_now_us(), done=1, note=finished.outcome)


def _record_failure(parts: Parts, begun: OptimizationRun, why: str) -> None:
    parts.runs.save(replace(begun, state="failed", finished_at_us=_now_us(), outcome=why))


def _search(parts: Parts, begun: OptimizationRun, options: _Options) -> OptimizationRun:
    def note(trial: Trial) -> None:
        options.trials_done.append(trial)
        if len(options.trials_done) % SAVE_EVERY_TRIALS == 0:
            parts.runs.save(replace(begun, trials=tuple(options.trials_done)))

    lake = parts.lake.at(begun.table_versions)
    return search(
        load_frame(parts, versions=begun.table_versions),
        parts.price_book,
        incumbent=begun.incumbent,
        publications=read_publications(parts),
        session_quality=read_quality(parts, lake, quality_measure(parts)),
        session_wait_seconds=read_wait_seconds(lake),
        session_labels=labels_of(lake),
        org_paths=tuple(read_gate_rules(parts.settings).by_path),
        settings=options.settings(parts, SearchScope.from_document(begun.settings.get("scope"))),
        run_id=begun.run_id,
        started_at_us=begun.started_at_us,
        table_versions=begun.table_versions,
        study_url=parts.settings.control_url,
        progress=note,
    )


def _read_options(document: Mapping[str, Any]) -> _Options:
    def number(name: str, default: float, low: float, high: float) -> float:
        value = document.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(f"{name} must be a number, not {value!r}.")
        if not low <= value <= high:
            raise BadInput(f"{name} must lie between {low:g} and {high:g}.")
        return value

    def whole(name: str, default: int, low: int, high: int) -> int:
        value = number(name, default, low, high)
        if value != int(value):
            raise BadInput(f"{name} must be a whole number, not {value!r}.")
        return int(value)

    propose = document.get("propose", False)
    if not isinstance(propose, bool):
        raise BadInput(f"propose must be true or false, not {propose!r}.")
    cluster = document.get("cluster") or ""
    if not isinstance(cluster, str):
        raise BadInput(f"cluster must be the id of one, not {cluster!r}.")
    sampler = document.get("sampler") or SAMPLERS[0]
    if sampler not in SAMPLERS:
        raise BadInput(f"{sampler!r} is no sampler.", fix=f"Write {' or '.join(SAMPLERS)}.")
    return _Options(
        document={key: value for key, value in document.items() if key != "actor"},
        propose=propose,
        trials=whole("trials", 200, 1, MAX_TRIALS),
        seconds=float(number("seconds", 300.0, 0.1, 86_400)),
        seed=whole("seed", 0, 0, 2**31 - 1),
        margin=float(number("margin", 0.02, 0.0, 1.0)),
        sampler=cast(SamplerName, sampler),
        patience=whole("patience", 150, 0, MAX_TRIALS),
        max_usd=float(number("max_usd", 0.0, 0.0, 1e6)),
        min_cell_sessions=whole("min_cell_sessions", 100, 0, 10**6),
        cluster=cluster,
    )


def _now_us() -> int:
    return time.time_ns() // 1000
