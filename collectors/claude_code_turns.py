"""Turns of a Claude Code session, assembled from the set of its events.

A turn is one model request: its log events, its span, its transcript lines, its raw response and
the gateway's decision, joined on the request id; any of them may be missing (a killed client
loses its last export, a fleet may send logs alone), and what one lacks another fills in:

- tokens: in the order that :mod:`collectors.request_usage` states;
- the model served: what a response says; the model requested: the gateway's decision, the span,
  the transcript, in this order, else the served one;
- attempts: HTTP attempts of one logical request. The client reports none for retries that it does
  not count (after a 400 it tries other bodies), so neither can we.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from collectors.attribution import CLIENT_LABELS, Attribution, Owners, SessionOwners
from collectors.contents import PromptFacts, assemble_contents, prompt_facts
from collectors.event_fields import boolean, integer, text
from collectors.metric_turns import metric_turns, told_ends
from collectors.raw_bodies import BODY_FILE
from collectors.request_usage import client_cost, request_terms, request_usage
from collectors.session_facts import DECISION, RequestFacts, SessionFacts, read_session
from collectors.token_metrics import METERED
from collectors.tool_calls import ToolFacts, read_tools
from loop.access.attribution import Owner
from loop.domain.turns import (
    Content,
    Event,
    RequestClass,
    TokenUsage,
    ToolCall,
    Turn,
    TurnStatus,
)

NO_TOKENS_REASON = "no token counts were received"
_MAIN_SOURCES = ("sdk", "cli", "repl_main_thread")


@dataclass(frozen=True, slots=True)
class AssembledSession:
    """The unpriced turns and the contents of one session, in total order."""

    turns: tuple[Turn, ...]
    contents: tuple[Content, ...]


def assemble(
    events: Iterable[Event],
    attribution: Attribution | None = None,
    *,
    owners: Owners | None = None,
    are_distinct: bool = False,
) -> AssembledSession:
    """Assembles one session.

    A pure function of the set of its events: order and duplicates make no difference. The turns
    carry no cost; ``unpriced_reason`` is set where no token counts are known. What is known of the
    events saves time: the ``owners`` of their turns, and whether no two are of one identity.
    """
    facts = read_session(events, are_distinct=are_distinct)
    if not facts.events:
        return AssembledSession((), ())
    tools = read_tools(facts)
    by_turn: dict[str, list[ToolFacts]] = {}
    for tool in tools.values():
        if tool.turn_id:
            by_turn.setdefault(tool.turn_id, []).append(tool)
    rules = attribution or CLIENT_LABELS
    owners = owners or SessionOwners(facts.events, rules)
    agents = _agent_names(facts)
    prompts = prompt_facts(facts)
    started: set[tuple[str, str]] = set()
    turns = [
        _turn(
            request,
            by_turn.get(request.turn_id, []),
            facts,
            agents,
            owners.owner_of(request.records(), request.decision, request.started_at_us()),
            prompts,
            started,
        )
        for request in sorted(facts.requests, key=_total_order)
    ]
    contents = assemble_contents(facts, tools, turns, prompts)
    turns += assemble_metered(facts.events, told_ends(turns), rules)
    turns.sort(key=lambda turn: (turn.started_at_us, turn.sequence, turn.turn_id))
    return AssembledSession(tuple(turns), contents)


def assemble_metered(
    events: Sequence[Event], ended: Sequence[int], attribution: Attribution
) -> list[Turn]:
    """The turns of what metrics alone tell; ``ended`` is when the session's other turns did.

    Of the session's events (in order, one of each identity) it needs the metered points, the
    decisions, and whatever else names the session's owner.
    """
    if not any(event.name in METERED for event in events):
        return []
    owners = SessionOwners(events, attribution)
    return metric_turns(
        events,
        ended,
        [event for event in events if event.name == DECISION],
        lambda point, started_at_us: owners.owner_of([point], None, started_at_us),
    )


def makes_turns(event: Event) -> bool:
    """Whether the turns of a session may change with such an event."""
    return event.kind != "metric" or event.name in METERED


def _total_order(request: RequestFacts) -> tuple[int, int, str]:
    return request.started_at_us(), _sequence(request), request.turn_id


def _turn(
    request: RequestFacts,
    tools: list[ToolFacts],
    facts: SessionFacts,
    agents: dict[str, str],
    owner: Owner,
    prompts: dict[str, PromptFacts],
    started: set[tuple[str, str]],
) -> Turn:
    span, lines, raw = request.span, request.lines, request.raw
    records = request.records()
    done = request.outcomes.get("claude_code.api_request")
    failed = request.outcomes.get("claude_code.api_error")
    ended_at_us = request.ended_at_us()
    calls = sorted((tool.call(facts) for tool in tools), key=_call_order)
    stop_reason = (
        (text(span, "stop_reason") if span else "")
        or (lines.stop_reason if lines else "")
        or (raw.stop_reason if raw else "")
        or ("refusal" if "claude_code.api_refusal" in request.outcomes else "")
        or ("tool_use" if calls else "")
    )
    if stop_reason == "tool_use" and not calls:
        calls = [ToolCall("", "", at_us=ended_at_us, inferred=True)]
    usage, terms = request_usage(request), request_terms(request)
    status = _status(request, usage is not None, stop_reason)
    served = _served_model(request) if status != "error" else ""
    requested = _requested_model(request) or served
    named_source = _first(records, "query_source")
    agent_id = _agent_id(request, facts, named_source)
    source = named_source or (
        text(span, "query_source_safe").replace("agent.", "agent:", 1) if span else ""
    )
    decision = request.decision
    request_class = _request_class(agent_id, source)
    prompt_id = _prompt_id(request, facts)
    prompt = prompts.get(prompt_id)
    starts_prompt = request_class != "auxiliary" and (prompt_id, agent_id) not in started
    if starts_prompt:
        started.add((prompt_id, agent_id))
    return Turn(
        turn_id=request.turn_id,
        request_id=request.request_id,
        session_id=facts.events[0].session_id,
        started_at_us=request.started_at_us(),
        ended_at_us=ended_at_us,
        sequence=_sequence(request),
        prompt_id=prompt_id,
        agent_id=agent_id,
        agent_name=_agent_name(request, agent_id, source, agents),
        query_source=source,
        request_class=request_class,
        developer=owner.developer,
        org_path=owner.org_path,
        repository=owner.repository,
        org_node_id=owner.node_id,
        attributed_by=owner.attributed_by,
        asserted_org_path=owner.asserted_org_path,
        client_version=_client_version(records, lines.version if lines else ""),
        requested_model=requested,
        served_model=served,
        effort=_first(records, "effort") or (lines.effort if lines else ""),
        usage=usage.tokens if usage else TokenUsage(),
        duration_ms=_first_integer([*_outcomes_by_trust(request), span], "duration_ms"),
        ttft_ms=_first_integer([done, span], "ttft_ms"),
        attempts=_attempts(request, status),
        status=status,
        error_status=_first_integer([failed, span], "status_code")
        or (lines.error_status if lines else None),
        stop_reason=stop_reason,
        prompt_chars=prompt.chars if prompt is not None and prompt.from_human else None,
        starts_prompt=starts_prompt,
        tool_calls=tuple(calls),
        client_cost_microusd=client_cost(done) if done else None,
        unpriced_reason=NO_TOKENS_REASON if usage is None and status != "error" else "",
        sources=_sources(request, tools),
        policy_serial=integer(decision, "serial") if decision else None,
        policy_version=integer(decision, "policy_version") if decision else None,
        arm=text(decision, "arm") if decision else "",
        rule_id=text(decision, "rule_id") if decision else "",
        message_id=_message_id(request),
        speed=terms.speed,
        service_tier=terms.service_tier,
        inference_geo=terms.inference_geo,
        web_search_requests=terms.web_search_requests,
        usage_source=usage.source if usage else "",
        cache_split_assumed=usage is not None and not usage.has_split,
        device_id=_first(records, "user.id"),
    )


def _outcomes_by_trust(request: RequestFacts) -> list[Event]:
    """The outcomes in order of trust: a served answer before an error."""
    order = ("claude_code.api_request", "claude_code.api_error", "claude_code.api_refusal")
    return [request.outcomes[name] for name in order if name in request.outcomes]


def _call_order(call: ToolCall) -> tuple[int, str]:
    return call.at_us, call.tool_use_id


def _message_id(request: RequestFacts) -> str:
    if request.raw and request.raw.message_id:
        return request.raw.message_id
    return request.lines.message_id if request.lines else ""


def _status(request: RequestFacts, has_usage: bool, stop_reason: str) -> TurnStatus:
    if "claude_code.api_refusal" in request.outcomes or stop_reason == "refusal":
        return "refused"
    if has_usage or "claude_code.api_request" in request.outcomes:
        return "ok"
    span_failed = request.span is not None and boolean(request.span, "success") is False
    told_failed = request.lines is not None and request.lines.is_error
    if "claude_code.api_error" in request.outcomes or span_failed or told_failed:
        return "error"
    return "ok"


def _served_model(request: RequestFacts) -> str:
    done = request.outcomes.get("claude_code.api_request")
    for event in (done, *request.responses, request.outcomes.get("claude_code.api_refusal")):
        if event is not None and text(event, "model"):
            return text(event, "model")
    if request.lines and request.lines.served_model:
        return request.lines.served_model
    if request.raw and request.raw.model:
        return request.raw.model
    return text(request.decision, "routed_model") if request.decision else ""


def _requested_model(request: RequestFacts) -> str:
    if request.decision and text(request.decision, "requested_model"):
        return text(request.decision, "requested_model")
    if request.span and text(request.span, "gen_ai.request.model", "model"):
        return text(request.span, "gen_ai.request.model", "model")
    if request.lines and request.lines.requested_model:
        return request.lines.requested_model
    if request.raw and request.raw.requested_model:
        return request.raw.requested_model
    failed = request.outcomes.get("claude_code.api_error")
    return text(failed, "model") if failed else ""


def _attempts(request: RequestFacts, status: TurnStatus) -> int:
    counts = [integer(event, "attempt") or 1 for event in request.outcomes.values()]
    if request.span:
        counts.append(integer(request.span, "attempt") or 1)
        events = request.span.attributes.get("otel.events")
        if isinstance(events, list):
            attempts = [
                event
                for event in events
                if isinstance(event, dict) and event.get("name") == "gen_ai.request.attempt"
            ]
            counts.append(len(attempts))
    if request.lines:
        counts.append(request.lines.failed_attempts + 1)
    return max(1, *counts) if counts else 1


def _agent_id(request: RequestFacts, facts: SessionFacts, source: str) -> str:
    """The agent's id; where a client names only its kind, that of the call that started it."""
    stated = _first(request.records(), "agent_id") or (
        request.lines.agent_id if request.lines else ""
    )
    if stated:
        return stated
    span = request.span
    if span is not None:
        conversation = text(span, "gen_ai.conversation.id")
        if conversation and conversation != facts.events[0].session_id:
            return conversation
    from_span = text(span, "query_source_safe") if span is not None else ""
    if not source.startswith("agent:") and not from_span.startswith("agent."):
        return ""
    parent = facts.tree.spans.get(facts.tree.parent_of(span)) if span is not None else None
    started_by = text(parent, "tool_use_id", "gen_ai.tool.call.id") if parent is not None else ""
    return started_by or source or from_span


