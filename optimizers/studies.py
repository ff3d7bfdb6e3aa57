"""One run's Optuna study: kept in the control database, resumable, the same for the same seed.

Each trial is drawn by a sampler that is seeded with the run's seed and the trial's position among
the finished ones. So a serial search that was cut off goes on as if it had not been. Optuna's own
tools open the study as it is, such as ``optuna-dashboard sqlite:///…/control.db``
(docs/decisions/0017).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from loop.domain.errors import Conflict
from loop.domain.policies import RoutingPolicy
from optimizers.objectives import Evaluation
from optimizers.policy_space import LEAST_SHARE, MOST_SHARE, PolicySpace

SamplerName = Literal["tpe", "nsga2"]
SAMPLERS: tuple[SamplerName, ...] = ("tpe", "nsga2")
OBJECTIVES = ("saved_usd", "quality_difference_low")
_STARTUP_TRIALS = 30  # drawn at random before TPE begins to learn
_POPULATION = 30
_LEAST_FOR_IMPORTANCE = 20
_LOCK_SECONDS = 60
_REFINED_EVERY = 5
_LEAST_STEP = 0.002  # of the log's turns
_SEED_RANGE = 2**32


@dataclass(frozen=True, slots=True, eq=False)
class AskedTrial:
    """A policy that waits to be evaluated."""

    trial: optuna.Trial
    parameters: Mapping[str, Any]
    policy: RoutingPolicy


@dataclass(frozen=True, slots=True)
class FinishedTrial:
    """A trial that the study holds."""

    parameters: Mapping[str, Any]
    policy: RoutingPolicy
    evaluation: Evaluation


class SearchStudy:
    """The study of one run; open it with :func:`open_study`.

    Policies are drawn from a study in memory; ``kept`` is given each finished trial as a whole.
    So a trial is in the database or it is not, and costs one transaction, not twenty.
    """

    def __init__(
        self,
        study: optuna.Study,
        kept: optuna.Study | None,
        space: PolicySpace,
        sampler: SamplerName,
        seed: int,
    ) -> None:
        self._study = study
        self._kept = kept
        self._space = space
        self._sampler: SamplerName = sampler
        self._seed = seed

    def finished(self) -> list[FinishedTrial]:
        """The finished trials in their order."""
        found = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [self._read(trial) for trial in found]

    def ask(self, position: int, count: int) -> list[AskedTrial]:
        """Draws policies for the positions from ``position`` on."""
        return [self._ask(place) for place in range(position, position + count)]

    def tell(self, asked: AskedTrial, evaluation: Evaluation) -> None:
        """Stores what a trial came to."""
        for name, violation in evaluation.constraints:
            asked.trial.set_constraint(name, violation)
        attributes = {
            "policy": asked.policy.description,
            "policy_digest": asked.policy.digest,
            "saved_microusd": evaluation.saved_microusd,
            "saving_share": evaluation.saving_share,
            "quality_difference_low": evaluation.quality_difference_low,
            "is_feasible": evaluation.is_feasible,  # for tools that do not know constraints yet
        }
        for name, value in attributes.items():
            asked.trial.set_user_attr(name, value)
        told = self._study.tell(asked.trial, evaluation.values())
        if self._kept is not None:
            self._kept.add_trial(told)

    def importance(self) -> dict[str, float]:
        """How much each parameter decides whether a trial that keeps the constraints is among the
        best (shares that sum to 1; PED-ANOVA, Watanabe et al., 2023); empty where there are too
        few such trials to tell."""
        finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        feasible = [t for t in finished if all(v <= 0.0 for v in t.constraints.values())]
        if len(feasible) < _LEAST_FOR_IMPORTANCE:
            return {}
        kept = optuna.create_study(directions=self._study.directions)
        kept.add_trials(feasible)
        try:
            with warnings.catch_warnings():
                # Optuna warns where so many trials are equal that all shares would be.
                warnings.simplefilter("error", UserWarning)
                shares = optuna.importance.get_param_importances(kept)
        except UserWarning:
            return {}
        return {parameter: float(share) for parameter, share in shares.items()}

    def _ask(self, position: int) -> AskedTrial:
        seed = _seed_of(self._seed, position)
        if self._sampler == "tpe":
            self._study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=_STARTUP_TRIALS
            )
        else:
            self._study.sampler = optuna.samplers.NSGAIISampler(
                seed=seed, population_size=_POPULATION
            )
        guess = self._guess(position)
        if guess:
            self._study.enqueue_trial(guess)
        trial = self._study.ask()
        parameters = self._space.suggest(trial)
        return AskedTrial(trial, parameters, self._space.policy(parameters))

    def _guess(self, position: int) -> dict[str, Any] | None:
        """The first ones come from the space. Later every few trials halve the step in threshold,
        or in the share of repositories, from the best policy so far to the next that was tried, up
        and down in turn: a sampler alone seldom settles where the saving ends and the constraint
        begins."""
        guesses = self._space.first_guesses
        if position < len(guesses):
            return dict(guesses[position])
        if position % _REFINED_EVERY:
            return None
        finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        feasible = [t for t in finished if all(v <= 0.0 for v in t.constraints.values())]
        best = max(feasible, key=lambda trial: (trial.values[0], -trial.number), default=None)
        if best is None or best.values[0] <= 0.0:
            return None
        step = position // _REFINED_EVERY
        name = "threshold_share"
        if "repository_share" in best.params and step // 2 % 2:
            name = "repository_share"
        rest = _without(name, best)
        alike = [trial for trial in finished if _without(name, trial) == rest]
        tried = [trial.params[name] for trial in alike]
        # Thresholds are rounded, so that many shares come to one policy: it ends where the next
        # one begins.
        as_good = [trial.params[name] for trial in alike if trial.values == best.values]
        if step % 2:
            own = max(as_good)
            other = min((share for share in tried if share > own), default=MOST_SHARE)
        else:
            own = min(as_good)
            other = max((share for share in tried if share < own), default=LEAST_SHARE)
        if abs(other - own) < _LEAST_STEP:
            return None
        return best.params | {name: (own + other) / 2}

    def _read(self, trial: optuna.trial.FrozenTrial) -> FinishedTrial:
        parameters = self._space.complete(trial.params)
        noted = trial.user_attrs
        evaluation = Evaluation(
            noted["saved_microusd"],
            noted["saving_share"],
            noted["quality_difference_low"],
            tuple(trial.constraints.items()),
        )
        return FinishedTrial(parameters, self._space.policy(parameters), evaluation)


@contextmanager
def open_study(
    name: str,
    space: PolicySpace,
    *,
    url: str = "",
    sampler: SamplerName = "tpe",
    seed: int = 0,
    asks_quality: bool = True,
    about: Mapping[str, Any] | None = None,
) -> Iterator[SearchStudy]:
    """The study of that name in the database at ``url`` (SQLAlchemy's form), made where there is
    none; in memory without a URL.

    ``about`` says on what and how it searches. Raises :class:`Conflict` where the study that is
    there was about something else: its trials would not be comparable.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = OBJECTIVES if asks_quality else OBJECTIVES[:1]
    directions = [StudyDirection.MAXIMIZE for _ in objectives]
    study = optuna.create_study(directions=directions)
    if not url:
        yield SearchStudy(study, None, space, sampler, seed)
        return
    storage = _storage(url)
    try:
        kept = optuna.create_study(
            study_name=name, directions=directions, storage=storage, load_if_exists=True
        )
        with warnings.catch_warnings():
            # The names are shown by Optuna's tools; nothing is lost where a later one ignores them.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            kept.set_metric_names(list(objectives))
        _compare(name, kept, dict(about or {}))
        study.add_trials(kept.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        yield SearchStudy(study, kept, space, sampler, seed)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _without(name: str, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    return {key: value for key, value in trial.params.items() if key != name}


def _compare(name: str, kept: optuna.Study, about: dict[str, Any]) -> None:
    known = kept.user_attrs.get("about")
    if known is None:
        kept.set_user_attr("about", about)
    elif known != about:
        changed = sorted(key for key in {*known, *about} if known.get(key) != about.get(key))
        raise Conflict(
            f"The study {name} can't go on: {', '.join(changed)} is not what it was.",
            fix="Begin a new run.",
        )


def _storage(url: str) -> optuna.storages.RDBStorage:
    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        # The control store writes to the same file.
        options = {"connect_args": {"timeout": _LOCK_SECONDS}}
    return optuna.storages.RDBStorage(url, engine_kwargs=options)


def _seed_of(seed: int, position: int) -> int:
    digest = hashlib.sha256(f"turnwise.trial.{seed}.{position}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SEED_RANGE


def front_of(values: Sequence[tuple[float, float]]) -> set[int]:
    """The places of the points that no other is better than in one value and as good in the
    other; of equal points the first."""
    ranked = sorted(range(len(values)), key=lambda at: (-values[at][0], -values[at][1], at))
    front: set[int] = set()
    highest = -float("inf")
    for at in ranked:
        if values[at][1] > highest:
            front.add(at)
            highest = values[at][1]
    return front
