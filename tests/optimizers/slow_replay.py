"""A second, plain replay: one turn after the other, one dictionary of caches per world.

Written apart from ``optimizers.replay`` as a check on it; shares the assumptions and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median

from loop.domain.money import PriceBook, Terms
from loop.domain.policies import Route, RouteRequest, RoutingPolicy, decide, unit_key
from loop.domain.turns import TokenUsage, Turn
from optimizers.replay_assumptions import ReplayAssumptions


@dataclass
class CacheEntry:
    """What one turn left on one model, in tokens on the scale of a ratio of 1.

    ``long`` of the prefix lives for an hour, the rest for five minutes. ``most`` falls when the
    log shows that less of the prompt still begins as it did.
    """

    writer: str  # turn id
    prefix: float
    long: float
    at_us: int
    place: int  # among the turns of the segment
    most: float = float("inf")

    def alive(self, at_us: int, place: int, system: float, facts: ReplayAssumptions) -> float:
        found = self._alive(at_us, facts)
        if facts.lookback_blocks is None:
            return found
        turns_back = int(facts.lookback_blocks / facts.blocks_per_turn)
        return found if place - self.place <= turns_back else min(found, system)

    def _alive(self, at_us: int, facts: ReplayAssumptions) -> float:
        if at_us <= self.at_us + facts.short_ttl_us:
            return self.prefix
        return self.long if at_us <= self.at_us + facts.long_ttl_us else 0.0


@dataclass
class Agent:
    """One segment: the caches as logged, and as they would be."""

    logged: dict[str, CacheEntry] = field(default_factory=dict)
    imagined: dict[str, CacheEntry] = field(default_factory=dict)
    mixes_lifetimes: bool = False
    long_lived: bool = False
    long_end: float = 0.0
    turns: int = 0
    system: float = 0.0
    opened_warm: bool = False
    shares: bool = False


@dataclass
class Warmth:
    """Until when system prompts live, by class and model; a turn finds what was left before it
    started, not what another left at the same instant."""

    until: dict[tuple[str, str], int] = field(default_factory=dict)
    at_us: int = -1
    left: list[tuple[tuple[str, str], int]] = field(default_factory=list)

    def lives(self, kind: tuple[str, str], now: int) -> bool:
        self._advance(now)
        return self.until.get(kind, -1) >= now

    def leave(self, kind: tuple[str, str], ends: int, now: int) -> None:
        self._advance(now)
        self.left.append((kind, ends))

    def _advance(self, now: int) -> None:
        if now > self.at_us:
            for kind, ends in self.left:
                self.until[kind] = max(ends, self.until.get(kind, -1))
            self.left, self.at_us = [], now


@dataclass
class SlowResult:
    candidate: int = 0
    incumbent: int = 0
    unpriced: int = 0
    by_turn: dict[str, int | None] = field(default_factory=dict)


def simulate(
    policy: RoutingPolicy,
    turns: Sequence[Turn],
    prices: PriceBook,
    facts: ReplayAssumptions | None = None,
) -> SlowResult:
    facts = facts or ReplayAssumptions()
    agents: dict[tuple[str, str], Agent] = {}
    for turn in turns:
        if turn.usage.cache_creation_5m_tokens and turn.usage.cache_creation_1h_tokens:
            agents.setdefault(_segment(turn), Agent()).mixes_lifetimes = True
    turns = sorted(turns, key=lambda t: (t.session_id, t.started_at_us, t.sequence, t.turn_id))
    _find_system_prompts(turns, agents, facts)
    models = _route(turns, policy)
    # Caches are shared between sessions, so what they cost is worked out in the order of time.
    in_time = sorted(
        turns, key=lambda t: (t.started_at_us, *_segment_order(t), t.sequence, t.turn_id)
    )
    _find_sharing(in_time, agents, facts)
    warmth = Warmth()
    result = SlowResult()
    for turn in in_time:
        agent = agents[_segment(turn)]
        agent.turns += 1
        cost = _cost(turn, models[turn.turn_id], agent, prices, facts, warmth)
        if turn.cost_microusd is None or cost is None:
            result.unpriced += 1
            result.by_turn[turn.turn_id] = None
        else:
            result.candidate += cost
            result.incumbent += turn.cost_microusd
            result.by_turn[turn.turn_id] = cost
    return result


def _route(turns: Sequence[Turn], policy: RoutingPolicy) -> dict[str, str]:
    kept: dict[tuple[str, str], Route] = {}
    places: dict[tuple[str, str], int] = {}
    models = {}
    for turn in turns:
        auxiliary = turn.request_class == "auxiliary"
        place = places.get(_segment(turn), 0)
        places[_segment(turn)] = place + 1
        request = _request(turn, place, policy, auxiliary)
        key = unit_key(policy, request)
        kept[key] = route = decide(policy, request, kept.get(key))
        models[turn.turn_id] = _name(route.model)
    return models


def _find_sharing(
    in_time: Sequence[Turn], agents: dict[tuple[str, str], Agent], facts: ReplayAssumptions
) -> None:
    """Who shares a system prompt: as the log shows, and who could not have found it warm."""
    opened: set[tuple[str, str]] = set()
    proves: set[tuple[str, str]] = set()
    by_segment = {}
    for turn in in_time:
        if turn.served_model and turn.usage.total_input_tokens > turn.usage.input_tokens:
            by_segment.setdefault(_segment(turn), turn)
    for segment, turn in by_segment.items():
        if turn.usage.cache_read_tokens:
            proves.add(segment)
    if not proves:
        return
    for segment in by_segment:
        agents[segment].shares = agents[segment].system > 0
    state = {segment: Agent(mixes_lifetimes=agent.mixes_lifetimes)
             for segment, agent in agents.items()}  # fmt: skip
    warmth = Warmth()
    for turn in in_time:
        segment = _segment(turn)
        prefix, long = _cacheable(turn, state[segment], facts)
        if not prefix:
            continue
        kind = (turn.request_class, _name(turn.served_model))
        if segment not in opened:
            opened.add(segment)
            if segment not in proves and warmth.lives(kind, turn.started_at_us):
                agents[segment].shares = False
        if segment in proves:
            ends = turn.started_at_us + (facts.long_ttl_us if long else facts.short_ttl_us)
            warmth.leave(kind, ends, turn.started_at_us)


def _request(turn: Turn, index: int, policy: RoutingPolicy, auxiliary: bool) -> RouteRequest:
    starts = turn.starts_prompt or auxiliary
    return RouteRequest(
        requested_model=turn.requested_model or turn.served_model,
        session_id=turn.session_id,
        agent_id=turn.agent_id,
        agent_name=turn.agent_name,
        request_class=turn.request_class,
        org_path=turn.org_path,
        repository=turn.repository,
        effort=turn.effort,
        turn_index=index,
        total_input_tokens=turn.usage.total_input_tokens,
        uncached_input_tokens=turn.usage.input_tokens,
        new_tokens=turn.usage.new_tokens,
        prompt_tokens=int((turn.prompt_chars or 0) / policy.estimator.chars_per_token),
        starts_user_turn=starts,
        in_tool_loop=not starts,
    )


def _name(model: str) -> str:
    return re.sub(r"-20\d{6}$", "", model)


def _segment_order(turn: Turn) -> tuple[str, bool, str]:
    auxiliary = turn.request_class == "auxiliary"
    return (turn.session_id, auxiliary, "" if auxiliary else turn.agent_id)


def _segment(turn: Turn) -> tuple[str, str]:
    auxiliary = turn.request_class == "auxiliary"
    return (turn.session_id, "(auxiliary)" if auxiliary else turn.agent_id)


def _find_system_prompts(
    turns: Sequence[Turn], agents: dict[tuple[str, str], Agent], facts: ReplayAssumptions
) -> None:
    """From what first turns read of other sessions' prompts, and what compactions left to read."""
    first: dict[tuple[str, str], Turn] = {}
    shown: dict[tuple[str, str], float] = {}
    for turn in turns:
        agent = agents.setdefault(_segment(turn), Agent())
        agent.turns += 1
        prefix, long = _cacheable(turn, agent, facts)
        if not prefix:
            continue
        read = turn.usage.cache_read_tokens * (1.0 / facts.ratio(turn.served_model))
        before = agent.logged.get(_name(turn.served_model))
        opening = _segment(turn) not in first
        first.setdefault(_segment(turn), turn)
        if read and (opening or _shows_break(turn, read, prefix, before, agent, facts)):
            # What the first turn read counts before all that compactions left.
            if opening:
                shown[_segment(turn)] = read
                agent.opened_warm = True
            elif not agent.opened_warm:
                shown[_segment(turn)] = min(read, shown.get(_segment(turn), read))
        if before and _shows_break(turn, read, prefix, before, agent, facts):
            for entry in agent.logged.values():
                entry.most = min(entry.most, read)
        agent.logged[_name(turn.served_model)] = CacheEntry(
            turn.turn_id, prefix, long, turn.started_at_us, agent.turns
        )
    for segment, turn in first.items():
        alike = [
            length
            for other, length in shown.items()
            if first[other].request_class == turn.request_class
        ]
        length = shown.get(segment) or (median(alike) if alike else 0.0)
        fresh = Agent(mixes_lifetimes=agents[segment].mixes_lifetimes)
        fresh.system = min(length, _cacheable(turn, fresh, facts)[0])
        agents[segment].system = fresh.system
    for segment, agent in list(agents.items()):
        agents[segment] = Agent(mixes_lifetimes=agent.mixes_lifetimes, system=agent.system)


