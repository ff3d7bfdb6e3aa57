"""What another policy would have done to quality, from logs that were routed by chance.

The unit is the session, because what one turn does carries over to the next. Each session was
given a whole policy (an *arm*) by a logged draw. A candidate is deterministic, so the exact
likelihood ratio of a session is

    w = 1{candidate routes every turn as its arm did} / sum over arms k of
        p_k * 1{arm k would have routed every turn so}

in which everything that users and models do cancels. On these weights stand SNIPS and a doubly
robust mean with cross-fitting by session (Dudik, Langford and Li, 2011; Chernozhukov et al.,
2018), intervals by bootstrap over sessions with a t quantile (as clustered regression does it
with few clusters), and the refusals: where the log can't answer there is no number.

Arms are compared by what their policies say for the logged features, not by what was served: a
fallback stays with the arm that was drawn (intention to treat).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loop.domain.estimates import Interval, QualityEstimate
from loop.domain.policies import Publication, RoutingPolicy
from optimizers.assignment_log import AssignmentLog, route_codes
from optimizers.session_means import SessionMeans
from optimizers.turn_frame import TurnFrame

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
NOT_ASKED = QualityEstimate(
    None, None, None, 0, 0.0, 0.0, ("no scored sessions were given to estimate quality from",)
)


@dataclass(frozen=True, slots=True)
class EstimationLimits:
    """When an estimate is refused, and how it is computed.

    ``weight_tolerance`` bounds how far the mean weight may lie from 1; it widens to four standard
    errors where there are few sessions. ``max_unsupported_share``: sessions that no arm would
    have routed as the candidate does. ``max_unfaithful_share``: sessions whose gateway routed
    otherwise than their arm says.
    """

    min_scored_sessions: int = 60
    min_effective_sessions: float = 30.0
    weight_tolerance: float = 0.05
    max_unsupported_share: float = 0.05
    max_unfaithful_share: float = 0.05
    folds: int = 5
    bootstrap_draws: int = 400
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    weights: Floats  # one per session
    unsupported_share: float
    refusals: tuple[str, ...]

    @property
    def effective(self) -> float:
        square = float(np.square(self.weights).sum())
        return float(self.weights.sum()) ** 2 / square if square else 0.0


def estimate_quality(
    frame: TurnFrame,
    candidate: RoutingPolicy,
    publications: Mapping[int, Publication],
    session_quality: Mapping[str, float],
    incumbent: RoutingPolicy,
    limits: EstimationLimits | None = None,
) -> QualityEstimate:
    """Estimates the candidate's mean session quality and its difference to the incumbent's.

    ``publications`` by serial say which policy each arm was; ``session_quality`` is in [0, 1] per
    session id. For many candidates keep one :class:`QualityLog`.
    """
    log = QualityLog(frame, publications, session_quality, incumbent, limits)
    return log.estimate(candidate)


class QualityLog:
    """The scored, randomised sessions of a frame, ready to answer for many candidates."""

    def __init__(
        self,
        frame: TurnFrame,
        publications: Mapping[int, Publication],
        session_quality: Mapping[str, float],
        incumbent: RoutingPolicy,
        limits: EstimationLimits | None = None,
    ) -> None:
        self.limits = limits or EstimationLimits()
        self.log = AssignmentLog.read(frame, publications, session_quality)
        self.incumbent = incumbent

    @property
    def is_answerable(self) -> bool:
        """Whether the log holds enough randomised, scored sessions to answer for any policy."""
        return not self.refusals

    def estimate(self, candidate: RoutingPolicy) -> QualityEstimate:
        """The estimate, or the reasons for having none."""
        log = self.log
        if self.refusals:
            return QualityEstimate(None, None, None, len(log), 0.0, 0.0, self.refusals)
        theirs = self._weigh(candidate, "candidate")
        support = float(theirs.weights.mean())
        if theirs.refusals:
            return QualityEstimate(
                None, None, None, len(log), theirs.effective, support, theirs.refusals
            )
        ours = self._weigh(self.incumbent, "incumbent")
        value, difference = self._means.compare(theirs.weights, ours.weights)
        snips = float((theirs.weights @ log.quality) / theirs.weights.sum())
        return QualityEstimate(
            value=_within(value, 0.0, 1.0),
            difference=None if ours.refusals else _within(difference, -1.0, 1.0),
            snips=snips,
            sessions=len(log),
            effective_sample_size=theirs.effective,
            support=support,
            refusals=ours.refusals,
        )

    @cached_property
    def _means(self) -> SessionMeans:
        limits = self.limits
        return SessionMeans(
            self.log.quality,
            self.log.features,
            self.log.folds(limits.folds),
            limits.bootstrap_draws,
            limits.seed,
        )

    @cached_property
    def refusals(self) -> tuple[str, ...]:
        """Why the log can't answer for any policy; empty when it can."""
        log, limits = self.log, self.limits
        if log.randomised_sessions == 0:
            return (
                "no logged randomised propensity: the sessions were not given their policy by a "
                "logged draw, so what another policy would have done can't be told from them",
            )
        reasons = []
        if len(log) < limits.min_scored_sessions:
            reasons.append(
                f"too few scored sessions: {len(log)} randomised sessions have a score and a "
                f"known arm, {limits.min_scored_sessions} are needed"
            )
            return tuple(reasons)
        if log.unfaithful_share > limits.max_unfaithful_share:
            reasons.append(
                f"the gateway routed {log.unfaithful_share:.1%} of the sessions otherwise than "
                f"their arm's policy says; at most {limits.max_unfaithful_share:.1%} may be"
            )
        if log.wrong_propensity_share > 0.01:
            reasons.append(
                f"the logged propensity is not the weight of the arm in "
                f"{log.wrong_propensity_share:.1%} of the sessions"
            )
        return tuple(reasons)

    @cached_property
    def _incumbent_weights(self) -> _Weights:
        return self._weights(self.incumbent, "incumbent")

    def _weigh(self, policy: RoutingPolicy, name: str) -> _Weights:
        if policy == self.incumbent:
            return self._incumbent_weights
        return self._weights(policy, name)

    def _weights(self, policy: RoutingPolicy, name: str) -> _Weights:
        log, limits = self.log, self.limits
        codes = route_codes(policy, log.frame, log.vocabulary)
        weights = np.where(log.agrees(codes, log.drawn_codes), 1.0 / log.probability, 0.0)
        unsupported = 1.0 - float(log.is_supported(codes).mean())
        total = _Weights(weights, unsupported, ())
        refusals = []
        if unsupported > limits.max_unsupported_share:
            refusals.append(
                f"outside support: no logged arm would have routed {unsupported:.1%} of the "
                f"sessions as the {name} does; at most {limits.max_unsupported_share:.1%} may be"
            )
        error = float(weights.std(ddof=1)) / np.sqrt(len(weights))
        tolerance = max(limits.weight_tolerance, 4.0 * error)
        mean = float(weights.mean())
        if abs(mean - 1.0) > tolerance:
            refusals.append(
                f"the {name}'s weights average {mean:.2f}, not 1 ± {tolerance:.2f}: the logged "
                "propensities are wrong or the log does not cover it"
            )
        if total.effective < limits.min_effective_sessions:
            refusals.append(
                f"the {name}'s effective sample size is {total.effective:.1f} sessions, "
                f"{limits.min_effective_sessions:g} are needed"
            )
        return _Weights(weights, unsupported, tuple(refusals))


def _within(interval: Interval, least: float, most: float) -> Interval:
    return Interval(
        interval.estimate,
        float(np.clip(interval.low, least, most)),
        float(np.clip(interval.high, least, most)),
    )
