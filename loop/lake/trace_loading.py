"""Session traces: turns with their texts and evidence, as evaluators read them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import orjson

from loop.domain.turns import (
    Content,
    EvidenceState,
    Prompt,
    SessionTrace,
    ToolDefinition,
    ToolEvidence,
    TracedTurn,
    Turn,
)

NOTIFICATION = "<task-notification>"
"""What a prompt begins with when the client wrote it to report a background agent."""

_RANK: dict[EvidenceState, int] = {"present": 3, "truncated": 2, "redacted": 1, "missing": 0}
_ATTRIBUTES = ("developer", "org_path", "repository", "client_version")


def build_traces(turns: Sequence[Turn], contents: Sequence[Content]) -> list[SessionTrace]:
    """One trace for each session that has turns or texts, in order of session id.

    ``turns`` and ``contents`` are in their tables' order. Where two sources tell the same text,
    the more complete one counts.
    """
    turns_by: dict[str, list[Turn]] = defaultdict(list)
    contents_by: dict[str, list[Content]] = defaultdict(list)
    for turn in turns:
        turns_by[turn.session_id].append(turn)
    for content in contents:
        contents_by[content.session_id].append(content)
    return [
        _build_trace(session_id, turns_by[session_id], contents_by[session_id])
        for session_id in sorted({*turns_by, *contents_by})
    ]


def _build_trace(
    session_id: str, turns: Sequence[Turn], contents: Sequence[Content]
) -> SessionTrace:
    texts: dict[str, list[Content]] = defaultdict(list)
    tools: dict[tuple[str, str], list[Content]] = defaultdict(list)
    prompts: dict[str, list[Content]] = defaultdict(list)
    definitions: list[Content] = []
    for content in contents:
        if content.kind == "prompt":
            prompts[content.prompt_id or f"at {content.at_us} {content.sequence}"].append(content)
        elif content.kind == "tool_definitions":
            definitions.append(content)
        elif content.kind == "assistant_text":
            texts[content.turn_id].append(content)
        elif content.tool_use_id:
            side = "input" if content.kind == "tool_input" else "output"
            tools[content.tool_use_id, side].append(content)
    return SessionTrace(
        session_id=session_id,
        turns=tuple(_trace_turn(turn, texts[turn.turn_id], tools) for turn in turns),
        prompts=tuple(
            sorted(
                (_read_prompt(max(same, key=_completeness)) for same in prompts.values()),
                key=lambda prompt: (prompt.at_us, prompt.prompt_id),
            )
        ),
        attributes=_attributes(turns),
        tools=read_definitions(definitions),
    )


def read_definitions(contents: Iterable[Content]) -> tuple[ToolDefinition, ...]:
    """The tools that any of the requests offered, by name; of two of one name the later counts.

    Lists as the Messages API has them (``input_schema``) and as the semantic conventions and
    OpenAI's API do (``parameters``, maybe under ``function``). A list that is not whole says
    nothing: a tool that it lacks may have been cut off.
    """
    found: dict[str, ToolDefinition] = {}
    for content in contents:
        try:
            listed = orjson.loads(content.text) if content.state == "present" else []
        except orjson.JSONDecodeError:
            continue
        for item in listed if isinstance(listed, list) else ():
            inner = item.get("function", item) if isinstance(item, dict) else None
            if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
                continue
            schema = inner.get("input_schema") or inner.get("parameters")
            text = orjson.dumps(schema).decode() if isinstance(schema, dict) else ""
            found[inner["name"]] = ToolDefinition(inner["name"], text)
    return tuple(found[name] for name in sorted(found))


def _trace_turn(
    turn: Turn, texts: Sequence[Content], tools: dict[tuple[str, str], list[Content]]
) -> TracedTurn:
    told = _best_source(texts)
    evidence = []
    for call in turn.tool_calls:
        given = _best(tools.get((call.tool_use_id, "input"), ()))
        returned = _best(tools.get((call.tool_use_id, "output"), ()))
        evidence.append(
            ToolEvidence(
                call=call,
                input_text=given.text if given else "",
                input_state=given.state if given else "missing",
                output_text=returned.text if returned else "",
                output_state=returned.state if returned else "missing",
            )
        )
    return TracedTurn(
        turn=turn,
        texts=tuple(text.text for text in told if text.state in ("present", "truncated")),
        text_state=min((text.state for text in told), key=_RANK.__getitem__, default="missing"),
        tools=tuple(evidence),
    )


def _best_source(texts: Sequence[Content]) -> list[Content]:
    """An answer may have several texts, so sources are compared as wholes."""
    by_source: dict[str, list[Content]] = defaultdict(list)
    for text in texts:
        by_source[text.source].append(text)

    def completeness(source: str) -> tuple[int, int, str]:
        told = by_source[source]
        return min(_RANK[text.state] for text in told), sum(len(t.text) for t in told), source

    return by_source[max(by_source, key=completeness)] if by_source else []


def _best(same: Iterable[Content]) -> Content | None:
    return max(same, key=_completeness, default=None)


def _completeness(content: Content) -> tuple[int, bool, int, str, str]:
    """What a tool returned says more than the client's word for its failure, however short."""
    is_output = content.kind != "tool_error"
    return _RANK[content.state], is_output, len(content.text), content.source, content.text


def _read_prompt(content: Content) -> Prompt:
    return Prompt(
        prompt_id=content.prompt_id,
        at_us=content.at_us,
        text=content.text,
        state=content.state,
        chars=content.chars,
        from_human=not content.text.lstrip().startswith(NOTIFICATION),
    )


def _attributes(turns: Sequence[Turn]) -> dict[str, str]:
    """What the latest turns say of the whole session."""
    attributes: dict[str, str] = {}
    for turn in turns:
        for name in _ATTRIBUTES:
            if value := getattr(turn, name):
                attributes[name] = value
    return attributes
