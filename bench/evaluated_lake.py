"""A lake of made-up sessions whose turns have the sizes of real ones.

A turn has one tool call in nine of ten cases; an answer of 140, an input of 600 and a result of
2,900 characters on average, unevenly (the median result has 300): the figures of 17,048 requests
of public Claude Code sessions. All texts differ, so that nothing is remembered between them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

from loop.domain.turns import Content, ContentKind, TokenUsage, ToolCall, Turn
from loop.lake import Lake

START_US = 1_790_000_000_000_000
SESSIONS_PER_WRITE = 400
SESSIONS_PER_DAY = 4_000
WORDS = re.findall(
    r"\w+",
    "the parser reads a token and returns an offset while each buffer holds what it was given so "
    "that callers may retry without losing a line of the file def class import return self value",
)


def write_sessions(lake: Lake, sessions: int, turns_each: int, seed: int = 7) -> int:
    """Writes and compacts; returns how many turns."""
    drawn = random.Random(seed)
    written = 0
    for revision, start in enumerate(range(0, sessions, SESSIONS_PER_WRITE), 1):
        turns: list[Turn] = []
        contents: list[Content] = []
        for number in range(start, min(start + SESSIONS_PER_WRITE, sessions)):
            for turn, texts in _session(number, turns_each, drawn):
                turns.append(turn)
                contents += texts
        lake.write_turns(turns, contents, revision=revision)
        written += len(turns)
    lake.compact(("turns", "contents"))
    return written


def _session(
    number: int, turns_each: int, drawn: random.Random
) -> Iterator[tuple[Turn, list[Content]]]:
    name = f"{drawn.getrandbits(128):032x}"
    path = f"/srv/shop{number}/src/pricing.py"
    begin = START_US + (number // SESSIONS_PER_DAY) * 86_400_000_000 + number * 1_000_003
    for place in range(turns_each):
        at_us = begin + place * 20_000_000
        turn_id = f"req_{number}_{place}"
        is_last = place == turns_each - 1
        call_id = "" if is_last or place % 10 == 5 else f"toolu_{number}_{place}"
        texts: list[Content] = []

        def content(
            kind: ContentKind,
            text: str,
            tool_name: str = "",
            *,
            turn_id: str = turn_id,
            call_id: str = call_id,
            at_us: int = at_us,
            texts: list[Content] = texts,
        ) -> None:
            texts.append(
                Content(
                    name, turn_id, f"p{number}", "", kind, call_id if tool_name else "", tool_name,
                    at_us, len(texts), text, "present", len(text), "transcript",
                )
            )  # fmt: skip

        if place == 0:
            content("prompt", f"Fix the rounding in {path}, please. " + prose(drawn, 200))
        calls: tuple[ToolCall, ...] = ()
        if call_id:
            tool, given, output, success = _call(place, turns_each, path, drawn)
            content("tool_input", given, tool)
            content("tool_output" if success else "tool_error", output, tool)
            calls = (ToolCall(call_id, tool, success, at_us=at_us),)
        if is_last:
            content("assistant_text", f"Fixed the rounding in `{path}`. All tests pass ({number}).")
        elif drawn.random() < 0.45:
            content("assistant_text", prose(drawn, 250))
        yield (
            Turn(
                turn_id=turn_id,
                request_id=turn_id,
                session_id=name,
                started_at_us=at_us,
                ended_at_us=at_us + 5_000_000,
                sequence=place,
                prompt_id=f"p{number}",
                developer=f"dev{number % 500}@example.com",
                org_path=f"engineering/team{number % 40}",
                repository=f"shop{number % 90}",
                client_version="2.1.330",
                requested_model="claude-opus-4-7",
                served_model="claude-opus-4-7",
                usage=TokenUsage(5, 300, 60_000, 1_500, 0),
                duration_ms=5_000,
                stop_reason="tool_use" if calls else "end_turn",
                tool_calls=calls,
                cost_microusd=50_000,
                price_version="2026-11-23",
                sources=("otlp-log", "transcript"),
            ),
            texts,
        )


def _call(
    place: int, turns_each: int, path: str, drawn: random.Random
) -> tuple[str, str, str, bool]:
    if place == turns_each - 2:
        failed = drawn.random() < 0.2
        summary = "1 failed, 41 passed" if failed else "42 passed"
        line = f"cd {path.rsplit('/', 2)[0]} && pytest -q tests 2>&1 | tail -5"
        return "Bash", json.dumps({"command": line}), f"=== {summary} in 0.41s ===", True
    length = int(min(30_000, drawn.lognormvariate(5.7, 2.0)))
    kind = place % 4
    if kind == 0:
        return "Read", json.dumps({"file_path": path}), prose(drawn, length), True
    if kind == 1:
        edit = {"file_path": path, "old_string": prose(drawn, 300), "new_string": prose(drawn, 600)}
        return "Edit", json.dumps(edit), f"The file {path} has been updated. {place}", True
    if kind == 2:
        line = f"grep -rn {drawn.choice(WORDS)}{place} src && git status --short # {path}"
        return "Bash", json.dumps({"command": line}), prose(drawn, length), True
    success = drawn.random() < 0.8
    output = prose(drawn, length) + ("\n12 passed in 0.2s" if success else "\n1 failed in 0.2s")
    line = f"cd {path.rsplit('/', 2)[0]} && pytest -q tests/test_{place}.py"
    return "Bash", json.dumps({"command": line}), output, success


_POOL = " ".join(random.Random(1).choices(WORDS, k=40_000))


def prose(drawn: random.Random, length: int) -> str:
    """Words and lines; no two alike."""
    start = drawn.randrange(len(_POOL) - length)
    text = _POOL[start : start + length]
    return f"{drawn.getrandbits(40):x} {text[: length // 2]}\n{text[length // 2 :]}"
