"""Finds the evaluators: entry points of the group ``turnwise.evaluators``.

An evaluator that can't be loaded is reported once and left out; one that raises on a session gives
an unscored judgement of it, so that a plug-in's fault never stops the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from evaluators.contract import ENTRY_POINTS, Evaluator, unscored
from loop.domain.scores import QUALITY, Score
from loop.domain.turns import SessionTrace

logger = logging.getLogger("turnwise")


@dataclass(frozen=True, slots=True)
class EvaluatorRegistry:
    """The evaluators in order of name, and what is wrong with those that are left out."""

    evaluators: tuple[Evaluator, ...]
    problems: tuple[str, ...] = ()


def load_evaluators(entries: Iterable[EntryPoint]) -> EvaluatorRegistry:
    """Loads the evaluators that the entry points name; those that can't be are in ``problems``.

    Of two evaluators of one name the first stands, the other is a problem.
    """
    found: dict[str, Evaluator] = {QUALITY: _Reserved()}
    problems = []
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
        try:
            evaluator = entry.load()()
            identity = (evaluator.name, evaluator.version, evaluator.config_digest)
            if not all(isinstance(part, str) for part in identity) or not all(identity[:2]):
                raise TypeError(
                    "name, version and config_digest must be texts, the first two not empty"
                )
            if not callable(evaluator.evaluate):
                raise TypeError("it can't evaluate")
            if evaluator.name in found:
                raise ValueError(f"the name {evaluator.name} is taken")
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises, the service goes on
            problems.append(f"the evaluator {entry.name} ({entry.value}) is left out: {error!r}")
            logger.error("%s", problems[-1])
            continue
        found[evaluator.name] = evaluator
    del found[QUALITY]
    ordered = tuple(found[name] for name in sorted(found))
    return EvaluatorRegistry(ordered, tuple(problems))


@cache
def known_evaluators() -> EvaluatorRegistry:
    """The evaluators of every installed package, loaded once in a process."""
    return load_evaluators(entry_points(group=ENTRY_POINTS))


def evaluate_safely(evaluator: Evaluator, trace: SessionTrace) -> Score:
    """The evaluator's score; unscored where it raises or answers for something else."""
    try:
        score = evaluator.evaluate(trace)
        if (score.session_id, score.evaluator) != (trace.session_id, evaluator.name):
            raise ValueError("it answered for another session or evaluator")
    except Exception as error:
        logger.exception("the evaluator %s failed on a session", evaluator.name)
        reason = f"The evaluator failed on this session ({type(error).__name__})."
        return unscored(evaluator, trace, reason)
    return score


class _Reserved:
    """Holds the name of the combined score, which no plug-in may take."""

    name = QUALITY
    version = "-"
    config_digest = ""

    def evaluate(self, trace: SessionTrace) -> Score:
        raise NotImplementedError
