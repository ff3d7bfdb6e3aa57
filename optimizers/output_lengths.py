"""How much one model writes for each token of another, and one effort for another, from the log.

A replay keeps the work and changes who does it, so it needs the ratio of mean output tokens per
turn. It is estimated by request class, first from sessions that drew their policy at random, each
turn weighted by one over the logged chance of having been served so (Horvitz and Thompson, 1952),
on turns that could have been served either way. Where no draw tells, turns are matched: means are
compared within repository, requested effort (or model) and place in the user turn, with overlap
weights (Li, Morgan and Zaslavsky, 2018). Matching knows nothing of why people chose a model.
Intervals are by sessions, on the log scale. Where the log holds neither there is no ratio here,
and the replay's stated assumption stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from loop.domain.estimates import LengthRatio
from loop.domain.policies import Publication
from optimizers.assignment_log import AssignmentLog, split_code
from optimizers.replay_assumptions import undated
from optimizers.turn_columns import Integers, TextColumn
from optimizers.turn_frame import TurnFrame

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
MIN_SIDE_SESSIONS = 30
"""Fewer sessions on either side, and the log is taken not to tell."""


@dataclass(frozen=True)
class OutputLengths:
    """The ratios that a log tells; empty where it tells none."""

    ratios: tuple[LengthRatio, ...] = ()

    def of_models(self, request_class: str, served: str, target: str) -> LengthRatio | None:
        """What ``target`` writes for each token of ``served``; models without dates."""
        return self._known.get((request_class, served, target, "", ""))

    def of_efforts(
        self, request_class: str, model: str, logged: str, wanted: str
    ) -> LengthRatio | None:
        """What a model writes at the effort ``wanted`` for each token at ``logged``."""
        return self._known.get((request_class, model, model, logged, wanted))

    @cached_property
    def knows_efforts(self) -> bool:
        return any(ratio.from_model == ratio.to_model for ratio in self.ratios)

    @cached_property
    def _known(self) -> dict[tuple[str, str, str, str, str], LengthRatio]:
        return {ratio.key: ratio for ratio in self.ratios}


def fit_output_lengths(
    frame: TurnFrame, publications: Mapping[int, Publication] | None = None
) -> OutputLengths:
    """Fits the ratios; a random draw goes before a match."""
    known: dict[tuple[str, str, str, str, str], LengthRatio] = {}
    for ratio in (*_randomised(frame, publications or {}), *_matched(frame)):
        known.setdefault(ratio.key, ratio)
    return OutputLengths(tuple(known[key] for key in sorted(known)))


@dataclass(frozen=True, slots=True)
class _Way:
    """One way of being served: which model, at which effort ("": as asked, or any)."""

    model: str
    effort: str = ""


def _randomised(frame: TurnFrame, publications: Mapping[int, Publication]) -> Iterator[LengthRatio]:
    everyone = dict.fromkeys(frame.session_ids, 1.0)
    log = AssignmentLog.read(frame, publications, everyone)
    if len(log) < 2 * MIN_SIDE_SESSIONS:
        return
    served = _undated(log.frame.served_model)
    usable = log.decided & (log.frame.output_tokens > 0)
    names = tuple(log.vocabulary.codes)
    ways = {}
    for code in np.unique(log.drawn_codes[usable]).tolist():
        model, effort = split_code(code)
        ways[code] = _Way(names[model], names[effort])
        # A turn that a fallback served was not written by the model that was drawn.
        usable &= (log.drawn_codes != code) | served.equals(names[model])
    chances = {code: log.chance_of(code) for code in ways}
    for one, other in combinations(sorted(ways), 2):
        left, right = ways[one], ways[other]
        if (left.model == right.model) == (left.effort == right.effort):
            continue
        both = usable & (chances[one] > 0) & (chances[other] > 0)
        weights = [
            np.divide(log.drawn_codes == code, chances[code], out=np.zeros(len(both)), where=both)
            for code in (one, other)
        ]
        yield from _by_class(log.frame, left, right, weights[0], weights[1], "randomised")


def _matched(frame: TurnFrame) -> Iterator[LengthRatio]:
    served = _undated(frame.served_model)
    usable = (frame.output_tokens > 0) & ~served.equals("")
    place = frame.repository.codes.astype(np.int64) * 2 + frame.starts_user_turn
    efforts = frame.logged_effort
    at_effort = place * len(efforts.values) + efforts.codes if len(frame) else place
    models = [name for name in served.values if name]
    for left, right in combinations(models, 2):
        weights = _overlap_weights(
            usable & served.equals(left), usable & served.equals(right), at_effort
        )
        yield from _by_class(frame, _Way(left), _Way(right), *weights, "matched")
    named = [name for name in efforts.values if name]
    for model in models:
        on_model = usable & served.equals(model)
        for one, other in combinations(named, 2):
            weights = _overlap_weights(
                on_model & efforts.equals(one), on_model & efforts.equals(other), place
            )
            left_way, right_way = _Way(model, one), _Way(model, other)
            yield from _by_class(frame, left_way, right_way, *weights, "matched")


def _overlap_weights(left: Booleans, right: Booleans, stratum: Integers) -> tuple[Floats, Floats]:
    """Weights under which both sides are spread alike over the strata."""
    if not left.any() or not right.any():
        return np.zeros(len(left)), np.zeros(len(left))
    _, cell = np.unique(stratum, return_inverse=True)
    counts = [np.bincount(cell, side, minlength=int(cell.max()) + 1) for side in (left, right)]
    total = counts[0] + counts[1]
    # Of the overlap n1 n2 / (n1 + n2) each of the n1 turns of one side gets n2 / (n1 + n2).
    shares = [counts[1] / np.maximum(total, 1), counts[0] / np.maximum(total, 1)]
    return left * shares[0][cell], right * shares[1][cell]


def _by_class(
    frame: TurnFrame, left: _Way, right: _Way, ours: Floats, theirs: Floats, basis: str
) -> Iterator[LengthRatio]:
    """Both directions of one comparison, in each request class that holds enough sessions."""
    for code, name in enumerate(frame.request_class.values):
        rows = np.flatnonzero((frame.request_class.codes == code) & ((ours > 0) | (theirs > 0)))
        found = _log_ratio(
            frame.output_tokens[rows].astype(float), frame.session[rows], ours[rows], theirs[rows]
        )
        if found is None:
            continue
        log_ratio, half, counts = found
        for start, end, sign in ((left, right, 1.0), (right, left, -1.0)):
            yield LengthRatio(
                request_class=name,
                from_model=start.model,
                to_model=end.model,
                from_effort=start.effort if start.model == end.model else "",
                to_effort=end.effort if start.model == end.model else "",
                ratio=float(np.exp(sign * log_ratio)),
                low=float(np.exp(sign * log_ratio - half)),
                high=float(np.exp(sign * log_ratio + half)),
                basis=basis,  # type: ignore[arg-type]
                sessions=counts if sign > 0 else counts[::-1],
            )


def _log_ratio(
    output: Floats, session: Integers, ours: Floats, theirs: Floats
) -> tuple[float, float, tuple[int, int]] | None:
    """The log of the ratio of weighted means, the half width of its 95 % interval (linearised,
    clustered by session), and the sessions on either side; ``None`` where these are too few."""
    from scipy import stats  # slow to load, and most logs have nothing to compare

    counts = (len(np.unique(session[ours > 0])), len(np.unique(session[theirs > 0])))
    if min(counts) < MIN_SIDE_SESSIONS:
        return None
    means, influence = [], []
    for weights in (ours, theirs):
        mean = float(weights @ output / weights.sum())
        means.append(mean)
        influence.append(weights * (output - mean) / (weights.sum() * mean))
    _, cluster = np.unique(session, return_inverse=True)
    by_session = np.bincount(cluster, influence[1] - influence[0])
    groups = len(by_session)
    spread = float(np.sqrt(np.square(by_session).sum() * groups / (groups - 1)))
    quantile = float(stats.t.ppf(0.975, min(counts) - 1))
    return float(np.log(means[1] / means[0])), quantile * spread, counts


def _undated(column: TextColumn) -> TextColumn:
    names = [undated(name) for name in column.values]
    values = tuple(dict.fromkeys(names))
    code = np.array([values.index(name) for name in names], np.int32)
    return TextColumn(code[column.codes] if len(names) else column.codes, values)
