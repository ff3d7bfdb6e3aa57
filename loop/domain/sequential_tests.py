"""Tests that may be looked at after every session without raising their error rate.

Two arms run side by side; each session is assigned to the canary with a known probability ``p``.
The unit is the session, taken in the order of assignment. Everything here is online with O(1)
state that round-trips through a dict, so a test can be stored, or rebuilt from its units.

Sources:

- the per-session influence and its weight: inverse propensity weighting with a predictable
  centre, as in Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory
  and asymptotic confidence sequences", arXiv:2103.06476;
- the confidence sequence: the same paper, the normal mixture boundary (its equation 9 for
  two sides, 155 and 161 for one side and the tuning);
- the betting test: Waudby-Smith, Ramdas, "Estimating means of bounded random variables by
  betting", arXiv:2010.09686, with a capped, predictable bet;
- the sample ratio test: Lindon, Malek, "Anytime-valid inference for multinomial count data",
  arXiv:2011.03567, with a mixture over odds ratios in place of the Dirichlet prior, so that the
  assignment probability may change from session to session.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loop.domain.errors import BadInput

CENTRE_MEMORY = 0.02  # weight of the newest outcome in the centre, once 50 have been seen
# Share of the wealth that one session may cost at most: a stake of 0.25 on the unweighted
# influence, which lies within -2 and 2 at matched arms.
BET_CAP = 0.5
# Odds ratios of an uneven split that the sample ratio test bets on, alike on both sides.
RATIO_TILTS = tuple(sign * tilt for tilt in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6) for sign in (1, -1))


@dataclass(frozen=True, slots=True)
class TestSettings:
    """How a difference is tested.

    ``alpha`` is the chance of ever rejecting wrongly on one side of the confidence sequence, and
    of the betting test. ``tolerance`` is the loss (in units of the outcome) that the betting test
    still accepts. Bounds are infinite before ``min_units`` units, ``min_canary_units`` of them
    canary. ``tuned_units`` is where the confidence sequence is tightest. ``bound_alpha`` is what
    :meth:`DifferenceTest.bounds` are for on each side, 0 for the same ``alpha``: where several
    outcomes are tested, rejections share one alpha between them, but what is shown of one outcome
    need not. Without ``keeps_running`` the running bounds are not kept, which saves half the time.
    """

    __test__ = False  # not a test case, whatever its name suggests to a collector

    alpha: float = 0.025
    tolerance: float = 0.0
    min_units: int = 200
    min_canary_units: int = 30
    tuned_units: int = 1000
    bound_alpha: float = 0.0
    keeps_running: bool = True

    def __post_init__(self) -> None:
        if not (0.0 < self.alpha < 0.5 and 0.0 <= self.bound_alpha < 0.5):
            raise BadInput(
                f"alpha lies between 0 and 0.5, not at {self.alpha!r} or {self.bound_alpha!r}."
            )
        if self.tolerance < 0.0:
            raise BadInput("A tolerance is a loss of 0 or more.")
        if self.min_units < 2 or self.min_canary_units < 0 or self.tuned_units < 1:
            raise BadInput("A test needs at least 2 units, and a positive number to be tuned for.")


@dataclass(frozen=True, slots=True)
class Bounds:
    """A confidence sequence at one unit: ``estimate`` and its bounds, in units of the outcome."""

    estimate: float
    low: float
    high: float


@dataclass(slots=True)
class DifferenceTest:
    """Mean outcome of canary minus control, for outcomes in [0, 1].

    ``add`` each matured unit in the order of assignment. ``bounds()`` are valid at every unit at
    once; ``running_low`` and ``running_high`` are the tightest so far, which is what a constant
    difference obeys. ``is_worse`` stays true once either test has rejected.
    """

    settings: TestSettings = field(default_factory=TestSettings)
    units: int = 0
    canary_units: int = 0
    centre: float = 0.5
    weight_sum: float = 0.0
    influence_sum: float = 0.0  # weighted by p (1 - p)
    influence_mean: float = 0.0  # of the same (Welford)
    square_sum: float = 0.0  # of their deviations from the mean
    log_wealth: float = 0.0
    max_log_wealth: float = 0.0
    running_low: float = -math.inf
    running_high: float = math.inf
    worse_at_unit: int = 0  # 0: not rejected
    worse_by: str = ""
    tuning: float = field(init=False)
    bound_tuning: float = field(init=False)

    def __post_init__(self) -> None:
        units = self.settings.tuned_units
        self.tuning = mixture_tuning(self.settings.alpha, units)
        self.bound_tuning = mixture_tuning(self.bound_alpha, units)

    @property
    def bound_alpha(self) -> float:
        return self.settings.bound_alpha or self.settings.alpha

    @property
    def is_worse(self) -> bool:
        """The canary is worse than control by more than the tolerance."""
        return self.worse_at_unit > 0

    @property
    def is_ready(self) -> bool:
        """Enough units for finite bounds."""
        return (
            self.units >= self.settings.min_units
            and self.canary_units >= self.settings.min_canary_units
        )

    @property
    def e_value(self) -> float:
        """The wealth of the betting test: 1/alpha or more rejects."""
        return math.exp(min(self.log_wealth, 700.0))

    def add(self, outcome: float, is_canary: bool, canary_probability: float) -> None:
        """One unit. ``canary_probability``: of canary among canary and control, as logged.

        Raises :class:`BadInput` for an outcome outside [0, 1] or a probability outside (0, 1).
        """
        p = canary_probability
        if not (0.0 <= outcome <= 1.0 and 0.0 < p < 1.0):
            raise BadInput(
                f"A unit needs an outcome in [0, 1] and a probability in (0, 1): "
                f"{outcome!r}, {canary_probability!r}."
            )
        weight = p * (1.0 - p)
        # (Y - m)(A/p - (1-A)/(1-p)) times p(1-p)
        influence = (outcome - self.centre) * ((1.0 - p) if is_canary else -p)
        self._bet(influence, weight, max(p, 1.0 - p))
        self.units += 1
        self.canary_units += is_canary
        self.weight_sum += weight
        self.influence_sum += influence
        deviation = influence - self.influence_mean
        self.influence_mean += deviation / self.units
        self.square_sum += deviation * (influence - self.influence_mean)
        self.centre += (outcome - self.centre) * max(CENTRE_MEMORY, 1.0 / (self.units + 1))
        self._look()

    def bounds(self) -> Bounds | None:
        """The confidence sequence now, ``None`` until there are enough units."""
        if not self.is_ready or self.square_sum <= 0.0:
            return None
        radius = self._radius(self.bound_alpha, self.bound_tuning)
        return Bounds(
            self.influence_sum / self.weight_sum,
            (self.influence_sum - radius) / self.weight_sum,
            (self.influence_sum + radius) / self.weight_sum,
        )

    @property
    def estimate(self) -> float | None:
        """The weighted mean difference so far."""
        return self.influence_sum / self.weight_sum if self.weight_sum else None

    def to_document(self) -> dict[str, Any]:
        """The whole state; :meth:`from_document` goes on from it."""
        return {
            "settings": {name: getattr(self.settings, name) for name in self.settings.__slots__},
            "state": {
                name: _finite_or_none(getattr(self, name))
                for name in self.__slots__
                if name not in ("settings", "tuning", "bound_tuning")
            },
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DifferenceTest:
        """Raises :class:`BadInput` for a document of another shape."""
        try:
            state = dict(document["state"])
            for name, absent in (("running_low", -math.inf), ("running_high", math.inf)):
                state[name] = absent if state[name] is None else state[name]
            return cls(settings=TestSettings(**document["settings"]), **state)
        except (KeyError, TypeError) as error:
            raise BadInput("This is no state of a difference test.", why=str(error)) from error

    def _bet(self, influence: float, weight: float, largest: float) -> None:
        """Stakes against "not worse than the tolerance" what the units *before* this one suggest.

        Under that hypothesis each factor has a mean of at most 1, so wealth reaches 1/alpha with
        a probability of at most alpha, however often one looks.
        """
        handicap = weight * self.settings.tolerance
        # Twenty imagined units without a difference keep the first bets small.
        count = self.units + 20
        drift = (self.influence_sum + self.weight_sum * self.settings.tolerance) / count
        variance = (self.square_sum + 20 * 0.01) / count
        stake = -drift / (variance + drift * drift)
        stake = min(max(stake, 0.0), BET_CAP / (largest + handicap))
        self.log_wealth += math.log1p(-stake * (influence + handicap))
        self.max_log_wealth = max(self.max_log_wealth, self.log_wealth)

    def _radius(self, one_sided_alpha: float, tuning: float) -> float:
        alpha = 2.0 * one_sided_alpha  # two sides at 2 alpha are one side at alpha
        units = self.units
        return math.sqrt(
            self.square_sum
            * (1.0 + tuning / units)
            * math.log((units + tuning) / (tuning * alpha * alpha))
        )

    def _look(self) -> None:
        if not self.is_ready or self.square_sum <= 0.0:
            return
        if self.settings.keeps_running:
            radius = self._radius(self.bound_alpha, self.bound_tuning)
            low = (self.influence_sum - radius) / self.weight_sum
            self.running_low = max(self.running_low, low)
            high = (self.influence_sum + radius) / self.weight_sum
            self.running_high = min(self.running_high, high)
        if self.worse_at_unit:
            return
        # No bound needs to be computed while the estimate itself is not below.
        gap = self.influence_sum + self.settings.tolerance * self.weight_sum
        if gap < 0.0 and self._radius(self.settings.alpha, self.tuning) < -gap:
            self.worse_at_unit, self.worse_by = self.units, "confidence sequence"
        elif self.max_log_wealth >= -math.log(self.settings.alpha):
            self.worse_at_unit, self.worse_by = self.units, "betting test"


@dataclass(slots=True)
class SampleRatioTest:
    """Whether sessions reach the arms in the shares that were published.

    The wealth is a mixture of likelihood ratios against odds that are off by each of
    :data:`RATIO_TILTS`; it reaches 1/alpha with a probability of at most alpha while the split is
    as published, at whatever unit one looks.
    """

    alpha: float = 0.001
    canary_units: int = 0
    control_units: int = 0
    expected_canary_units: float = 0.0
    log_ratios: list[float] = field(default_factory=lambda: [0.0] * len(RATIO_TILTS))
    max_log_wealth: float = 0.0

    def add(self, is_canary: bool, canary_probability: float) -> None:
        """One assigned session, scored or not. Raises :class:`BadInput` outside (0, 1)."""
        p = canary_probability
        if not 0.0 < p < 1.0:
            raise BadInput(f"A probability of assignment lies between 0 and 1: {p!r}.")
        for index, tilt in enumerate(RATIO_TILTS):
            scale = p * math.exp(tilt) + (1.0 - p)
            self.log_ratios[index] += (tilt if is_canary else 0.0) - math.log(scale)
        self.canary_units += is_canary
        self.control_units += not is_canary
        self.expected_canary_units += p
        self.max_log_wealth = max(self.max_log_wealth, self.log_wealth)

    @property
    def log_wealth(self) -> float:
        largest = max(self.log_ratios)
        total = math.fsum(math.exp(ratio - largest) for ratio in self.log_ratios)
        return largest + math.log(total / len(self.log_ratios))

    @property
    def is_mismatched(self) -> bool:
        return self.max_log_wealth >= -math.log(self.alpha)

    @property
    def p_value(self) -> float:
        """Anytime-valid: at most this chance of a split so uneven at any unit so far."""
        return math.exp(-self.max_log_wealth)

    def to_document(self) -> dict[str, Any]:
        """The whole state; :meth:`from_document` goes on from it."""
        return {
            name: list(value) if isinstance(value := getattr(self, name), list) else value
            for name in self.__slots__
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> SampleRatioTest:
        """Raises :class:`BadInput` for a document of another shape."""
        try:
            test = cls(**document)
        except TypeError as error:
            raise BadInput("This is no state of a sample ratio test.", why=str(error)) from error
        if len(test.log_ratios) != len(RATIO_TILTS):
            raise BadInput("This state of a sample ratio test is from another version.")
        test.log_ratios = list(test.log_ratios)
        return test


def mixture_tuning(alpha: float, tuned_units: int) -> float:
    """The mixture's parameter, in units, that makes the boundary tightest at ``tuned_units``.

    It minimises ``(n + r) ln((n + r) / (r a^2))`` with ``a = 2 alpha``: ``n / r`` is the root of
    ``x = ln(1 + x) - 2 ln a``, which is ``-W(-a^2 / e) - 1`` on the lower branch of Lambert's W.
    """
    offset = -2.0 * math.log(2.0 * alpha)
    x = offset + 1.0
    for _ in range(100):  # a contraction: its slope is 1 / (1 + x)
        x = offset + math.log1p(x)
    return tuned_units / x


def _finite_or_none(value: float | str) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
