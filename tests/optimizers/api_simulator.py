"""The model API's prompt cache, block by block: what sessions really cost under any policy.

Nothing here knows the replay. A prompt is a list of blocks; Claude Code's breakpoints stand after
the system prompt and on the last block; a request looks back 20 blocks from each for an entry that
still lives, reads the longest one and writes the rest. So a log can be made under one policy and
the truth under another, from the same work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from loop.domain.money import PriceBook
from loop.domain.policies import Route, RouteRequest, RoutingPolicy, decide, unit_key
from loop.domain.turns import TokenUsage, Turn

START_US = 1_767_600_000_000_000
LOOKBACK_BLOCKS = 20
LIFETIME_US = {"5m": 300_000_000, "1h": 3_600_000_000}
SHARED_SYSTEM = {
    "": [(-1, 6_000), (-2, 5_000), (-3, 4_000)],
    "sub": [(-4, 3_000), (-5, 3_000), (-6, 2_000)],
}
TOKENS_PER_WORD = {"claude-opus-4-7": 1.3, "claude-haiku-4-5": 1.0, "claude-sonnet-4-6": 1.0}
LEAST_TOKENS = {"claude-opus-4-7": 4_096, "claude-haiku-4-5": 4_096, "claude-sonnet-4-6": 2_048}


@dataclass(frozen=True)
class Request:
    """One request of the work, the same whatever model answers it. Lengths are in words."""

    session_id: str
    agent_id: str
    at_us: int
    blocks: tuple[tuple[int, int], ...]  # (block id, words): the whole prompt
    system_blocks: int
    tail_words: int  # after the last breakpoint
    answer_words: int
    starts_prompt: bool
    lifetime: str


@dataclass
class PromptCache:
    """Entries of one organization: prefixes of one model, by their blocks, and when they end."""

    expiry_us: dict[tuple[str, tuple[int, ...]], int] = field(default_factory=dict)

    def serve(self, request: Request, model: str) -> TokenUsage:
        ratio = TOKENS_PER_WORD[model]
        ids = tuple(block for block, _ in request.blocks)
        words = [count for _, count in request.blocks]
        found = 0
        for end in (request.system_blocks, len(ids)):
            for length in range(end, max(0, end - LOOKBACK_BLOCKS) - 1, -1):
                if self.expiry_us.get((model, ids[:length]), -1) >= request.at_us:
                    found = max(found, length)
                    break
        prompt, read = round(sum(words) * ratio), round(sum(words[:found]) * ratio)
        tail, answer = round(request.tail_words * ratio), round(request.answer_words * ratio)
        if prompt < LEAST_TOKENS[model]:
            return TokenUsage(prompt + tail, answer)
        ends = request.at_us + LIFETIME_US[request.lifetime]
        for end in (request.system_blocks, found, len(ids)):
            if end:
                self.expiry_us[model, ids[:end]] = ends
        written = prompt - read
        short, long = (written, 0) if request.lifetime == "5m" else (0, written)
        return TokenUsage(tail, answer, read, short, long)


def make_work(seed: int, *, shares_system: bool, sessions: int = 40) -> list[Request]:
    """Sessions of some thirty requests with pauses, a compaction now and then, and a subagent;
    with one system prompt for all, or one each."""
    random, block, work = Random(seed), iter(range(10**9)), []
    for number in range(sessions):
        lifetime = random.choice(("5m", "1h"))
        at_us = START_US + number * 97_000_000
        for agent in ("", "sub") if random.random() < 0.4 else ("",):
            system = [(next(block), random.randint(2_000, 9_000)) for _ in range(3)]
            if shares_system:
                system = SHARED_SYSTEM[agent]
            talk: list[tuple[int, int]] = [(next(block), random.randint(500, 6_000))]
            left = 0
            for _ in range(random.randint(10, 50) if not agent else random.randint(3, 12)):
                starts = left == 0
                left = random.randint(2, 14) if starts else left - 1
                answer = random.randint(20, 900)
                work.append(
                    Request(
                        f"s{number}", agent, at_us, (*system, *talk), len(system),
                        random.randint(0, 9), answer, starts, lifetime,
                    )
                )  # fmt: skip
                talk += [(next(block), answer), (next(block), random.randint(50, 3_000))]
                if random.random() < 0.3:
                    talk.append((next(block), random.randint(5, 200)))
                at_us += random.randint(4_000_000, 70_000_000)
                if starts and random.random() < 0.15:
                    at_us += random.randint(240, 4_500) * 1_000_000
                if random.random() < 0.02:
                    talk = [(next(block), random.randint(500, 4_000))]
    return sorted(work, key=lambda request: request.at_us)


def serve(work: Sequence[Request], policy: RoutingPolicy, prices: PriceBook) -> list[Turn]:
    """The log that the work leaves behind when it is routed by the policy."""
    cache = PromptCache()
    places: dict[tuple[str, str], int] = {}
    routes: dict[tuple[str, str], Route] = {}
    log: list[Turn] = []
    for number, request in enumerate(work):
        logged = TOKENS_PER_WORD["claude-opus-4-7"]
        place = places.get((request.session_id, request.agent_id), 0)
        places[request.session_id, request.agent_id] = place + 1
        total = round(sum(words for _, words in request.blocks) * logged)
        asked = RouteRequest(
            requested_model="claude-opus-4-7",
            session_id=request.session_id,
            agent_id=request.agent_id,
            request_class="subagent" if request.agent_id else "main",
            turn_index=place,
            total_input_tokens=total + round(request.tail_words * logged),
            starts_user_turn=request.starts_prompt,
            in_tool_loop=not request.starts_prompt,
        )
        key = unit_key(policy, asked)
        routes[key] = route = decide(policy, asked, routes.get(key))
        usage = cache.serve(request, route.model)
        day = datetime.fromtimestamp(request.at_us / 1e6, UTC).date().isoformat()
        log.append(
            Turn(
                f"t{number:06d}", f"t{number:06d}", request.session_id, request.at_us,
                request.at_us, number, agent_id=request.agent_id,
                request_class=asked.request_class,  # type: ignore[arg-type]
                requested_model="claude-opus-4-7", served_model=route.model, usage=usage,
                starts_prompt=request.starts_prompt,
                cost_microusd=prices.cost(route.model, day, usage).microusd,
            )
        )  # fmt: skip
    return log
