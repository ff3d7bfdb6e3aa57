"""The policies that a search may try: two or three bands of input size, in a scope, kept over a
unit, with a model and perhaps an effort for each band, and guards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from loop.domain.errors import BadInput
from loop.domain.money import PriceBook
from loop.domain.policies import (
    MEASURES,
    UNITS,
    Condition,
    Estimator,
    Guards,
    Measure,
    Publication,
    RoutingPolicy,
    Rule,
)
from optimizers.classic import classic_policy
from optimizers.replay_assumptions import ReplayAssumptions, undated
from optimizers.turn_frame import TurnFrame

AS_REQUESTED = ""
NO_BAND = "none"
REQUEST_CLASSES = ("main", "subagent")
LEAST_SHARE, MOST_SHARE = 0.005, 0.999
CEILING_SHARES = (1.0, 0.5, 0.25)
LEAST_RUNS = (0, 3, 10)
_EVERYTHING = "all"
_AGENT = "agent "
_GUESSED_SHARES = (0.5, 0.3, 0.7, 0.1, 0.9)
_KNOWN_SHARE = 0.5
_AGENT_SHARE = 0.02  # of the turns: rarer agent types are not worth a rule
_MOST_AGENTS = 6
_QUANTILES = np.linspace(0.0, 1.0, 1001)


@dataclass(frozen=True, slots=True)
class PolicySpace:
    """``models`` may serve any band, beside leaving the requested model.

    ``sizes``: for each measure that is searched, its quantiles over the turns (in tokens, at the
    thousandths), so that a threshold is searched as the share of turns below it, whatever the
    measure. ``scopes``: everything, a request class, or an agent type. ``efforts``: those that
    some logged arm has tried, as of no other can anything be known. ``repositories``: those that
    may be served apart, where the cheapest model loses least first.
    """

    models: tuple[str, ...]
    sizes: Mapping[str, NDArray[np.int64]]
    scopes: tuple[str, ...] = (_EVERYTHING, *REQUEST_CLASSES)
    efforts: tuple[str, ...] = (AS_REQUESTED,)
    repositories: tuple[str, ...] = ()
    first_guesses: tuple[Mapping[str, Any], ...] = ()  # parameters as Optuna stores them
    assumptions: ReplayAssumptions = field(default_factory=ReplayAssumptions)

    @classmethod
    def of_log(
        cls,
        frame: TurnFrame,
        price_book: PriceBook,
        models: tuple[str, ...] = (),
        assumptions: ReplayAssumptions | None = None,
        publications: Iterable[Publication] = (),
        repository_gains: Mapping[str, float] | None = None,
    ) -> PolicySpace:
        """The space that a log gives rise to: thresholds where its turns lie, of the measures that
        it holds (no prompt lengths, no thresholds on them), its agent types, its arms' efforts.

        Without ``models``, those of the classic policy and those that were requested, as far as
        they are priced. Raises :class:`BadInput` for a named model without a price.
        """
        unpriced = [model for model in models if not price_book.knows(model)]
        if unpriced:
            raise BadInput(
                f"{unpriced[0]} has no price, so what it would cost can't be told.",
                fix="Add it to the price book or leave it out.",
            )
        models = models or models_of(frame, price_book)
        sizes: dict[str, NDArray[np.int64]] = {
            measure: np.quantile(frame.measure(measure, Estimator()), _QUANTILES).astype(np.int64)
            for measure in _measures_of(frame)
        }
        cheapest = cheapest_of(models, price_book)
        gains = repository_gains or {}
        efforts = {
            rule.effort
            for publication in publications
            for arm in publication.arms
            for rule in arm.policy.rules
        }
        return cls(
            models,
            sizes,
            (_EVERYTHING, *REQUEST_CLASSES, *_agent_scopes(frame)),
            tuple(sorted({AS_REQUESTED, *efforts})),
            tuple(sorted(gains, key=lambda name: (gains[name], name))),
            tuple(_guesses(tuple(sizes), cheapest, bool(gains))),
            assumptions or ReplayAssumptions(),
        )

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draws the parameters of one policy; ``threshold_tokens`` and ``upper_tokens`` (where
        there is a middle band) are what the drawn shares come to."""
        choices = (*self.models, AS_REQUESTED)
        drawn: dict[str, Any] = {
            "measure": trial.suggest_categorical("measure", tuple(self.sizes)),
            "threshold_share": trial.suggest_float("threshold_share", LEAST_SHARE, MOST_SHARE),
            "unit": trial.suggest_categorical("unit", UNITS),
            "scope": trial.suggest_categorical("scope", self.scopes),
            "short_model": trial.suggest_categorical("short_model", choices),
            "middle_model": trial.suggest_categorical("middle_model", (NO_BAND, *choices)),
            "long_model": trial.suggest_categorical("long_model", choices),
            "ceiling_share": trial.suggest_categorical("ceiling_share", CEILING_SHARES),
        }
        if drawn["middle_model"] != NO_BAND:
            drawn["upper_share"] = trial.suggest_float("upper_share", 0.05, 0.95)
        if drawn["unit"] in ("user_turn", "request"):
            drawn["tool_loop_lock"] = trial.suggest_categorical("tool_loop_lock", (True, False))
            drawn["min_run_requests"] = trial.suggest_categorical("min_run_requests", LEAST_RUNS)
        if self.repositories:
            drawn["repositories"] = trial.suggest_categorical("repositories", (_EVERYTHING, "some"))
            if drawn["repositories"] == "some":
                drawn["repository_share"] = trial.suggest_float("repository_share", 0.0, 1.0)
        if len(self.efforts) > 1:
            for name in ("short_effort", "long_effort"):
                drawn[name] = trial.suggest_categorical(name, self.efforts)
        return self.complete(drawn)

    def complete(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as Optuna keeps them, with the thresholds in tokens."""
        share = drawn["threshold_share"]
        tokens = {"threshold_tokens": self._tokens(drawn["measure"], share)}
        if drawn["middle_model"] != NO_BAND:
            upper = share + (1.0 - share) * drawn["upper_share"]
            tokens["upper_tokens"] = self._tokens(drawn["measure"], upper)
        return {**drawn, **tokens}

    def policy(self, parameters: Mapping[str, Any]) -> RoutingPolicy:
        """The document of a set of parameters, with a ceiling for each model that it names."""
        in_scope = _scope_conditions(parameters["scope"])
        repositories = self._repositories(parameters)
        if repositories:
            in_scope = (*in_scope, Condition("repository", "in", repositories))
        size = Condition("input_tokens", "<", parameters["threshold_tokens"])
        short_effort = parameters.get("short_effort", AS_REQUESTED)
        long_effort = parameters.get("long_effort", AS_REQUESTED)
        long_model = parameters["long_model"]
        rules = [Rule("short", (*in_scope, size), parameters["short_model"], short_effort)]
        upper = parameters.get("upper_tokens", 0)
        middle = parameters["middle_model"] if upper > parameters["threshold_tokens"] else NO_BAND
        if middle != NO_BAND:
            below = Condition("input_tokens", "<", upper)
            rules.append(Rule("middle", (*in_scope, below), middle))
        needs_rule = bool(in_scope and long_model) or bool(long_effort)
        if needs_rule:
            rules.append(Rule("long", in_scope, long_model, long_effort))
        named = {parameters["short_model"], middle, long_model} - {AS_REQUESTED, NO_BAND}
        ceilings = {model: self.assumptions.ceiling(model) for model in sorted(named)}
        share = parameters["ceiling_share"]
        return RoutingPolicy(
            name="searched",
            rules=tuple(rules),
            measure=parameters["measure"],
            unit=parameters["unit"],
            default_model="" if in_scope or needs_rule else long_model,
            description=_describe(parameters, middle, len(repositories)),
            guards=Guards(
                {m: int(most * share) for m, most in ceilings.items() if most is not None},
                tool_loop_lock=parameters.get("tool_loop_lock", True),
                min_run_requests=parameters.get("min_run_requests", 0),
            ),
        )

    def _repositories(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The share of the repositories that is asked for, at least one; none for all of them."""
        if parameters.get("repositories", _EVERYTHING) == _EVERYTHING:
            return ()
        count = max(1, round(parameters["repository_share"] * len(self.repositories)))
        return self.repositories[:count]

    def _tokens(self, measure: str, share: float) -> int:
        return _rounded(max(1, int(np.interp(share, _QUANTILES, self.sizes[measure]))))


def _measures_of(frame: TurnFrame) -> tuple[Measure, ...]:
    """All but the length of prompts where most turns don't know it: it would read as 0."""
    if len(frame) == 0:
        return ()
    lengths = frame.measure("prompt_tokens", Estimator())
    known = float((lengths > 0).mean()) >= _KNOWN_SHARE
    return tuple(measure for measure in MEASURES if known or measure != "prompt_tokens")


def _agent_scopes(frame: TurnFrame) -> list[str]:
    names = frame.agent_name
    counts = np.bincount(names.codes, minlength=len(names.values))
    common = [
        (count, name)
        for count, name in zip(counts.tolist(), names.values, strict=True)
        if name and count >= _AGENT_SHARE * len(frame)
    ]
    ranked = sorted(common, key=lambda item: (-item[0], item[1]))
    return [f"{_AGENT}{name}" for _, name in ranked[:_MOST_AGENTS]]


def _guesses(measures: Sequence[str], cheapest: str, ranked: bool) -> Iterable[Mapping[str, Any]]:
    """The search starts from the plain idea, small requests to the cheapest model, at thresholds
    spread over the log; a random start seldom meets it."""
    for share in _GUESSED_SHARES:
        for measure in measures:
            yield {
                "measure": measure,
                "threshold_share": share,
                "unit": "session",
                "scope": _EVERYTHING,
                "short_model": cheapest,
                "middle_model": NO_BAND,
                "long_model": AS_REQUESTED,
                "ceiling_share": 1.0,
            } | ({"repositories": _EVERYTHING} if ranked else {})
    for share in _GUESSED_SHARES if ranked else ():
        yield {
            "measure": measures[0],
            "threshold_share": 0.5,
            "unit": "session",
            "scope": _EVERYTHING,
            "short_model": cheapest,
            "middle_model": NO_BAND,
            "long_model": cheapest,
            "ceiling_share": 1.0,
            "repositories": "some",
            "repository_share": share,
        }


def _scope_conditions(scope: str) -> tuple[Condition, ...]:
    if scope == _EVERYTHING:
        return ()
    if scope.startswith(_AGENT):
        return (Condition("agent_name", "==", scope.removeprefix(_AGENT)),)
    return (Condition("request_class", "==", scope),)


def _describe(parameters: Mapping[str, Any], middle: str, repositories: int) -> str:
    def target(model: str, effort: str = "") -> str:
        return (model or "the requested model") + (f" at {effort} effort" if effort else "")

    scope = parameters["scope"]
    scopes = {_EVERYTHING: "all requests", "main": "the main loop", "subagent": "subagents"}
    where = scopes.get(scope, f"the {scope}")
    if repositories:
        where += f" in {repositories} {'repository' if repositories == 1 else 'repositories'}"
    between = f"under {parameters.get('upper_tokens', 0):,} to {target(middle)}, "
    lock = "" if parameters.get("tool_loop_lock", True) else ", inside tool loops too"
    least = parameters.get("min_run_requests", 0)
    lock += f", for {least} requests at least" if least else ""
    return (
        f"Under {parameters['threshold_tokens']:,} {parameters['measure']} to "
        f"{target(parameters['short_model'], parameters.get('short_effort', ''))}, "
        f"{between if middle != NO_BAND else ''}else to "
        f"{target(parameters['long_model'], parameters.get('long_effort', ''))}; {where}, "
        f"kept per {parameters['unit']}{lock}."
    )


def models_of(frame: TurnFrame, price_book: PriceBook) -> tuple[str, ...]:
    """The models of the classic policy and those that were requested, as far as they are priced."""
    known = {*classic_policy().models(), *map(undated, frame.requested_model.values)}
    return tuple(sorted(model for model in known if price_book.knows(model)))


def cheapest_of(models: Iterable[str], price_book: PriceBook) -> str:
    return min(models, key=lambda model: _input_price(price_book, model), default="")


def _input_price(price_book: PriceBook, model: str) -> int:
    price = price_book.find(model, "9999-12-31")
    return price.input_microusd if price else 0


def _rounded(tokens: int) -> int:
    """Two significant digits: more would fit the log, not the work."""
    step = int(10 ** max(0, len(str(tokens)) - 2))
    return max(1, round(tokens / step) * step)
