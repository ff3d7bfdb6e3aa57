"""What the client's metrics count: tokens and its own cost, per series and interval.

``claude_code.token.usage`` and ``claude_code.cost.usage`` are monotonic sums. *Delta* points hold
what was counted between their two times; *cumulative* ones what was counted since their start, so
the differences of one stream's successive points are taken. A stream begins anew with a process
(another start time) or where its count falls, which only a reset can do. Points come twice and in
any order; what is read here follows from their set.

A series is all labels but the class of tokens: model, kind of query, agent, effort, MCP tool. Cache
writes are not split in metrics: all stand as 5-minute ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from collectors.event_fields import integer, text
from collectors.otlp_decoding import digest
from loop.domain.turns import Event, TokenUsage

TOKEN_USAGE, COST_USAGE = "claude_code.token.usage", "claude_code.cost.usage"
METERED = (TOKEN_USAGE, COST_USAGE)
DELTA, CUMULATIVE = 1, 2
_CLASSES = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cacheRead": "cache_read_tokens",
    "cacheCreation": "cache_creation_5m_tokens",
}
_COST = "cost"


@dataclass(frozen=True, slots=True)
class MeteredUsage:
    """What one series counted in one interval."""

    series: str  # digest of the labels
    started_at_us: int
    ended_at_us: int
    tokens: TokenUsage
    cost_microusd: int | None  # the client's own figure; None where the metric is not sent
    point: Event  # one of its points, for the labels

    @property
    def model(self) -> str:
        return text(self.point, "model")


@dataclass(slots=True)
class _Interval:
    started_at_us: int
    point: Event
    amounts: dict[str, float] = field(default_factory=dict)


def read_metered(events: Iterable[Event]) -> list[MeteredUsage]:
    """What a session's metric points count, in order of time; other events are passed over."""
    streams: dict[tuple[str, str, int, int], dict[tuple[int, int], tuple[float, Event]]] = {}
    for event in events:
        amount_class = _class_of(event)
        temporality = integer(event, "otel.temporality") if amount_class else None
        value = _value_of(event)
        if temporality not in (DELTA, CUMULATIVE) or value is None:
            continue  # without its temporality a number says nothing
        started = integer(event, "otel.started_at_us") or 0
        stream = (
            _series_of(event),
            amount_class,
            temporality,
            started if temporality == CUMULATIVE else 0,
        )
        points = streams.setdefault(stream, {})
        known = points.get((event.at_us, started))
        # Two values for one interval: the higher one, so that neither is counted twice.
        if known is None or (-value, event.event_id) < (-known[0], known[1].event_id):
            points[event.at_us, started] = (value, event)
    intervals: dict[tuple[str, int], _Interval] = {}
    for (series, amount_class, temporality, _), points in sorted(
        streams.items(), key=lambda item: item[0]
    ):
        for started, ended, amount, event in _amounts(points, temporality):
            interval = intervals.setdefault((series, ended), _Interval(started, event))
            interval.started_at_us = min(interval.started_at_us, started)
            counted = interval.amounts.get(amount_class, 0.0)
            interval.amounts[amount_class] = counted + amount
            if event.event_id < interval.point.event_id:
                interval.point = event
    return [
        _metered(series, ended, interval)
        for (series, ended), interval in sorted(
            intervals.items(), key=lambda item: (item[0][1], item[0][0])
        )
    ]


def _amounts(
    points: Mapping[tuple[int, int], tuple[float, Event]], temporality: int
) -> Iterable[tuple[int, int, float, Event]]:
    """Start, end, amount and point of each interval of one stream."""
    before, last_ended = 0.0, 0
    for (ended, started), (value, event) in sorted(points.items(), key=lambda item: item[0]):
        if temporality == DELTA:
            yield min(started or ended, ended), ended, value, event
            continue
        amount = value - before if value >= before else value
        yield min(max(started, last_ended) or ended, ended), ended, amount, event
        before, last_ended = value, ended


def _metered(series: str, ended_at_us: int, interval: _Interval) -> MeteredUsage:
    amounts = interval.amounts
    tokens = {name: round(amounts.get(name, 0.0)) for name in _CLASSES.values()}
    return MeteredUsage(
        series,
        interval.started_at_us,
        ended_at_us,
        TokenUsage(**tokens),
        round(amounts[_COST] * 1_000_000) if _COST in amounts else None,
        interval.point,
    )


def _class_of(event: Event) -> str:
    """What the point counts; "" when it is none of ours."""
    if event.kind != "metric" or event.name not in METERED:
        return ""
    return _COST if event.name == COST_USAGE else _CLASSES.get(text(event, "type"), "")


def _value_of(event: Event) -> float | None:
    value = event.attributes.get("otel.value")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and 0 <= value < 2**53 else None


def _series_of(event: Event) -> str:
    labels = {
        name: value
        for name, value in event.attributes.items()
        if name != "type" and not name.startswith("otel.")
    }
    return digest(labels)
