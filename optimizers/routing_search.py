"""Searches for a routing policy that saves money and keeps quality, and tests it on later work.

Optuna's TPE sampler (Bergstra et al., 2011) proposes policies. They are costed on the training
sessions and held to the quality constraint on all earlier sessions; the best few are costed
again on the validation sessions; the winner is estimated on later sessions that nothing above has
seen. "No better policy found" is a result.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend

from loop.domain.estimates import PolicyEstimate
from loop.domain.money import PriceBook
from loop.domain.policies import UNITS, Publication, RoutingPolicy
from loop.domain.runs import OptimizationRun, Trial
from optimizers.classic import classic_policy
from optimizers.objectives import SavingUnderQuality
from optimizers.off_policy import EstimationLimits
from optimizers.policy_estimates import estimate_with, saving_share
from optimizers.policy_space import PolicySpace
from optimizers.replay import Replayer
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.session_evidence import SessionEvidence
from optimizers.session_splits import Booleans, split_sessions
from optimizers.stopping import (
    SearchProgress,
    StoppingRule,
    after_seconds,
    after_trials,
    first_of,
    when_requested,
)
from optimizers.turn_frame import TurnFrame

MIN_SESSIONS = 12
_LEAST_GAIN = 1e-4  # a smaller saving is none


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """``quality_margin``: how much mean session quality may fall, at the lower 95 % bound.

    ``limits`` are those of the reported estimates. While it chooses, the search allows only the
    ``selection_support_share`` of their unsupported sessions: the winner is picked for lying at
    the edge, and would fall over it on other sessions.
    """

    trials: int = 200
    seconds: float = 300.0
    seed: int = 0
    quality_margin: float = 0.02
    test_share: float = 0.25
    validation_share: float = 0.3
    finalists: int = 8
    selection_support_share: float = 0.2
    limits: EstimationLimits = field(default_factory=EstimationLimits)
    assumptions: ReplayAssumptions = field(default_factory=ReplayAssumptions)


@dataclass(frozen=True, slots=True)
class _Data:
    """One part of the sessions, ready to be asked."""

    replayer: Replayer
    evidence: SessionEvidence


def search(
    frame: TurnFrame,
    price_book: PriceBook,
    *,
    incumbent: RoutingPolicy,
    models: tuple[str, ...] = (),
    publications: Mapping[int, Publication] | None = None,
    session_quality: Mapping[str, float] | None = None,
    session_wait_seconds: Mapping[str, float] | None = None,
    session_labels: Mapping[str, Mapping[str, str]] | None = None,
    settings: SearchSettings | None = None,
    run_id: str = "",
    table_versions: Mapping[str, int] | None = None,
    journal: Path | None = None,
    progress: Callable[[Trial], None] | None = None,
    stop_requested: Callable[[], bool] | None = None,
) -> OptimizationRun:
    """Runs one search to its end and returns its record.

    ``incumbent`` is the policy in force: savings are against its replay. ``models`` may serve
    (default: the classic pair and what was requested). ``publications`` by serial and
    ``session_quality`` by session id let quality be estimated. With ``journal``, the Optuna study
    is kept in that file. The same seed and data give the same trials. Raises :class:`BadInput`
    for a model without a price.
    """
    settings = settings or SearchSettings()
    begun = OptimizationRun(
        run_id=run_id or f"run-{uuid.uuid4().hex[:12]}",
        state="running",
        started_at_us=_now_us(),
        finished_at_us=None,
        seed=settings.seed,
        incumbent=incumbent,
        table_versions=dict(table_versions or {}),
        trials=(),
        found=None,
        outcome="",
    )
    space = PolicySpace.of_log(frame, price_book, models, settings.assumptions)
    problem = _problem(frame)
    if problem:
        return _finish(begun, (), f"No better policy found: {problem}.")
    split = split_sessions(
        frame, test_share=settings.test_share, validation_share=settings.validation_share
    )
    if not (split.train.any() and split.validation.any() and split.test.any()):
        return _finish(begun, (), "No better policy found: a part of the sessions is empty.")

    def prepare(chosen: Booleans, limits: EstimationLimits = settings.limits) -> _Data:
        part = frame.of_sessions(chosen)
        evidence = SessionEvidence(
            part,
            publications,
            session_quality,
            incumbent,
            limits,
            wait_seconds=session_wait_seconds,
            labels=session_labels,
        )
        return _Data(Replayer(part, price_book, settings.assumptions), evidence)

    unsupported = settings.limits.max_unsupported_share * settings.selection_support_share
    strict = replace(settings.limits, max_unsupported_share=unsupported)
    earlier, later = prepare(split.selection, strict), prepare(split.test)
    asks_quality = earlier.evidence.quality.is_answerable
    objective = SavingUnderQuality(
        prepare(split.train).replayer,
        incumbent,
        earlier.evidence.quality if asks_quality else None,
        settings.quality_margin,
    )
    rules = [after_trials(settings.trials), after_seconds(settings.seconds)]
    if stop_requested:
        rules.insert(0, when_requested(stop_requested))
    study = _study(begun.run_id, settings.seed, journal)
    for guess in space.first_guesses:
        study.enqueue_trial(dict(guess))
    trials, reason = _try_policies(study, space, objective, first_of(*rules), progress)
    trials = _mark_front(trials)
    basis = (
        "under the quality constraint"
        if asks_quality
        else "on cost alone, as the log can't answer for quality "
        f"({'; '.join(earlier.evidence.quality.refusals)})"
    )
    best = _choose(trials, prepare(split.validation).replayer, incumbent, settings.finalists)
    searched = f"{len(trials)} policies were tried {basis}; the search ended {reason}"
    if best is None:
        return _finish(
            begun, trials, f"No better policy found: {searched}, and none saved anything."
        )
    selection = estimate_with(best, earlier.replayer, incumbent, earlier.evidence)
    test = estimate_with(best, later.replayer, incumbent, later.evidence)
    failure = _failure_on_later(test, settings.quality_margin)
    if failure:
        outcome = f"No better policy found: {searched}; the best one {failure}."
        return replace(_finish(begun, trials, outcome), selection=selection, test=test)
    outcome = (
        f"Found a policy that saves {test.saving_share:.1%} on later sessions "
        f"({selection.saving_share:.1%} on those that chose it): {searched}."
    )
    return replace(_finish(begun, trials, outcome), found=best, selection=selection, test=test)


def _problem(frame: TurnFrame) -> str:
    if frame.n_sessions < MIN_SESSIONS:
        return (
            f"the log holds {frame.n_sessions} sessions, and {MIN_SESSIONS} are needed to choose "
            "a policy and to test it"
        )
    if frame.cost_microusd.sum() == 0:
        return "no turn of the log has a price"
    return ""


def _study(name: str, seed: int, journal: Path | None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal))) if journal else None
    return optuna.create_study(
        study_name=name,
        direction="maximize",
        storage=storage,
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=30),
    )


def _try_policies(
    study: optuna.Study,
    space: PolicySpace,
    objective: SavingUnderQuality,
    ends: StoppingRule,
    progress: Callable[[Trial], None] | None,
) -> tuple[tuple[Trial, ...], str]:
    started = time.monotonic()
    classic = classic_policy()
    fixed = {
        "measure": classic.measure,
        "threshold_tokens": 10_000,
        "unit": classic.unit,
        "scope": "all",
        "short_model": classic.rules[0].model,
        "long_model": classic.default_model,
    }
    trials: list[Trial] = []
    best: float | None = None
    best_at = 0
    reason = ""
    while not reason:
        if not trials:
            # The classic policy comes first and outside the study: its models and threshold
            # need not lie in the space.
            parameters, policy, asked = dict(fixed), classic, None
        else:
            asked = study.ask()
            parameters = space.suggest(asked)
            policy = space.policy(parameters)
        merit = objective.evaluate(policy)
        trial = Trial(
            number=len(trials),
            parameters=parameters,
            policy=policy,
            saving_share=merit.saving_share,
            quality_difference_low=merit.quality_difference_low,
            feasible=merit.is_feasible,
        )
        if asked is not None:
            asked.set_constraint("quality", merit.violation)
            asked.set_user_attr("policy_digest", policy.digest)
            study.tell(asked, merit.saving_share)
        trials.append(trial)
        if trial.feasible and (best is None or trial.saving_share > best):
            best, best_at = trial.saving_share, trial.number
        if progress:
            progress(trial)
        reason = ends(
            SearchProgress(len(trials), time.monotonic() - started, best, len(trials) - 1 - best_at)
        )
    return tuple(trials), reason


def _mark_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Marks the trials that no other feasible one dominates in (saving, bound of quality)."""
    feasible = [trial for trial in trials if trial.feasible]
    ranked = sorted(feasible, key=lambda t: (-t.saving_share, -_bound(t), t.number))
    front: set[int] = set()
    highest = -float("inf")
    for trial in ranked:
        if _bound(trial) > highest:
            front.add(trial.number)
            highest = _bound(trial)
    return tuple(replace(trial, on_front=trial.number in front) for trial in trials)


