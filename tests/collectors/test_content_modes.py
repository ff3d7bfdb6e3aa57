"""Content modes: texts are kept, hidden or hashed by the sender's path, and every mode charges."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import orjson
import pytest

from collectors.content_rules import ContentModes, parse_modes
from collectors.personal_data import redact_personal
from collectors.screened_json import screen_otlp
from collectors.screened_protobuf import screen_request
from collectors.screening import Screen
from collectors.transcripts import import_transcripts
from evaluators import default_evaluators
from loop.domain.content_modes import CONTENT_MODES, ContentMode, parse_mode
from loop.domain.errors import BadInput
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import (
    DIRECTORY,
    REQUESTS,
    all_bodies,
    check_totals,
    expected_sessions,
    log_body,
)
from tests.collectors.test_screening import every_byte

# Parts of the recordings' texts, from prompts, answers, commands and tool outputs.
TEXTS = (b"does discount() return", b"unittest discover", b"Let me look at the pricing")


@pytest.mark.parametrize("mode", ["none", "hashed"])
@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_no_text_is_stored_and_every_total_is_exact(
    tmp_path: Path, mode: ContentMode, form: str
) -> None:
    with pipeline(tmp_path) as parts:
        parts.journal.screen.modes = lambda: ContentModes(mode, hash_key=b"k")
        for body in all_bodies():
            content = body.as_json() if form == "json" else body.as_protobuf()
            parts.journal.append_sync(body.signal, form, content)  # type: ignore[arg-type]
        import_transcripts([DIRECTORY], parts.journal)
        parts.drainer.drain_once()
        truth = expected_sessions()
        check_totals(parts.lake.turns_of(truth), truth)
        for name, content in every_byte(tmp_path):
            for text in TEXTS:
                assert text not in content, name
        traces = parts.lake.load_traces(list(truth))
        states = {prompt.state for trace in traces for prompt in trace.prompts}
        assert states <= {"redacted", "missing"}
        reasons = set()
        for trace in traces:
            scores = [evaluator.evaluate(trace) for evaluator in default_evaluators()]
            is_hidden = any(
                "redacted" in (tool.input_state, tool.output_state)
                for traced in trace.turns
                for tool in traced.tools
            )
            for score in scores:
                is_judged = score.value is not None
                assert not (is_judged and (is_hidden or score.evaluator == "faithfulness"))
                assert is_judged or score.unscored_reason
                reasons.add(score.unscored_reason)
        assert {"The texts of the tool calls are redacted.", "No tool call."} < reasons


def test_a_hash_tells_equal_texts_and_none_tells_the_length() -> None:
    def stored(mode: ContentMode, text: str, key: bytes = b"k") -> bytes:
        screen = Screen(lambda: ContentModes(mode, hash_key=key))
        return screen.screen("logs", "json", log_body("s", prompt=text))

    assert b"[NOT STORED:11]" in stored("none", "hello world")
    hashed = stored("hashed", "hello world")
    mark = hashed[hashed.index(b"[HASHED:") :][:44]
    assert mark in stored("hashed", "hello world")
    assert mark not in stored("hashed", "hello there")
    assert mark not in stored("hashed", "hello world", b"another key")


def test_the_most_specific_path_of_the_record_decides() -> None:
    modes = ContentModes("full", parse_modes(["pay=hashed", "pay/fraud=none"], "m"), hash_key=b"k")
    screen = Screen(lambda: modes)

    def stored(**labels: str) -> bytes:
        body = log_body("s", prompt="hello", **labels)
        return screen.screen("logs", "json", body)

    assert b"hello" in stored(department="shop")
    assert b"[HASHED:" in stored(department="pay")
    assert b"[HASHED:" in stored(department="pay", **{"team.id": "cards"})
    assert b"[NOT STORED:5]" in stored(department="pay", **{"team.id": "fraud"})


def test_personal_data_is_taken_out_and_the_rest_stays() -> None:
    text = "Ask ann.lee@example.com (+49 30 1234567) about /home/ann/x.py on 10.1.2.3, v1.2.3"
    assert redact_personal(text) == (
        "Ask [REDACTED:email] ([REDACTED:phone]) about /home/[REDACTED:user-name]/x.py on "
        "[REDACTED:ip-address], v1.2.3"
    )
    assert redact_personal(redact_personal(text)) == redact_personal(text)
    assert redact_personal("2026-11-24 10:00:00 127.0.0.1 std::vector") == (
        "2026-11-24 10:00:00 127.0.0.1 std::vector"
    )


def test_what_is_no_mode_is_refused() -> None:
    with pytest.raises(BadInput):
        parse_mode("some", "content_mode")
    with pytest.raises(BadInput):
        parse_modes(["payments"], "content_modes")


@pytest.mark.parametrize("mode", CONTENT_MODES)
def test_a_clean_body_is_treated_the_same_whether_or_not_secrets_are_looked_for(
    mode: ContentMode,
) -> None:
    modes = ContentModes(mode, hash_key=b"k")
    for body in list(all_bodies())[::4]:
        document = orjson.loads(body.as_json())
        quick, slow = (
            screen_otlp(body.signal, deepcopy(document), modes, "", is_clean=is_clean)
            for is_clean in (True, False)
        )
        assert quick == slow
        requests = [REQUESTS[body.signal].FromString(body.as_protobuf()) for _ in range(2)]
        for request, is_clean in zip(requests, (True, False), strict=True):
            screen_request(body.signal, request, modes, "", is_clean=is_clean)
        assert requests[0] == requests[1]


def test_the_detectors_change_nothing_of_the_recordings() -> None:
    screen = Screen()
    for body in all_bodies():
        assert screen.screen(body.signal, body.content_type, body.content) == body.content
    for path in DIRECTORY.rglob("*.jsonl"):
        lines = path.read_bytes()
        assert screen.screen("transcript", "json", lines) == lines
