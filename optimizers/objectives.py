"""What a search maximises, and under which constraints."""

from __future__ import annotations

from dataclasses import dataclass

from loop.domain.policies import RoutingPolicy
from optimizers.off_policy import OutcomeLog
from optimizers.policy_estimates import cost_pair
from optimizers.replay import Replayer

NO_ANSWER = -1.0
"""Stands for the bound of a quality that the log can't answer for: the least that can be."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One policy's merit: the objectives, and the constraints by name (zero or less is met)."""

    saved_microusd: int
    saving_share: float
    quality_difference_low: float | None
    constraints: tuple[tuple[str, float], ...] = ()

    @property
    def is_feasible(self) -> bool:
        return all(violation <= 0.0 for _, violation in self.constraints)

    def values(self) -> tuple[float, ...]:
        """The objectives, to be maximised: dollars saved, and where there are constraints the
        lower bound of the difference in quality."""
        saved_usd = self.saved_microusd / 1e6
        if not self.constraints:
            return (saved_usd,)
        low = self.quality_difference_low
        return (saved_usd, NO_ANSWER if low is None else low)


class SavingUnderQuality:
    """Dollars saved against the incumbent, and the lower 95 % bound of the difference in quality.

    Two constraints. *Quality*: the bound is not below ``-margin``. *Support* (SPIBB, Laroche et
    al., 2019): a policy may depart from the incumbent only where the log has seen enough of what
    it does; each rule's change needs ``min_cell_sessions`` sessions that were drawn to be routed
    so. Where the log can answer for no policy, ``quality_log`` is ``None`` and cost alone counts.
    Policies that name repositories are held to ``unseen_log``: the others ranked the repositories,
    and would flatter what they ranked.
    """

    def __init__(
        self,
        replayer: Replayer,
        incumbent: RoutingPolicy,
        quality_log: OutcomeLog | None,
        unseen_log: OutcomeLog | None,
        margin: float,
        min_cell_sessions: int,
    ) -> None:
        self._replayer = replayer
        self._incumbent = replayer.replay(incumbent)
        self._quality_log = quality_log
        self._unseen_log = unseen_log
        self._margin = margin
        self._min_cell_sessions = min_cell_sessions
        self._known: dict[str, Evaluation] = {}

    def evaluate(self, policy: RoutingPolicy) -> Evaluation:
        """Replays and estimates; a policy that was met before is not worked out again."""
        key = policy.digest
        if key not in self._known:
            self._known[key] = self._evaluate(policy)
        return self._known[key]

    def _evaluate(self, policy: RoutingPolicy) -> Evaluation:
        theirs, ours = cost_pair(self._replayer.replay(policy), self._incumbent)
        share = 1.0 - theirs / ours if ours else 0.0
        log = self._unseen_log if _names_repositories(policy) else self._quality_log
        if log is None:
            return Evaluation(ours - theirs, share, None)
        support = log.support(policy)
        needed = float(self._min_cell_sessions)
        lacking = max(
            support.unsupported_share - log.limits.max_unsupported_share,
            1.0 - support.fewest_cell_sessions / needed if needed else -1.0,
        )
        difference = log.estimate(policy).difference
        low = difference.low if difference else None
        violation = 1.0 if low is None else -self._margin - low
        constraints = (("quality", violation), ("support", max(lacking, -1.0)))
        return Evaluation(ours - theirs, share, low, constraints)


def _names_repositories(policy: RoutingPolicy) -> bool:
    return any(item.field == "repository" for rule in policy.rules for item in rule.when)
