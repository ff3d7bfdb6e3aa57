"""Texts of a session: prompts, answers, tool inputs, outputs and errors, each with its state.

Several sources may tell the same text; the best one is kept: whole before cut, cut before
redacted, then the source that tells it most directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from collectors.content_modes import hidden_chars
from collectors.event_fields import integer, state_of, text, without_reminders
from collectors.session_facts import INTERACTION, RequestFacts, SessionFacts
from collectors.tool_calls import ToolFacts
from loop.domain.quick_records import quickly_made
from loop.domain.turns import Content, ContentKind, Event, EvidenceState, Turn

TASK_NOTIFICATION = "<task-notification>"
_BASH_OUTPUT_CHARS = 30_000  # the client cuts the output of Bash here, without a mark
_STATES: dict[EvidenceState, int] = {"present": 0, "truncated": 1, "redacted": 2, "missing": 3}
_LOG, _SPAN, _TRANSCRIPT, _RAW_BODY = "otlp-log", "otlp-span", "transcript", "raw-body"
_TOOL_OUTPUT_KEYS = ("output", "content", "diff", "result")


@quickly_made
@dataclass(frozen=True, slots=True)
class PromptFacts:
    prompt_id: str
    text: str
    state: EvidenceState
    chars: int
    at_us: int
    sequence: int
    from_human: bool
    source: str


@quickly_made
@dataclass(frozen=True, slots=True)
class _Candidate:
    text: str
    state: EvidenceState
    source: str
    chars: int


def prompt_facts(facts: SessionFacts) -> dict[str, PromptFacts]:
    """Every prompt of a session by its id, from log events, interactions or the transcript."""
    found: dict[str, list[PromptFacts]] = {}

    def add(prompt: PromptFacts) -> None:
        found.setdefault(prompt.prompt_id, []).append(prompt)

    for event in facts.by_name.get("claude_code.user_prompt", []):
        prompt_id = text(event, "prompt.id", "message.uuid") or event.event_id
        add(_prompt(prompt_id, event, text(event, "prompt", "prompt_text"), "prompt_length", _LOG))
    for span in facts.by_name.get(INTERACTION, []):
        prompt_id = facts.tree.prompt_of(span)
        add(_prompt(prompt_id, span, text(span, "user_prompt"), "user_prompt_length", _SPAN))
    for told in facts.transcript.prompts.values():
        add(
            PromptFacts(
                told.prompt_id,
                told.text,
                state_of(told.text),
                len(told.text),
                told.at_us,
                told.sequence,
                told.from_human and not told.text.startswith(TASK_NOTIFICATION),
                _TRANSCRIPT,
            )
        )
    return {prompt_id: _best_prompt(prompts) for prompt_id, prompts in found.items()}


def _prompt(prompt_id: str, event: Event, content: str, length: str, source: str) -> PromptFacts:
    state = state_of(content) if content else "missing"
    return PromptFacts(
        prompt_id,
        _kept(content, state),
        state,
        integer(event, length) or hidden_chars(content) or len(content),
        event.at_us,
        event.sequence,
        not content.startswith(TASK_NOTIFICATION),
        source,
    )


def _best_prompt(prompts: list[PromptFacts]) -> PromptFacts:
    best = min(prompts, key=lambda prompt: _STATES[prompt.state])  # the first of equals
    return PromptFacts(
        best.prompt_id,
        best.text,
        best.state,
        max(prompt.chars for prompt in prompts),
        prompts[0].at_us,
        prompts[0].sequence,
        all(prompt.from_human for prompt in prompts),
        best.source,
    )


def assemble_contents(
    facts: SessionFacts,
    tools: Mapping[str, ToolFacts],
    turns: Sequence[Turn],
    prompts: Mapping[str, PromptFacts],
) -> tuple[Content, ...]:
    """Every text of the session in total order."""
    by_id = {turn.turn_id: turn for turn in turns}
    session_id = facts.events[0].session_id
    contents = [*_prompt_contents(prompts, turns, session_id)]
    for request in facts.requests:
        contents += _answer(request, by_id[request.turn_id])
        contents += _offered(request, by_id[request.turn_id], facts)
    for tool in tools.values():
        contents += _tool_contents(tool, by_id.get(tool.turn_id), facts, session_id)
    return tuple(
        sorted(
            contents,
            key=lambda content: (
                content.at_us,
                content.sequence,
                content.turn_id,
                content.tool_use_id,
                content.kind,
            ),
        )
    )


def _prompt_contents(
    prompts: Mapping[str, PromptFacts], turns: Sequence[Turn], session_id: str
) -> Iterable[Content]:
    first_turns: dict[str, str] = {}
    for turn in turns:
        if turn.starts_prompt and not turn.agent_id:
            first_turns.setdefault(turn.prompt_id, turn.turn_id)
    for prompt in prompts.values():
        yield Content(
            session_id,
            first_turns.get(prompt.prompt_id, ""),
            prompt.prompt_id,
            "",
            "prompt",
            "",
            "",
            prompt.at_us,
            prompt.sequence,
            prompt.text,
            prompt.state,
            prompt.chars,
            prompt.source,
        )


def _answer(request: RequestFacts, turn: Turn) -> list[Content]:
    candidates = [
        _candidate(text(event, "response"), _LOG, integer(event, "response_length"))
        for event in request.responses
        if text(event, "response")
    ]
    if request.lines and request.lines.texts:
        candidates.append(_candidate("\n".join(request.lines.texts), _TRANSCRIPT))
    if request.span and text(request.span, "response.model_output"):
        candidates.append(_candidate(text(request.span, "response.model_output"), _SPAN))
    if request.raw and request.raw.text:
        candidates.append(_candidate(request.raw.text, _RAW_BODY))
    if not candidates and turn.status == "error":
        return []
    best = _best(candidates)
    if best is None:
        return []
    return [
        Content(
            turn.session_id,
            turn.turn_id,
            turn.prompt_id,
            turn.agent_id,
            "assistant_text",
            "",
            "",
            turn.ended_at_us,
            turn.sequence,
            best.text,
            best.state,
            best.chars,
            best.source,
        )
    ]


def _offered(request: RequestFacts, turn: Turn, facts: SessionFacts) -> list[Content]:
    """The tools that the request offered, where its whole body is there."""
    raw = request.raw
    told = facts.offered.get(text(raw.event, "request_body_id")) if raw else None
    if told is None:
        return []
    event, tools = told
    return [
        Content(
            turn.session_id,
            turn.turn_id,
            turn.prompt_id,
            turn.agent_id,
            "tool_definitions",
            "",
            "",
            event.at_us,
            turn.sequence,
            tools,
            "present",
            len(tools),
            _RAW_BODY,
        )
    ]


def _tool_contents(
    tool: ToolFacts, turn: Turn | None, facts: SessionFacts, session_id: str
) -> list[Content]:
    kinds: list[tuple[ContentKind, _Candidate | None, int]] = [
        ("tool_input", _best(_inputs(tool, facts)), tool.started_at_us()),
        ("tool_output", _best(_outputs(tool, facts)), tool.ended_at_us()),
        ("tool_error", _best(_errors(tool)), tool.ended_at_us()),
    ]
    return [
        Content(
            session_id,
            turn.turn_id if turn else "",
            turn.prompt_id if turn else "",
            turn.agent_id if turn else "",
            kind,
            tool.tool_use_id,
            tool.name,
            at_us,
            turn.sequence if turn else 0,
            best.text,
            best.state,
            best.chars,
            best.source,
        )
        for kind, best, at_us in kinds
        if best is not None
    ]


def _inputs(tool: ToolFacts, facts: SessionFacts) -> list[_Candidate]:
    candidates = []
    if tool.told and tool.told.input_text:
        candidates.append(_candidate(tool.told.input_text, _TRANSCRIPT))
    if tool.tool_use_id in facts.raw_tools:
        candidates.append(_candidate(facts.raw_tools[tool.tool_use_id][2], _RAW_BODY))
    if tool.span and text(tool.span, "tool_input"):
        candidates.append(_candidate(_without_head(text(tool.span, "tool_input")), _SPAN))
    if tool.result:
        content, size = (
            text(tool.result, "tool_input"),
            integer(tool.result, "tool_input_size_bytes"),
        )
        if content:
            candidates.append(_candidate(content, _LOG, size, cut=_is_cut(content, size)))
    for event in (tool.result, tool.decision):
        if event is not None and text(event, "tool_parameters"):
            # A summary of the input (the command, the MCP names), never the whole of it.
            candidates.append(_candidate(text(event, "tool_parameters"), _LOG, cut=True))
    if tool.span:
        parts = {
            name: text(tool.span, name)
            for name in ("file_path", "full_command")
            if text(tool.span, name)
        }
        if parts:
            candidates.append(_candidate(orjson.dumps(parts).decode(), _SPAN, cut=True))
    return candidates


def _outputs(tool: ToolFacts, facts: SessionFacts) -> list[_Candidate]:
    candidates = []
    stated = integer(tool.result, "tool_result_size_bytes") if tool.result else None
    if tool.span:
        output = _span_output(tool.span)
        if output is not None:
            cut = tool.name == "Bash" and len(output) >= _BASH_OUTPUT_CHARS
            candidates.append(_candidate(output, _SPAN, stated if cut else None, cut=cut))
    if tool.told and tool.told.result is not None:
        candidates.append(_candidate(without_reminders(tool.told.result), _TRANSCRIPT))
    given = facts.results.get(tool.tool_use_id)
    if given is not None:
        source = _SPAN if tool.tool_use_id in facts.context_of else _RAW_BODY
        candidates.append(_candidate(given.text, source))
    if tool.span and text(tool.span, "new_context"):
        candidates.append(_candidate(_without_head(text(tool.span, "new_context")), _SPAN))
    return candidates


def _errors(tool: ToolFacts) -> list[_Candidate]:
    return [
        _candidate(text(event, "error"), source)
        for event, source in ((tool.result, _LOG), (tool.execution, _SPAN))
        if event is not None and text(event, "error")
    ]


def _span_output(span: Event) -> str | None:
    """The text of the span event ``tool.output``; ``None`` without one."""
    events = span.attributes.get("otel.events")
    for event in events if isinstance(events, list) else []:
        if not isinstance(event, dict) or event.get("name") != "tool.output":
            continue
        attributes: Any = event.get("attributes")
        if not isinstance(attributes, dict):
            continue
        for key in _TOOL_OUTPUT_KEYS:
            if isinstance(attributes.get(key), str):
                return str(attributes[key])
    return None


def _without_head(content: str) -> str:
    """Detailed traces put ``[TOOL INPUT: name]`` or ``[TOOL RESULT: name]`` on a line above."""
    head, _, rest = content.partition("\n")
    return rest if head.startswith("[TOOL ") and head.endswith("]") else content


def _is_cut(content: str, size: int | None) -> bool:
    return size is not None and len(content.encode()) < size


def _candidate(
    content: str, source: str, chars: int | None = None, *, cut: bool = False
) -> _Candidate:
    state = state_of(content)
    if cut and state == "present":
        state = "truncated"
    kept = _kept(content, state)
    hidden = hidden_chars(content)
    length = len(kept) if hidden is None else hidden
    return _Candidate(kept, state, source, max(chars or 0, length))


def _kept(content: str, state: EvidenceState) -> str:
    """What is stored of a text; the mark that a content mode left stays, for it tells the length,
    and under ``hashed`` which texts are equal."""
    if state not in ("redacted", "missing"):
        return content
    return "" if hidden_chars(content) is None else content


def _best(candidates: list[_Candidate]) -> _Candidate | None:
    """The first of the best state; among cut texts the longest."""
    if not candidates:
        return None
    state = min(candidates, key=lambda candidate: _STATES[candidate.state]).state
    equals = [candidate for candidate in candidates if candidate.state == state]
    if state == "truncated":
        return max(equals, key=lambda candidate: len(candidate.text))
    return equals[0]
