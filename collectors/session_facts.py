"""The events of one session, sorted into the facts that turns are assembled from.

Everything here depends on the *set* of events alone: they are deduplicated by id, of those that
disagree one rules (``collectors.event_identity``), and what is left is brought into one total
order. Time orders events, not ``event.sequence``: it restarts with each process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from collectors.event_fields import integer, text
from collectors.event_identity import ruling_events
from collectors.raw_bodies import (
    RawResponse,
    ToolResult,
    context_results,
    offered_tools,
    read_response,
    tool_results,
)
from collectors.transcript_lines import Transcript, TranscriptRequest, read_transcript
from loop.domain.quick_records import quickly_made
from loop.domain.turns import Event

OUTCOMES = ("claude_code.api_request", "claude_code.api_error", "claude_code.api_refusal")
LLM_REQUEST = "claude_code.llm_request"
TOOL, TOOL_EXECUTION = "claude_code.tool", "claude_code.tool.execution"
BLOCKED = "claude_code.tool.blocked_on_user"
INTERACTION = "claude_code.interaction"
DECISION = "turnwise.decision"
_PAIRING_TOLERANCE_US = 5_000_000
_IN_ORDER = attrgetter("at_us", "sequence", "name", "event_id")


@dataclass(slots=True)
class RequestFacts:
    """All evidence of one model request."""

    turn_id: str
    request_id: str = ""
    outcomes: dict[str, Event] = field(default_factory=dict)  # by event name, the last one
    span: Event | None = None
    responses: list[Event] = field(default_factory=list)
    lines: TranscriptRequest | None = None
    raw: RawResponse | None = None
    decision: Event | None = None
    tool_events: list[Event] = field(default_factory=list)
    _settled: _Settled | None = None

    def settle(self) -> None:
        """Nothing more comes: what is asked for many times is worked out once."""
        self._settled = _Settled(
            self.logs(), self.records(), self.started_at_us(), self.ended_at_us()
        )

    def logs(self) -> list[Event]:
        """Its log events, those that say most first."""
        if self._settled is not None:
            return self._settled.logs
        return [*self.outcomes.values(), *self.responses, *self.tool_events]

    def records(self) -> list[Event]:
        """All its telemetry, those that say most first."""
        if self._settled is not None:
            return self._settled.records
        last = [self.span] if self.span else []
        return [*self.logs(), *last, *([self.raw.event] if self.raw else [])]

    def started_at_us(self) -> int:
        """When it began: by its span, else by its outcome and duration, else by what is left."""
        if self._settled is not None:
            return self._settled.started_at_us
        starts = [self.span.at_us] if self.span else []
        starts += [
            event.at_us - 1000 * (integer(event, "duration_ms") or 0)
            for event in self.outcomes.values()
        ]
        if not starts and self.lines:
            starts = [self.lines.first_at_us]
        return min(starts or [event.at_us for event in self.records()] or [0])

    def ended_at_us(self) -> int:
        if self._settled is not None:
            return self._settled.ended_at_us
        ends = [event.at_us for event in self.outcomes.values()]
        if self.span:
            ends.append(integer(self.span, "otel.ended_at_us") or self.span.at_us)
        if not ends and self.lines:
            ends = [self.lines.last_at_us]
        return max(ends or [event.at_us for event in self.records()] or [0])


@quickly_made
@dataclass(frozen=True, slots=True)
class _Settled:
    logs: list[Event]
    records: list[Event]
    started_at_us: int
    ended_at_us: int


@dataclass(slots=True)
class SpanTree:
    """Spans by id, and the prompt that each interaction serves."""

    spans: dict[str, Event] = field(default_factory=dict)
    prompt_of_root: dict[str, str] = field(default_factory=dict)
    _roots: dict[str, str] = field(default_factory=dict)

    def parent_of(self, span: Event) -> str:
        return text(span, "otel.parent_span_id")

    def root_of(self, span_id: str) -> str:
        """The topmost ancestor that is known by id; an interaction is always a root."""
        root = self._roots.get(span_id)
        if root is None:
            root = self._roots[span_id] = self._find_root(span_id)
        return root

    def _find_root(self, span_id: str) -> str:
        seen = set()
        while span_id not in seen:
            seen.add(span_id)
            span = self.spans.get(span_id)
            if span is None or span.name == INTERACTION or not (parent := self.parent_of(span)):
                break
            span_id = parent
        return span_id

    def prompt_of(self, span: Event) -> str:
        """The prompt id by way of the log events, else the root's own id (spans alone)."""
        root = self.root_of(text(span, "otel.span_id"))
        return self.prompt_of_root.get(root, root)


