"""Searches for a routing policy that saves money and keeps quality, and tests it on later work.

Optuna proposes policies (TPE: Bergstra et al., 2011, Ozaki et al., 2022; or NSGA-II: Deb et al.,
2002). They are costed on the training sessions and held to the constraints on quality and support
on all earlier sessions; the best few are costed again on the validation sessions; the winner is
estimated on later sessions that nothing above has seen. "No better policy found" is a result.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from loop.domain.errors import BadInput
from loop.domain.estimates import PolicyEstimate
from loop.domain.money import PriceBook
from loop.domain.policies import UNITS, Publication, RoutingPolicy
from loop.domain.runs import OptimizationRun, Trial
from optimizers.assignment_log import with_set_efforts
from optimizers.classic import classic_policy
from optimizers.objectives import Evaluation
from optimizers.off_policy import EstimationLimits, OutcomeLog
from optimizers.output_lengths import fit_output_lengths
from optimizers.policy_estimates import estimate_with, saving_share
from optimizers.policy_space import NO_BAND, PolicySpace, cheapest_of, models_of
from optimizers.replay import Replayer
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.repository_gains import repository_gains
from optimizers.search_scopes import ScopedSpace, SearchScope
from optimizers.session_evidence import SessionEvidence
from optimizers.session_splits import Booleans, SessionSplit, split_sessions
from optimizers.stopping import (
    SearchProgress,
    StoppingRule,
    after_dollars,
    after_seconds,
    after_trials,
    first_of,
    when_requested,
    without_gain,
)
from optimizers.studies import SAMPLERS, SamplerName, SearchStudy, front_of, open_study
from optimizers.trial_workers import Evaluate, EvaluationJob, evaluation_of
from optimizers.turn_frame import TurnFrame

MIN_SESSIONS = 12
_LEAST_GAIN = 1e-4  # a smaller saving is none


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search, and when to end.

    ``quality_margin``: how much mean session quality may fall, at the lower 95 % bound.
    ``min_cell_sessions``: sessions that the log must hold of each change that a policy makes.
    ``patience``: trials without a gain after which it ends, 0 for never. ``max_usd`` bounds what
    its processors cost, at ``usd_per_worker_hour``; 0 is no bound.

    ``scope`` narrows what is searched, not what is estimated at the end: ``test`` is over all later
    sessions, whatever the scope.

    ``limits`` are those of the reported estimates. While it chooses, the search allows only the
    ``selection_support_share`` of their unsupported sessions: the winner is picked for lying at
    the edge, and would fall over it on other sessions.
    """

    trials: int = 200
    seconds: float = 300.0
    seed: int = 0
    sampler: SamplerName = "tpe"
    workers: int = 1
    patience: int = 0
    max_usd: float = 0.0
    usd_per_worker_hour: float = 0.05
    quality_margin: float = 0.02
    min_cell_sessions: int = 100
    test_share: float = 0.25
    validation_share: float = 0.3
    finalists: int = 8
    selection_support_share: float = 0.2
    limits: EstimationLimits = field(default_factory=EstimationLimits)
    assumptions: ReplayAssumptions = field(default_factory=ReplayAssumptions)
    scope: SearchScope | None = None

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise BadInput(
                f"{self.sampler!r} is no sampler.", fix=f"Write {' or '.join(SAMPLERS)}."
            )

    def to_document(self) -> dict[str, Any]:
        """Plain JSON data, without the assumptions of the replay."""
        document = asdict(self)
        document.pop("assumptions")
        if self.scope is None:
            document.pop("scope")
        return document

    def bounds(self) -> tuple[StoppingRule, ...]:
        """The rules that end it."""
        rules = [after_trials(self.trials), after_seconds(self.seconds)]
        if self.patience:
            rules.append(without_gain(self.patience))
        if self.max_usd:
            rules.append(after_dollars(self.max_usd))
        return tuple(rules)


