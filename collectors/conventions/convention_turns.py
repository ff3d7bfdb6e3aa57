"""Turns, tool calls and contents of what the conventions tell of one session.

A prompt is known by its trace, as a rule: an agent handles one human message in one trace. Where
the messages are told, a request that repeats an earlier human message serves that one's prompt, and
a second human message in a trace is a prompt of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from collectors.attribution import Attribution, SessionOwners
from collectors.claude_code_turns import NO_TOKENS_REASON, AssembledSession
from collectors.conventions.convention import (
    SCOPE,
    CallUsage,
    Convention,
    Message,
    Text,
    ToldSession,
)
from collectors.conventions.registry import ConventionRegistry
from collectors.conventions.requests import SpanParents, ToldRequest, join_calls, span_parents
from collectors.conventions.tool_matching import ToldTool, match_tools
from collectors.event_fields import text
from loop.access.attribution import Owner
from loop.domain.turns import (
    Content,
    ContentKind,
    Event,
    EvidenceState,
    TokenUsage,
    ToolCall,
    Turn,
    TurnStatus,
)

_REFUSALS = ("refusal", "content_filter", "content-filter")
# What the conventions make of the API's "tool_use"; the other reasons can't be turned back.
_TOOL_REASONS = ("tool_call", "tool_calls", "function_call", "tool-calls")


@dataclass(frozen=True, slots=True)
class ConventionTurn:
    """One request as turn and contents, with what joins it to other sources."""

    turn: Turn
    contents: tuple[Content, ...]
    failed: bool


def is_foreign(event: Event) -> bool:
    """Whether an event was sent by another tool than Claude Code."""
    return SCOPE in event.attributes


def convention_turns(
    events: Sequence[Event], attribution: Attribution, registry: ConventionRegistry
) -> list[ConventionTurn]:
    """The requests that foreign events of one session tell of, in order of time.

    ``events`` are each once and in total order; those of no known convention are passed over.
    """
    told = _read(events, registry)
    if not told:
        return []
    parents = span_parents(events)
    calls = [call for _, session in told for call in session.calls]
    requests = join_calls(calls, parents)
    tools: dict[str, list[ToldTool]] = {}
    for tool in match_tools(requests, [run for _, session in told for run in session.tools]):
        tools.setdefault(tool.turn_id, []).append(tool)
    agents = _Agents({k: v for _, session in told for k, v in session.agents.items()}, parents)
    identity = {k: v for _, session in told for k, v in session.identity.items()}
    known = [_with_identity(event, identity) for event in events]
    owners = SessionOwners(known, attribution)
    prompts = _Prompts()
    found = []
    for request in requests:
        own = [_with_identity(call.event, identity) for call in request.calls]
        turn = _turn(
            request,
            tools.get(request.turn_id, []),
            agents,
            owners.owner_of(own, None, request.started_at_us()),
            prompts,
        )
        contents = _contents(request, turn, tools.get(request.turn_id, []))
        found.append(ConventionTurn(turn, contents, request.failed))
    return found


def assembled(turns: Iterable[ConventionTurn]) -> AssembledSession:
    """A session that the conventions alone tell of."""
    found = list(turns)
    return AssembledSession(
        tuple(item.turn for item in found),
        tuple(sorted((content for item in found for content in item.contents), key=content_order)),
    )


def content_order(content: Content) -> tuple[int, int, str, str, str]:
    return content.at_us, content.sequence, content.turn_id, content.tool_use_id, content.kind


def _read(
    events: Sequence[Event], registry: ConventionRegistry
) -> list[tuple[Convention, ToldSession]]:
    by_convention: dict[str, list[Event]] = {}
    for event in events:
        if event.kind == "metric":
            continue
        convention = registry.recognise(text(event, SCOPE), event.name, event.attributes)
        if convention is not None:
            by_convention.setdefault(convention.name, []).append(event)
    told = []
    for convention in registry.conventions:
        own = by_convention.get(convention.name)
        if not own:
            continue
        try:
            session = convention.read(own)
        except Exception as error:  # noqa: BLE001 - a plug-in's fault must not stop the intake
            registry.report(convention, error)
            continue
        for call in session.calls:
            call.convention = convention.name
        for run in session.tools:
            run.convention = convention.name
        told.append((convention, session))
    return told


def _with_identity(event: Event, identity: Mapping[str, dict[str, str]]) -> Event:
    """The event with the attributes of attribution that it tells under other names."""
    told = identity.get(event.event_id)
    return replace(event, attributes={**told, **event.attributes}) if told else event


class _Agents:
    """Whose call a request is: the agent spans around it, the outermost being the main loop."""

    def __init__(self, names: Mapping[str, str], parents: SpanParents) -> None:
        self._names = names
        self._parents = parents

    def of(self, request: ToldRequest) -> tuple[str, str]:
        """The subagent's id ("" is the main loop) and the innermost agent's name."""
        around = max(
            (
                [
                    span_id
                    for span_id in self._parents.ancestors(text(call.event, "otel.span_id"))
                    if span_id in self._names
                ]
                for call in request.calls
            ),
            key=len,
        )
        if not around:
            return "", ""
        return (around[0] if len(around) > 1 else ""), self._names[around[0]]


class _Prompts:
    """Gives each request its prompt, in order of time."""

    def __init__(self) -> None:
        self._traces: set[tuple[str, str]] = set()
        self._by_text: dict[tuple[str, str], str] = {}

    def place(self, request: ToldRequest, agent_id: str) -> tuple[str, bool, Text | None]:
        """The prompt's id, whether the request is its first, and its text where that is new."""
        trace_id = request.trace_id
        asked = [message for message in request.asked() if message.role not in _INSTRUCTIONS]
        human = _human(asked)
        is_new_trace = (trace_id, agent_id) not in self._traces
        self._traces.add((trace_id, agent_id))
        if human is None:
            return trace_id, is_new_trace and not asked, None
        starts = asked[-1] is human
        told = human.texts[-1]
        key = (agent_id, told.text)
        if not starts and key in self._by_text:
            return self._by_text[key], False, None
        prompt_id = trace_id
        if not is_new_trace and starts:
            prompt_id = f"{trace_id}/{text(request.event, 'otel.span_id')}"
        self._by_text[key] = prompt_id
        return prompt_id, starts or is_new_trace, told if starts else None


