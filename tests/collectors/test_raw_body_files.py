"""Raw API bodies kept in a folder: the same turns as from any other source, and whole evidence.

``tests/recorded_bodies`` is what the real client (2.1.330) wrote for one session; vendor texts are
replaced by x's of the same length.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import orjson
import pytest

from collectors.body_decoding import decode
from collectors.claude_code_turns import assemble
from collectors.raw_body_files import INDEX, BodyReport, import_bodies, read_bodies
from collectors.segments import Record
from evaluators.tool_schemas import schema_violation
from evaluators.tool_use import ToolUse
from loop.domain.errors import NotFound
from loop.domain.turns import Event, TokenUsage
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import RECEIVED_AT_US

FOLDER = Path(__file__).parents[1] / "recorded_bodies"
SESSION = "d28f4340-ad5d-4bdf-8d4e-c6ba2b35231f"
REQUESTS = ["req_014fc69ec0dc8a73c7dcda70", "req_0175543c8255e423026dc102"]
CALL = "toolu_0124f23d86b47119f3ef145b"


def events_of(folder: Path) -> tuple[list[Event], BodyReport]:
    report = BodyReport()
    bodies = list(read_bodies([folder], report))
    events = [
        event
        for body in bodies
        for event in decode(Record("logs", "json", body, RECEIVED_AT_US)).events
    ]
    return events, report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "bodies"))


def test_a_folder_alone_gives_the_turns_and_their_evidence(tmp_path: Path) -> None:
    with pipeline(tmp_path) as parts:
        report = import_bodies([FOLDER], parts.journal)
        parts.drainer.drain_once()
        turns = parts.lake.turns_of([SESSION])
        (trace,) = parts.lake.load_traces([SESSION])
        assert import_bodies([FOLDER], parts.journal).requests == 2
        assert parts.drainer.drain_once().stored == 0
    assert report.as_dict() == {
        "requests": 2,
        "responses": 2,
        "tool_results": 1,
        "sessions": [SESSION],
        "problems": [],
    }
    assert [turn.request_id for turn in turns] == REQUESTS
    assert sum((turn.usage for turn in turns), TokenUsage()) == TokenUsage(7, 36, 22074, 22206)
    assert {turn.usage_source for turn in turns} == {"raw-body"}
    assert {turn.sources for turn in turns} == {("raw-body",)}
    assert {(t.requested_model, t.served_model) for t in turns} == {("claude-sonnet-4-6",) * 2}
    assert {(t.speed, t.service_tier, t.inference_geo) for t in turns} == {
        ("standard", "standard", "")
    }
    assert all(turn.started_at_us > 1_700_000_000_000_000 for turn in turns)
    assert [turn.message_id[:4] for turn in turns] == ["msg_", "msg_"]
    assert [turn.stop_reason for turn in turns] == ["tool_use", "end_turn"]
    (tool,) = trace.turns[0].tools
    assert (tool.call.tool_use_id, tool.call.name) == (CALL, "Bash")
    assert (tool.input_state, tool.output_state) == ("present", "present")
    assert "TIERS" in tool.output_text
    assert {definition.name for definition in trace.tools} >= {"Bash", "Edit", "Read"}
    read = next(definition for definition in trace.tools if definition.name == "Read")
    assert schema_violation(read, '{"file_path": "/a"}') is None
    assert schema_violation(read, '{"path": "/a"}') == "the input lacks file_path"
    said = {finding.claim for finding in ToolUse().evaluate(trace).findings}
    assert "against its schema" not in said
    assert trace.turns[1].texts == ("There are three tiers: bronze, silver and gold.",)


def test_the_conversation_is_kept_once(folder: Path) -> None:
    """Every request repeats it; what was sent before is left out."""
    events, _ = events_of(folder)
    bodies = [str(event.attributes["body"]) for event in events]
    assert [body.count('"input_schema"') > 1 for body in bodies].count(True) == 1
    kept = sum(len(body) for body in bodies if '"input_schema"' not in body)
    assert kept < 4_000 < sum(path.stat().st_size for path in folder.iterdir())
    assert not [e for e in events if "# Environment" in str(e.attributes["body"])]


def test_the_telemetry_of_file_mode_joins_the_bodies_it_names(folder: Path) -> None:
    """Its events have the ids and no body, so they add no turn and hide none."""
    events, _ = events_of(folder)
    named = [
        Event(
            f"telemetry-{number}",
            "log",
            event.name,
            event.session_id,
            event.at_us,
            number,
            {
                key: value
                for key, value in event.attributes.items()
                if key not in ("body", "turnwise.body_file")
            }
            | {"body_ref": "/srv/demo/rawbodies/x.json", "prompt.id": "p1"},
            {},
            1,
        )
        for number, event in enumerate(events)
    ]
    for mixed in ([*named, *events], [*events, *named]):
        turns = assemble(mixed).turns
        assert [turn.usage for turn in turns] == [turn.usage for turn in assemble(events).turns]
        assert all("raw-body" in turn.sources for turn in turns)
    alone = assemble(named).turns
    assert [turn.request_id for turn in alone] == REQUESTS
    assert {turn.unpriced_reason for turn in alone} == {"no token counts were received"}
    assert {turn.message_id[:4] for turn in alone} == {"msg_"}


def test_what_cannot_be_read_is_named_and_the_rest_imported(folder: Path) -> None:
    rows = (folder / INDEX).read_text().splitlines()
    first = json.loads(rows[0])
    (folder / first["response_file"]).write_text("{")
    (folder / first["request_file"]).unlink()
    outside = {**json.loads(rows[1]), "response_file": "../../secret.json", "request_file": ""}
    odd = [
        b"[1]",
        b"\xff",
        b"",
        b'{"timestamp": "never", "session_id": "s"}',
        orjson.dumps(outside),
    ]
    (folder / INDEX).write_bytes(b"\n".join([*(row.encode() for row in rows), *odd]))
    events, report = events_of(folder)
    assert [problem.line for problem in report.problems] == [1, 1, 3, 4, 6, 7]
    assert (report.requests, report.responses) == (3, 1)
    assert [turn.request_id for turn in assemble(events).turns] == [REQUESTS[1]]


def test_a_folder_without_an_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"holds no raw API bodies"):
        list(read_bodies([tmp_path], BodyReport()))


@pytest.mark.parametrize("odd", [None, 7, "text", [], {}, [{"type": "tool_result"}], [3]])
def test_odd_shapes_are_no_evidence_and_no_crash(folder: Path, odd: object) -> None:
    for path in folder.glob("*.json"):
        document = json.loads(path.read_text())
        for key in document:
            path.write_bytes(orjson.dumps({**document, key: odd}))
            assemble(events_of(folder)[0])
        path.write_bytes(orjson.dumps(document))