def _agent_names(facts: SessionFacts) -> dict[str, str]:
    names: dict[str, str] = {}
    for name, attribute in (
        ("claude_code.api_request", "agent.name"),
        ("claude_code.subagent_completed", "agent_type"),
    ):
        for event in facts.by_name.get(name, []):
            if text(event, "agent_id") and text(event, attribute):
                names.setdefault(text(event, "agent_id"), text(event, attribute))
    return names


def _agent_name(request: RequestFacts, agent_id: str, source: str, agents: dict[str, str]) -> str:
    if not agent_id:
        return ""
    told = request.lines.agent_name if request.lines else ""
    last = source.replace(".", ":").rpartition(":")[2] if source.startswith("agent") else ""
    return _first(request.records(), "agent.name") or agents.get(agent_id, "") or told or last


def _request_class(agent_id: str, source: str) -> RequestClass:
    if agent_id or source.startswith("agent:"):
        return "subagent"
    if not source or source.startswith(_MAIN_SOURCES):
        return "main"
    return "auxiliary"


def _prompt_id(request: RequestFacts, facts: SessionFacts) -> str:
    stated = _first(request.logs(), "prompt.id")
    if stated:
        return stated
    if request.lines and request.lines.prompt_id:
        return request.lines.prompt_id
    return facts.tree.prompt_of(request.span) if request.span else ""


