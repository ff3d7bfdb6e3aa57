"""One policy on one set of sessions: its cost, its reach and its quality, in one record."""

from __future__ import annotations

from loop.domain.estimates import PolicyEstimate, QualityEstimate
from loop.domain.money import PriceBook
from loop.domain.policies import RoutingPolicy
from optimizers.off_policy import NOT_ASKED, QualityLog
from optimizers.reach import reach_of
from optimizers.replay import Replayer
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.turn_frame import TurnFrame


def estimate_policy(
    policy: RoutingPolicy,
    frame: TurnFrame,
    price_book: PriceBook,
    *,
    quality_log: QualityLog | None = None,
    assumptions: ReplayAssumptions | None = None,
) -> PolicyEstimate:
    """Replays the policy over the frame and estimates its quality where ``quality_log`` (of the
    same frame) can say; without one the quality is refused in words."""
    return estimate_with(policy, Replayer(frame, price_book, assumptions), quality_log)


def estimate_with(
    policy: RoutingPolicy, replayer: Replayer, quality_log: QualityLog | None
) -> PolicyEstimate:
    """As :func:`estimate_policy`, on a replayer that is at hand."""
    result = replayer.replay(policy)
    modelled = replayer.modelled_turn_cost_microusd
    quality: QualityEstimate = quality_log.estimate(policy) if quality_log else NOT_ASKED
    return PolicyEstimate(
        policy_digest=policy.digest,
        sessions=replayer.frame.n_sessions,
        turns=len(replayer.frame),
        logged_cost_microusd=result.logged_cost_microusd,
        incumbent_cost_microusd=result.incumbent_cost_microusd,
        candidate_cost_microusd=result.candidate_cost_microusd,
        naive_cost_microusd=result.naive_cost_microusd,
        rerouted_turns=result.rerouted_turns,
        reach=reach_of(policy, replayer.frame, replayer),
        quality=quality,
        unpriced_turns=result.unpriced_turns,
        modelled_cost_microusd=int(modelled[result.is_priced].sum()),
    )