def _bound(trial: Trial) -> float:
    return 0.0 if trial.quality_difference_low is None else trial.quality_difference_low


def _choose(
    trials: Sequence[Trial], replayer: Replayer, incumbent: RoutingPolicy, finalists: int
) -> RoutingPolicy | None:
    """The best saver on the validation sessions among the best feasible trials in training; of
    equals, the one that changes models least often."""
    feasible = [t for t in trials if t.feasible and t.saving_share > _LEAST_GAIN]
    by_digest = {t.policy.digest: t for t in sorted(feasible, key=lambda t: t.saving_share)}
    leaders = list(by_digest.values())[-finalists:]
    ours = replayer.replay(incumbent)
    ranked = [
        (saving_share(replayer.replay(t.policy), ours), -UNITS.index(t.policy.unit), -t.number)
        for t in leaders
    ]
    if not ranked or max(ranked)[0] <= _LEAST_GAIN:
        return None
    return leaders[ranked.index(max(ranked))].policy


def _failure_on_later(test: PolicyEstimate, margin: float) -> str:
    if test.saving_share <= _LEAST_GAIN:
        return f"saved {test.saving_share:.1%} on later sessions"
    difference = test.quality.difference
    if difference is not None and difference.high < -margin:
        return (
            f"lowered quality by {-difference.estimate:.3f} on later sessions, beyond the margin "
            f"of {margin:g}"
        )
    return ""


def _finish(run: OptimizationRun, trials: tuple[Trial, ...], outcome: str) -> OptimizationRun:
    return replace(run, state="finished", finished_at_us=_now_us(), trials=trials, outcome=outcome)


def _now_us() -> int:
    return time.time_ns() // 1_000