def _sequence(request: RequestFacts) -> int:
    outcomes = _outcomes_by_trust(request)
    if outcomes:
        return outcomes[0].sequence
    return request.lines.sequence if request.lines else 0


def _client_version(records: list[Event], told: str) -> str:
    for event in records:
        version = text(event, "app.version") or text(event.resource, "service.version")
        if version:
            return version
    return told


def _sources(request: RequestFacts, tools: list[ToolFacts]) -> tuple[str, ...]:
    present = []
    raw = request.raw
    is_sent = raw is not None and BODY_FILE not in raw.event.attributes
    if request.logs() or is_sent or any(tool.decision or tool.result for tool in tools):
        present.append("otlp-log")
    if request.span or any(tool.span or tool.execution for tool in tools):
        present.append("otlp-span")
    if request.lines or any(tool.told for tool in tools):
        present.append("transcript")
    if raw is not None and raw.usage is not None:
        present.append("raw-body")
    if request.decision:
        present.append("gateway")
    return tuple(present)


def _first(events: list[Event], name: str) -> str:
    for event in events:
        value = event.attributes.get(name)
        if value and type(value) is str:
            return value
    return ""


def _first_integer(events: Iterable[Event | None], name: str) -> int | None:
    for event in events:
        if event is not None and (value := integer(event, name)) is not None:
            return value
    return None
