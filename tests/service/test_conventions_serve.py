"""Other tools' spans through the real OTLP port into what the command line shows of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx

from tests.collectors.conventions.portkey import portkey_body
from tests.recorded_conventions.recordings import bodies, index
from tests.service.service_process import serve_process, turnwise

ANSWER_TOKENS = 40 + 11  # of one recorded conversation
SESSION = "sess-conventions-0001"
LAST_SESSION = "sess-portkey-0001"
SHOWN_SECONDS = 20.0


def spend(data_dir: Path, grouping: str) -> list[dict[str, Any]]:
    shown = turnwise(data_dir, "spend", "by", grouping, "--json")
    assert shown.returncode == 0, shown.stderr
    rows: list[dict[str, Any]] = json.loads(shown.stdout)["rows"]
    return rows


def test_spans_of_every_convention_are_charged_and_shown(tmp_path: Path) -> None:
    names = ["openinference", "litellm-proxy", "litellm-proxy-v2", "mlflow", "otel-genai-events"]
    assert set(names) <= index().keys()
    with serve_process(tmp_path) as process:
        addresses = process.wait_until_ready()
        with httpx.Client(base_url=addresses.otlp_http, timeout=30) as client:
            sent: list[tuple[str, str, bytes]] = [
                (signal, "application/x-protobuf", body)
                for name in names
                for signal, body in bodies(name)
            ]
            sent.append(("traces", "application/json", portkey_body()))
            for signal, content_type, body in [*sent, *reversed(sent)]:  # everything twice
                answer = client.post(
                    f"/v1/{signal}", content=body, headers={"content-type": content_type}
                )
                assert answer.status_code == 200, answer.text
        deadline = time.monotonic() + SHOWN_SECONDS
        while time.monotonic() < deadline:
            answer = httpx.get(f"{addresses.api}/v1/spend", params={"by": "session"}, timeout=30)
            if LAST_SESSION in answer.text:
                break
            time.sleep(0.3)
        shown = turnwise(tmp_path, "session", "show", SESSION, "--json", "--content")
        rows = spend(tmp_path, "session,model")
    by_session = {row["session_id"]: row for row in rows}
    by_model = {row["model"]: row for row in rows}
    # The two recordings of the proxy are of one Claude Code session and of the same requests.
    for session_id in (SESSION, "00000000-c0de-4000-8000-000000000001", LAST_SESSION):
        row = by_session[session_id]
        assert row["output_tokens"] == ANSWER_TOKENS, session_id
        assert (row["input_tokens"], row["cache_read_tokens"]) == (12 + 7, 1000 + 1200)
        assert row["cost_microusd"] > 0
    assert by_model["gpt-5-2026-01-01"]["cost_microusd"] is None  # no price is known
    document = json.loads(shown.stdout)
    first, second, failed = document["turns"]
    assert first["sources"] == ["openinference", "otel-genai"]
    assert (first["developer"], first["org_path"]) == ("dana@example.com", "payments")
    assert first["tools"][0]["output"].startswith("def discount")
    assert second["texts"] == ["Gold customers get 10 %."]
    assert (failed["status"], failed["error_status"]) == ("error", 529)
    assert document["prompts"][0]["text"] == "What do gold customers get?"
