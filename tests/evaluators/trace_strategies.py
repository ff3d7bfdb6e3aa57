"""Hypothesis strategies for session traces: real wordings among arbitrary text, odd states."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st

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

_CASES = json.loads(Path(__file__).with_name("claim_corpus.json").read_text("utf-8"))["cases"]
_CLAIMS = sorted({case["claim"] for case in _CASES})
_STEPS = [step for case in _CASES for step in case["steps"]]
_COMMANDS = sorted({step[1] for step in _STEPS if step[0] == "Bash" and step[1]})
_OUTPUTS = sorted({step[3] for step in _STEPS if step[3]})
_STATES: tuple[EvidenceState, ...] = ("present", "truncated", "redacted", "missing")

texts = st.one_of(
    st.sampled_from(_CLAIMS),
    st.lists(st.sampled_from(_CLAIMS), min_size=2, max_size=3).map("\n".join),
    st.text(max_size=80),
)
commands = st.one_of(
    st.sampled_from(_COMMANDS),
    st.lists(st.sampled_from(_COMMANDS), min_size=2, max_size=3).flatmap(
        lambda parts: st.sampled_from([" && ", " || ", "; ", " | ", "\n", " & "]).map(
            lambda operator: operator.join(parts)
        )
    ),
    st.text(alphabet="pytes -t|&;()<>$'\"\\\n#{}", max_size=40),
    st.text(max_size=40),
)
paths = st.sampled_from(["/srv/x/a.py", "/srv/x/README.md", "b.ts", "", "/", "NOTES.txt"])


@st.composite
def _inputs(draw: st.DrawFn) -> tuple[str, str]:
    name = draw(
        st.sampled_from(
            ["Bash", "Bash", "Edit", "Write", "Read", "Agent", "BashOutput", "mcp__ci__run", ""]
        )
    )
    if name == "Bash":
        given = json.dumps({"command": draw(commands)})
    elif name in ("Edit", "Write", "Read"):
        given = json.dumps({"file_path": draw(paths)})
    else:
        given = draw(st.text(max_size=30))
    form = draw(st.sampled_from(["whole", "whole", "cut", "odd"]))
    if form == "cut":
        given = given[: draw(st.integers(0, len(given)))]
    elif form == "odd":
        given = draw(st.sampled_from(["{", "[]", "null", '{"command": 3}', "<REDACTED>", ""]))
    return name, given


@st.composite
def _tools(draw: st.DrawFn, number: int) -> ToolEvidence:
    name, given = draw(_inputs())
    inferred = draw(st.booleans()) and draw(st.booleans()) and draw(st.booleans())
    return ToolEvidence(
        ToolCall(
            "" if inferred else f"t{number}",
            "" if inferred else name,
            success=None if inferred else draw(st.sampled_from([True, True, False, None])),
            error_type=draw(st.sampled_from(["", "ShellError", "\x1b[31m"])),
            decision=draw(st.sampled_from(["", "accept", "accept", "reject"])),
            inferred=inferred,
        ),
        given,
        draw(st.sampled_from(_STATES)),
        draw(st.one_of(st.sampled_from(_OUTPUTS), st.text(max_size=60))),
        draw(st.sampled_from(_STATES)),
    )


@st.composite
def traces(draw: st.DrawFn, max_turns: int = 6) -> SessionTrace:
    """Traces of up to ``max_turns`` turns with distinct ids, in order of time."""
    turns = []
    for number in range(draw(st.integers(0, max_turns))):
        tools = tuple(draw(_tools(10 * number + place)) for place in range(draw(st.integers(0, 2))))
        turns.append(
            TracedTurn(
                Turn(
                    turn_id=f"r{number}",
                    request_id=f"r{number}",
                    session_id="s",
                    started_at_us=number * 1_000_000,
                    ended_at_us=number * 1_000_000 + 1,
                    sequence=number,
                    agent_id=draw(st.sampled_from(["", "", "", "a1", "acompact-1"])),
                    usage=TokenUsage(output_tokens=draw(st.integers(0, 10))),
                    attempts=draw(st.integers(1, 4)),
                    tool_calls=tuple(tool.call for tool in tools),
                ),
                tuple(draw(st.lists(texts, max_size=2))),
                draw(st.sampled_from(_STATES)),
                tools,
            )
        )
    prompts = tuple(
        Prompt(f"p{place}", at_us * 500_000, draw(texts), "present", 0, draw(st.booleans()))
        for place, at_us in enumerate(sorted(draw(st.lists(st.integers(0, 14), max_size=3))))
    )
    attributes = draw(st.sampled_from([{}, {"tools": '["Bash", "Edit"]'}, {"tools": "[broken"}]))
    return SessionTrace("s", tuple(turns), prompts, attributes)