def _cacheable(turn: Turn, agent: Agent, facts: ReplayAssumptions) -> tuple[float, float]:
    """The length of the cacheable prompt, and how much of it lives for an hour."""
    usage = turn.usage
    to_common = 1.0 / facts.ratio(_name(turn.served_model))
    written = usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
    if written:
        agent.long_lived = usage.cache_creation_1h_tokens > 0
    if usage.cache_creation_1h_tokens:
        agent.long_end = (usage.cache_read_tokens + usage.cache_creation_1h_tokens) * to_common
    if usage == TokenUsage() or not turn.served_model:
        return 0.0, 0.0
    prefix = (usage.cache_read_tokens + written) * to_common
    if agent.mixes_lifetimes:
        return prefix, min(agent.long_end, prefix)
    return prefix, prefix if agent.long_lived else 0.0


def _shows_break(
    turn: Turn,
    read: float,
    prefix: float,
    before: CacheEntry | None,
    agent: Agent,
    facts: ReplayAssumptions,
) -> bool:
    """Whether a warm model read less than was there: the prompt no longer begins as it did."""
    if before is None or not prefix:
        return False
    return read < min(
        before.alive(turn.started_at_us, agent.turns, 0.0, facts), prefix, before.most
    )


def _cost(
    turn: Turn,
    model: str,
    agent: Agent,
    prices: PriceBook,
    facts: ReplayAssumptions,
    warmth: Warmth,
) -> int | None:
    usage, served, now = turn.usage, _name(turn.served_model), turn.started_at_us
    place = agent.turns
    to_common = 1.0 / facts.ratio(served)
    prefix, long = _cacheable(turn, agent, facts)
    if usage == TokenUsage() or not served:
        return turn.cost_microusd
    before = agent.logged.get(served)
    read = usage.cache_read_tokens * to_common
    if _shows_break(turn, read, prefix, before, agent, facts):
        for entry in (*agent.imagined.values(), *agent.logged.values()):
            entry.most = min(entry.most, read)
    there = agent.imagined.get(model)
    keeps_history = (there.writer if there else "") == (before.writer if before else "")
    if model == served and (keeps_history or not prefix):
        cost = turn.cost_microusd
        caches = prefix > 0
    else:
        tokens = round(prefix * facts.ratio(model))
        caches = prefix > 0 and (model == served or tokens >= facts.minimum(model))
        shared = 0.0
        if there:
            shared = min(there.alive(now, place, agent.system, facts), prefix, there.most)
        if agent.shares and warmth.lives((turn.request_class, model), now):
            shared = max(shared, min(agent.system, prefix))
        hit = round(shared * facts.ratio(model)) if caches else 0
        uncached = round(usage.input_tokens * to_common * facts.ratio(model))
        answer = 1.0 / facts.answer_ratio(served)
        output = round(usage.output_tokens * answer * facts.answer_ratio(model))
        if model != served:
            output = min(output, facts.longest_answer(model) or output)
        write = tokens - hit if caches else 0
        for_an_hour = max(0, min(write, round(long * facts.ratio(model)) - hit)) if caches else 0
        window = facts.window(model)
        fits = model == served or window is None or uncached + tokens + output <= window
        uncached += 0 if caches else tokens
        day = datetime.fromtimestamp(now / 1e6, UTC).date().isoformat()
        billed = TokenUsage(uncached, output, hit, write - for_an_hour, for_an_hour)
        terms = Terms(turn.speed, turn.service_tier, turn.inference_geo, turn.web_search_requests)
        cost = prices.cost(model, day, billed, terms).microusd
        if cost is None:  # at standard speed, where there is no fast mode
            cost = prices.cost(model, day, billed, replace(terms, speed="")).microusd
        if not fits or prices.find(model, day) is None:
            cost = None
    if agent.shares and prefix:
        ends = now + (facts.long_ttl_us if long else facts.short_ttl_us)
        warmth.leave((turn.request_class, model), ends, now)
    for world, on, leaves in ((agent.logged, served, prefix > 0), (agent.imagined, model, caches)):
        if leaves:
            world[on] = CacheEntry(turn.turn_id, prefix, long, now, place)
    return cost
