"""One policy on one set of sessions: its cost, its reach and its quality, in one record."""

from __future__ import annotations

from loop.domain.estimates import PolicyEstimate, QualityEstimate
from loop.domain.money import PriceBook
from loop.domain.policies import RoutingPolicy
from optimizers.off_policy import NOT_ASKED, QualityLog
from optimizers.reach import reach_of
from optimizers.replay import Replayer, ReplayResult
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.turn_frame import TurnFrame


def estimate_policy(
    policy: RoutingPolicy,
    frame: TurnFrame,
    price_book: PriceBook,
    *,
    incumbent: RoutingPolicy | None = None,
    quality_log: QualityLog | None = None,
    assumptions: ReplayAssumptions | None = None,
) -> PolicyEstimate:
    """Replays the policy over the frame, and estimates its quality from ``quality_log`` (of the
    same frame); without one the quality is refused in words.

    The incumbent is the policy in force; without one it is what was served, at what was billed.
    """
    return estimate_with(policy, Replayer(frame, price_book, assumptions), incumbent, quality_log)


def estimate_with(
    policy: RoutingPolicy,
    replayer: Replayer,
    incumbent: RoutingPolicy | None,
    quality_log: QualityLog | None,
) -> PolicyEstimate:
    """As :func:`estimate_policy`, on a replayer that is at hand."""
    theirs = replayer.replay(policy)
    ours = replayer.replay(incumbent) if incumbent else replayer.replay_as_served()
    both = theirs.is_priced & ours.is_priced
    quality: QualityEstimate = quality_log.estimate(policy) if quality_log else NOT_ASKED
    return PolicyEstimate(
        policy_digest=policy.digest,
        sessions=replayer.frame.n_sessions,
        turns=len(replayer.frame),
        logged_cost_microusd=theirs.logged_cost_microusd,
        incumbent_cost_microusd=int(ours.candidate_turn_cost_microusd[both].sum()),
        candidate_cost_microusd=int(theirs.candidate_turn_cost_microusd[both].sum()),
        naive_cost_microusd=int(theirs.naive_turn_cost_microusd[both].sum()),
        rerouted_turns=theirs.rerouted_turns,
        reach=reach_of(policy, replayer.frame, replayer),
        quality=quality,
        unpriced_turns=int(len(both) - both.sum()),
        modelled_cost_microusd=int(replayer.modelled_turn_cost_microusd.sum()),
    )


def saving_share(theirs: ReplayResult, ours: ReplayResult) -> float:
    """The share of our cost that theirs saves, over the turns that are priced on both sides."""
    both = theirs.is_priced & ours.is_priced
    cost = int(ours.candidate_turn_cost_microusd[both].sum())
    if cost == 0:
        return 0.0
    return 1.0 - int(theirs.candidate_turn_cost_microusd[both].sum()) / cost
