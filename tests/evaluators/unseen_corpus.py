"""Sessions written, and their claims labelled, by somebody who had not read the rules.

A line is a session of Claude Code as it happened, with every claim of its last text and the verdict
of a careful reader. Sessions are read as their transcripts would be: nothing is built by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from collectors.body_decoding import decode
from collectors.claude_code_turns import assemble
from collectors.segments import Record
from collectors.transcript_lines import encode_batch
from evaluators.claim_evidence import judge_claim
from evaluators.claims import read_claims
from evaluators.session_evidence import read_evidence
from loop.domain.turns import SessionTrace, TracedTurn
from loop.lake.trace_loading import build_traces

FOLDER = Path(__file__).with_name("unseen_endings")
ADVERSE = ("contradicted", "stale")
_STARTED = datetime(2026, 11, 20, 9, tzinfo=UTC)
_RECEIVED_AT_US = 1_795_438_968_000_000
_KIND_WORDS = (
    ("pr", r"\bpr\b|pull request"),
    ("push", r"push"),
    ("commit", r"commit"),
    ("lint", r"lint|ruff|clippy|biome|vet|flake8|prettier"),
    ("types", r"type|mypy|tsc|pyright"),
    ("build", r"build|compil|bundle"),
    ("tests", r"test|suite|spec|pass|green|pytest|jest|failures"),
    ("file", r"creat|updat|add|remov|delet|wrote|modif|renam|edit"),
)
_CHECKS = {"tests", "lint", "types", "build", "all_checks"}


@dataclass(frozen=True, slots=True)
class Given:
    """A verdict that the rules gave, and the labels that may be of the same words."""

    kind: str
    words: str
    verdict: str
    labels: tuple[int, ...]


def read_cases(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]


def judge_case(case: dict[str, Any]) -> list[Given]:
    """What the rules say of the claims that they read in the last text."""
    evidence = read_evidence(build(case))
    ending = [statement for statement in evidence.statements if not statement.agent_id][-1]
    return [
        Given(
            claim.kind,
            claim.words,
            judge_claim(claim, ending, evidence).verdict,
            _labels_of(claim.words, claim.kind, [label["text"] for label in case["claims"]]),
        )
        for claim in read_claims(ending.text)
    ]


def build(case: dict[str, Any]) -> SessionTrace:
    session_id = f"unseen-{case['id']}"
    lines = [orjson.dumps(line) for line in _transcript(case["messages"], session_id)]
    body = encode_batch(session_id, "", list(range(1, len(lines) + 1)), lines)
    events = decode(Record("transcript", "json", body, _RECEIVED_AT_US)).events
    assembled = assemble(list(events))
    (trace,) = build_traces(assembled.turns, assembled.contents)
    cut = {m["tool_use_id"] for m in case["messages"] if m.get("truncated")}
    return replace(trace, turns=tuple(_cut(traced, cut) for traced in trace.turns))


def _cut(traced: TracedTurn, cut: set[str]) -> TracedTurn:
    if not any(tool.call.tool_use_id in cut for tool in traced.tools):
        return traced
    return replace(
        traced,
        tools=tuple(
            replace(tool, output_state="truncated") if tool.call.tool_use_id in cut else tool
            for tool in traced.tools
        ),
    )


def _transcript(messages: Sequence[dict[str, Any]], session_id: str) -> Iterator[dict[str, Any]]:
    parent = None
    for number, message in enumerate(messages):
        at = _STARTED + timedelta(seconds=5 * number)
        line: dict[str, Any] = {
            "parentUuid": parent,
            "isSidechain": False,
            "userType": "external",
            "cwd": "/home/dev/project",
            "sessionId": session_id,
            "version": "2.1.330",
            "uuid": f"{session_id}-{number}",
            "timestamp": at.isoformat().replace("+00:00", ".000Z"),
        }
        if message["role"] == "user":
            line |= {"type": "user", "promptId": f"p{number}"}
            line["message"] = {"role": "user", "content": message["text"]}
        elif message["role"] == "assistant":
            calls = message.get("tool_calls") or []
            content = [{"type": "text", "text": message["text"]}] if message.get("text") else []
            content += [{"type": "tool_use", **call} for call in calls]
            line |= {"type": "assistant", "requestId": f"req_{session_id}_{number}"}
            line["message"] = {
                "id": f"msg_{session_id}_{number}",
                "type": "message",
                "role": "assistant",
                "model": "claude-sonnet-4-5",
                "content": content,
                "stop_reason": "tool_use" if calls else "end_turn",
                "usage": {"input_tokens": 10, "output_tokens": 10},
            }
        else:
            failed = bool(message.get("is_error"))
            result = {"type": "tool_result", "tool_use_id": message["tool_use_id"]}
            line |= {"type": "user"}
            line["message"] = {
                "role": "user",
                "content": [{**result, "content": message["output"], "is_error": failed}],
            }
            if failed and "doesn't want to proceed" in message["output"]:
                line["toolUseResult"] = "User rejected tool use"
        parent = line["uuid"]
        yield line


def _labels_of(words: str, kind: str, labels: Sequence[str]) -> tuple[int, ...]:
    """The labels that share the words of a claim and may speak of its kind."""
    said = _plain(words.rstrip("…"))
    shared = []
    for place, label in enumerate(labels):
        text = _plain(label)
        ours, theirs = set(said.split()), set(text.split())
        overlap = len(ours & theirs) / max(1, min(len(ours), len(theirs)))
        if text and (text in said or said in text or overlap >= 0.6):
            shared.append(place)
    fitting = tuple(place for place in shared if _may_be(kind, labels[place]))
    return fitting or (tuple(shared) if len(shared) == 1 else ())


def _may_be(kind: str, label: str) -> bool:
    kinds: set[str] = {claim.kind for claim in read_claims(label)}
    if not kinds:
        kinds = {name for name, pattern in _KIND_WORDS if re.search(pattern, label.lower())}
    if kind in kinds:
        return True
    return (kind == "all_checks" and bool(kinds & _CHECKS)) or (
        "all_checks" in kinds and kind in _CHECKS
    )


def _plain(text: str) -> str:
    return re.sub(r"[^\w./%-]+", " ", re.sub(r"[*_`]", "", text)).strip().lower()