_BUDGETS = ("trials", "seconds", "workers", "patience", "max_usd", "usd_per_worker_hour")
"""What may differ when a run goes on: it decides when the search ends, not what a trial says."""


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
    org_paths: Sequence[str] = (),
    settings: SearchSettings | None = None,
    run_id: str = "",
    started_at_us: int | None = None,
    table_versions: Mapping[str, int] | None = None,
    study_url: str = "",
    progress: Callable[[Trial], None] | None = None,
    stop_requested: Callable[[], bool] | None = None,
) -> OptimizationRun:
    """Runs one search to its end and returns its record.

    ``incumbent`` is the policy in force: savings are against its replay. ``models`` may serve
    (default: the classic pair and what was requested). ``publications`` by serial and
    ``session_quality`` by session id let quality be estimated; waiting times, labels and
    ``org_paths`` add to the two estimates of the winner (:class:`SessionEvidence`).

    With ``study_url`` (a database, in SQLAlchemy's form) the Optuna study is kept there under
    ``run_id``, and a run that was cut off goes on where it was; without one it is in memory. The
    same seed and data give the same trials, as do the same seed, data and number of workers.
    Raises :class:`BadInput` for a model without a price, :class:`Conflict` where the study of
    that name was about other data or settings.
    """
    settings = settings or SearchSettings()
    frame = with_set_efforts(frame, publications or {})
    begun = OptimizationRun(
        run_id=run_id or f"run-{uuid.uuid4().hex[:12]}",
        state="running",
        started_at_us=started_at_us or _now_us(),
        finished_at_us=None,
        seed=settings.seed,
        incumbent=incumbent,
        table_versions=dict(table_versions or {}),
        trials=(),
        found=None,
        outcome="",
        settings=settings.to_document(),
    )
    scope = settings.scope
    in_scope = scope.sessions(frame) if scope else np.ones(frame.n_sessions, bool)
    split = split_sessions(
        frame, test_share=settings.test_share, validation_share=settings.validation_share
    )
    split = replace(split, train=split.train & in_scope, validation=split.validation & in_scope)
    train = frame.of_sessions(split.train)
    cheapest = cheapest_of(models or models_of(frame, price_book), price_book)
    learnt_from = OutcomeLog(
        train, publications or {}, session_quality or {}, incumbent, settings.limits
    )
    space = PolicySpace.of_log(
        frame.of_sessions(in_scope) if scope else frame,
        price_book,
        models,
        settings.assumptions,
        (publications or {}).values(),
        repository_gains(learnt_from, RoutingPolicy("cheapest", (), default_model=cheapest)),
    )
    if scope:
        space = ScopedSpace.of(space, scope, incumbent)
    problem = _problem(frame, split)
    if problem:
        return _finish(begun, f"No better policy found: {problem}.")

    # Of the later sessions nothing may be learnt, not even how long answers are.
    lengths = fit_output_lengths(frame.of_sessions(split.selection), publications)

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
        return _Data(Replayer(part, price_book, settings.assumptions, lengths), evidence)

    unsupported = settings.limits.max_unsupported_share * settings.selection_support_share
    strict = replace(settings.limits, max_unsupported_share=unsupported)
    earlier = prepare(split.selection, strict)
    asks_quality = earlier.evidence.quality.is_answerable
    job = EvaluationJob(
        train=train,
        selection=earlier.replayer.frame,
        unseen=frame.of_sessions(split.validation),
        price_book=price_book,
        assumptions=settings.assumptions,
        lengths=lengths,
        incumbent=incumbent,
        publications=publications or {},
        session_quality=session_quality or {},
        limits=strict,
        asks_quality=asks_quality,
        margin=settings.quality_margin,
        min_cell_sessions=settings.min_cell_sessions,
    )
    # The classic policy comes first and outside the study: its models and threshold need not lie
    # in the space. Where they have no price it is left out.
    classic = classic_policy()
    first = None
    if all(map(price_book.knows, classic.models())):
        first = settings.scope.restrict(classic, incumbent) if settings.scope else classic
    rules = settings.bounds()
    if stop_requested:
        rules = (when_requested(stop_requested), *rules)
    with (
        open_study(
            begun.run_id,
            space,
            url=study_url,
            sampler=settings.sampler,
            seed=settings.seed,
            asks_quality=asks_quality,
            about=_about(begun, frame, price_book),
        ) as study,
        evaluation_of(job, settings.workers) as evaluate,
    ):
        trials, reason, spent_usd = _try_policies(
            study, first, evaluate, first_of(*rules), settings, progress
        )
        importance = study.importance()
    done = replace(begun, trials=_mark_front(trials), importance=importance, spent_usd=spent_usd)
    basis = (
        "under the constraints on quality and support"
        if asks_quality
        else "on cost alone, as the log can't answer for quality "
        f"({'; '.join(earlier.evidence.quality.refusals)})"
    )
    where = f" {scope.words}" if scope else ""
    searched = f"{len(trials)} policies were tried{where} {basis}; the search ended {reason}"
    validation = Replayer(
        frame.of_sessions(split.validation), price_book, settings.assumptions, lengths
    )
    best = _choose(done.trials, validation, incumbent, settings.finalists)
    if best is None:
        return _finish(done, f"No better policy found: {searched}, and none saved anything.")
    later = prepare(split.test)
    selection = estimate_with(best, earlier.replayer, incumbent, earlier.evidence, org_paths)
    test = estimate_with(best, later.replayer, incumbent, later.evidence, org_paths)
    done = replace(done, selection=selection, test=test)
    failure = _failure_on_later(test, settings.quality_margin)
    if failure:
        return _finish(done, f"No better policy found: {searched}; the best one {failure}.")
    outcome = (
        f"Found a policy that saves {test.saving_share:.1%} on {'all ' if scope else ''}later "
        f"sessions{_saving_in_scope(best, prepare(split.test & in_scope), incumbent, scope)} "
        f"({selection.saving_share:.1%} on those that chose it): {searched}."
    )
    return _finish(replace(done, found=best), outcome)


