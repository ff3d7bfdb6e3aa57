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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from loop.domain.errors import BadInput
from loop.domain.money import PriceBook
from loop.domain.policies import RoutingPolicy
from optimizers.cache_model import NONE, TOO_LONG, CacheModel, ModelTurns
from optimizers.length_uses import effort_ratios
from optimizers.output_lengths import OutputLengths
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.routing import Routes, routes
from optimizers.shared_prompts import SharedWorld
from optimizers.turn_columns import Integers, recode
from optimizers.turn_frame import TurnFrame

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ReplayResult:
    """Costs in micro-dollars over the turns that are priced on both sides (``is_priced``).

    ``incumbent`` is what was billed for those turns, ``logged`` what was billed in all; ``naive``
    puts the candidate's prices on the logged tokens, as if caches moved along. Turns that do not
    fit the model they are sent to (``too_long_turns``) have no price there.
    """

    candidate_cost_microusd: int
    incumbent_cost_microusd: int
    logged_cost_microusd: int
    rerouted_turns: int
    unpriced_turns: int
    too_long_turns: int  # of the unpriced ones
    routes: Routes
    candidate_turn_cost_microusd: Integers  # (n,), 0 where unpriced
    is_rerouted: Booleans  # (n,): another model than served
    is_altered: Booleans  # (n,): priced by the cache model, not by the log
    is_priced: Booleans  # (n,)
    _find_naive: Callable[[ReplayResult], Integers] = field(repr=False)

    @cached_property
    def naive_turn_cost_microusd(self) -> Integers:
        """Shape ``(n,)``, 0 where unpriced."""
        return self._find_naive(self)

    @property
    def naive_cost_microusd(self) -> int:
        return int(self.naive_turn_cost_microusd.sum())

    @property
    def saving_share(self) -> float | None:
        """Of what the same turns were billed; ``None`` where nothing was."""
        if self.incumbent_cost_microusd == 0:
            return None
        return 1.0 - self.candidate_cost_microusd / self.incumbent_cost_microusd


def replay(
    policy: RoutingPolicy,
    frame: TurnFrame,
    price_book: PriceBook,
    assumptions: ReplayAssumptions | None = None,
) -> ReplayResult:
    """Replays a frame under one policy. For many policies keep one :class:`Replayer`."""
    return Replayer(frame, price_book, assumptions).replay(policy)


