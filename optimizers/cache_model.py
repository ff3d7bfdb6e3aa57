"""Prompt caches of a frame's segments: what a turn reads and writes on a model, and its cost.

``docs/replay.md`` states the model. Lengths of prompts are kept on a common scale (the tokens of
a model with ratio 1) and turned into a model's own tokens where they are priced.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loop.domain.money import PriceBook
from optimizers.output_lengths import OutputLengths
from optimizers.price_columns import (
    UNPRICED,
    ModelPrices,
    PricedTurns,
    Rows,
    Tokens,
    to_microusd,
)
from optimizers.replay_assumptions import ReplayAssumptions, undated
from optimizers.shared_prompts import SharedPrompts, SharedWorld, find_sharing
from optimizers.turn_columns import Integers, code_type
from optimizers.turn_frame import TurnFrame

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
NONE = -1
TOO_LONG = -2  # in place of a cost: the turn does not fit the model's context window
_MOST_COST = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, eq=False)
class ModelTurns:
    """Every turn of the frame as if it and the row before it went to one model; each ``(n,)``.

    ``cost_microusd`` is the bill where the log can be believed (``is_modelled`` is false), else
    that of the cache model; :data:`UNPRICED` or :data:`TOO_LONG` where there is none. It does not
    hold for the first turn of a segment nor in ``recheck``, where the row before left no cache or
    less than other sessions may have.
    """

    cost_microusd: Integers
    is_modelled: Booleans
    last_caching: Integers | None  # the last row up to each that leaves a cache; None: each does
    recheck: Integers  # ascending row numbers
    has_gaps: bool  # some costs are UNPRICED or TOO_LONG
    cold_millionths: Integers  # of a turn that reads nothing, in 1/1,000,000 micro-dollar
    discount: Integers  # millionths saved for each token that is read, not written; () or (n,)
    is_plain: Booleans | None  # cold_millionths and discount say it all; None: for every turn


class CacheModel:
    """The caches of one frame. Holds about 30 bytes per turn, and 22 more for each model that it
    is asked about."""

    def __init__(
        self,
        frame: TurnFrame,
        price_book: PriceBook,
        assumptions: ReplayAssumptions,
        lengths: OutputLengths,
    ) -> None:
        self.frame = frame
        self.lengths = lengths
        self.assumptions = assumptions
        self._priced = PricedTurns(price_book, frame)
        self._prices: dict[int, ModelPrices] = {}
        self._turns: dict[int, ModelTurns] = {}
        self.models: list[str] = []  # without dates; a model's place is its code
        served = frame.served_model
        self.served = self.codes(served.values)[served.codes]
        is_new = np.ones(len(frame), bool)
        is_new[1:] = frame.segment[1:] != frame.segment[:-1]
        self.segment_starts = np.flatnonzero(is_new)
        self.edges = _chunk_edges(self.segment_starts, len(frame))
        written = frame.cache_creation_5m_tokens + frame.cache_creation_1h_tokens
        prefix = frame.cache_read_tokens + written
        self.is_billable = (prefix + frame.input_tokens + frame.output_tokens) > 0
        self.is_billable &= ~served.equals("")
        self.has_prefix = (prefix > 0) & self.is_billable
        ratios = np.array([1.0 / assumptions.ratio(name) for name in self.models])
        answers = np.array([1.0 / assumptions.answer_ratio(name) for name in self.models])
        self._scale, self._answer_scale = ratios, answers
        self._prefix = prefix * ratios[self.served]
        self._long = self._long_lived_part()
        self._has_long = bool(self._long.any())
        self._system = np.zeros(len(self.segment_starts))
        self._sharing: SharedPrompts | None = None
        self._breaks = np.zeros(0, np.int64)
        self._break_epoch = np.zeros(len(frame), np.int32)
        self._reusable = np.array([np.inf])
        self.logged_previous = self._find_logged_previous()
        self._find_breaks()
        self._system, openings = self._system_prompts()
        self._sharing = self._find_sharing(openings)

    def codes(self, names: tuple[str, ...]) -> Integers:
        """Codes of models by name, new ones added; models that differ by date only are one."""
        known = {name: code for code, name in enumerate(self.models)}
        for name in map(undated, names):
            if name not in known:
                known[name] = len(self.models)
                self.models.append(name)
        return np.array([known[undated(name)] for name in names], code_type(len(self.models)))

    def world(self, model: Integers) -> SharedWorld | None:
        """The system prompts that sessions share when the turns go to these models (codes, shape
        ``(n,)``); ``None`` where the log shows none."""
        return SharedWorld(self._sharing, model) if self._sharing else None

    @cached_property
    def logged_world(self) -> SharedWorld | None:
        """As :meth:`world`, of the models as served."""
        return self.world(self.served)

    def turns_on(self, code: int) -> ModelTurns:
        """The frame on one model, worked out when first asked for."""
        if code not in self._turns:
            self._turns[code] = self._work_out(code)
        return self._turns[code]

    def read_tokens(
        self, code: int, rows: Integers, previous: Integers, world: SharedWorld | None
    ) -> Integers:
        """What each turn reads from the cache that its previous turn left on the model, or other
        sessions, in the model's tokens; ``previous`` holds :data:`NONE` where there is none."""
        shared = self._shared(code, rows, previous, world)
        ratio = self.assumptions.ratio(self.models[code])
        return np.asarray(np.rint(shared * ratio).astype(np.int64))

    def cost(
        self, code: int, rows: Integers, previous: Integers, world: SharedWorld | None
    ) -> Integers:
        """Micro-dollars of turns on one model by the cache model, :data:`UNPRICED` where it has
        no price, :data:`TOO_LONG` where they do not fit it and were served by another."""
        turns = self.turns_on(code)
        saved = self._shared(code, rows, previous, world)
        saved *= self.assumptions.ratio(self.models[code])
        np.rint(saved, out=saved)
        saved *= turns.discount if turns.discount.ndim == 0 else turns.discount.take(rows)
        cost = to_microusd(turns.cold_millionths.take(rows) - saved.astype(np.int64))
        if turns.is_plain is not None:
            odd = np.flatnonzero(~turns.is_plain[rows])
            cost[odd] = self._priced_anew(code, rows[odd], previous[odd], world)[0]
        return cost

    def _priced_anew(
        self, code: int, rows: Rows, previous: Integers, world: SharedWorld | None = None
    ) -> tuple[Integers, Tokens, Booleans]:
        tokens, caches, fits = self._tokens(code, rows, previous, world)
        cost = self._prices_on(code).cost(rows, tokens)
        cost[~fits & (cost != UNPRICED)] = TOO_LONG
        return cost, tokens, caches

    def naive_cost(self, code: int, rows: Integers) -> Integers:
        """The logged tokens, cache reads included, at the model's prices."""
        frame = self.frame
        return self._prices_on(code).cost(
            rows,
            Tokens(
                frame.input_tokens[rows],
                frame.output_tokens[rows],
                frame.cache_read_tokens[rows],
                frame.cache_creation_5m_tokens[rows],
                frame.cache_creation_1h_tokens[rows],
            ),
        )

    def _prices_on(self, code: int) -> ModelPrices:
        if code not in self._prices:
            self._prices[code] = self._priced.on(self.models[code])
        return self._prices[code]

    def _tokens(
        self, code: int, rows: Rows, previous: Integers, world: SharedWorld | None
    ) -> tuple[Tokens, Booleans, Booleans]:
        """What the turns are billed for on a model, whether they leave a cached prefix on it, and
        whether they fit its window."""
        frame, name = self.frame, self.models[code]
        served = self.served[rows]
        ratio = self.assumptions.ratio(name)
        prompt = np.rint(self._prefix[rows] * ratio).astype(np.int64)
        caches = self._caches(code, rows, prompt)
        uncached = frame.input_tokens[rows] * self._scale[served]
        uncached = np.rint(uncached * ratio).astype(np.int64)
        output = self._output_tokens(code, rows)
        longest = self.assumptions.longest_answer(name)
        if longest is not None:
            output = np.where(served == code, output, np.minimum(output, longest))
        window = self.assumptions.window(name)
        fits = np.ones(len(prompt), bool)
        if window is not None:
            fits = (served == code) | (uncached + prompt + output <= window)
        read = np.rint(self._shared(code, rows, previous, world) * ratio).astype(np.int64)
        read *= caches
        write = prompt - read
        long = np.rint(self._long[rows] * ratio).astype(np.int64)
        write_1h = np.clip(long - read, 0, write)
        write_1h *= caches
        write_5m = (write - write_1h) * caches
        uncached += prompt * ~caches
        return Tokens(uncached, output, read, write_5m, write_1h), caches, fits

    def _output_tokens(self, code: int, rows: Rows) -> Integers:
        """The answers as the model would write them: by the ratio that the log tells, else by the
        assumed one."""
        frame, served = self.frame, self.served[rows]
        output = frame.output_tokens[rows] * self._answer_scale[served]
        output = output * self.assumptions.answer_ratio(self.models[code])
        fitted = self._fitted_lengths(code)
        if fitted is not None:
            ratio = fitted[frame.request_class.codes[rows], served]
            output = np.where(np.isnan(ratio), output, frame.output_tokens[rows] * ratio)
        return np.asarray(np.rint(output).astype(np.int64))

    def _fitted_lengths(self, code: int) -> Floats | None:
        """Ratios by request class and served model, NaN where the log tells none; ``None`` where
        it tells none at all."""
        classes = self.frame.request_class.values
        found = np.full((len(classes), len(self.models)), np.nan)
        for place, name in enumerate(classes):
            for served, model in enumerate(self.models):
                ratio = self.lengths.of_models(name, model, self.models[code])
                if ratio is not None and served != code:
                    found[place, served] = ratio.ratio
        return None if np.isnan(found).all() else found

    def effort_cost(self, code: int, rows: Integers, factor: Floats) -> Integers:
        """What it adds to the cost of turns on a model, in micro-dollars, that an effort makes
        their answers so many times as long."""
        tokens = self._tokens(code, rows, np.full(len(rows), NONE), None)[0]
        total = sum(tokens) - tokens.output
        nothing = np.zeros_like(total)
        kept = self.served[rows] == code
        plain = np.where(kept, self.frame.output_tokens[rows], tokens.output)
        longer = np.rint(plain * factor).astype(np.int64)
        longest = self.assumptions.longest_answer(self.models[code])
        if longest is not None:
            longer = np.minimum(longer, np.maximum(longest, plain))
        after, before = (
            self._prices_on(code).cost(rows, Tokens(total, output, nothing, nothing, nothing))
            for output in (longer, plain)
        )
        return np.asarray(after - before)

    def _caches(self, code: int, rows: Rows, prompt: Integers) -> Booleans:
        # What the log shows to have been cached was cacheable.
        least = self.assumptions.minimum(self.models[code])
        is_cacheable = (prompt >= least) | (self.served[rows] == code)
        return np.asarray(self.has_prefix[rows] & is_cacheable)

    def _work_out(self, code: int) -> ModelTurns:
        n = len(self.frame)
        cost, cold, discount = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
        is_short = np.zeros(n, bool)
        is_modelled, caches, is_plain = np.empty(n, bool), np.empty(n, bool), np.empty(n, bool)
        prices = self._prices_on(code)
        for first, end in pairwise(self.edges.tolist()):
            part = slice(first, end)
            before = np.arange(first - 1, end - 1)
            modelled, tokens, caches[part] = self._priced_anew(code, part, np.maximum(before, 0))
            if self._sharing:
                system = np.minimum(self._system[self.frame.segment[part]], self._prefix[part])
                wanted = np.rint(system * self.assumptions.ratio(self.models[code]))
                is_short[part] = caches[part] & (tokens.cache_read < wanted)
            written = tokens.cache_creation_5m + tokens.cache_creation_1h + tokens.cache_read
            is_long = self._long[part] > 0
            unread = Tokens(
                tokens.input, tokens.output, np.zeros_like(written),
                np.where(is_long, 0, written), np.where(is_long, written, 0),
            )  # fmt: skip
            cold[part] = prices.millionths(part, unread)
            discount[part] = prices.read_discount(part, unread, is_long) * caches[part]
            is_plain[part] = (modelled >= 0) & prices.is_standard(part)
            is_plain[part] &= ~is_long | (self._long[part] == self._prefix[part])
            is_as_logged = self.served[part] == code
            is_as_logged &= (self.logged_previous[part] == before) | ~self.has_prefix[part]
            is_as_logged |= ~self.is_billable[part]
            cost[part] = np.where(is_as_logged, self.frame.cost_microusd[part], modelled)
            is_modelled[part] = ~is_as_logged
        weak = ~caches
        weak[self.segment_starts - 1] = False  # what ends a segment is before no turn
        is_narrow = n == 0 or int(cost.max()) <= _MOST_COST
        return ModelTurns(
            cost_microusd=cost.astype(np.int32) if is_narrow else cost,
            is_modelled=is_modelled,
            last_caching=None if caches.all() else _last_of(caches),
            recheck=np.flatnonzero(np.append([False], weak[:-1]) | is_short),
            has_gaps=bool((cost < 0).any()),
            cold_millionths=cold,
            discount=_scalar_if_same(discount),
            is_plain=None if is_plain.all() else is_plain,
        )

    def _shared(
        self, code: int, rows: Rows, previous: Integers, world: SharedWorld | None
    ) -> Floats:
        """How much of each prompt the previous turn left in a cache that still lives, or other
        sessions did, on the common scale."""
        started, prefix = self.frame.started_at_us, self._prefix
        chosen = started[rows] if isinstance(rows, slice) else started.take(rows)
        age = chosen - started.take(previous)
        is_known = previous >= 0
        shared = prefix.take(previous)
        shared *= is_known & (age <= self.assumptions.short_ttl_us)
        long = is_known & (age <= self.assumptions.long_ttl_us)
        if self._has_long:
            np.maximum(shared, self._long.take(previous) * long, out=shared)
        np.minimum(
            shared, prefix[rows] if isinstance(rows, slice) else prefix.take(rows), out=shared
        )
        lookback = self.assumptions.lookback_turns
        if lookback is not None:
            row = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            far = np.flatnonzero(long & (row - previous > lookback))
            if len(far):
                system = self._system[self.frame.segment[row[far]]]
                shared[far] = np.minimum(shared[far], system)
        if len(self._breaks):
            since, now = self._break_epoch[previous], self._break_epoch[rows]
            broken = np.flatnonzero(long & (since != now))
            if len(broken):
                bounds = np.stack([since[broken], now[broken]], axis=1).ravel()
                least = np.minimum.reduceat(self._reusable, bounds)[::2]
                shared[broken] = np.minimum(shared[broken], least)
        if world is not None and not isinstance(rows, slice):
            system = self._system.take(self.frame.segment.take(rows))
            lacking = np.flatnonzero(shared < np.minimum(system, self._prefix.take(rows)))
            lacking = lacking[world.is_warm(code, rows[lacking])]
            system = np.minimum(system[lacking], self._prefix[rows[lacking]])
            shared[lacking] = np.maximum(shared[lacking], system)
        return np.asarray(shared)

    def _find_logged_previous(self) -> Integers:
        """The row that last left a cache on each turn's own model, :data:`NONE` for none."""
        frame, previous = self.frame, np.full(len(self.frame), NONE, np.int32)
        for code in range(len(self.models)):
            rows = np.flatnonzero(self.served == code)
            if len(rows) < 2:
                continue
            is_source = self.has_prefix[rows]
            place = np.maximum.accumulate(np.where(is_source, np.arange(len(rows)), NONE))[:-1]
            is_same = (place >= 0) & (frame.segment[rows[place]] == frame.segment[rows[1:]])
            previous[rows[1:]] = np.where(is_same, rows[place], NONE)
        return previous

    def _long_lived_part(self) -> Floats:
        """How much of each prompt lies before a one-hour breakpoint.

        The API wants longer times to live first. A segment that mixes both kinds in a turn has
        them apart: one hour for what ends with the last one-hour write, five minutes for the
        rest. In any other the last write says which kind the whole prompt has.
        """
        frame = self.frame
        writes_long = frame.cache_creation_1h_tokens > 0
        writes = writes_long | (frame.cache_creation_5m_tokens > 0)
        place = self._last_in_segment(writes)
        part = self._prefix * ((place >= 0) & writes_long[place])
        is_mixed = writes_long & (frame.cache_creation_5m_tokens > 0)
        if is_mixed.any():
            mixed = np.zeros(1 + int(frame.segment[-1]), bool)
            mixed[frame.segment[is_mixed]] = True
            rows = np.flatnonzero(mixed[frame.segment])
            place = self._last_in_segment(writes_long)[rows]
            ends = frame.cache_read_tokens + frame.cache_creation_1h_tokens
            end = ends[place] * self._scale[self.served[place]] * (place >= 0)
            part[rows] = np.minimum(end, self._prefix[rows])
        return np.asarray(part)

    def _system_prompts(self) -> tuple[Floats, Integers]:
        """How much of each segment's prompt is tools and system prompt, which have breakpoints of
        their own and so are found however far back; shape ``(segments,)``.

        The log shows it where a segment's first turn read what other sessions had cached, and
        where a compaction left nothing else to read; elsewhere the median of the segments of its
        class that show it is taken, or nothing if none does. Also returns each segment's first
        turn with a cacheable prompt, :data:`NONE` for none.
        """
        frame = self.frame
        system = np.zeros(len(self.segment_starts))
        rows = np.flatnonzero(self.has_prefix)
        openings = np.full(len(system), NONE)
        if len(rows) == 0:
            return system, openings
        segment = frame.segment[rows]
        first = rows[np.append([True], segment[1:] != segment[:-1])]
        left = np.full(len(self.segment_starts), np.inf)
        compacted = self._breaks[self._reusable[:-1] > 0]
        np.minimum.at(left, frame.segment[compacted], self._reusable[:-1][self._reusable[:-1] > 0])
        read = frame.cache_read_tokens[first] * self._scale[self.served[first]]
        left = left[frame.segment[first]]
        read = np.where((read == 0) & np.isfinite(left), left, read)
        kind = frame.request_class.codes[first]
        for code in range(len(frame.request_class.values)):
            shown = read[(kind == code) & (read > 0)]
            if len(shown):
                read[(kind == code) & (read == 0)] = np.median(shown)
        system[frame.segment[first]] = np.minimum(read, self._prefix[first])
        openings[frame.segment[first]] = first
        return system, openings

    def _find_sharing(self, openings: Integers) -> SharedPrompts | None:
        facts = self.assumptions
        ttl = np.where(self._long > 0, facts.long_ttl_us, facts.short_ttl_us)
        return find_sharing(
            self.frame,
            openings[openings >= 0],
            self._system,
            self.served,
            self.has_prefix,
            self.frame.started_at_us + ttl,
        )

    def _last_in_segment(self, marked: Booleans) -> Integers:
        """The last marked row up to each row in its segment, :data:`NONE` for none."""
        place = _last_of(marked)
        is_same = (place >= 0) & (self.frame.segment[place] == self.frame.segment)
        return np.where(is_same, place, NONE)

    def _find_breaks(self) -> None:
        """Where the log proves that a prompt no longer began as the one before it (compaction):
        the model was warm, yet less was read than had been cached.

        Keeps how many breaks there were up to each turn, and what each left to be shared (with a
        last, unlimited entry).
        """
        read = self.frame.cache_read_tokens * self._scale[self.served]
        expected = self._shared(NONE, slice(0, len(self.frame)), self.logged_previous, None)
        is_break = self.has_prefix & (self.logged_previous >= 0) & (read < expected)
        self._break_epoch = np.cumsum(is_break, dtype=np.int32)
        self._breaks = np.flatnonzero(is_break)
        self._reusable = np.append(read[is_break], np.inf)


def _last_of(marked: Booleans) -> Integers:
    """The last marked row up to each row, :data:`NONE` for none."""
    rows = np.arange(len(marked), dtype=np.int32)
    return np.maximum.accumulate(np.where(marked, rows, np.int32(NONE)))


def _scalar_if_same(values: NDArray[Any]) -> NDArray[Any]:
    if len(values) and (values == values[0]).all():
        return np.asarray(values[0])
    return values


def _chunk_edges(segment_starts: Integers, n: int, turns: int = 1 << 17) -> Integers:
    """Where to cut the rows into pieces that stay in the processor's cache, at segment starts."""
    if n == 0:
        return np.zeros(1, np.int64)
    wanted = np.arange(0, n, turns)
    place = np.minimum(np.searchsorted(segment_starts, wanted), len(segment_starts) - 1)
    return np.unique(np.append(segment_starts[place], n))
