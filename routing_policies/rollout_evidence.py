"""What the sessions of a rollout say together, kept between looks.

A look at a rollout of a hundred thousand sessions must not test them all again. What is folded here
is the same as if it were folded anew over all sessions, in the order of assignment, at every look:
where a session in the middle has changed (a late score, a late decision), the fold goes back to a
point before it. So no verdict depends on when, or how often, one looked.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from loop.domain.sequential_tests import DifferenceTest, SampleRatioTest, TestSettings
from routing_policies.rollout_metrics import QUALITY, Metric, metrics_of
from routing_policies.rollout_records import PathPoint, RolloutPlan
from routing_policies.rollout_units import Unit

MISSING_ALPHA = 0.005  # of ever calling the arms' missing rates different while they are not
RATIO_ALPHA = 0.001
TELEMETRY_SESSIONS = 100
PATH_POINTS = 120
CHECKPOINT_UNITS = 500

State = TypeVar("State")
Item = TypeVar("Item")


class GrowingFold(Generic[State, Item]):
    """A state folded over a list that mostly grows at its end.

    ``over`` gives what folding the whole list anew would give; the caller must not change it.
    """

    def __init__(self, start: Callable[[], State], step: Callable[[State, Item], None]) -> None:
        self._step = step
        self._state = start()
        self._items: list[Item] = []
        self._checkpoints = [(0, start())]

    def over(self, items: Sequence[Item]) -> State:
        self._go_back(_common_length(self._items, items))
        for item in items[len(self._items) :]:
            self._step(self._state, item)
            self._items.append(item)
            if len(self._items) % CHECKPOINT_UNITS == 0:
                self._checkpoints.append((len(self._items), copy.deepcopy(self._state)))
        return self._state

    def _go_back(self, length: int) -> None:
        if length == len(self._items):
            return
        while self._checkpoints[-1][0] > length:
            self._checkpoints.pop()
        kept, state = self._checkpoints[-1]
        self._state = copy.deepcopy(state)
        del self._items[kept:]


def _common_length(known: Sequence[object], items: Sequence[object]) -> int:
    shorter = min(len(known), len(items))
    if known[:shorter] == items[:shorter]:
        return shorter
    return next(at for at in range(shorter) if known[at] != items[at])


class Assignment(NamedTuple):
    """All that the sample ratio depends on."""

    is_canary: bool
    probability: float
    gateway: str


@dataclass(slots=True)
class Split:
    """The sample ratio over all assigned sessions, and over those of each kind of gateway."""

    whole: SampleRatioTest = field(default_factory=lambda: SampleRatioTest(RATIO_ALPHA))
    by_gateway: dict[str, SampleRatioTest] = field(default_factory=dict)

    def add(self, one: Assignment) -> None:
        self.whole.add(one.is_canary, one.probability)
        if one.gateway:
            own = self.by_gateway.setdefault(one.gateway, SampleRatioTest(RATIO_ALPHA))
            own.add(one.is_canary, one.probability)


@dataclass(slots=True)
class Matured:
    """What the matured sessions of canary and control say, in the order of assignment.

    ``silent_since_us`` is the assignment of the first of the ``silent`` newest canary sessions in a
    row that have no score; ``telemetry`` says of the last 100 canary sessions whether any came, and
    ``dark_since_us`` is the assignment of the session with which too little began to come.
    """

    plan: RolloutPlan
    metrics: tuple[Metric, ...]
    tests: dict[str, DifferenceTest]
    units: int = 0
    scored: int = 0
    stage_scored: dict[int, int] = field(default_factory=dict)
    missing: DifferenceTest = field(
        default_factory=lambda: DifferenceTest(TestSettings(alpha=MISSING_ALPHA / 2))
    )
    silent: int = 0
    silent_since_us: int = 0
    telemetry: deque[bool] = field(default_factory=lambda: deque(maxlen=TELEMETRY_SESSIONS))
    dark_since_us: int = 0
    path: list[PathPoint] = field(default_factory=list)
    stride: int = 1

    @classmethod
    def of(cls, plan: RolloutPlan) -> Matured:
        metrics = metrics_of(plan)
        return cls(plan, metrics, {metric.name: metric.new_test(plan) for metric in metrics})

    def __deepcopy__(self, memo: dict[int, object]) -> Matured:
        return Matured(
            self.plan,
            self.metrics,
            {name: copy.copy(test) for name, test in self.tests.items()},
            self.units,
            self.scored,
            dict(self.stage_scored),
            copy.copy(self.missing),
            self.silent,
            self.silent_since_us,
            self.telemetry.copy(),
            self.dark_since_us,
            list(self.path),
            self.stride,
        )

    @property
    def telemetry_share(self) -> float:
        return sum(self.telemetry) / len(self.telemetry) if self.telemetry else 1.0

    @property
    def is_dark(self) -> bool:
        """Too little telemetry comes, over enough canary sessions to say so."""
        enough = len(self.telemetry) >= self.plan.missing_sessions
        return enough and self.telemetry_share < self.plan.min_telemetry_share

    def add(self, unit: Unit) -> None:
        outcome = unit.outcome
        self.units += 1
        for metric in self.metrics:
            value = metric.outcome(outcome)
            if value is not None:
                self.tests[metric.name].add(value, unit.is_canary, unit.probability)
        unscored = outcome.quality is None
        self.missing.add(float(unscored), unit.is_canary, unit.probability)
        if not unscored:
            self.scored += 1
            self.stage_scored[unit.stage] = self.stage_scored.get(unit.stage, 0) + 1
            self._note_path(outcome.assigned_at_us)
        if unit.is_canary:
            self._note_silence(unscored, outcome.turns > 0, outcome.assigned_at_us)

    def _note_silence(self, unscored: bool, has_telemetry: bool, at_us: int) -> None:
        if not unscored:
            self.silent = 0
        else:
            if not self.silent:
                self.silent_since_us = at_us
            self.silent += 1
        self.telemetry.append(has_telemetry)
        if not self.is_dark:
            self.dark_since_us = 0
        elif not self.dark_since_us:
            self.dark_since_us = at_us

    def _note_path(self, at_us: int) -> None:
        """A point at each multiple of a stride that doubles as the path grows."""
        test = self.tests[QUALITY]
        if test.units % self.stride:
            return
        point = path_point(test, at_us)
        if point is None:
            return
        self.path.append(point)
        if len(self.path) >= PATH_POINTS:
            self.stride *= 2
            self.path = [point for point in self.path if point.units % self.stride == 0]


def path_point(test: DifferenceTest, at_us: int) -> PathPoint | None:
    bounds = test.bounds()
    if bounds is None:
        return None
    return PathPoint(test.units, at_us, bounds.estimate, bounds.low, bounds.high)


class RolloutEvidence:
    """The folds of one rollout under one plan."""

    def __init__(self, plan: RolloutPlan) -> None:
        self.plan = plan
        self._matured: GrowingFold[Matured, Unit] = GrowingFold(
            lambda: Matured.of(plan), Matured.add
        )
        self._split: GrowingFold[Split, Assignment] = GrowingFold(Split, Split.add)

    def matured(self, units: Sequence[Unit]) -> Matured:
        """Of the matured sessions of canary and control, in the order of assignment."""
        return self._matured.over(units)

    def split(self, units: Sequence[Unit]) -> Split:
        """Of all assigned sessions of canary and control, in that order."""
        return self._split.over(
            [Assignment(one.is_canary, one.probability, one.outcome.gateway) for one in units]
        )
