"""Prompt caches of a frame's segments: what a turn reads and writes on a model, and its cost.

``docs/replay.md`` states the model. Lengths of prompts are kept on a common scale (the tokens of
a model with ratio 1) and turned into a model's own tokens where they are priced.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loop.domain.money import PriceBook
from optimizers.price_columns import UNPRICED, PricePeriods, to_microusd
from optimizers.replay_assumptions import ReplayAssumptions, undated
from optimizers.turn_frame import TurnFrame

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
NONE = -1


@dataclass(frozen=True, slots=True, eq=False)
class ModelTurns:
    """Every turn of the frame as if it went to one model; arrays of shape ``(n,)``."""

    ratio: float
    caches: Booleans  # would leave a cached prefix on this model
    cold_millionths: Integers  # cost with nothing in the cache, in 1/1,000,000 micro-dollar
    read_discount: Integers  # millionths saved per token read instead of written; scalar or (n,)
    naive_microusd: Integers  # the logged tokens at this model's prices
    is_priced: Booleans


class CacheModel:
    """The caches of one frame. Holds about 18 bytes per turn for each model it is asked about,
    beside some 60 of its own."""

    def __init__(
        self, frame: TurnFrame, price_book: PriceBook, assumptions: ReplayAssumptions
    ) -> None:
        self.frame = frame
        self.assumptions = assumptions
        self._periods = PricePeriods(price_book, frame.started_at_us)
        self.models: list[str] = []  # without dates; a model's place is its code
        self._turns: dict[int, ModelTurns] = {}
        served = frame.served_model
        self.served = self.codes(served.values)[served.codes]
        prefix = (
            frame.cache_read_tokens
            + frame.cache_creation_5m_tokens
            + frame.cache_creation_1h_tokens
        )
        self.is_billable = (prefix + frame.input_tokens + frame.output_tokens) > 0
        self.is_billable &= ~served.equals("")
        ratios = np.array([assumptions.ratio(name) for name in self.models])
        self._scale = 1.0 / ratios[self.served]
        self._prefix = prefix * self._scale
        self.has_prefix = (prefix > 0) & self.is_billable
        self.logged_previous = self._logged_previous()
        self._is_long = self._long_lived()
        ttl = np.where(self._is_long, assumptions.long_ttl_us, assumptions.short_ttl_us)
        self._expiry = frame.started_at_us + ttl
        self._epoch, self._reusable = self._breaks()

    def codes(self, names: tuple[str, ...]) -> Integers:
        """Codes of models by name, new ones added; models that differ by date only are one."""
        known = {name: code for code, name in enumerate(self.models)}
        for name in map(undated, names):
            if name not in known:
                known[name] = len(self.models)
                self.models.append(name)
        return np.array([known[undated(name)] for name in names], np.int64)

    def turns_on(self, code: int) -> ModelTurns:
        """The frame on one model, worked out when first asked for."""
        if code not in self._turns:
            self._turns[code] = self._price_all(code)
        return self._turns[code]

    def previous(self, rows: Integers, caches: Booleans) -> Integers:
        """For each of a model's turns (rows, ascending) the last one before it in the segment
        that left a cached prefix, or :data:`NONE`. ``caches`` has shape ``(n,)``."""
        previous = np.full(len(rows), NONE, np.int64)
        if len(rows) < 2:
            return previous
        segment = self.frame.segment[rows]
        is_source = caches[rows]
        if is_source.all():
            previous[1:] = np.where(segment[1:] == segment[:-1], rows[:-1], NONE)
            return previous
        place = np.maximum.accumulate(np.where(is_source, np.arange(len(rows)), NONE))[:-1]
        is_same = (place >= 0) & (segment[place] == segment[1:])
        previous[1:] = np.where(is_same, rows[place], NONE)
        return previous

    def read_tokens(self, turns: ModelTurns, rows: Integers, previous: Integers) -> Integers:
        """What each turn reads from the cache that its previous turn left on the model."""
        started = self.frame.started_at_us[rows]
        is_warm = (previous >= 0) & (started <= self._expiry[previous]) & turns.caches[rows]
        shared = np.minimum(self._prefix[previous], self._prefix[rows])
        shared *= is_warm
        if len(self._reusable) > 1:
            since, now = self._epoch[previous], self._epoch[rows]
            broken = np.flatnonzero(is_warm & (since != now))
            if len(broken):
                bounds = np.stack([since[broken], now[broken]], axis=1).ravel()
                least = np.minimum.reduceat(self._reusable, bounds)[::2]
                shared[broken] = np.minimum(shared[broken], least)
        shared *= turns.ratio
        return np.rint(shared, out=shared).astype(np.int64)

    def cost(self, code: int, rows: Integers, previous: Integers) -> Integers:
        """Micro-dollars of turns on one model, :data:`UNPRICED` where it has no price."""
        turns = self.turns_on(code)
        millionths = self.read_tokens(turns, rows, previous)
        discount = turns.read_discount
        millionths *= discount if discount.ndim == 0 else discount[rows]
        cost = to_microusd(turns.cold_millionths[rows] - millionths)
        if not turns.is_priced.all():
            cost[~np.broadcast_to(turns.is_priced, len(self.frame))[rows]] = UNPRICED
        return cost

    def _price_all(self, code: int) -> ModelTurns:
        frame, name = self.frame, self.models[code]
        ratio = self.assumptions.ratio(name)
        tokens = np.rint(self._prefix * ratio).astype(np.int64)
        # What the log shows to have been cached was cacheable.
        caches = self.has_prefix & (
            (tokens >= self.assumptions.minimum(name)) | (self.served == code)
        )
        uncached = np.rint(frame.input_tokens * self._scale * ratio).astype(np.int64)
        p_input, p_output, p_read, p_5m, p_1h = self._periods.prices(name, uncached + tokens)
        p_write = np.where(self._is_long, p_1h, p_5m)
        if (p_write == p_write[:1]).all():
            p_write = p_write[:1].sum()
        return ModelTurns(
            ratio=ratio,
            caches=caches,
            cold_millionths=p_input * uncached
            + p_output * frame.output_tokens
            + np.where(caches, p_write, p_input) * tokens,
            read_discount=np.asarray(p_write - p_read),
            naive_microusd=self._naive(name),
            is_priced=np.asarray(p_input != UNPRICED),
        )

    def _naive(self, name: str) -> Integers:
        frame = self.frame
        logged = (
            frame.input_tokens,
            frame.output_tokens,
            frame.cache_read_tokens,
            frame.cache_creation_5m_tokens,
            frame.cache_creation_1h_tokens,
        )
        total = logged[0] + logged[2] + logged[3] + logged[4]
        millionths = np.zeros(len(frame), np.int64)
        for price, tokens in zip(self._periods.prices(name, total), logged, strict=True):
            millionths += price * tokens
        return to_microusd(millionths)

    def _logged_previous(self) -> Integers:
        previous = np.full(len(self.frame), NONE, np.int64)
        for code in range(len(self.models)):
            rows = np.flatnonzero(self.served == code)
            previous[rows] = self.previous(rows, self.has_prefix)
        return previous

    def _long_lived(self) -> Booleans:
        """Whether a turn's cache entry lives long: as the turn wrote it, else as the last write
        in its segment."""
        frame = self.frame
        writes_long = frame.cache_creation_1h_tokens > 0
        writes = writes_long | (frame.cache_creation_5m_tokens > 0)
        place = np.maximum.accumulate(np.where(writes, np.arange(len(frame)), NONE))
        is_same = (place >= 0) & (frame.segment[place] == frame.segment)
        return np.asarray(is_same & writes_long[place])

    def _breaks(self) -> tuple[Integers, Floats]:
        """Where the log proves that a prompt no longer began as the one before it (compaction):
        the model was warm, yet less was read than had been cached.

        Returns how many breaks there were up to each turn, and what each left to be shared (with
        a last, unlimited entry).
        """
        frame, previous = self.frame, self.logged_previous
        is_warm = (previous >= 0) & (frame.started_at_us <= self._expiry[previous])
        read = frame.cache_read_tokens * self._scale
        shorter = read < np.minimum(self._prefix[previous], self._prefix)
        is_break = is_warm & self.has_prefix & shorter
        return np.cumsum(is_break), np.append(read[is_break], np.inf)
