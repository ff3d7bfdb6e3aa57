"""Hypothesis strategies for session traces: real wordings among arbitrary text, odd states."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from loop.domain.turns import (
    EvidenceState,
    Prompt,
    SessionTrace,
    TokenUsage,
    ToolCall,
    ToolDefinition,
    ToolEvidence,
    TracedTurn,
    Turn,
)

_CLAIMS = (
    "All tests pass.",
    "All 5 tests pass, lint clean, typecheck clean.",
    "Fixed: `total()` now subtracts. Both tests pass.",
    "The tests do not pass yet.",
    "Once the tests pass I will commit.",
    "Tests pass. The 4 failing tests are pre-existing and unrelated.",
    "The build succeeds.",
    "Lint passes; type check is clean.",
    "Added `b.ts` with two tests.",
    "Deleted `old.py`.",
    "Committed as `f2aadac` and pushed.",
    "I could not create NOTES.txt: permission to write was not granted.",
    '`discount("gold")` returns **0.10** (10 %).',
    "> all tests pass\nI will check this.",
    "```\nAll tests pass\n```",
    "Everything is green.",
)
_COMMANDS = (
    "pytest -q",
    "python3 -m unittest discover -s tests",
    "pytest -q tests/test_a.py 2>&1 | tail -5",
    "pytest || true",
    "cd app && npm test",
    "npx vitest run",
    "go test ./...",
    "cargo test",
    "npx tsc --noEmit | grep error",
    "ruff check .",
    "make build",
    "sed -i s/a/b/ a.py",
    "cat > b.ts <<'EOF'\nx\nEOF",
    "git commit -am fix && git push",
    "git checkout -- a.py",
    "rm -rf build",
    "for i in 1 2; do pytest; done",
)
_OUTPUTS = (
    "=========== 5 passed in 0.31s ===========",
    "=== 1 failed, 4 passed in 0.3s ===",
    "no tests ran in 0.01s",
    "Exit code 1\n.F\nRan 2 tests in 0.000s\n\nFAILED (failures=1)",
    "Tests:       12 passed, 12 total",
    " Test Files  1 failed | 2 passed (3)\n      Tests  1 failed | 20 passed (21)",
    "ok  \texample.org/a\t0.01s",
    "--- FAIL: TestA (0.00s)\nFAIL\texample.org/a\t0.01s",
    "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured",
    "src/a.ts(1,1): error TS2304: Cannot find name",
    "All checks passed!",
    "[main f2aadac] fix",
    "command not found: pytest",
    "Shell command failed",
)
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
    offered = draw(st.sampled_from([(), (ToolDefinition("Bash"),), (ToolDefinition("Edit", "{"),)]))
    return SessionTrace("s", tuple(turns), prompts, {}, offered)
