"""Made-up session traces put into a lake as turns and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loop.domain.turns import Content, SessionTrace, Turn
from loop.lake import Lake


def store_traces(
    lake: Lake,
    traces: Sequence[SessionTrace],
    *,
    revision: int = 1,
    cost_microusd: int = 1_000,
    later_us: int = 0,
) -> None:
    """Stores the sessions under their own ids, ``later_us`` after their own times; each turn costs
    ``cost_microusd``."""
    turns: list[Turn] = []
    contents: list[Content] = []
    for trace in traces:
        name = trace.session_id
        for traced in trace.turns:
            turn_id = f"{name}.{traced.turn.turn_id}"
            turns.append(
                replace(
                    traced.turn,
                    session_id=name,
                    turn_id=turn_id,
                    request_id=turn_id,
                    started_at_us=traced.turn.started_at_us + later_us,
                    ended_at_us=traced.turn.ended_at_us + later_us,
                    cost_microusd=cost_microusd,
                    price_version="1",
                    repository=trace.attributes.get("repository", ""),
                    developer=trace.attributes.get("developer", "dana@example.com"),
                    org_path="engineering",
                )
            )
            at_us = traced.turn.started_at_us + later_us
            for text in traced.texts:
                answer = _content(name, "assistant_text", text, "present", at_us + 1)
                contents.append(replace(answer, turn_id=turn_id))
            for tool in traced.tools:
                call = tool.call
                for kind, text, state in (
                    ("tool_input", tool.input_text, tool.input_state),
                    ("tool_output", tool.output_text, tool.output_state),
                ):
                    if state in ("present", "truncated"):
                        told = _content(name, kind, text, state, at_us + 2)
                        contents.append(
                            replace(
                                told,
                                turn_id=turn_id,
                                tool_use_id=call.tool_use_id,
                                tool_name=call.name,
                            )
                        )
        for prompt in trace.prompts:
            said = _content(name, "prompt", prompt.text, prompt.state, prompt.at_us + later_us)
            contents.append(replace(said, prompt_id=prompt.prompt_id))
    numbered = [replace(content, sequence=number) for number, content in enumerate(contents)]
    lake.write_turns(turns, numbered, revision=revision)


def _content(session_id: str, kind: str, text: str, state: str, at_us: int) -> Content:
    return Content(
        session_id=session_id,
        turn_id="",
        prompt_id="p1",
        agent_id="",
        kind=kind,  # type: ignore[arg-type]
        tool_use_id="",
        tool_name="",
        at_us=at_us,
        sequence=0,
        text=text,
        state=state,  # type: ignore[arg-type]
        chars=len(text),
        source="otlp-log",
    )
