"""What another policy would have done to an outcome, from logs that were routed by chance.

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

from loop.domain.estimates import Interval, OutcomeEstimate
from loop.domain.policies import Publication, RoutingPolicy
from optimizers.assignment_log import AssignmentLog, codes_of, route_codes
from optimizers.routing import routes
from optimizers.session_means import Floats, SessionMeans
from optimizers.turn_frame import TurnFrame

Booleans = NDArray[np.bool_]
Bounds = tuple[float, float]
UNIT: Bounds = (0.0, 1.0)
NOT_ASKED = OutcomeEstimate(
    None, None, None, 0, 0.0, 0.0, ("no scored sessions were given to estimate quality from",)
)


@dataclass(frozen=True, slots=True)
class EstimationLimits:
    """When an estimate is refused, and how it is computed.

    ``weight_tolerance`` bounds how far the mean weight may lie from 1; it widens to four standard
    errors where there are few sessions. ``max_unsupported_share``: sessions that no arm would
    have routed as the candidate does. ``max_unfaithful_share``: sessions whose gateway routed
    otherwise than their arm says. ``max_redrawn_share``: sessions that drew their arm anew on the
    way. ``min_slice_sessions``: effective sessions, on either side, that a slice needs.
    """

    min_scored_sessions: int = 60
    min_effective_sessions: float = 30.0
    weight_tolerance: float = 0.05
    max_unsupported_share: float = 0.05
    max_unfaithful_share: float = 0.05
    max_redrawn_share: float = 0.05
    min_slice_sessions: float = 20.0
    folds: int = 5
    bootstrap_draws: int = 400
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SessionWeights:
    """Likelihood ratios of a policy against the draw, one per session of a log."""

    weights: Floats
    unsupported_share: float
    refusals: tuple[str, ...]

    @property
    def effective(self) -> float:
        return effective_size(self.weights)


@dataclass(frozen=True, slots=True)
class Support:
    """How far a log can answer for a candidate that changes something.

    A *cell* is what one rule of the candidate does to the sessions that it routes otherwise than
    the incumbent; ``fewest_cell_sessions`` is the least number of sessions, over all cells, that
    were drawn to be routed just so (infinite where nothing changes).
    """

    unsupported_share: float
    fewest_cell_sessions: float


def effective_size(weights: Floats) -> float:
    """How many equally weighted sessions these are worth (Kish, 1965)."""
    square = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / square if square else 0.0


def estimate_quality(
    frame: TurnFrame,
    candidate: RoutingPolicy,
    publications: Mapping[int, Publication],
    session_quality: Mapping[str, float],
    incumbent: RoutingPolicy,
    limits: EstimationLimits | None = None,
) -> OutcomeEstimate:
    """Estimates the candidate's mean session quality and its difference to the incumbent's.

    ``publications`` by serial say which policy each arm was; ``session_quality`` is in [0, 1] per
    session id. For many candidates keep one :class:`OutcomeLog`.
    """
    log = OutcomeLog(frame, publications, session_quality, incumbent, limits)
    return log.estimate(candidate)


class OutcomeLog:
    """The randomised sessions of a frame whose outcome is known, ready to answer for many
    candidates.

    ``outcome`` names it in reasons (the quality is called a score there); ``bounds`` are the
    least and the most that one session can have.
    """

    def __init__(
        self,
        frame: TurnFrame,
        publications: Mapping[int, Publication],
        session_outcomes: Mapping[str, float],
        incumbent: RoutingPolicy,
        limits: EstimationLimits | None = None,
        *,
        outcome: str = "quality",
        bounds: Bounds = UNIT,
    ) -> None:
        self.limits = limits or EstimationLimits()
        self.log = AssignmentLog.read(frame, publications, session_outcomes)
        self.incumbent = incumbent
        self.outcome = outcome
        self._bounds = bounds

    @property
    def is_answerable(self) -> bool:
        """Whether the log holds enough randomised, scored sessions to answer for any policy."""
        return not self.refusals

    def estimate(self, candidate: RoutingPolicy) -> OutcomeEstimate:
        """The estimate, or the reasons for having none."""
        log = self.log
        if self.refusals:
            return OutcomeEstimate(None, None, None, len(log), 0.0, 0.0, self.refusals)
        theirs = self.weigh(candidate)
        support, largest = float(theirs.weights.mean()), float(theirs.weights.max())
        if theirs.refusals:
            return OutcomeEstimate(
                None, None, None, len(log), theirs.effective, support, theirs.refusals,
                largest_weight=largest,
            )  # fmt: skip
        ours = self.incumbent_weights
        found = self._means.compare(theirs.weights, ours.weights)
        least, most = self._bounds
        return OutcomeEstimate(
            value=_within(found.value.interval, least, most),
            difference=None
            if ours.refusals
            else _within(found.difference.interval, least - most, most - least),
            snips=float((theirs.weights @ log.outcome) / theirs.weights.sum()),
            sessions=len(log),
            effective_sample_size=theirs.effective,
            support=support,
            refusals=ours.refusals,
            direct_method=found.direct_method,
            largest_weight=largest,
        )

    def support(self, candidate: RoutingPolicy) -> Support:
        """What the support constraint of a search needs to know (SPIBB: Laroche et al., 2019)."""
        log = self.log
        routed = routes(candidate, log.frame)
        codes = codes_of(routed, log.vocabulary)
        ours = route_codes(self.incumbent, log.frame, log.vocabulary)
        rows = np.flatnonzero((codes != ours) & log.decided)
        session, first = np.unique(log.frame.session[rows], return_index=True)
        changed = rows[first]
        treated = self.weigh(candidate).weights[session] > 0
        _, cell = np.unique(
            np.stack([routed.rule[changed], codes[changed]]), axis=1, return_inverse=True
        )
        counts = np.bincount(cell.reshape(-1), weights=treated)
        fewest = float(counts.min()) if len(counts) else float("inf")
        return Support(self.weigh(candidate).unsupported_share, fewest)

    def means_of(self, chosen: Booleans) -> SessionMeans:
        """Means over some sessions of the log (a mask of shape ``(s,)``)."""
        limits = self.limits
        return SessionMeans(
            self.log.outcome[chosen],
            self.log.features[chosen],
            self.log.folds(limits.folds)[chosen],
            limits.bootstrap_draws,
            limits.seed,
            self._bounds,
        )

    @cached_property
    def _means(self) -> SessionMeans:
        return self.means_of(np.ones(len(self.log), bool))

    @cached_property
    def refusals(self) -> tuple[str, ...]:
        """Why the log can't answer for any policy; empty when it can."""
        log, limits = self.log, self.limits
        if log.randomised_sessions == 0 and log.redrawn_share == 0:
            return (
                "no logged randomised propensity: the sessions were not given their policy by a "
                "logged draw, so what another policy would have done can't be told from them",
            )
        if log.redrawn_share > limits.max_redrawn_share:
            return (
                f"{log.redrawn_share:.1%} of the sessions drew their arm anew on the way: what an "
                "early turn does carries over to later ones, which draws by turn can't show; at "
                f"most {limits.max_redrawn_share:.1%} may",
            )
        reasons = []
        if len(log) < limits.min_scored_sessions:
            known = "a score" if self.outcome == "quality" else f"a known {self.outcome}"
            return (
                f"too few {'scored ' if self.outcome == 'quality' else ''}sessions: {len(log)} "
                f"randomised sessions have {known} and a known arm, "
                f"{limits.min_scored_sessions} are needed",
            )
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
    def incumbent_weights(self) -> SessionWeights:
        """The weights of the incumbent, with what makes them unusable."""
        return self._weights(self.incumbent, "incumbent")

    def weigh(self, policy: RoutingPolicy) -> SessionWeights:
        """The weights of a candidate, with what makes them unusable."""
        if policy == self.incumbent:
            return self.incumbent_weights
        return self._weights(policy, "candidate")

    def _weights(self, policy: RoutingPolicy, name: str) -> SessionWeights:
        log, limits = self.log, self.limits
        codes = route_codes(policy, log.frame, log.vocabulary)
        weights = np.where(log.agrees(codes, log.drawn_codes), 1.0 / log.probability, 0.0)
        unsupported = 1.0 - float(log.is_supported(codes).mean())
        total = SessionWeights(weights, unsupported, ())
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
        return SessionWeights(weights, unsupported, tuple(refusals))


def _within(interval: Interval, least: float, most: float) -> Interval:
    return Interval(
        interval.estimate,
        float(np.clip(interval.low, least, most)),
        float(np.clip(interval.high, least, most)),
    )
