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

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from loop.domain.money import PriceBook
from loop.domain.policies import RoutingPolicy
from optimizers.cache_model import NONE, CacheModel
from optimizers.price_columns import UNPRICED
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.routing import Routes, routes
from optimizers.turn_frame import TurnFrame

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
_CHUNK_TURNS = 1 << 16  # the working set of a chunk stays in the processor's cache


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


class Replayer:
    """One frame made ready for replay under many policies; not changed by replaying."""

    def __init__(
        self,
        frame: TurnFrame,
        price_book: PriceBook,
        assumptions: ReplayAssumptions | None = None,
    ) -> None:
        self.frame = frame
        self._caches = CacheModel(frame, price_book, assumptions or ReplayAssumptions())
        starts = np.flatnonzero(np.append([True], frame.segment[1:] != frame.segment[:-1]))
        chunks = np.arange(0, len(frame), _CHUNK_TURNS)
        edges = starts[np.minimum(np.searchsorted(starts, chunks), len(starts) - 1)]
        self._edges = np.unique(np.append(edges, len(frame)))

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
        frame, caches = self.frame, self._caches
        n = len(frame)
        code_of = caches.codes(routed.models)
        candidate = frame.cost_microusd.copy()
        naive = frame.cost_microusd.copy()
        is_priced = frame.is_priced.copy()
        is_rerouted = np.zeros(n, bool)
        is_altered = np.zeros(n, bool)
        for first, end in pairwise(self._edges.tolist()):
            part = slice(first, end)
            model = code_of[routed.model[part]]
            moves = (model != caches.served[part]) & caches.is_billable[part]
            if not moves.any():
                continue
            is_rerouted[part] = moves
            if not caches.is_billable[part].all():
                model[~caches.is_billable[part]] = NONE
            for code in np.unique(code_of).tolist():
                rows = first + np.flatnonzero(model == code)
                if len(rows) == 0:
                    continue
                on_model = caches.turns_on(code)
                previous = caches.previous(rows, on_model.caches)
                moved = rows
                if not (keeps := ~is_rerouted[rows]).any():
                    is_altered[rows] = True
                else:
                    moved = rows[~keeps]
                    # A turn that caches nothing is touched by its own model alone.
                    keeps &= (previous == caches.logged_previous[rows]) | ~caches.has_prefix[rows]
                    changes = np.flatnonzero(~keeps)
                    rows, previous = rows[changes], previous[changes]
                    is_altered[rows] = True
                cost = caches.cost(code, rows, previous)
                candidate[rows] = cost
                naive[moved] = on_model.naive_microusd[moved]
                if not on_model.is_priced.all():
                    is_priced[rows] &= cost != UNPRICED
        if not is_priced.all():
            candidate[~is_priced] = 0
            naive[~is_priced] = 0
        return ReplayResult(
            candidate_cost_microusd=int(candidate.sum()),
            incumbent_cost_microusd=int(frame.cost_microusd[is_priced].sum()),
            logged_cost_microusd=int(frame.cost_microusd.sum()),
            naive_cost_microusd=int(naive.sum()),
            rerouted_turns=int(is_rerouted.sum()),
            unpriced_turns=int(n - is_priced.sum()),
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
        modelled = self.frame.cost_microusd.copy()
        for code, rows in self._served_rows():
            cost = self._caches.cost(code, rows, self._caches.logged_previous[rows])
            modelled[rows] = np.where(cost == UNPRICED, modelled[rows], cost)
        return modelled

    @cached_property
    def calibration(self) -> Calibration:
        """Every priced turn through the cache model on its logged route."""
        billed, modelled, logged_reads, modelled_reads = 0, 0, 0, 0
        for code, rows in self._served_rows():
            turns = self._caches.turns_on(code)
            previous = self._caches.logged_previous[rows]
            billed += int(self.frame.cost_microusd[rows].sum())
            modelled += int(self.modelled_turn_cost_microusd[rows].sum())
            logged_reads += int(self.frame.cache_read_tokens[rows].sum())
            modelled_reads += int(self._caches.read_tokens(turns, rows, previous).sum())
        return Calibration(billed, modelled, logged_reads, modelled_reads)

    def _served_rows(self) -> Iterator[tuple[int, Integers]]:
        usable = self._caches.is_billable & self.frame.is_priced
        for code in range(len(self._caches.models)):
            rows = np.flatnonzero(usable & (self._caches.served == code))
            if len(rows):
                yield code, rows
