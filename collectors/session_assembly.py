"""One session of whatever sources tell of it: Claude Code's own and other tools' conventions.

A request that Claude Code and a gateway both tell of is one turn, and the convention is one more of
its sources. They are joined on the request id or the answer's id; where neither is on both sides
(Claude Code's events carry no answer's id, gateways rarely the request's), on equal tokens of all
classes at the same time. A gateway's failed attempt during a turn belongs to that turn: the client
tries again by itself. What the client does not tell, the convention fills in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from collectors.attribution import Attribution, separate
from collectors.claude_code_turns import NO_TOKENS_REASON, AssembledSession, assemble
from collectors.conventions.convention_turns import (
    ConventionTurn,
    assembled,
    content_order,
    convention_turns,
    is_foreign,
)
from collectors.conventions.registry import ConventionRegistry, known_conventions
from collectors.event_identity import ruling_events
from collectors.metric_turns import untold
from loop.domain.turns import METRIC_SOURCE, Content, Event, TokenUsage, Turn

_TOLERANCE_US = 5_000_000  # clocks of the client's machine and of the gateway's


def assemble_session(
    events: Iterable[Event],
    attribution: Attribution | None = None,
    registry: ConventionRegistry | None = None,
) -> AssembledSession:
    """Assembles one session: a pure function of the set of its events.

    Records that came by credentials of separate parts of the organization never mix: of a turn
    that both name, the one whose records began to arrive first counts.
    """
    rules = attribution or Attribution()
    groups = separate(list(events), rules)
    sessions = [_assemble_group(group, rules, registry) for group in groups]
    if len(sessions) == 1:
        return sessions[0]
    turns: dict[str, Turn] = {}
    contents: list[Content] = []
    for session in sessions:
        contents += [content for content in session.contents if content.turn_id not in turns]
        turns = {turn.turn_id: turn for turn in session.turns} | turns
    in_order = sorted(turns.values(), key=lambda t: (t.started_at_us, t.sequence, t.turn_id))
    return AssembledSession(tuple(in_order), tuple(sorted(contents, key=content_order)))


def _assemble_group(
    events: Sequence[Event], attribution: Attribution, registry: ConventionRegistry | None
) -> AssembledSession:
    own: list[Event] = []
    foreign: list[Event] = []
    for event in events:
        (foreign if is_foreign(event) else own).append(event)
    if not foreign:
        return assemble(own, attribution)
    told = convention_turns(in_order(foreign), attribution, registry or known_conventions())
    if not own:
        return assembled(told)
    return _join(assemble(own, attribution), told)


def in_order(events: Iterable[Event]) -> list[Event]:
    """Each event once, of those that disagree the one that rules, in total order."""
    unique: dict[str, Event] = {}
    for event in events:
        known = unique.get(event.event_id)
        arrival = (event.received_at_us, event.credential)
        if known is None or arrival < (known.received_at_us, known.credential):
            unique[event.event_id] = event
    return sorted(
        ruling_events(unique.values()),
        key=lambda event: (event.at_us, event.sequence, event.name, event.event_id),
    )


def _join(session: AssembledSession, told: Sequence[ConventionTurn]) -> AssembledSession:
    # What metrics alone tell of is no request that a span could be joined to, and is told already
    # where a span of the gateway ended in the same interval.
    metered = [turn for turn in session.turns if turn.usage_source == METRIC_SOURCE]
    session = replace(
        session,
        turns=tuple(turn for turn in session.turns if turn.usage_source != METRIC_SOURCE),
    )
    turns = {turn.turn_id: turn for turn in session.turns}
    keys: dict[str, str] = {}
    for turn in session.turns:
        for key in (turn.turn_id, turn.request_id, turn.message_id):
            if key:
                keys.setdefault(key, turn.turn_id)
    joined: dict[str, str] = {}  # a convention's turn id -> the client's
    left: list[ConventionTurn] = []
    for item in told:
        ids = (item.turn.request_id, item.turn.message_id, item.turn.turn_id)
        same = next((keys[key] for key in ids if key in keys), "")
        if same:
            joined[item.turn.turn_id] = same
        else:
            left.append(item)
    taken = set(joined.values())
    free: dict[tuple[int, ...], list[Turn]] = {}
    for turn in session.turns:
        if turn.turn_id not in taken and turn.usage != TokenUsage():
            free.setdefault(_classes(turn.usage), []).append(turn)
    for item in left:
        if item.failed:
            same = _during(item.turn, session.turns)
        else:
            same = _take_nearest(item.turn, free.get(_classes(item.turn.usage), []))
        if same:
            joined[item.turn.turn_id] = same
    contents = list(session.contents)
    kept = {_place(content) for content in session.contents}
    for item in told:
        same = joined.get(item.turn.turn_id, "")
        if not same:
            turns[item.turn.turn_id] = item.turn
            contents += item.contents
            continue
        turns[same] = _merge(turns[same], item)
        for content in item.contents if not item.failed else ():
            moved = _moved(content, turns[same])
            if moved is not None and _place(moved) not in kept:
                kept.add(_place(moved))
                contents.append(moved)
    found = [*turns.values(), *untold(metered, turns.values())]
    return AssembledSession(
        tuple(sorted(found, key=lambda turn: (turn.started_at_us, turn.sequence, turn.turn_id))),
        tuple(sorted(contents, key=content_order)),
    )


def _take_nearest(turn: Turn, same_tokens: list[Turn]) -> str:
    """Takes the turn of the same tokens that ended next to this one, within the tolerance."""

    def gap(other: Turn) -> tuple[int, str]:
        return abs(other.ended_at_us - turn.ended_at_us), other.turn_id

    nearest = min(same_tokens, key=gap, default=None)
    if nearest is None or gap(nearest)[0] > _TOLERANCE_US:
        return ""
    same_tokens.remove(nearest)
    return nearest.turn_id


def _during(turn: Turn, candidates: Sequence[Turn]) -> str:
    """The turn during which a failed attempt was made: with room for the clocks where the client
    tells of failures of its own, without where the gateway tried again by itself."""
    around = [
        (abs(other.started_at_us - turn.started_at_us), other.turn_id)
        for other in candidates
        for slack in (_TOLERANCE_US if other.failed_attempts else 0,)
        if other.started_at_us - slack <= turn.started_at_us
        and turn.ended_at_us <= other.ended_at_us + slack
    ]
    return min(around, default=(0, ""))[1]


def _classes(usage: TokenUsage) -> tuple[int, int, int, int]:
    creation = usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
    return usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, creation


def _merge(turn: Turn, item: ConventionTurn) -> Turn:
    """The client's turn with the convention as a source, and what only the convention tells."""
    other = item.turn
    sources = (*turn.sources, *(name for name in other.sources if name not in turn.sources))
    if item.failed:
        return replace(turn, sources=sources)
    merged = replace(
        turn,
        sources=sources,
        message_id=turn.message_id or other.message_id,
        requested_model=turn.requested_model or other.requested_model,
        served_model=turn.served_model or ("" if turn.status == "error" else other.served_model),
        ttft_ms=turn.ttft_ms if turn.ttft_ms is not None else other.ttft_ms,
        duration_ms=turn.duration_ms if turn.duration_ms is not None else other.duration_ms,
        stop_reason=turn.stop_reason or other.stop_reason,
        speed=turn.speed or other.speed,
        service_tier=turn.service_tier or other.service_tier,
        inference_geo=turn.inference_geo or other.inference_geo,
    )
    if turn.unpriced_reason == NO_TOKENS_REASON and other.usage_source:
        return replace(
            merged,
            usage=other.usage,
            usage_source=other.usage_source,
            cache_split_assumed=other.cache_split_assumed,
            unpriced_reason=other.unpriced_reason,
        )
    same_classes = _classes(turn.usage) == _classes(other.usage)
    if turn.cache_split_assumed and not other.cache_split_assumed and same_classes:
        return replace(merged, usage=other.usage, cache_split_assumed=False)
    return merged


def _moved(content: Content, turn: Turn) -> Content | None:
    """A text put under the client's turn; ``None`` for one that it can't stand under: prompts,
    whose ids differ, and tools that the client does not name."""
    if content.kind == "prompt":
        return None
    if content.tool_use_id and content.tool_use_id not in {
        call.tool_use_id for call in turn.tool_calls
    }:
        return None
    return replace(
        content,
        turn_id=turn.turn_id,
        prompt_id=turn.prompt_id,
        agent_id=turn.agent_id,
        sequence=turn.sequence,
    )


def _place(content: Content) -> tuple[str, str, str]:
    return content.turn_id, content.kind, content.tool_use_id
