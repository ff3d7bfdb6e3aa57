"""Optimization runs: what was searched, on which data, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from loop.domain.estimates import PolicyEstimate
from loop.domain.policies import RoutingPolicy

RunState = Literal["running", "finished", "failed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One policy that a search tried.

    ``feasible``: it met the quality constraint, or the log could not answer for any policy and the
    search went by cost alone (the run's ``outcome`` says which). ``on_front``: no feasible trial
    is better in saving and at least as good in quality, or the other way round.
    """

    number: int
    parameters: Mapping[str, Any]
    policy: RoutingPolicy
    saving_share: float
    quality_difference_low: float | None  # lower 95 % bound; None where the log can't answer
    feasible: bool
    on_front: bool = False


@dataclass(frozen=True, slots=True)
class OptimizationRun:
    """A finished or running search.

    ``found`` is the winner, ``None`` for "no better policy found". ``selection`` is the best
    trial's estimate on the sessions that chose it, ``test`` on later sessions that the search
    never saw; both are given for a best trial that did not hold up, too. ``tombstones`` are the
    erasures that took rows of ``table_versions``: the run can't be repeated exactly any more.

    ``settings`` say how it searched; ``importance`` gives the share that each parameter has
    in whether a policy is among the best; ``spent_usd`` is what its processors cost at the set
    price.
    """

    run_id: str
    state: RunState
    started_at_us: int
    finished_at_us: int | None
    seed: int
    incumbent: RoutingPolicy
    table_versions: Mapping[str, int]
    trials: tuple[Trial, ...]
    found: RoutingPolicy | None
    outcome: str  # in words
    selection: PolicyEstimate | None = None
    test: PolicyEstimate | None = None
    tombstones: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    spent_usd: float = 0.0
