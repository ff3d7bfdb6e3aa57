"""Public agent runs as session traces, with no more evidence than the sets hold.

None of these sets was recorded by turnwise. What a set does not say stays missing: no prompt, call,
result or time is made up, except that turns are put a second apart to keep their order. Each
reader says what its set lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.public_data import read_rows
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

START_US = 1_767_600_000_000_000
SECOND_US = 1_000_000
MESSAGE_CHARS = 3_000  # where the set cuts a message of mini-SWE-agent
_ACTION = re.compile(r"```bash\s*\n(.*?)(?:\n```|\Z)", re.S)
_RETURN_CODE = re.compile(r"\A<returncode>-?\d+</returncode>\n")
_OUTPUT_TAGS = re.compile(r"\A<output>\n?|\n?</output>\Z")
_CUT_BY_AGENT = "<output_head>"
_TIMED_OUT = "The last command <command>"


# The call categories of August 2024, as the questions of version 4 name them.
@dataclass(frozen=True)
class JudgedTrace:
    """A trace with what somebody else found of it.

    ``group`` names what belongs together in a bootstrap (the task). ``baselines`` are numbers that
    need no reading of the session; the less, the better.
    """

    trace: SessionTrace
    is_good: bool
    group: str
    baselines: dict[str, float]
    labels: dict[str, str] = field(default_factory=dict)


def make_turn(
    session_id: str,
    number: int,
    *,
    text: str = "",
    tools: Sequence[ToolEvidence] = (),
    usage: TokenUsage | None = None,
    text_state: EvidenceState = "present",
) -> TracedTurn:
    started = START_US + number * SECOND_US
    turn = Turn(
        turn_id=f"{session_id}.{number}",
        request_id="",
        session_id=session_id,
        started_at_us=started,
        ended_at_us=started,
        sequence=number,
        usage=usage or TokenUsage(),
        stop_reason="tool_use" if tools else "end_turn",
        tool_calls=tuple(item.call for item in tools),
    )
    return TracedTurn(
        turn, (text,) if text else (), text_state if text else "missing", tuple(tools)
    )


def swe_bench_runs(data: Path) -> list[JudgedTrace]:
    """Headless Claude Code runs on SWE-bench Lite.

    Held: the last message, and the calls that were refused permission. Missing: the prompt, every
    call that was carried out, and every result. Calls of which nothing is known stand for those,
    before and after the refused ones, so that nobody takes the refused ones for the whole session.
    The patch was cut out of the last message by the set's author and is no edit of the session.
    """
    return [
        _swe_bench_run(row) for row in read_rows(data, "claude_code_swebench_lite/data.parquet")
    ]


def _swe_bench_run(row: dict[str, Any]) -> JudgedTrace:
    name = row["instance_id"]
    refused = [
        ToolEvidence(
            ToolCall(denial["tool_use_id"], denial["tool_name"], decision="reject"),
            json.dumps(denial["tool_input"]),
            "present",
        )
        for denial in json.loads(row["permission_denials_json"] or "[]")
    ]
    unseen = [ToolEvidence(ToolCall(f"unseen{place}", "Bash")) for place in range(2)]
    calls = [unseen[0], *refused, unseen[1]] if row["num_turns"] > 1 else refused
    turns = [make_turn(name, number, tools=[call]) for number, call in enumerate(calls)]
    message = row["final_message"] or ""
    turns.append(make_turn(name, len(turns), text=message))
    return JudgedTrace(
        SessionTrace(name, tuple(turns)),
        bool(row["resolved"]),
        name,
        {
            "turns": float(row["num_turns"]),
            "cost": float(row["cost_usd"]),
            "duration": float(row["latency_ms"]),
            "output tokens": float(row["output_tokens"]),
            "length of the last message": float(len(message)),
            "refused calls": float(len(refused)),
            "the client's own verdict": float(row["is_error"]),
        },
        {"outcome": row["eval_status"]},
    )


def mini_swe_runs(data: Path) -> list[JudgedTrace]:
    """mini-SWE-agent runs with Gemini 3 Pro on SWE-bench Verified: one Bash command a step.

    Held: each message (cut at 3,000 characters), its command, the return code, and the first 1,500
    characters of the output, so the summary that a runner prints last is often lost. Missing: the
    prompt, and the rest of long outputs. A message without exactly one command was not carried out.
    """
    runs = {
        row["instance_id"]: row for row in read_rows(data, "minisweagent_gemini3pro/runs.parquet")
    }
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for step in read_rows(data, "minisweagent_gemini3pro/steps.parquet"):
        steps[step["instance_id"]].append(step)
    judged = []
    for name, run in runs.items():
        ordered = sorted(steps[name], key=lambda step: step["step"])
        turns = [_mini_swe_turn(name, number, step) for number, step in enumerate(ordered)]
        failed = sum(1 for step in ordered if step["returncode"] not in (0.0, None))
        judged.append(
            JudgedTrace(
                SessionTrace(name, tuple(turns)),
                bool(run["resolved"]),
                name,
                {
                    "turns": float(run["api_calls"]),
                    "cost": float(run["cost_usd"]),
                    "length of the patch": float(len(run["patch"] or "")),
                    "failed commands": float(failed),
                    "share of failed commands": failed / max(1, len(ordered)),
                },
            )
        )
    return judged


def _mini_swe_turn(name: str, number: int, step: dict[str, Any]) -> TracedTurn:
    message = step["message"] or ""
    action = _ACTION.search(message)
    seen = step["observation_head"] or ""
    tools = []
    was_run = step["returncode"] is not None or seen.startswith((_TIMED_OUT, "diff --git"))
    if action is not None and was_run:
        tools.append(_bash_evidence(f"{name}.{number}.bash", action.group(1), message, step, seen))
    cached = int(step["cached_tokens"] or 0)
    usage = TokenUsage(
        input_tokens=max(0, int(step["prompt_tokens"] or 0) - cached),
        output_tokens=int(step["completion_tokens"] or 0),
        cache_read_tokens=cached,
    )
    return make_turn(name, number, text=message, tools=tools, usage=usage)


def _bash_evidence(
    call_id: str, command: str, message: str, step: dict[str, Any], seen: str
) -> ToolEvidence:
    code = step["returncode"]
    success = None if code is None else code == 0.0
    if seen.startswith(_TIMED_OUT):
        success = False
    output = _OUTPUT_TAGS.sub("", _RETURN_CODE.sub("", seen))
    if success is False and code is not None:
        output = f"Exit code {int(code)}\n{output}"  # as Claude Code opens a failed result
    is_cut = (step["observation_chars"] or 0) > len(seen) or _CUT_BY_AGENT in seen
    return ToolEvidence(
        ToolCall(call_id, "Bash", success=success),
        json.dumps({"command": command}),
        "truncated" if len(message) >= MESSAGE_CHARS else "present",
        output,
        "truncated" if is_cut else "present",
    )


def tau_bench_runs(data: Path) -> list[JudgedTrace]:
    """tau-bench airline trajectories of gpt-4o, four a task.

    Held: every message, call and result. A result that begins with ``Error`` is a failed call, as
    the environment prints it. Missing: times. The user is a simulated one.
    """
    judged = []
    for row in read_rows(data, "taubench_airline_gpt4o/data.parquet"):
        name = f"{row['item_id']}.{row['trial']}"
        messages = json.loads(row["trajectory_json"])
        trace, failed = _tau_bench_trace(name, messages)
        judged.append(
            JudgedTrace(
                trace,
                row["reward"] >= 1.0,
                row["item_id"],
                {
                    "turns": float(row["n_messages"]),
                    "tool calls": float(row["n_tool_calls"]),
                    "failed calls": float(failed),
                },
            )
        )
    return judged


def _tau_bench_trace(name: str, messages: Sequence[dict[str, Any]]) -> tuple[SessionTrace, int]:
    results = {
        message["tool_call_id"]: str(message.get("content") or "")
        for message in messages
        if message["role"] == "tool"
    }
    turns: list[TracedTurn] = []
    prompts: list[Prompt] = []
    failed = 0
    for number, message in enumerate(messages):
        content = message.get("content") or ""
        if message["role"] == "user":
            at_us = START_US + number * SECOND_US
            prompts.append(Prompt(f"{name}.p{number}", at_us, content, "present", len(content)))
        elif message["role"] == "assistant":
            tools = []
            for call in message.get("tool_calls") or ():
                output = results.get(call["id"])
                success = None if output is None else not output.startswith("Error")
                failed += success is False
                tools.append(
                    ToolEvidence(
                        ToolCall(call["id"], call["function"]["name"], success=success),
                        call["function"]["arguments"],
                        "present",
                        output or "",
                        "missing" if output is None else "present",
                    )
                )
            turns.append(make_turn(name, number, text=content, tools=tools))
    return SessionTrace(name, tuple(turns), tuple(prompts)), failed
