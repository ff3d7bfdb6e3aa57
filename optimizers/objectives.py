"""What a search maximises, and under which constraint."""

from __future__ import annotations

from dataclasses import dataclass

from loop.domain.policies import RoutingPolicy
from optimizers.off_policy import OutcomeLog
from optimizers.policy_estimates import saving_share
from optimizers.replay import Replayer


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One policy's merit. ``violation`` is zero or less when the constraint is met."""

    saving_share: float
    quality_difference_low: float | None
    violation: float

    @property
    def is_feasible(self) -> bool:
        return self.violation <= 0.0


class SavingUnderQuality:
    """The share of the incumbent's cost that is saved, as long as the lower 95 % bound of the
    difference in quality is not below ``-margin``.

    A policy that the log can't answer for is infeasible (the support constraint of SPIBB, Laroche
    et al., 2019). Where the log can answer for none, ``quality_log`` is ``None`` and cost alone
    counts.
    """

    def __init__(
        self,
        replayer: Replayer,
        incumbent: RoutingPolicy,
        quality_log: OutcomeLog | None,
        margin: float,
    ) -> None:
        self._replayer = replayer
        self._incumbent = replayer.replay(incumbent)
        self._quality_log = quality_log
        self._margin = margin
        self._known: dict[str, Evaluation] = {}

    def evaluate(self, policy: RoutingPolicy) -> Evaluation:
        """Replays and estimates; a policy that was met before is not worked out again."""
        key = policy.digest
        if key not in self._known:
            self._known[key] = self._evaluate(policy)
        return self._known[key]

    def _evaluate(self, policy: RoutingPolicy) -> Evaluation:
        saving = saving_share(self._replayer.replay(policy), self._incumbent)
        if self._quality_log is None:
            return Evaluation(saving, None, 0.0)
        difference = self._quality_log.estimate(policy).difference
        if difference is None:
            return Evaluation(saving, None, 1.0)
        return Evaluation(saving, difference.low, -self._margin - difference.low)
