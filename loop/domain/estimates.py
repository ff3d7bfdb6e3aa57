"""What a policy would have done on logged sessions: reach, cost and quality, with uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loop.domain.policies import Measure

Verdict = Literal["passed", "failed", "inconclusive", "error"]


@dataclass(frozen=True, slots=True)
class RuleReach:
    """What one rule matches under one measure of input size: turns, and the shares of turns,
    sessions, tokens (of all classes) and dollars.

    *Matched* turns meet the rule's conditions by themselves. *Routed* turns go where the rule
    says, after units and guards; these and ``marginal_cost_microusd`` (what the policy costs more
    for having the rule) are given under the policy's own measure only. Estimates that were stored
    before they were counted have no shares of sessions and tokens.
    """

    rule_id: str
    measure: Measure
    turns: int
    turn_share: float
    cost_share: float
    routed_turn_share: float | None = None
    routed_cost_share: float | None = None
    marginal_cost_microusd: int | None = None
    session_share: float | None = None
    token_share: float | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95 % interval around an estimate."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OutcomeEstimate:
    """Off-policy estimate of the mean of one outcome of a session (its quality in [0, 1], its cost
    in USD, its waiting in seconds) and of the difference to the incumbent on the same sessions.

    ``value`` and ``difference`` are ``None`` when the log can't answer; ``refusals`` says why.
    ``direct_method`` is what the outcome model alone would say: a diagnostic, without an interval
    because none would hold.
    """

    value: Interval | None
    difference: Interval | None
    snips: float | None
    sessions: int
    effective_sample_size: float
    support: float  # mean of the weights, which is 1 when the log covers the policy
    refusals: tuple[str, ...] = ()
    direct_method: float | None = None
    largest_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class SliceEstimate:
    """A candidate on a part of the sessions: one business unit, repository, language, band of size.

    ``difference`` is of quality, with an unadjusted 95 % interval; ``None`` where the part is too
    small or not covered. ``p_worse`` is the one-sided p value of "quality is no lower than the
    incumbent's", ``p_worse_holm`` the same adjusted for all slices of the estimate (Holm, 1979).
    ``saving_share`` is by replay, of the incumbent's cost in the slice.
    """

    dimension: str
    name: str
    sessions: int
    scored_sessions: int
    effective_sample_size: float
    saving_share: float | None
    difference: Interval | None
    p_worse: float | None = None
    p_worse_holm: float | None = None


LengthBasis = Literal["randomised", "matched", "assumed"]


@dataclass(frozen=True, slots=True)
class LengthRatio:
    """Output tokens of one way of serving for each of another, each in its own tokens, in turns of
    one request class: from model to model, or on one model from effort to effort ("": as asked).

    ``low`` and ``high`` are of the 95 % interval, and ``sessions`` those on either side; an
    assumed ratio has neither. ``turns`` is how many turns of a replay it was used for.
    """

    request_class: str
    from_model: str
    to_model: str
    from_effort: str
    to_effort: str
    ratio: float
    low: float | None
    high: float | None
    basis: LengthBasis
    sessions: tuple[int, int] = (0, 0)
    turns: int = 0

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return (
            self.request_class, self.from_model, self.to_model, self.from_effort, self.to_effort,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PolicyEstimate:
    """One candidate replayed over one set of sessions.

    The costs of candidate, incumbent and naive reading are over the turns priced on every side.
    The incumbent policy's cost is its replay, which is the bill where the log was served by it;
    ``modelled_cost_microusd`` puts all turns through the cache model on their logged routes.
    """

    policy_digest: str
    sessions: int
    turns: int
    logged_cost_microusd: int  # as billed, all turns
    incumbent_cost_microusd: int  # the policy in force, replayed
    candidate_cost_microusd: int
    naive_cost_microusd: int  # logged tokens at the candidate's prices: what ignores the cache
    rerouted_turns: int
    reach: tuple[RuleReach, ...]
    quality: OutcomeEstimate
    unpriced_turns: int = 0
    modelled_cost_microusd: int | None = None
    session_cost_usd: OutcomeEstimate | None = None  # off-policy: the replay's cross-check
    session_wait_seconds: OutcomeEstimate | None = None
    slices: tuple[SliceEstimate, ...] = ()
    output_lengths: tuple[LengthRatio, ...] = ()  # of the turns that are served otherwise

    @property
    def saving_share(self) -> float | None:
        """Of the incumbent's cost; ``None`` where that is nothing, or nothing is priced."""
        if self.incumbent_cost_microusd == 0:
            return None
        return 1.0 - self.candidate_cost_microusd / self.incumbent_cost_microusd

    @property
    def calibration_residual(self) -> float | None:
        """The error of the replay's own model: the logged routes through it against their bill,
        as a share of the bill. Without a modelled cost, the incumbent's replay stands for it.
        ``None`` where nothing was billed."""
        if self.logged_cost_microusd == 0:
            return None
        modelled = self.modelled_cost_microusd
        replayed = self.incumbent_cost_microusd if modelled is None else modelled
        return replayed / self.logged_cost_microusd - 1.0
