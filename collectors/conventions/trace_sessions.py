"""Spans that name no session, in a trace in which others do: they belong to the same session.

The Anthropic SDK's own span, for one, knows nothing of the session that the instrumentation around
it names. Such spans are received under their trace (``trace:…``) and assembled with the session of

1. the nearest span around them that names one,
2. else the only session that any span of the trace names,
3. else the only session whose transcript tells of their answer.

All of it follows from the set of the sessions' events, so the order of arrival makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from collectors.conventions.convention import SCOPE
from collectors.conventions.requests import span_parents
from collectors.copied_requests import request_keys
from collectors.event_fields import text
from collectors.otlp_decoding import TRACE_SESSION
from loop.domain.turns import Event


def trace_key(event: Event) -> str:
    """What relates the sessions of one trace; "" for Claude Code's own records."""
    trace_id = text(event, "otel.trace_id") if SCOPE in event.attributes else ""
    return f"{TRACE_SESSION}{trace_id}" if trace_id else ""


def settle_traces(by_session: Mapping[str, Iterable[Event]]) -> dict[str, list[Event]]:
    """The events of related sessions, those received under a trace moved to where they belong."""
    events = {session_id: list(found) for session_id, found in by_session.items()}
    traces = [session_id for session_id in events if session_id.startswith(TRACE_SESSION)]
    if not traces or len(traces) == len(events):
        return events
    named = {
        text(event, "otel.span_id"): session_id
        for session_id, found in events.items()
        if session_id not in traces
        for event in found
        if trace_key(event) in events
    }
    by_trace: dict[str, set[str]] = {}
    tellers: dict[str, set[str]] = {}
    for session_id, found in events.items():
        if session_id in traces:
            continue
        for event in found:
            if key := trace_key(event):
                by_trace.setdefault(key, set()).add(session_id)
            for key in request_keys(event):
                tellers.setdefault(key, set()).add(session_id)
    parents = span_parents(event for found in events.values() for event in found)
    for trace in traces:
        own = events[trace]
        claimed = by_trace.get(trace) or set().union(
            *(tellers.get(text(event, "gen_ai.response.id"), set()) for event in own)
        )
        only = next(iter(claimed)) if len(claimed) == 1 else ""
        left = []
        for event in own:
            around = parents.ancestors(text(event, "otel.span_id"))
            session_id = next((named[span] for span in around if span in named), only)
            if session_id:
                events[session_id].append(replace(event, session_id=session_id))
            else:
                left.append(event)
        events[trace] = left
    return events
