"""Calls that several spans tell of, joined: one request each.

A library's span, a wrapper's around it and a gateway's may all tell of one request. They are joined

1. on the ids that they share: the provider's request id, or the answer's id;
2. where one is inside another, by their parents: a call around exactly one other is the same
   request; a call around several only sums them up, and is dropped;
3. where no id tells (a request that failed has none), by time: spans of two conventions, one
   during the other, of the same model and the same outcome, and no third that fits as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from collectors.conventions.convention import CallUsage, Message, ModelCall
from collectors.event_fields import integer, text
from loop.domain.turns import Event

_LONGEST_US = 30 * 24 * 3600 * 1_000_000
_CLOCK_US = 2_000  # two spans of one process may differ by this at their ends


@dataclass(slots=True)
class SpanParents:
    """Who is inside whom, over all spans of a session."""

    parent: dict[str, str] = field(default_factory=dict)

    def ancestors(self, span_id: str) -> list[str]:
        """The ids of the spans around one, the nearest first; a cycle ends where it began."""
        found: list[str] = []
        seen = {span_id}
        while (span_id := self.parent.get(span_id, "")) and span_id not in seen:
            seen.add(span_id)
            found.append(span_id)
        return found


def span_parents(events: Iterable[Event]) -> SpanParents:
    parents = SpanParents()
    for event in events:
        if event.kind == "span" and text(event, "otel.span_id"):
            parents.parent.setdefault(
                text(event, "otel.span_id"), text(event, "otel.parent_span_id")
            )
    return parents


@dataclass(slots=True)
class ToldRequest:
    """One request to a model by all the calls that tell of it, the most telling first."""

    calls: list[ModelCall]

    @property
    def event(self) -> Event:
        return self.calls[0].event

    @property
    def request_id(self) -> str:
        return next((call.request_id for call in self.calls if call.request_id), "")

    @property
    def message_id(self) -> str:
        return next((call.message_id for call in self.calls if call.message_id), "")

    @property
    def turn_id(self) -> str:
        return self.request_id or self.message_id or f"turn:{self.event.event_id}"

    @property
    def trace_id(self) -> str:
        return text(self.event, "otel.trace_id")

    @property
    def failed(self) -> bool:
        return all(call.failed for call in self.calls)

    @property
    def conventions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(sorted(call.convention for call in self.calls)))

    @property
    def usage(self) -> tuple[CallUsage, str] | None:
        """The best count and the convention that told it."""
        call = next((call for call in self.calls if call.usage is not None), None)
        return (call.usage, call.convention) if call is not None and call.usage else None

    def started_at_us(self) -> int:
        return self._innermost().event.at_us

    def ended_at_us(self) -> int:
        return ended_at_us(self._innermost().event)

    def _innermost(self) -> ModelCall:
        return min(
            self.calls,
            key=lambda call: (
                ended_at_us(call.event) - call.event.at_us,
                call.event.at_us,
                call.event.event_id,
            ),
        )

    def first(self, name: str) -> str:
        return next((found for call in self.calls if (found := getattr(call, name))), "")

    def first_number(self, name: str) -> int | None:
        values = (getattr(call, name) for call in self.calls)
        return next((value for value in values if value is not None), None)

    def asked(self) -> tuple[Message, ...]:
        return self._asked_by().asked

    def answered(self) -> tuple[Message, ...]:
        return self._answered_by().answered

    def asked_source(self) -> str:
        """The convention that told the messages of the request."""
        return self._asked_by().convention

    def answered_source(self) -> str:
        return self._answered_by().convention

    def _asked_by(self) -> ModelCall:
        return next((call for call in self.calls if call.asked), self.calls[0])

    def _answered_by(self) -> ModelCall:
        """The fullest telling of the answer: tool calls with their ids before those without."""

        def fullness(call: ModelCall) -> int:
            tools = [tool for message in call.answered for tool in message.asked]
            return sum(1 + bool(tool.tool_use_id) for tool in tools)

        told = [call for call in self.calls if call.answered]
        return max(told, key=fullness) if told else self.calls[0]


def ended_at_us(event: Event) -> int:
    """When a span ended; when it began, where that is not told or can't be."""
    ended = integer(event, "otel.ended_at_us") or 0
    return ended if event.at_us <= ended < event.at_us + _LONGEST_US else event.at_us


