"""What the search finds on public routing sets, beside what it would really have done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.public_logs import all_to, price_book, reveal, sent_to_strong, true_quality
from bench.public_routers import RoutingSet
from optimizers.off_policy import OutcomeLog
from optimizers.policy_estimates import saving_share
from optimizers.replay import Replayer
from optimizers.routing_search import SearchSettings, search


@dataclass(frozen=True)
class Found:
    """One search. Differences are to the strong model on everything; the true one is over the
    whole set. All are ``None`` where no better policy was found."""

    set_name: str
    seed: int
    trials: int
    outcome: str
    policy: str
    strong_share: float | None
    saving: float | None
    estimated_difference: tuple[float, float, float] | None
    true_difference: float | None


def search_set(prompts: RoutingSet, *, seed: int, settings: SearchSettings) -> Found:
    """A search over a log that gave each prompt of the set either model with even chances."""
    random = np.random.default_rng(seed)
    rows = random.permutation(len(prompts))
    log = reveal(prompts, rows, random.random(len(rows)) < 0.5, 0.5)
    run = search(
        log.frame,
        price_book(prompts),
        incumbent=all_to(prompts.strong),
        models=(prompts.strong, prompts.weak),
        publications=log.publications,
        session_quality=log.quality,
        settings=settings,
        run_id=f"public-{seed}",
    )
    name, tried = prompts.name, len(run.trials)
    if run.found is None:
        return Found(name, seed, tried, run.outcome, "", None, None, None, None)
    is_strong = sent_to_strong(prompts, run.found)
    difference = run.test.quality.difference if run.test else None
    return Found(
        name,
        seed,
        tried,
        run.outcome,
        run.found.description,
        float(is_strong.mean()),
        run.test.saving_share if run.test else None,
        (difference.estimate, difference.low, difference.high) if difference else None,
        true_quality(prompts, is_strong) - float(prompts.strong_quality.mean()),
    )


@dataclass(frozen=True)
class ChosenByRule:
    """A log whose models were chosen by the length of the prompt: what a reader of the log would
    say of the weak model, what is true of it, and what turnwise answers."""

    set_name: str
    logged_mean_of_weak: float
    truth_of_weak: float
    refusals: tuple[str, ...]
    saving_is_given: bool


def ask_rule_chosen_log(prompts: RoutingSet) -> ChosenByRule:
    middle = np.median(prompts.prompt_chars)
    is_strong = prompts.prompt_chars >= middle
    log = reveal(prompts, np.arange(len(prompts)), is_strong, None)
    weak = all_to(prompts.weak)
    answer = OutcomeLog(log.frame, {}, log.quality, all_to(prompts.strong)).estimate(weak)
    replayer = Replayer(log.frame, price_book(prompts))
    saving = saving_share(replayer.replay(weak), replayer.replay(all_to(prompts.strong)))
    return ChosenByRule(
        prompts.name,
        float(prompts.weak_quality[~is_strong].mean()),
        float(prompts.weak_quality.mean()),
        answer.refusals if answer.value is None else (),
        saving > 0,
    )
