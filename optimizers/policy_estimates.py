"""One policy on one set of sessions: its cost, its reach and its quality, in one record."""

from __future__ import annotations

from collections.abc import Sequence

from loop.domain.estimates import PolicyEstimate
from loop.domain.money import PriceBook
from loop.domain.policies import RoutingPolicy
from optimizers.length_uses import length_uses
from optimizers.off_policy import NOT_ASKED
from optimizers.output_lengths import OutputLengths
from optimizers.reach import reach_of
from optimizers.replay import Replayer, ReplayResult
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.session_evidence import SessionEvidence
from optimizers.slices import estimate_slices, slices_of
from optimizers.turn_frame import TurnFrame


def estimate_policy(
    policy: RoutingPolicy,
    frame: TurnFrame,
    price_book: PriceBook,
    *,
    incumbent: RoutingPolicy | None = None,
    evidence: SessionEvidence | None = None,
    assumptions: ReplayAssumptions | None = None,
    lengths: OutputLengths | None = None,
    org_paths: Sequence[str] = (),
) -> PolicyEstimate:
    """Replays the policy over the frame, and estimates quality, cost and waiting time from
    ``evidence`` (of the same frame); without one the quality is refused in words.

    The incumbent is the policy in force; without one it is what was served, at what was billed.
    ``lengths`` are what :func:`~optimizers.output_lengths.fit_output_lengths` found in the log.
    ``org_paths`` are nodes of the organization to look at apart.
    """
    replayer = Replayer(frame, price_book, assumptions, lengths)
    return estimate_with(policy, replayer, incumbent, evidence, org_paths)


def estimate_with(
    policy: RoutingPolicy,
    replayer: Replayer,
    incumbent: RoutingPolicy | None,
    evidence: SessionEvidence | None,
    org_paths: Sequence[str] = (),
) -> PolicyEstimate:
    """As :func:`estimate_policy`, on a replayer that is at hand."""
    frame = replayer.frame
    theirs = replayer.replay(policy)
    ours = replayer.replay(incumbent) if incumbent else replayer.replay_as_served()
    both = theirs.is_priced & ours.is_priced
    candidate_costs = theirs.candidate_turn_cost_microusd * both
    incumbent_costs = ours.candidate_turn_cost_microusd * both
    return PolicyEstimate(
        policy_digest=policy.digest,
        sessions=frame.n_sessions,
        turns=len(frame),
        logged_cost_microusd=theirs.logged_cost_microusd,
        incumbent_cost_microusd=int(incumbent_costs.sum()),
        candidate_cost_microusd=int(candidate_costs.sum()),
        naive_cost_microusd=int(theirs.naive_turn_cost_microusd[both].sum()),
        rerouted_turns=theirs.rerouted_turns,
        reach=reach_of(policy, frame, replayer),
        quality=evidence.quality.estimate(policy) if evidence else NOT_ASKED,
        unpriced_turns=int(len(both) - both.sum()),
        modelled_cost_microusd=int(replayer.modelled_turn_cost_microusd.sum()),
        session_cost_usd=evidence.cost_usd.estimate(policy) if evidence else None,
        session_wait_seconds=evidence.wait_seconds.estimate(policy) if evidence else None,
        slices=estimate_slices(
            slices_of(frame, policy, evidence.labels, org_paths),
            policy, frame, evidence.quality, candidate_costs, incumbent_costs,
        )
        if evidence
        else (),
        output_lengths=length_uses(replayer, theirs),
    )  # fmt: skip


def cost_pair(theirs: ReplayResult, ours: ReplayResult) -> tuple[int, int]:
    """Both costs in micro-dollars over the turns that are priced on both sides."""
    if theirs.unpriced_turns == ours.unpriced_turns == 0:
        return theirs.candidate_cost_microusd, ours.candidate_cost_microusd
    both = theirs.is_priced & ours.is_priced
    return (
        int(theirs.candidate_turn_cost_microusd[both].sum()),
        int(ours.candidate_turn_cost_microusd[both].sum()),
    )


def saving_share(theirs: ReplayResult, ours: ReplayResult) -> float:
    """The share of our cost that theirs saves, over the turns that are priced on both sides."""
    candidate, incumbent = cost_pair(theirs, ours)
    return 1.0 - candidate / incumbent if incumbent else 0.0