@dataclass(slots=True)
class SessionFacts:
    events: list[Event]
    tree: SpanTree
    transcript: Transcript
    requests: list[RequestFacts]
    by_name: dict[str, list[Event]]
    results: dict[str, ToolResult]  # what the model was given, by tool_use_id
    context_of: dict[str, Event]  # tool_use_id -> the llm_request span that carried its result
    raw_tools: dict[str, tuple[str, str, str]]  # tool_use_id -> request_id, name, input
    offered: dict[str, tuple[Event, str]]  # request_body_id -> its event, tools on offer as JSON


def read_session(events: Iterable[Event], *, are_distinct: bool = False) -> SessionFacts:
    """Groups a session's events by request. ``are_distinct``: no two are of one identity."""
    ordered = sorted(events, key=_IN_ORDER) if are_distinct else _in_order(events)
    by_name: dict[str, list[Event]] = {}
    for event in ordered:
        if event.kind != "metric":
            by_name.setdefault(event.name, []).append(event)
    tree = _span_tree(ordered)
    transcript = read_transcript(event for event in ordered if event.kind == "transcript")
    raws = [read_response(event) for event in by_name.get("claude_code.api_response_body", [])]
    request_bodies = by_name.get("claude_code.api_request_body", [])
    asked = {text(event, "request_body_id"): text(event, "model") for event in request_bodies}
    for raw in raws:
        raw.requested_model = asked.get(text(raw.event, "request_body_id"), "")
    results = tool_results(request_bodies)
    context_of: dict[str, Event] = {}
    for span in by_name.get(LLM_REQUEST, []):
        for result in context_results(span):
            results.setdefault(result.tool_use_id, result)
            context_of.setdefault(result.tool_use_id, span)
    return SessionFacts(
        ordered,
        tree,
        transcript,
        _group_requests(by_name, transcript, raws, tree),
        by_name,
        results,
        context_of,
        {
            tool_use_id: (raw.request_id, name, content)
            for raw in raws
            for tool_use_id, name, content in raw.tool_uses
        },
        offered_tools(request_bodies),
    )


def _in_order(events: Iterable[Event]) -> list[Event]:
    unique: dict[str, Event] = {}
    for event in events:
        known = unique.get(event.event_id)
        if known is None or (event.received_at_us, event.credential) < (
            known.received_at_us,
            known.credential,
        ):
            unique[event.event_id] = event
    return sorted(ruling_events(unique.values()), key=_IN_ORDER)


def _span_tree(ordered: list[Event]) -> SpanTree:
    tree = SpanTree()
    for event in ordered:
        if event.kind == "span" and (span_id := text(event, "otel.span_id")):
            tree.spans.setdefault(span_id, event)
    for event in ordered:
        if event.kind == "log":
            span_id, prompt_id = text(event, "otel.span_id"), text(event, "prompt.id")
            if span_id and prompt_id:
                tree.prompt_of_root.setdefault(tree.root_of(span_id), prompt_id)
    return tree


def _group_requests(
    by_name: dict[str, list[Event]],
    transcript: Transcript,
    raws: list[RawResponse],
    tree: SpanTree,
) -> list[RequestFacts]:
    grouped: dict[str, RequestFacts] = {}

    def of(request_id: str) -> RequestFacts:
        facts = grouped.get(request_id)
        if facts is None:
            facts = grouped[request_id] = RequestFacts(request_id, request_id)
        return facts

    nameless_spans: list[Event] = []
    nameless_logs: list[Event] = []
    for span in by_name.get(LLM_REQUEST, []):
        request_id = text(span, "request_id", "gen_ai.response.id")
        if not request_id:
            nameless_spans.append(span)
        elif (facts := of(request_id)).span is None:
            facts.span = span
    for name in OUTCOMES:
        for event in by_name.get(name, []):
            if request_id := text(event, "request_id"):
                of(request_id).outcomes[name] = event
            else:
                nameless_logs.append(event)
    for raw in raws:
        if raw.request_id:
            told = of(raw.request_id)
            # The telemetry of file mode names a body that an import of the files may have brought.
            if told.raw is None or (told.raw.usage is None and raw.usage is not None):
                told.raw = raw
    _pair_nameless(grouped, nameless_logs, nameless_spans, tree)
    _join_responses(grouped, by_name.get("claude_code.assistant_response", []))
    _join_transcript(grouped, transcript)
    for name in ("claude_code.tool_decision", "claude_code.tool_result"):
        for event in by_name.get(name, []):
            if request_id := text(event, "request_id"):
                of(request_id).tool_events.append(event)
    for event in by_name.get(DECISION, []):
        decided = grouped.get(text(event, "decision_id"))
        if decided is not None:
            decided.decision = event
    for request in grouped.values():
        request.settle()
    return list(grouped.values())


