"""The adapters on public payloads of many frameworks, where ``../shared/data`` lies beside the
project. They are read in place and never copied; without them these tests are skipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from collectors.body_decoding import decode
from collectors.conventions.convention import Message
from collectors.conventions.messages import parse_json, read_messages
from collectors.segments import Record
from collectors.session_assembly import assemble_session
from loop.domain.turns import Event, Turn

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "otlp_llm_traces"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the public OTLP payloads are not beside the project"
)
RECEIVED_AT_US = 1_800_000_000_000_000
START_NS = 1_770_000_000_000_000_000


def envoy_spans() -> list[Path]:
    found = sorted((FOLDER / "envoyproxy+ai-gateway").glob("*.json")) if FOLDER.is_dir() else []
    return [path for path in found if path.name.startswith(("chat-", "completion-"))]


def turn_of(span: Mapping[str, Any]) -> tuple[Turn, dict[str, Any], list[str]]:
    """A span's turn, its attributes and its answer's texts."""
    whole = {
        **span,
        "traceId": "0" * 31 + "1",
        "spanId": "0" * 15 + "1",
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": str(START_NS + 10**9),
        "events": [
            {key: value for key, value in event.items() if key != "timeUnixNano"}
            for event in span.get("events", [])
        ],
    }
    scope = {"name": "openinference.instrumentation.openai"}
    body = {"resourceSpans": [{"scopeSpans": [{"scope": scope, "spans": [whole]}]}]}
    (event,) = decode(Record("traces", "json", orjson.dumps(body), RECEIVED_AT_US)).events
    session = assemble_session([event])
    (turn,) = session.turns
    texts = [content.text for content in session.contents if content.kind == "assistant_text"]
    return turn, dict(event.attributes), texts


@pytest.mark.parametrize("path", envoy_spans(), ids=lambda path: path.stem)
def test_openinference_spans_are_read_whole(path: Path) -> None:
    turn, attributes, texts = turn_of(orjson.loads(path.read_bytes()))
    answer = parse_json(attributes.get("output.value"))
    if attributes.get("otel.status_code") == 2:
        assert (turn.status, turn.served_model) == ("error", "")
        return
    if "llm.token_count.prompt" in attributes:
        assert turn.usage.total_input_tokens == attributes["llm.token_count.prompt"]
        assert turn.usage.output_tokens == attributes["llm.token_count.completion"]
    assert turn.requested_model
    if isinstance(answer, Mapping) and "choices" in answer:
        assert turn.message_id == answer["id"]
        message = answer["choices"][0].get("message", {})
        if message.get("content"):
            assert message["content"] in texts[0]
        calls = message.get("tool_calls") or []
        assert [call.tool_use_id for call in turn.tool_calls] == [call["id"] for call in calls]
        assert [call.name for call in turn.tool_calls] == [
            call["function"]["name"] for call in calls
        ]


@pytest.mark.parametrize("form", ["", "deprecated_"])
def test_genai_spans_are_read_by_old_names_and_new(form: str) -> None:
    path = FOLDER / "Arize-ai+openinference" / f"otel_genai_{form}client_span_tool_calls.json"
    attributes = {
        **orjson.loads(path.read_bytes()),
        "otel.scope": "any",
        "otel.trace_id": "1",
        "otel.span_id": "1",
    }
    event = Event("1", "span", "chat gpt-4", "s", 1, 0, attributes, {}, RECEIVED_AT_US)
    session = assemble_session([event])
    (turn,) = session.turns
    assert (turn.usage.total_input_tokens, turn.usage.output_tokens) == (97, 52)
    assert (turn.requested_model, turn.served_model) == ("gpt-4", "gpt-4-0613")
    assert turn.message_id == "chatcmpl-CQF10eCkoFphJZJQkzzN6EkTD0AVF"
    (answer,) = [item.text for item in session.contents if item.kind == "assistant_text"]
    assert answer.startswith("The weather in Paris is currently rainy")


def langfuse_pairs() -> list[Any]:
    folder = FOLDER / "langfuse+langfuse"
    pairs = []
    for path in sorted(folder.glob("*.trace.json")) if folder.is_dir() else []:
        expected = json.loads(path.with_name(path.name.replace(".trace.", ".chatml.")).read_text())
        for observation in json.loads(path.read_text())["observations"]:
            for side in ("input", "output"):
                known = expected.get(observation["id"], {}).get(side, {})
                if observation["type"] == "GENERATION" and known.get("success"):
                    name = f"{path.name.partition('.')[0]}-{observation['id'][:6]}-{side}"
                    pairs.append(pytest.param(observation[side], known["data"], id=name))
    return pairs


@pytest.mark.parametrize(("told", "expected"), langfuse_pairs())
def test_messages_are_those_of_the_expected_chat_form(told: Any, expected: list[Any]) -> None:
    messages = read_messages(told)
    wanted = read_messages([item if "role" in item else item["json"] for item in expected])
    assert [_summary(message) for message in messages] == [_summary(item) for item in wanted]


def _summary(message: Message) -> tuple[str, list[str], list[tuple[str, str]], list[str]]:
    return (
        message.role,
        [text.text for text in message.texts],
        [(call.tool_use_id, call.name) for call in message.asked],
        [result.tool_use_id for result in message.results],
    )