def join_calls(calls: Sequence[ModelCall], parents: SpanParents) -> list[ToldRequest]:
    """The requests that the calls tell of, in order of time. Depends on the set of calls alone."""
    groups = _Groups(calls)
    by_id: dict[str, int] = {}
    for index, call in enumerate(calls):
        for key in (call.request_id, call.message_id):
            if key:
                groups.unite(by_id.setdefault(key, index), index)
    dropped = _join_nested(calls, parents, groups)
    _join_by_time(calls, groups, dropped)
    requests = [
        ToldRequest(sorted((calls[index] for index in members), key=_telling))
        for members in groups.members(dropped)
    ]
    return sorted(requests, key=lambda request: (request.started_at_us(), request.event.event_id))


def _telling(call: ModelCall) -> tuple[bool, bool, bool, int, str]:
    """Whole counts before doubtful ones, then the span nearest to the provider."""
    usage = call.usage
    return (
        usage is None,
        usage is not None and bool(usage.unpriced_reason),
        usage is not None and usage.split_assumed,
        ended_at_us(call.event) - call.event.at_us,
        call.event.event_id,
    )


class _Groups:
    """Disjoint sets over the positions of calls."""

    def __init__(self, calls: Sequence[ModelCall]) -> None:
        self._root = list(range(len(calls)))

    def root(self, index: int) -> int:
        while self._root[index] != index:
            index = self._root[index]
        return index

    def unite(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._root[high] = low

    def members(self, dropped: set[int]) -> list[list[int]]:
        groups: dict[int, list[int]] = {}
        for index in range(len(self._root)):
            if index not in dropped:
                groups.setdefault(self.root(index), []).append(index)
        return list(groups.values())


def _join_nested(calls: Sequence[ModelCall], parents: SpanParents, groups: _Groups) -> set[int]:
    position = {text(call.event, "otel.span_id"): index for index, call in enumerate(calls)}
    inside: dict[int, set[int]] = {}
    for index, call in enumerate(calls):
        for span_id in parents.ancestors(text(call.event, "otel.span_id")):
            if span_id in position:
                inside.setdefault(position[span_id], set()).add(groups.root(index))
                break
    dropped = set()
    for outer, inner in sorted(inside.items()):
        inner.discard(groups.root(outer))
        if not inner:
            continue
        if len(inner) == 1 and _compatible(calls[outer], calls[min(inner)]):
            groups.unite(outer, min(inner))
        else:
            dropped.add(outer)
    return dropped


def _compatible(one: ModelCall, other: ModelCall) -> bool:
    """Whether the ids leave room for both being one request."""
    for name in ("request_id", "message_id"):
        ids = {getattr(one, name), getattr(other, name)} - {""}
        if len(ids) > 1:
            return False
    return True


def _join_by_time(calls: Sequence[ModelCall], groups: _Groups, dropped: set[int]) -> None:
    if len({call.convention for call in calls}) < 2:
        return
    partners: dict[int, list[int]] = {}
    open_calls = [
        index
        for index, call in enumerate(calls)
        if index not in dropped and (not call.request_id or not call.message_id)
    ]
    open_calls.sort(key=lambda index: calls[index].event.at_us)
    for place, first in enumerate(open_calls):
        for second in open_calls[place + 1 :]:
            if calls[second].event.at_us > ended_at_us(calls[first].event) + _CLOCK_US:
                break
            if _is_same(calls[first], calls[second]):
                partners.setdefault(first, []).append(second)
                partners.setdefault(second, []).append(first)
    for index, found in sorted(partners.items()):
        if len(found) == 1 and len(partners[found[0]]) == 1:
            groups.unite(index, found[0])


def _is_same(one: ModelCall, other: ModelCall) -> bool:
    if one.convention == other.convention or one.failed != other.failed:
        return False
    if not _compatible(one, other) or one.requested_model != other.requested_model:
        return False
    if one.message_id and other.message_id:
        return one.message_id == other.message_id
    if not one.failed and not _agree(one.usage, other.usage):
        return False
    outer, inner = sorted(
        (one.event, other.event), key=lambda event: ended_at_us(event) - event.at_us, reverse=True
    )
    return (
        inner.at_us >= outer.at_us - _CLOCK_US
        and ended_at_us(inner) <= ended_at_us(outer) + _CLOCK_US
    )


def _agree(one: CallUsage | None, other: CallUsage | None) -> bool:
    if one is None or other is None:
        return True
    return one.tokens.output_tokens == other.tokens.output_tokens