def _pair_nameless(
    grouped: dict[str, RequestFacts], logs: list[Event], spans: list[Event], tree: SpanTree
) -> None:
    """Joins outcomes without a request id to spans, by prompt, tokens and time of ending.

    Spans that do name a request are candidates too while no outcome names the same one.
    """
    candidates = [
        *spans,
        *(facts.span for facts in grouped.values() if facts.span and not facts.outcomes),
    ]
    refusals = [event for event in logs if event.name == "claude_code.api_refusal"]
    for event in sorted(logs, key=lambda event: (event.at_us, event.sequence, event.event_id)):
        if event in refusals:
            continue
        matching = [
            (abs((integer(span, "otel.ended_at_us") or 0) - event.at_us), span.event_id, span)
            for span in candidates
            if _matches(event, span, tree)
        ]
        gap, _, span = min(matching, key=lambda item: item[:2], default=(0, "", None))
        if span is not None and gap <= _PAIRING_TOLERANCE_US:
            candidates.remove(span)
            request_id = text(span, "request_id", "gen_ai.response.id")
            key = request_id or f"turn:{span.event_id}"
            facts = grouped.setdefault(key, RequestFacts(key, request_id, span=span))
        else:
            key = f"turn:{event.event_id}"
            facts = grouped.setdefault(key, RequestFacts(key))
        facts.outcomes[event.name] = event
    for span in spans:
        if span in candidates:
            key = f"turn:{span.event_id}"
            grouped[key] = RequestFacts(key, span=span)
    for event in refusals:
        near = [
            (abs(facts.ended_at_us() - event.at_us), facts.turn_id)
            for facts in grouped.values()
            if event.name not in facts.outcomes
            and _same_prompt(facts, event)
            and abs(facts.ended_at_us() - event.at_us) <= _PAIRING_TOLERANCE_US
        ]
        key = min(near)[1] if near else f"turn:{event.event_id}"
        grouped.setdefault(key, RequestFacts(key)).outcomes[event.name] = event


_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")


def _matches(event: Event, span: Event, tree: SpanTree) -> bool:
    prompt_id = text(event, "prompt.id")
    if prompt_id and tree.prompt_of(span) != prompt_id:
        return False
    if event.name == "claude_code.api_error":
        return integer(span, "input_tokens") is None
    return all(integer(event, name) == integer(span, name) for name in _TOKENS)


def _join_responses(grouped: dict[str, RequestFacts], responses: list[Event]) -> None:
    ended: list[tuple[int, str]] = []
    if not all(text(event, "request_id") for event in responses):
        ended = sorted(
            (facts.ended_at_us(), facts.turn_id) for facts in grouped.values() if facts.records()
        )
    for event in responses:
        request_id = text(event, "request_id")
        if request_id:
            facts = grouped.get(request_id)
            if facts is None:
                facts = grouped[request_id] = RequestFacts(request_id, request_id)
            facts.responses.append(event)
            continue
        near = [
            (abs(at_us - event.at_us), turn_id)
            for at_us, turn_id in ended
            if abs(at_us - event.at_us) <= _PAIRING_TOLERANCE_US
            and _same_prompt(grouped[turn_id], event)
        ]
        if near:
            grouped[min(near)[1]].responses.append(event)


def _same_prompt(facts: RequestFacts, event: Event) -> bool:
    prompts = {text(log, "prompt.id") for log in facts.outcomes.values()} - {""}
    return not prompts or text(event, "prompt.id") in prompts


def _join_transcript(grouped: dict[str, RequestFacts], transcript: Transcript) -> None:
    """By request id; where a line names none, by message id or message uuid."""
    by_message = {
        facts.raw.message_id: facts for facts in grouped.values() if facts.raw is not None
    }
    by_uuid = {
        text(event, "message.uuid"): facts
        for facts in grouped.values()
        for event in facts.responses
    }
    by_uuid.pop("", None)
    for key, request in sorted(transcript.requests.items()):
        facts = grouped.get(request.request_id) if request.request_id else None
        if facts is None and request.message_id:
            facts = by_message.get(request.message_id)
        if facts is None:
            shared = sorted(request.uuids & by_uuid.keys())
            facts = by_uuid[shared[0]] if shared else None
        if facts is None and request.is_error and not request.request_id:
            facts = _nearest_error(grouped, request)
        if facts is None:
            turn_id = request.request_id or request.message_id or key
            facts = grouped[turn_id] = RequestFacts(turn_id, request.request_id)
        if facts.lines is None:
            facts.lines = request
        request.key = facts.turn_id
    for tool in transcript.tools.values():
        told = transcript.requests.get(tool.key)
        tool.key = told.key if told is not None else tool.key


def _nearest_error(
    grouped: dict[str, RequestFacts], request: TranscriptRequest
) -> RequestFacts | None:
    near = [
        (abs(facts.ended_at_us() - request.last_at_us), facts.turn_id)
        for facts in grouped.values()
        if "claude_code.api_error" in facts.outcomes
        and facts.lines is None
        and abs(facts.ended_at_us() - request.last_at_us) <= _PAIRING_TOLERANCE_US
    ]
    return grouped[min(near)[1]] if near else None
