"""All 22 recorded sessions, where their folder lies beside the repository: the same sums from
telemetry, from transcripts, from raw bodies and from any mixture of them.

The repository ships 16 of them (``examples/recordings``); without the folder these tests are
skipped.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.body_decoding import decode
from collectors.claude_code_turns import assemble
from collectors.cross_checks import cross_check
from collectors.raw_body_files import BodyReport, read_bodies
from collectors.segments import Record
from loop.domain.turns import METRIC_SOURCE, Event, TokenUsage
from tests.collectors.recordings import RECEIVED_AT_US, check_totals, transcript_events_of

FOLDER = Path(__file__).parents[3] / "shared" / "fixtures" / "claude_code"
# The 22 recordings are not shipped; the 16 that are have tests of their own, which always run.
if not (FOLDER / "expected.json").exists():
    pytest.skip("the folder of all recordings is not here", allow_module_level=True)

ENTRIES: list[dict[str, Any]] = orjson.loads((FOLDER / "expected.json").read_bytes())
INDEX: list[dict[str, Any]] = orjson.loads((FOLDER / "index.json").read_bytes())
SESSIONS: dict[str, list[dict[str, Any]]] = {}
for entry in ENTRIES:
    SESSIONS.setdefault(entry["session_id"], []).append(entry)


@cache
def telemetry(session_id: str, signal: str) -> tuple[Event, ...]:
    names = [entry["name"] for entry in SESSIONS[session_id]]
    return tuple(
        event
        for row in INDEX
        if row["session"] in names and row["signal"] == signal
        for event in decode(
            Record(
                row["signal"],
                "json" if row["path"].endswith(".json") else "protobuf",
                (FOLDER / row["path"]).read_bytes(),
                RECEIVED_AT_US,
            )
        ).events
    )


@cache
def transcript(session_id: str) -> tuple[Event, ...]:
    events: list[Event] = []
    seen: set[str] = set()
    for entry in SESSIONS[session_id]:
        for path in sorted((FOLDER / entry["name"] / "transcript").rglob("*.jsonl")):
            lines = [orjson.loads(raw) for raw in path.read_bytes().splitlines()]
            is_agent = path.parent.name == "subagents"
            agent_id = path.stem.removeprefix("agent-") if is_agent else ""
            events += transcript_events_of(lines, session_id, agent_id)
    return tuple(e for e in events if not (e.event_id in seen or seen.add(e.event_id)))  # type: ignore[func-returns-value]


@cache
def bodies(session_id: str) -> tuple[Event, ...]:
    folders = [FOLDER / entry["name"] / "rawbodies" for entry in SESSIONS[session_id]]
    kept = [folder for folder in folders if folder.exists()]
    return tuple(
        event
        for body in read_bodies(kept, BodyReport())
        for event in decode(Record("logs", "json", body, RECEIVED_AT_US)).events
    )


def truth(session_id: str) -> dict[str, dict[str, Any]]:
    known: dict[str, Any] = {"tokens": {}, "request_ids": [], "tools": Counter(), "errors": 0}
    for entry in SESSIONS[session_id]:
        api = entry["api"]
        for model, tokens in api["tokens_by_model"].items():
            known["tokens"].setdefault(model, Counter()).update(tokens)
        known["request_ids"] += api["request_ids_ok"]
        known["tools"].update(call["name"] for call in api["tool_calls"])
        known["errors"] += len(api["errors"])
    known["request_ids"].sort()
    return {session_id: known}


# The client does not count the bodies that it tries after a 400, so telemetry can't either.
UNCOUNTED = {entry["session_id"] for entry in ENTRIES if entry["name"] == "a08b_bad_request"}


@pytest.mark.parametrize("sources", ["t", "x", "tx", "tb", "txb", "xb"])
@pytest.mark.parametrize("session_id", SESSIONS)
def test_every_mixture_of_whole_sources_sums_to_what_the_api_served(
    session_id: str, sources: str
) -> None:
    events = [
        event
        for source in sources
        for event in {
            "t": (
                *telemetry(session_id, "logs"),
                *telemetry(session_id, "traces"),
                *telemetry(session_id, "metrics"),
            ),
            "x": transcript(session_id),
            "b": bodies(session_id),
        }[source]
    ]
    turns = assemble(events).turns
    assert all(turn.usage_source != METRIC_SOURCE for turn in turns)
    wanted = truth(session_id)
    if session_id in UNCOUNTED:
        wanted[session_id]["errors"] = sum(turn.failed_attempts for turn in turns)
    check_totals(turns, wanted)
    if "t" in sources:
        assert cross_check(events, turns).agrees


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_subset_of_all_sources_counts_more_than_was_served(data: st.DataObject) -> None:
    session_id = data.draw(st.sampled_from(sorted(SESSIONS)))
    events = [
        *(e for signal in ("logs", "traces", "metrics") for e in telemetry(session_id, signal)),
        *transcript(session_id),
        *bodies(session_id),
    ]
    kept = data.draw(st.sets(st.sampled_from(range(len(events)))))
    turns = assemble([events[index] for index in kept]).turns
    usage = sum((turn.usage for turn in turns), TokenUsage())
    served: Counter[str] = Counter()
    for counted in truth(session_id)[session_id]["tokens"].values():
        served.update(counted)
    assert usage.input_tokens <= served["input"]
    assert usage.output_tokens <= served["output"]
    assert usage.cache_read_tokens <= served["cacheRead"]
    creation = usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
    assert creation <= served["cacheCreation"]
