"""What logged sessions would have cost under another policy, prompt caches included.

Each segment (one agent of one session) has one prompt cache per model. A turn reads what its
model last cached in the segment if that has not expired, and writes the rest of its cacheable
prompt; so a switch starts cold, and a return within the time to live re-reads the old prefix and
writes what came in between. ``docs/replay.md`` states the model in full.

The log is believed wherever it can be: a turn that keeps its model, and whose model was last used
in the segment by the same turn as in the log, has the cache it had, and costs what was billed.
Only the other turns, *altered* ones, are priced by the cache model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loop.domain.money import PriceBook
from loop.domain.policies import RoutingPolicy
from optimizers.price_columns import UNPRICED, PriceColumns
from optimizers.replay_assumptions import ReplayAssumptions, undated
from optimizers.routing import Routes, routes
from optimizers.turn_frame import TurnFrame

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
NONE = -1


@dataclass(frozen=True, slots=True, eq=False)
class ReplayResult:
    """Costs in micro-dollars over the turns that are priced on both sides (``is_priced``).

    ``incumbent`` is what was billed for those turns, ``logged`` what was billed in all; ``naive``
    puts the candidate's prices on the logged tokens, as if caches moved along.
    """

    candidate_cost_microusd: int
    incumbent_cost_microusd: int
    logged_cost_microusd: int
    naive_cost_microusd: int
    rerouted_turns: int
    unpriced_turns: int
    routes: Routes
    candidate_turn_cost_microusd: Integers  # (n,), 0 where unpriced
    naive_turn_cost_microusd: Integers  # (n,), 0 where unpriced
    is_rerouted: Booleans  # (n,): another model than served
    is_altered: Booleans  # (n,): priced by the cache model, not by the log
    is_priced: Booleans  # (n,)

    @property
    def saving_share(self) -> float:
        """Of what the same turns were billed."""
        if self.incumbent_cost_microusd == 0:
            return 0.0
        return 1.0 - self.candidate_cost_microusd / self.incumbent_cost_microusd


@dataclass(frozen=True, slots=True)
class Calibration:
    """The cache model on the logged routes, beside the log: the error of the model itself."""

    billed_cost_microusd: int
    modelled_cost_microusd: int
    logged_cache_read_tokens: int
    modelled_cache_read_tokens: int

    @property
    def residual(self) -> float:
        """Modelled cost against the bill, as a share of the bill."""
        if self.billed_cost_microusd == 0:
            return 0.0
        return self.modelled_cost_microusd / self.billed_cost_microusd - 1.0


def replay(
    policy: RoutingPolicy,
    frame: TurnFrame,
    price_book: PriceBook,
    assumptions: ReplayAssumptions | None = None,
) -> ReplayResult:
    """Replays a frame under one policy. For many policies keep one :class:`Replayer`."""
    return Replayer(frame, price_book, assumptions).replay(policy)


@dataclass(frozen=True, slots=True, eq=False)
class _Altered:
    """Tokens and cost of altered turns; arrays of one length."""

    uncached: Integers
    read: Integers
    write: Integers
    cost: Integers


class Replayer:
    """One frame made ready for replay under many policies; not changed by replaying."""

    def __init__(
        self,
        frame: TurnFrame,
        price_book: PriceBook,
        assumptions: ReplayAssumptions | None = None,
    ) -> None:
        self.frame = frame
        self.price_book = price_book
        self.assumptions = assumptions or ReplayAssumptions()
        self._models: list[str] = []  # without dates; a model's place is its code below
        self._prices: PriceColumns | None = None
        self._cacheable: dict[int, Booleans] = {}
        served = frame.served_model
        self._served = self._codes(served.values)[served.codes]
        prefix = frame.cache_read_tokens + self._writes
        self._is_billable = (prefix + frame.input_tokens + frame.output_tokens) > 0
        self._is_billable &= ~served.equals("")
        scale = 1.0 / self._ratios()[self._served]
        self._scale = scale
        self._prefix = prefix * scale
        self._has_prefix = prefix > 0
        self._logged_previous = self._previous(self._served, self._has_prefix & self._is_billable)
        self._is_long = self._long_lived()
        ttl = np.where(self._is_long, self.assumptions.long_ttl_us, self.assumptions.short_ttl_us)
        self._expiry = frame.started_at_us + ttl
        self._find_breaks()

    @property
    def _writes(self) -> Integers:
        return self.frame.cache_creation_5m_tokens + self.frame.cache_creation_1h_tokens

    def replay(self, policy: RoutingPolicy) -> ReplayResult:
        """Costs every turn under the policy; turns without a price on either side are left out
        of both."""
        return self.replay_routes(routes(policy, self.frame))

    def replay_as_served(self) -> ReplayResult:
        """The models that were served: every turn at what was billed."""
        names = self.frame.served_model
        nothing = np.zeros(len(self.frame), np.int64)
        return self.replay_routes(
            Routes(names.codes, nothing, names.values or ("",), ("served",), ("",))
        )

    def replay_routes(self, routed: Routes) -> ReplayResult:
        """As :meth:`replay`, for routes that were decided before."""
        frame = self.frame
        model = self._codes(routed.models)[routed.model]
        is_rerouted = (model != self._served) & self._is_billable
        if is_rerouted.any():
            model = np.where(self._is_billable, model, self._served)
            previous = self._previous_on(model)
            # A turn that caches nothing is touched by its own model alone.
            is_altered = is_rerouted | (
                (previous != self._logged_previous) & self._has_prefix & self._is_billable
            )
        else:
            is_altered = is_rerouted
        candidate = frame.cost_microusd.copy()
        naive = frame.cost_microusd.copy()
        is_priced = frame.is_priced.copy()
        if is_rerouted.any():
            altered = np.flatnonzero(is_altered)
            cost = self._price(altered, model[altered], previous[altered]).cost
            candidate[altered] = np.maximum(cost, 0)
            is_priced[altered] &= cost != UNPRICED
            moved = np.flatnonzero(is_rerouted)
            naive[moved] = self._naive(moved, model[moved])
        if not is_priced.all():
            candidate[~is_priced] = 0
            naive[~is_priced] = 0
        return ReplayResult(
            candidate_cost_microusd=int(candidate.sum()),
            incumbent_cost_microusd=int(frame.cost_microusd[is_priced].sum()),
            logged_cost_microusd=int(frame.cost_microusd.sum()),
            naive_cost_microusd=int(naive.sum()),
            rerouted_turns=int(is_rerouted.sum()),
            unpriced_turns=int(len(frame) - is_priced.sum()),
            routes=routed,
            candidate_turn_cost_microusd=candidate,
            naive_turn_cost_microusd=naive,
            is_rerouted=is_rerouted,
            is_altered=is_altered,
            is_priced=is_priced,
        )

    @cached_property
    def modelled_turn_cost_microusd(self) -> Integers:
        """The logged routes through the cache model, without a look at the logged reads and
        writes, shape ``(n,)``; as billed where the model has no say (nothing served, no price)."""
        rows = np.flatnonzero(self._is_billable & self.frame.is_priced)
        cost = self._price(rows, self._served[rows], self._logged_previous[rows]).cost
        modelled = self.frame.cost_microusd.copy()
        modelled[rows] = np.where(cost == UNPRICED, modelled[rows], cost)
        return modelled

    @cached_property
    def calibration(self) -> Calibration:
        """Every priced turn through the cache model on its logged route."""
        rows = np.flatnonzero(self._is_billable & self.frame.is_priced)
        modelled = self._price(rows, self._served[rows], self._logged_previous[rows])
        return Calibration(
            billed_cost_microusd=int(self.frame.cost_microusd[rows].sum()),
            modelled_cost_microusd=int(self.modelled_turn_cost_microusd[rows].sum()),
            logged_cache_read_tokens=int(self.frame.cache_read_tokens[rows].sum()),
            modelled_cache_read_tokens=int(modelled.read.sum()),
        )

    def _codes(self, names: tuple[str, ...]) -> Integers:
        """Codes of models by name, new ones added; models that differ by date only are one."""
        known = {name: code for code, name in enumerate(self._models)}
        for name in map(undated, names):
            if name not in known:
                known[name] = len(self._models)
                self._models.append(name)
                self._prices = None
        return np.array([known[undated(name)] for name in names], np.int64)

    def _ratios(self) -> NDArray[np.float64]:
        return np.array([self.assumptions.ratio(name) for name in self._models])

    def _price_columns(self) -> PriceColumns:
        if self._prices is None:
            self._prices = PriceColumns(
                self.price_book, tuple(self._models), self.frame.started_at_us
            )
        return self._prices

    def _previous(self, model: Integers, caches: Booleans) -> Integers:
        """The row of the last turn in the segment that cached on the same model, or NONE."""
        previous = np.full(len(model), NONE, np.int64)
        for code in range(len(self._models)):
            self._link(previous, np.flatnonzero(model == code), caches)
        return previous

    def _previous_on(self, model: Integers) -> Integers:
        previous = np.full(len(model), NONE, np.int64)
        for code in range(len(self._models)):
            rows = np.flatnonzero(model == code)
            if len(rows):
                self._link(previous, rows, self._cacheable_on(code))
        return previous

    def _link(self, previous: Integers, rows: Integers, caches: Booleans) -> None:
        if len(rows) < 2:
            return
        is_source = caches[rows]
        if is_source.all():
            source = rows[:-1]
        else:
            place = np.maximum.accumulate(np.where(is_source, np.arange(len(rows)), NONE))[:-1]
            source = np.where(place >= 0, rows[place], NONE)
        target = rows[1:]
        segment = self.frame.segment
        is_same = (segment[source] == segment[target]) & (source >= 0)
        previous[target] = np.where(is_same, source, NONE)

    def _cacheable_on(self, code: int) -> Booleans:
        """Which turns would leave a cached prefix on the model."""
        if code not in self._cacheable:
            name = self._models[code]
            tokens = np.rint(self._prefix * self.assumptions.ratio(name))
            is_long_enough = tokens >= self.assumptions.minimum(name)
            # What the log shows to have been cached was cacheable.
            self._cacheable[code] = (
                self._has_prefix & self._is_billable & (is_long_enough | (self._served == code))
            )
        return self._cacheable[code]

    def _long_lived(self) -> Booleans:
        """Whether a turn's cache entry lives long: as the turn wrote it, else as the last write
        in its segment."""
        frame = self.frame
        writes_long = frame.cache_creation_1h_tokens > 0
        writes = writes_long | (frame.cache_creation_5m_tokens > 0)
        place = np.maximum.accumulate(np.where(writes, np.arange(len(frame)), NONE))
        is_same = (place >= 0) & (frame.segment[place] == frame.segment)
        return np.asarray(is_same & writes_long[place])

    def _find_breaks(self) -> None:
        """Where the log proves that a prompt no longer began as the one before it (compaction):
        the model was warm, yet less was read than had been cached."""
        frame, previous = self.frame, self._logged_previous
        is_warm = (previous >= 0) & (frame.started_at_us <= self._expiry[previous])
        is_warm &= self._has_prefix & self._is_billable
        read = frame.cache_read_tokens * self._scale
        is_break = is_warm & (read < np.minimum(self._prefix[previous], self._prefix))
        self._epoch = np.cumsum(is_break)
        self._reusable = np.append(read[is_break], np.inf)

    def _price(self, rows: Integers, model: Integers, previous: Integers) -> _Altered:
        frame = self.frame
        ratio = self._ratios()[model]
        prefix = self._prefix[rows]
        caches = np.zeros(len(rows), bool)
        for code in np.unique(model):
            on = model == code
            caches[on] = self._cacheable_on(int(code))[rows[on]]
        has_previous = previous >= 0
        is_warm = caches & has_previous & (frame.started_at_us[rows] <= self._expiry[previous])
        shared = np.where(is_warm, np.minimum(self._prefix[previous], prefix), 0.0)
        since, now = self._epoch[previous], self._epoch[rows]
        broken = np.flatnonzero(is_warm & (since != now))
        if len(broken):
            bounds = np.stack([since[broken], now[broken]], axis=1).ravel()
            least = np.minimum.reduceat(self._reusable, bounds)[::2]
            shared[broken] = np.minimum(shared[broken], least)
        in_all = np.rint(prefix * ratio).astype(np.int64)
        read = np.rint(shared * ratio).astype(np.int64)
        write = np.where(caches, in_all - read, 0)
        uncached = np.rint(frame.input_tokens[rows] * self._scale[rows] * ratio).astype(np.int64)
        uncached += np.where(caches, 0, in_all)
        is_long = self._is_long[rows]
        cost = self._price_columns().cost(
            model,
            rows,
            uncached,
            frame.output_tokens[rows],
            read,
            np.where(is_long, 0, write),
            np.where(is_long, write, 0),
        )
        return _Altered(uncached, read, write, cost)

    def _naive(self, rows: Integers, model: Integers) -> Integers:
        frame = self.frame
        cost = self._price_columns().cost(
            model,
            rows,
            frame.input_tokens[rows],
            frame.output_tokens[rows],
            frame.cache_read_tokens[rows],
            frame.cache_creation_5m_tokens[rows],
            frame.cache_creation_1h_tokens[rows],
        )
        return np.maximum(cost, 0)