class Replayer:
    """One frame made ready for replay under many policies; not changed by replaying."""

    def __init__(
        self,
        frame: TurnFrame,
        price_book: PriceBook,
        assumptions: ReplayAssumptions | None = None,
        lengths: OutputLengths | None = None,
    ) -> None:
        self.frame = frame
        self.assumptions = assumptions or ReplayAssumptions()
        self.lengths = lengths or OutputLengths()
        self._book = price_book
        self._caches = CacheModel(frame, price_book, self.assumptions, self.lengths)
        self._logged_cost_microusd = int(frame.cost_microusd.sum())

    def replay(self, policy: RoutingPolicy) -> ReplayResult:
        """Costs every turn under the policy; turns without a price on either side are left out
        of both.

        Raises :class:`BadInput` for a policy that routes to a model without any price.
        """
        for model in policy.models():
            if not self._book.knows(model):
                raise BadInput(
                    f"The policy {policy.name!r} routes to {model!r}, which has no price.",
                    why="What it would cost can't be known.",
                    fix="Correct the name, or give the model a price: `turnwise prices set`.",
                )
        return self.replay_routes(routes(policy, self.frame))

    def replay_as_served(self) -> ReplayResult:
        """The models that were served: every turn at what was billed."""
        names = self.frame.served_model
        nothing = np.zeros(len(self.frame), np.int8)
        return self.replay_routes(
            Routes(names.codes, nothing, names.values or ("",), ("served",), ("",))
        )

    def replay_routes(self, routed: Routes) -> ReplayResult:
        """As :meth:`replay`, for routes that were decided before."""
        frame, caches = self.frame, self._caches
        n = len(frame)
        code_of = caches.codes(routed.models)
        world = caches.world(recode(routed.model, code_of)) if len(frame) else None
        is_same_code = np.array_equal(code_of, np.arange(len(code_of)))
        candidate = frame.cost_microusd.copy()
        is_priced = frame.is_priced
        is_rerouted = np.empty(n, bool)
        is_altered = np.zeros(n, bool)
        too_long = 0
        for first, end in pairwise(caches.edges.tolist()):
            part = slice(first, end)
            model = routed.model[part]
            if not is_same_code:
                model = recode(model, code_of)
            moves = is_rerouted[part]
            np.not_equal(model, caches.served[part], out=moves)
            moves &= caches.is_billable[part]
            if not moves.any():
                continue
            runs = _Runs(model, frame.segment[part], first)
            has_gaps = False
            candidate[part] = 0
            for code in runs.models():
                on_model = caches.turns_on(code)
                has_gaps |= on_model.has_gaps
                if on_model.cost_microusd.dtype.itemsize > candidate.dtype.itemsize:
                    candidate = candidate.astype(np.int64)
                is_here = model == code
                candidate[part] += on_model.cost_microusd[part] * is_here
                is_altered[part] |= on_model.is_modelled[part] & is_here
                rows, previous = runs.previous(code, on_model)
                cost, altered = self._cost_after(code, rows, previous, world)
                if len(cost) and int(cost.max()) > np.iinfo(candidate.dtype).max:
                    candidate = candidate.astype(np.int64)
                candidate[rows], is_altered[rows] = cost, altered
            if has_gaps:
                too_long += int((candidate[part] == TOO_LONG).sum())
                is_priced = is_priced.copy() if is_priced is frame.is_priced else is_priced
                is_priced[part] &= candidate[part] >= 0
        if self.lengths.knows_efforts:
            candidate = candidate.astype(np.int64)
            for code, rows, factor in self._effort_changes(routed, recode(routed.model, code_of)):
                rows, factor = rows[is_priced[rows]], factor[is_priced[rows]]
                candidate[rows] += caches.effort_cost(code, rows, factor)
                is_altered[rows] = True
        incumbent = logged = self._logged_cost_microusd
        priced = int(np.count_nonzero(is_priced))
        if priced < n:
            candidate[~is_priced] = 0
            incumbent = int(frame.cost_microusd[is_priced].sum())
        return ReplayResult(
            candidate_cost_microusd=int(candidate.sum()),
            incumbent_cost_microusd=incumbent,
            logged_cost_microusd=logged,
            rerouted_turns=int(np.count_nonzero(is_rerouted)),
            unpriced_turns=n - priced,
            too_long_turns=too_long,
            routes=routed,
            candidate_turn_cost_microusd=candidate,
            is_rerouted=is_rerouted,
            is_altered=is_altered,
            is_priced=is_priced,
            _find_naive=self._naive_costs,
        )

    def _cost_after(
        self, code: int, rows: Integers, previous: Integers, world: SharedWorld | None
    ) -> tuple[Integers, Booleans]:
        """The costs of turns on one model whose last turn on it is not the row before, and which
        of them the cache model gave."""
        caches = self._caches
        cost = caches.cost(code, rows, previous, world)
        is_served = caches.served.take(rows) == code
        is_kept = previous == caches.logged_previous.take(rows)
        # A turn that caches nothing is touched by its own model alone.
        is_kept |= ~caches.has_prefix.take(rows)
        is_kept &= is_served
        is_kept |= ~caches.is_billable.take(rows)
        kept = np.flatnonzero(is_kept)
        cost[kept] = self.frame.cost_microusd[rows[kept]]
        return cost, ~is_kept

    def _effort_changes(
        self, routed: Routes, model: Integers
    ) -> Iterator[tuple[int, Integers, NDArray[np.float64]]]:
        """The turns whose answers another effort makes shorter or longer, as the log tells, with
        the factor, by model."""
        for ratio, code, rows in effort_ratios(self, routed, model):
            if ratio.basis != "assumed":
                yield code, rows, np.full(len(rows), ratio.ratio)

    def codes_of(self, routed: Routes) -> Integers:
        """The model of each turn as one of :attr:`models`, shape ``(n,)``."""
        return recode(routed.model, self._caches.codes(routed.models))

    @property
    def models(self) -> list[str]:
        """Without dates."""
        return self._caches.models

    @property
    def served(self) -> Integers:
        """The served model of each turn as one of :attr:`models`, shape ``(n,)``."""
        return self._caches.served

    @property
    def is_billable(self) -> Booleans:
        """Where something was served, shape ``(n,)``."""
        return self._caches.is_billable

    def _naive_costs(self, result: ReplayResult) -> Integers:
        caches, routed = self._caches, result.routes
        model = caches.codes(routed.models)[routed.model]
        naive = self.frame.cost_microusd.astype(np.int64)
        moved = np.flatnonzero(result.is_rerouted & result.is_priced)
        for code in np.unique(model[moved]).tolist():
            rows = moved[model[moved] == code]
            naive[rows] = caches.naive_cost(code, rows)
        naive[~result.is_priced] = 0
        return naive

    @cached_property
    def modelled_turn_cost_microusd(self) -> Integers:
        """The logged routes through the cache model, without a look at the logged reads and
        writes, shape ``(n,)``; as billed where the model has no say (nothing served, no price)."""
        modelled = self.frame.cost_microusd.astype(np.int64)
        for code, rows in self._served_rows():
            previous, world = self._caches.logged_previous[rows], self._caches.logged_world
            cost = self._caches.cost(code, rows, previous, world)
            modelled[rows] = np.where(cost < 0, modelled[rows], cost)
        return modelled

    @cached_property
    def modelled_read_tokens(self) -> Integers:
        """What the cache model says that each turn read on its logged route, shape ``(n,)``; 0
        where the model has no say."""
        read = np.zeros(len(self.frame), np.int64)
        for code, rows in self._served_rows():
            previous, world = self._caches.logged_previous[rows], self._caches.logged_world
            read[rows] = self._caches.read_tokens(code, rows, previous, world)
        return read

    @cached_property
    def is_modelled(self) -> Booleans:
        """The turns on which the cache model can be held against the log, shape ``(n,)``."""
        return np.asarray(self._caches.is_billable & self.frame.is_priced)

    def _served_rows(self) -> Iterator[tuple[int, Integers]]:
        for code in range(len(self._caches.models)):
            rows = np.flatnonzero(self.is_modelled & (self._caches.served == code))
            if len(rows):
                yield code, rows


