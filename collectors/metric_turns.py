"""Turns from metrics alone: so that a client that sends nothing else is charged.

A turn from metrics is all that one series (model, kind of query, agent) counted in one interval of
its export, so it stands for any number of requests: it has no request id, no tools and no texts,
``sources`` is ``otlp-metric``, and it is left out where single requests matter (replay, search).

What other records tell of is never counted again: an interval in which (or within five seconds of
which) a request with known tokens ended makes no turn, whatever its model. So where the log export
lost a part of an interval, that part is missing from the sums rather than counted twice, and the
session's cross-check shows it.

Two things are assumed. Cache writes come unsplit and count as 5-minute ones
(``cache_split_assumed``); with a login by OAuth the client writes to the 1-hour cache, which costs
1.6 times that. And metrics name the requested model only: where the gateway's decisions of the
interval all sent that model to one other, that one is charged, else the requested one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from collectors.event_fields import text
from collectors.token_metrics import MeteredUsage, read_metered
from loop.access.attribution import Owner
from loop.domain.turns import METRIC_SOURCE, Event, RequestClass, TokenUsage, Turn

TOLERANCE_US = 5_000_000
_CLASSES: dict[str, RequestClass] = {
    "main": "main",
    "subagent": "subagent",
    "auxiliary": "auxiliary",
}


def metric_turns(
    events: Sequence[Event],
    ended: Sequence[int],
    decisions: Sequence[Event],
    owner: Callable[[Event, int], Owner],
) -> list[Turn]:
    """The turns of those intervals in which no other turn ended; ``ended`` is what
    :func:`told_ends` says of the others.

    ``owner`` gives who is charged for a point of a time (UTC microseconds).
    """
    return [
        _turn(usage, decisions, owner(usage.point, usage.started_at_us))
        for usage in read_metered(events)
        if usage.tokens != TokenUsage()
        and not is_told(usage.started_at_us, usage.ended_at_us, ended)
    ]


def untold(metered: Iterable[Turn], turns: Iterable[Turn]) -> list[Turn]:
    """Those of the turns from metrics in whose interval none of the others ended."""
    ended = told_ends(turns)
    return [turn for turn in metered if not is_told(turn.started_at_us, turn.ended_at_us, ended)]


def told_ends(turns: Iterable[Turn]) -> list[int]:
    """When the turns with known tokens ended, in order."""
    return sorted(turn.ended_at_us for turn in turns if turn.usage_source)


def is_told(started_at_us: int, ended_at_us: int, ended: Sequence[int]) -> bool:
    """Whether a turn ended in an interval; then also in every longer one that holds it."""
    position = bisect_left(ended, started_at_us - TOLERANCE_US)
    return position < len(ended) and ended[position] <= ended_at_us + TOLERANCE_US


def _turn(usage: MeteredUsage, decisions: Sequence[Event], owner: Owner) -> Turn:
    point = usage.point
    source = text(point, "query_source")
    agent_name = text(point, "agent.name")
    request_class = _CLASSES.get(source, "subagent" if agent_name else "main")
    routed = _routed_model(usage, decisions)
    return Turn(
        turn_id=f"metric:{usage.series[:16]}:{usage.ended_at_us}",
        request_id="",
        session_id=point.session_id,
        started_at_us=usage.started_at_us,
        ended_at_us=usage.ended_at_us,
        sequence=0,
        agent_id=(agent_name or source) if request_class == "subagent" else "",
        agent_name=agent_name,
        query_source=source,
        request_class=request_class,
        developer=owner.developer,
        org_path=owner.org_path,
        repository=owner.repository,
        org_node_id=owner.node_id,
        attributed_by=owner.attributed_by,
        asserted_org_path=owner.asserted_org_path,
        client_version=text(point, "app.version") or text(point.resource, "service.version"),
        requested_model=usage.model,
        served_model=routed,
        effort=text(point, "effort"),
        usage=usage.tokens,
        client_cost_microusd=usage.cost_microusd,
        sources=(METRIC_SOURCE, "gateway") if routed else (METRIC_SOURCE,),
        usage_source=METRIC_SOURCE,
        cache_split_assumed=usage.tokens.cache_creation_5m_tokens > 0,
    )


def _routed_model(usage: MeteredUsage, decisions: Sequence[Event]) -> str:
    """The one model that the gateway sent the interval's requests to; "" when there are several or
    no decisions."""
    begin, end = usage.started_at_us - TOLERANCE_US, usage.ended_at_us + TOLERANCE_US
    routed = {
        text(decision, "routed_model")
        for decision in decisions
        if begin <= decision.at_us <= end and text(decision, "requested_model") == usage.model
    }
    return routed.pop() if len(routed) == 1 else ""
