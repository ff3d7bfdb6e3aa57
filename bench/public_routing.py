"""Replay, estimates and search on public data that nobody here wrote.

    python -m bench.public_routing --data PATH [--resamplings N] [--searches N] [--trials N]

``PATH`` holds the sets ``routellm``, ``routerbench``, ``routerarena`` and
``claude_code_sessions`` (``docs/benchmarks/routing.md``). Writes
``bench/results/public_routing.{json,md}``: sums and shares only, nothing of any text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench.public_data import data_folder, data_parser, machine, say, write_results
from bench.public_logs import (
    all_to,
    by_logged_repository,
    frame_of,
    measure_coverage,
    repositories_to,
    sent_to_strong,
    short_to,
    true_quality,
)
from bench.public_routers import (
    Floats,
    RoutingSet,
    by_domain,
    by_domain_and_length,
    by_steps,
    compare_routers,
    folds_of,
    out_of_fold_scores,
    two_digits,
)
from bench.public_routing_report import report
from bench.public_routing_search import ask_rule_chosen_log, search_set
from bench.public_routing_sets import all_sets
from loop.domain.policies import Estimator, RoutingPolicy
from optimizers.routing_search import SearchSettings

DESIGNS = ((1_000, 0.5), (1_000, 0.8), (400, 0.5))  # sessions, share given to the strong model
SEARCHED = ("routellm mmlu", "routellm gsm8k", "routerbench")
BOOTSTRAP_DRAWS = 1_000


def prompt_tokens(prompts: RoutingSet) -> Floats:
    return np.floor(prompts.prompt_chars / Estimator().chars_per_token)


def threshold_steps(prompts: RoutingSet) -> Floats:
    """How many of the thresholds that the search can write each prompt reaches: all that its
    policies can tell two prompts apart by. Made with the policies themselves."""
    tokens = prompt_tokens(prompts).astype(int)
    frame = frame_of(prompts)
    steps = np.zeros(len(prompts))
    for threshold in two_digits(range(int(tokens.min()), int(tokens.max()) + 2)):
        policy = short_to(prompts.weak, threshold, prompts.strong)
        steps += sent_to_strong(prompts, policy, frame)
    return steps


def routers_of(prompts: RoutingSet) -> tuple[dict[str, Floats], str]:
    """Numbers of every router, learnt out of fold, and the name of the bar."""
    folds, gain = folds_of(len(prompts)), prompts.gain
    routers = {
        "random": np.zeros(len(prompts)),
        "prompt length": out_of_fold_scores(
            by_steps(prompts.prompt_chars.astype(float), gain), folds
        ),
        "turnwise search: prompt_tokens threshold": out_of_fold_scores(
            by_steps(threshold_steps(prompts), gain), folds
        ),
    }
    bar = "prompt length"
    if len(np.unique(prompts.domains.astype(str))) > 1:
        bar = "domain gain (language: repository in …)"
        routers[bar] = out_of_fold_scores(by_domain(prompts), folds)
        routers["turnwise search: repositories ranked from a one-model log"] = out_of_fold_scores(
            by_logged_repository(prompts), folds
        )
        routers["domain and length (language: a threshold per repository)"] = out_of_fold_scores(
            by_domain_and_length(prompts), folds
        )
    routers["oracle"] = gain
    return routers, bar


def candidates_of(prompts: RoutingSet) -> list[RoutingPolicy]:
    """Thresholds at the quartiles, everything to the weak model, and half of the domains."""
    strong, weak = prompts.strong, prompts.weak
    quartiles = np.quantile(prompt_tokens(prompts), (0.25, 0.5, 0.75))
    candidates = [short_to(weak, int(tokens), strong) for tokens in quartiles]
    candidates.append(all_to(weak))
    domains = sorted({str(name) for name in prompts.domains})
    if len(domains) > 1:
        candidates.append(repositories_to(weak, domains[: len(domains) // 2], strong))
    return candidates


def measure_set(
    prompts: RoutingSet, *, resamplings: int, searches: int, trials: int, draws: int
) -> dict[str, Any]:
    routers, bar = routers_of(prompts)
    candidates = candidates_of(prompts)
    found = []
    if prompts.name in SEARCHED:
        for seed in range(searches):
            settings = SearchSettings(trials=trials, seconds=60.0, seed=seed)
            found.append(asdict(search_set(prompts, seed=seed, settings=settings)))
    return {
        "name": prompts.name,
        "prompts": len(prompts),
        "domains": len(np.unique(prompts.domains.astype(str))),
        "strong": prompts.strong,
        "weak": prompts.weak,
        "strong_quality": true_quality(prompts, np.ones(len(prompts), bool)),
        "weak_quality": true_quality(prompts, np.zeros(len(prompts), bool)),
        "bar": bar,
        "routers": [
            asdict(item)
            for item in compare_routers(routers, prompts.gain, folds_of(len(prompts)), bar, draws)
        ],
        "candidates": len(candidates),
        "coverage": [
            asdict(
                measure_coverage(
                    prompts,
                    candidates,
                    sessions=sessions,
                    strong_share=share,
                    resamplings=resamplings,
                )
            )
            for sessions, share in DESIGNS
        ],
        "rule_chosen": asdict(ask_rule_chosen_log(prompts)),
        "searches": found,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--resamplings", type=int, default=500)
    parser.add_argument("--searches", type=int, default=20, help="searches on each routing set")
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args(arguments)
    data = data_folder(parser, options)
    sets = []
    for prompts in all_sets(data):
        say(f"{prompts.name}: {len(prompts):,} prompts")
        sets.append(
            measure_set(
                prompts,
                resamplings=options.resamplings,
                searches=options.searches,
                trials=options.trials,
                draws=BOOTSTRAP_DRAWS,
            )
        )
    answer = {
        "machine": machine(),
        "resamplings": options.resamplings,
        "sets": sets,
    }
    text = report(answer)
    write_results("public_routing", answer, text)
    print(text)


if __name__ == "__main__":
    main()