def _saving_in_scope(
    policy: RoutingPolicy, later: _Data, incumbent: RoutingPolicy, scope: SearchScope | None
) -> str:
    if scope is None or later.replayer.frame.n_sessions == 0:
        return ""
    ours = later.replayer.replay(incumbent)
    share = saving_share(later.replayer.replay(policy), ours)
    return f", {share:.1%} of the cost {scope.words}"


def _problem(frame: TurnFrame, split: SessionSplit) -> str:
    searched = int(split.selection.sum() + split.test.sum())
    if searched < MIN_SESSIONS:
        return (
            f"the log holds {searched} sessions, and {MIN_SESSIONS} are needed to choose "
            "a policy and to test it"
        )
    if frame.cost_microusd.sum() == 0:
        return "no turn of the log has a price"
    if not (split.train.any() and split.validation.any() and split.test.any()):
        return "a part of the sessions is empty"
    return ""


def _about(run: OptimizationRun, frame: TurnFrame, price_book: PriceBook) -> dict[str, Any]:
    """What a trial's numbers depend on, for whoever goes on with the study or looks at it."""
    settings = {key: value for key, value in run.settings.items() if key not in _BUDGETS}
    return settings | {
        "incumbent_digest": run.incumbent.digest,
        "sessions": frame.n_sessions,
        "turns": len(frame),
        "billed_microusd": int(frame.cost_microusd.sum()),
        "table_versions": dict(run.table_versions),
        "prices": price_book.version,
    }


def _try_policies(
    study: SearchStudy,
    first: RoutingPolicy | None,
    evaluate: Evaluate,
    ends: StoppingRule,
    settings: SearchSettings,
    progress: Callable[[Trial], None] | None,
) -> tuple[tuple[Trial, ...], str, float]:
    """The trials in order, why the search ended, and what its processors cost."""
    started = time.monotonic()
    trials: list[Trial] = []
    best: float | None = None
    best_at = 0
    spent_usd = 0.0

    def add(parameters: Mapping[str, Any], policy: RoutingPolicy, merit: Evaluation) -> str:
        nonlocal best, best_at, spent_usd
        trial = Trial(
            number=len(trials),
            parameters=dict(parameters),
            policy=policy,
            saving_share=merit.saving_share,
            quality_difference_low=merit.quality_difference_low,
            feasible=merit.is_feasible,
        )
        trials.append(trial)
        if trial.feasible and (best is None or trial.saving_share > best):
            best, best_at = trial.saving_share, trial.number
        if progress:
            progress(trial)
        elapsed = time.monotonic() - started
        spent_usd = elapsed / 3600 * settings.workers * settings.usd_per_worker_hour
        return ends(
            SearchProgress(len(trials), elapsed, best, len(trials) - 1 - best_at, spent_usd)
        )

    reason = ""
    if first is not None:
        reason = add(_classic_parameters(classic_policy()), first, evaluate([first])[0])
    before = len(trials)
    for known in study.finished():
        reason = add(known.parameters, known.policy, known.evaluation)
    while not reason:
        count = min(settings.workers, max(1, settings.trials - len(trials)))
        asked = study.ask(len(trials) - before, count)
        for item, merit in zip(asked, evaluate([a.policy for a in asked]), strict=True):
            study.tell(item, merit)
            reason = add(item.parameters, item.policy, merit)
    return tuple(trials), reason, spent_usd


def _classic_parameters(classic: RoutingPolicy) -> dict[str, Any]:
    return {
        "measure": classic.measure,
        "threshold_tokens": classic.rules[0].when[0].value,
        "unit": classic.unit,
        "scope": "all",
        "short_model": classic.rules[0].model,
        "middle_model": NO_BAND,
        "long_model": classic.default_model,
    }


def _mark_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Marks the trials that no other feasible one dominates in (saving, bound of quality)."""
    feasible = [trial for trial in trials if trial.feasible]
    front = front_of([(trial.saving_share, _bound(trial)) for trial in feasible])
    numbers = {feasible[at].number for at in front}
    return tuple(replace(trial, on_front=trial.number in numbers) for trial in trials)


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
    if test.saving_share is None:
        return "could not be costed on later sessions: no turn of them has a price on every side"
    if test.saving_share <= _LEAST_GAIN:
        return f"saved {test.saving_share:.1%} on later sessions"
    difference = test.quality.difference
    if difference is not None and difference.high < -margin:
        return (
            f"lowered quality by {-difference.estimate:.3f} on later sessions, beyond the margin "
            f"of {margin:g}"
        )
    return ""


def _finish(run: OptimizationRun, outcome: str) -> OptimizationRun:
    return replace(run, state="finished", finished_at_us=_now_us(), outcome=outcome)


def _now_us() -> int:
    return time.time_ns() // 1_000
