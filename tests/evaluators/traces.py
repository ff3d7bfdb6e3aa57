"""Builders of session traces from a few words, for the evaluators' tests."""

from __future__ import annotations

import json
from collections.abc import Sequence

from loop.domain.turns import (
    EvidenceState,
    Prompt,
    SessionTrace,
    TokenUsage,
    ToolCall,
    ToolEvidence,
    TracedTurn,
    Turn,
)

START_US = 1_790_000_000_000_000
SECOND_US = 1_000_000


def tool(
    tool_use_id: str,
    name: str,
    given: str | None,
    outcome: bool | str | None = True,
    output: str | None = None,
) -> ToolEvidence:
    """One call. ``given`` is the command or path (``None``: redacted); ``outcome`` is true, false,
    ``None`` (no result seen) or "reject"; ``output`` ``None`` was not sent."""
    field = "command" if name == "Bash" else "file_path"
    if given is None:
        input_text, input_state = "", "redacted"
    elif name == "Bash" or name in ("Read", "Edit", "Write", "MultiEdit"):
        input_text, input_state = json.dumps({field: given}), "present"
    else:
        input_text, input_state = given, "present"
    rejected = outcome == "reject"
    success = outcome if isinstance(outcome, bool) else None
    if output is None and success is False and name == "Bash":
        output_text, output_state = "Shell command failed", "present"
    else:
        output_text, output_state = output or "", "missing" if output is None else "present"
    return ToolEvidence(
        ToolCall(
            tool_use_id,
            name,
            success=success,
            decision="reject" if rejected else "accept",
            error_type="ShellError" if success is False and name == "Bash" else "",
        ),
        input_text,
        input_state,  # type: ignore[arg-type]
        output_text,
        output_state,  # type: ignore[arg-type]
    )


def inferred() -> ToolEvidence:
    """A call that left no event, as a failed edit does in plain telemetry."""
    return ToolEvidence(ToolCall("", "", inferred=True))


def turn(
    number: int,
    *tools: ToolEvidence,
    text: str | Sequence[str] = (),
    text_state: EvidenceState = "present",
    agent_id: str = "",
    usage: TokenUsage | None = None,
    session_id: str = "s1",
    prompt_id: str = "p1",
    attempts: int = 1,
) -> TracedTurn:
    texts = (text,) if isinstance(text, str) else tuple(text)
    started = START_US + number * SECOND_US
    return TracedTurn(
        Turn(
            turn_id=f"req_{number:04d}",
            request_id=f"req_{number:04d}",
            session_id=session_id,
            started_at_us=started,
            ended_at_us=started + SECOND_US // 2,
            sequence=number,
            prompt_id=prompt_id,
            agent_id=agent_id,
            requested_model="claude-opus-4-7",
            served_model="claude-opus-4-7",
            usage=usage or TokenUsage(input_tokens=10, output_tokens=100, cache_read_tokens=20_000),
            stop_reason="tool_use" if tools else "end_turn",
            tool_calls=tuple(item.call for item in tools),
            attempts=attempts,
            request_class="subagent" if agent_id else "main",
        ),
        texts,
        text_state if texts or text_state == "redacted" else "missing",
        tuple(tools),
    )


def prompt(number: int, text: str, *, from_human: bool = True) -> Prompt:
    """A prompt just before turn ``number``."""
    at_us = START_US + number * SECOND_US - 1
    return Prompt(f"p{number}", at_us, text, "present", len(text), from_human)


def trace(*turns: TracedTurn, prompts: Sequence[Prompt] = ()) -> SessionTrace:
    return SessionTrace(turns[0].turn.session_id if turns else "s1", tuple(turns), tuple(prompts))


def session(*steps: ToolEvidence, claim: str, asked: str = "Fix it.") -> SessionTrace:
    """One turn for each call, then the closing text."""
    turns = [turn(number, step) for number, step in enumerate(steps, 1)]
    return trace(*turns, turn(len(steps) + 1, text=claim), prompts=[prompt(1, asked)])