_INSTRUCTIONS = ("system", "developer")


def _human(messages: Sequence[Message]) -> Message | None:
    """The last message of a person; results of tools come as the user's too in some forms."""
    for message in reversed(messages):
        if message.role in ("user", "human") and message.texts and not message.results:
            return message
    return None


def _turn(
    request: ToldRequest,
    tools: Sequence[ToldTool],
    agents: _Agents,
    owner: Owner,
    prompts: _Prompts,
) -> Turn:
    agent_id, agent_name = agents.of(request)
    prompt_id, starts_prompt, prompt = prompts.place(request, agent_id)
    told = request.usage
    usage = told[0] if told else None
    stop_reason = request.first("stop_reason")
    calls = tuple(tool.call() for tool in tools)
    status = _status(request, stop_reason)
    started, ended = request.started_at_us(), request.ended_at_us()
    return Turn(
        turn_id=request.turn_id,
        request_id=request.request_id,
        session_id=request.event.session_id,
        started_at_us=started,
        ended_at_us=ended,
        sequence=0,
        prompt_id=prompt_id,
        agent_id=agent_id,
        agent_name=agent_name if agent_id else "",
        query_source=f"agent:{agent_name}" if agent_id else agent_name,
        request_class="subagent" if agent_id else "main",
        developer=owner.developer,
        org_path=owner.org_path,
        repository=owner.repository,
        org_node_id=owner.node_id,
        attributed_by=owner.attributed_by,
        asserted_org_path=owner.asserted_org_path,
        client_version=text(request.event.resource, "service.version"),
        requested_model=request.first("requested_model"),
        served_model="" if status == "error" else request.first("served_model"),
        usage=usage.tokens if usage else TokenUsage(),
        duration_ms=(ended - started) // 1000,
        ttft_ms=request.first_number("ttft_ms"),
        status=status,
        error_status=request.first_number("error_status") if status == "error" else None,
        stop_reason="tool_use" if stop_reason in _TOOL_REASONS else stop_reason,
        prompt_chars=len(prompt.text) if prompt and prompt.state == "present" else None,
        starts_prompt=starts_prompt,
        tool_calls=_in_order(calls),
        client_cost_microusd=request.first_number("cost_microusd"),
        unpriced_reason=_unpriced_reason(usage, status),
        sources=request.conventions,
        message_id=request.message_id,
        speed=next((c.terms.speed for c in request.calls if c.terms.speed), ""),
        service_tier=next(
            (c.terms.service_tier for c in request.calls if c.terms.service_tier), ""
        ),
        inference_geo=next(
            (c.terms.inference_geo for c in request.calls if c.terms.inference_geo), ""
        ),
        usage_source=told[1] if told else "",
        cache_split_assumed=usage is not None and usage.split_assumed,
    )


def _in_order(calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(sorted(calls, key=lambda call: (call.at_us, call.tool_use_id)))


def _status(request: ToldRequest, stop_reason: str) -> TurnStatus:
    if stop_reason in _REFUSALS:
        return "refused"
    return "error" if request.failed else "ok"


def _unpriced_reason(usage: CallUsage | None, status: TurnStatus) -> str:
    if usage is None:
        return "" if status == "error" else NO_TOKENS_REASON
    return usage.unpriced_reason


def _contents(request: ToldRequest, turn: Turn, tools: Sequence[ToldTool]) -> tuple[Content, ...]:
    found: list[Content] = []

    def add(
        kind: ContentKind,
        told: Text | None,
        at_us: int,
        source: str,
        tool: ToldTool | None = None,
    ) -> None:
        if told is None:
            return
        found.append(
            Content(
                turn.session_id,
                turn.turn_id,
                turn.prompt_id,
                turn.agent_id,
                kind,
                tool.tool_use_id if tool else "",
                tool.name if tool else "",
                at_us,
                turn.sequence,
                told.text,
                told.state,
                len(told.text),
                source,
            )
        )

    asked = [message for message in request.asked() if message.role not in _INSTRUCTIONS]
    if turn.starts_prompt and asked and asked[-1] is (human := _human(asked)) and human:
        add("prompt", human.texts[-1], turn.started_at_us, request.asked_source())
    offering = next((call for call in request.calls if call.offered is not None), None)
    if offering is not None:
        add("tool_definitions", offering.offered, turn.started_at_us, offering.convention)
    answer = _joined(request.answered())
    add("assistant_text", answer, turn.ended_at_us, request.answered_source())
    for tool in tools:
        add("tool_input", tool.input(), tool.started_at_us(), tool.source, tool)
        add("tool_output", tool.output(), tool.ended_at_us(), tool.source, tool)
        if tool.run is not None and tool.run.failed:
            message = text(tool.run.event, "otel.status_message")
            told = Text(message) if message else None
            add("tool_error", told, tool.ended_at_us(), tool.source, tool)
    return tuple(found)


def _joined(messages: Iterable[Message]) -> Text | None:
    texts = [told for message in messages for told in message.texts]
    if not texts:
        return None
    order: tuple[EvidenceState, ...] = ("missing", "redacted", "truncated", "present")
    state = min((told.state for told in texts), key=order.index)
    return Text("\n".join(told.text for told in texts if told.text), state)
