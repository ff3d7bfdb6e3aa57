"""The policies that a search may try: two bands of input size, in a scope, kept over a unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna

from loop.domain.errors import BadInput
from loop.domain.money import PriceBook
from loop.domain.policies import (
    MEASURES,
    UNITS,
    Condition,
    Estimator,
    Guards,
    Measure,
    RoutingPolicy,
    Rule,
)
from optimizers.classic import classic_policy
from optimizers.replay_assumptions import ReplayAssumptions, undated
from optimizers.turn_frame import TurnFrame

SCOPES = ("all", "main", "subagent")
AS_REQUESTED = ""
_GUESSED_QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
_KNOWN_SHARE = 0.5
_LEAST_TOKENS, _MOST_TOKENS = 10, 1_000_000


@dataclass(frozen=True, slots=True)
class PolicySpace:
    """``models`` may serve either band, beside leaving the requested model. Thresholds are
    searched on a logarithmic scale inside ``threshold_bounds`` (tokens, per measure): a measure
    that is not in there is not searched."""

    models: tuple[str, ...]
    threshold_bounds: Mapping[str, tuple[int, int]]
    first_guesses: tuple[Mapping[str, Any], ...] = ()  # parameters as Optuna stores them
    assumptions: ReplayAssumptions = field(default_factory=ReplayAssumptions)

    @classmethod
    def of_log(
        cls,
        frame: TurnFrame,
        price_book: PriceBook,
        models: tuple[str, ...] = (),
        assumptions: ReplayAssumptions | None = None,
    ) -> PolicySpace:
        """The space that a log gives rise to: thresholds where its turns lie, of the measures that
        it holds (no prompt lengths, no thresholds on them).

        Without ``models``, those of the classic policy and those that were requested, as far as
        they are priced. Raises :class:`BadInput` for a named model without a price.
        """
        unpriced = [model for model in models if not price_book.knows(model)]
        if unpriced:
            raise BadInput(
                f"{unpriced[0]} has no price, so what it would cost can't be told.",
                fix="Add it to the price book or leave it out.",
            )
        if not models:
            requested = map(undated, frame.requested_model.values)
            known = {*classic_policy().models(), *requested}
            models = tuple(sorted(model for model in known if price_book.knows(model)))
        bounds: dict[str, tuple[int, int]] = {}
        guesses: list[Mapping[str, Any]] = []
        cheapest = min(models, key=lambda model: _input_price(price_book, model), default="")
        for measure in _measures_of(frame):
            sizes = frame.measure(measure, Estimator())
            low, high = np.quantile(sizes, [0.005, 0.995]) if len(sizes) else (0, 0)
            least = int(np.clip(low, _LEAST_TOKENS, _MOST_TOKENS // 2))
            bounds[measure] = (least, int(np.clip(high * 1.1, 2 * least, _MOST_TOKENS)))
            # The search starts from the plain idea, small requests to the cheapest model, at
            # thresholds spread over the log; a random start seldom meets it.
            for threshold in np.quantile(sizes, _GUESSED_QUANTILES) if len(sizes) else ():
                guesses.append(
                    {
                        "measure": measure,
                        f"threshold_tokens.{measure}": int(np.clip(threshold, *bounds[measure])),
                        "unit": "session",
                        "scope": "all",
                        "short_model": cheapest,
                        "long_model": AS_REQUESTED,
                    }
                )
        return cls(models, bounds, tuple(guesses), assumptions or ReplayAssumptions())

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draws the parameters of one policy."""
        measure = trial.suggest_categorical("measure", tuple(self.threshold_bounds))
        low, high = self.threshold_bounds[measure]
        threshold = trial.suggest_int(f"threshold_tokens.{measure}", low, high, log=True)
        choices = (*self.models, AS_REQUESTED)
        return {
            "measure": measure,
            "threshold_tokens": _rounded(threshold),
            "unit": trial.suggest_categorical("unit", UNITS),
            "scope": trial.suggest_categorical("scope", SCOPES),
            "short_model": trial.suggest_categorical("short_model", choices),
            "long_model": trial.suggest_categorical("long_model", choices),
        }

    def policy(self, parameters: Mapping[str, Any]) -> RoutingPolicy:
        """The document of a set of parameters, with a ceiling for each model that it names."""
        in_scope: tuple[Condition, ...] = ()
        if parameters["scope"] != "all":
            in_scope = (Condition("request_class", "==", parameters["scope"]),)
        size = Condition("input_tokens", "<", parameters["threshold_tokens"])
        rules = [Rule("short", (*in_scope, size), parameters["short_model"])]
        if in_scope and parameters["long_model"]:
            rules.append(Rule("long", in_scope, parameters["long_model"]))
        named = {parameters["short_model"], parameters["long_model"]} - {AS_REQUESTED}
        ceilings = {model: self.assumptions.ceiling(model) for model in sorted(named)}
        return RoutingPolicy(
            name="searched",
            rules=tuple(rules),
            measure=parameters["measure"],
            unit=parameters["unit"],
            default_model="" if in_scope else parameters["long_model"],
            description=_describe(parameters),
            guards=Guards({model: most for model, most in ceilings.items() if most is not None}),
        )


def _measures_of(frame: TurnFrame) -> tuple[Measure, ...]:
    """All but the length of prompts where most turns don't know it: it would read as 0."""
    lengths = frame.measure("prompt_tokens", Estimator())
    known = len(lengths) > 0 and float((lengths > 0).mean()) >= _KNOWN_SHARE
    return tuple(measure for measure in MEASURES if known or measure != "prompt_tokens")


def _describe(parameters: Mapping[str, Any]) -> str:
    short = parameters["short_model"] or "the requested model"
    long = parameters["long_model"] or "the requested model"
    scope = {"all": "all requests", "main": "the main loop", "subagent": "subagents"}
    return (
        f"Under {parameters['threshold_tokens']:,} {parameters['measure']} to {short}, "
        f"else to {long}; {scope[parameters['scope']]}, kept per {parameters['unit']}."
    )


def _input_price(price_book: PriceBook, model: str) -> int:
    price = price_book.find(model, "9999-12-31")
    return price.input_microusd if price else 0


def _rounded(tokens: int) -> int:
    """Two significant digits: more would fit the log, not the work."""
    step = int(10 ** max(0, len(str(tokens)) - 2))
    return max(1, round(tokens / step) * step)