class _Runs:
    """Runs of turns of one segment that go to one model, in one piece of a frame."""

    def __init__(self, model: Integers, segment: Integers, first: int) -> None:
        is_start = np.ones(len(model), bool)
        np.not_equal(model[1:], model[:-1], out=is_start[1:])
        is_start[1:] |= segment[1:] != segment[:-1]
        starts = np.flatnonzero(is_start)
        self._first, self._model = first, model
        self._run_model, self._run_segment = model[starts], segment[starts]
        self._starts = starts + first
        self._lasts = np.append(starts[1:], len(model)) + (first - 1)

    def models(self) -> list[int]:
        """The models of the runs, by code."""
        found: list[int] = np.flatnonzero(np.bincount(self._run_model)).tolist()
        return found

    def previous(self, code: int, on_model: ModelTurns) -> tuple[Integers, Integers]:
        """The model's turns whose row before left no cache on it (another model's, another
        segment's, or one that caches nothing), and for each the last that did, or :data:`NONE`.
        """
        runs = np.flatnonzero(self._run_model == code)
        starts, lasts, segment = self._starts[runs], self._lasts[runs], self._run_segment[runs]
        previous = np.full(len(runs), NONE, np.int64)
        follows = segment[1:] == segment[:-1]
        last_caching = on_model.last_caching
        if last_caching is None and not len(on_model.recheck):
            previous[1:] = (lasts[:-1] - NONE) * follows + NONE
            return starts, previous
        weak = on_model.recheck
        first, end = np.searchsorted(weak, [self._first, self._first + len(self._model)])
        weak = weak[first:end]
        weak = weak[self._model[weak - self._first] == code]
        rows = np.append(starts, weak)
        run = np.append(np.arange(len(runs)), np.searchsorted(starts, weak, side="right") - 1)
        previous = np.full(len(rows), NONE, np.int64)
        # From the row before, back through the model's runs until one left a cache.
        at, pending = rows - 1, np.arange(len(rows))
        while len(pending):
            within = run[pending]
            found = at[pending] if last_caching is None else last_caching[at[pending]]
            is_there = (at[pending] >= starts[within]) & (found >= starts[within])
            previous[pending[is_there]] = found[is_there]
            pending, within = pending[~is_there], within[~is_there]
            goes_on = (within > 0) & (segment[within - 1] == segment[within])
            pending, within = pending[goes_on], within[goes_on] - 1
            run[pending] = within
            at[pending] = lasts[within]
        return rows, previous
