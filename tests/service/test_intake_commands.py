"""What came in, what disagrees and what was set aside, as the command line shows it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from collectors import otlp_protobuf
from collectors.journal import Journal
from loop.domain.turns import Event
from loop.service.command_line import turnwise
from tests.collectors.recordings import log_body
from tests.service.service_process import clean_environment

SECRET = b"not-a-body but-a-secret"


def run(folder: Path, *line: str) -> Result:
    return CliRunner(env=clean_environment(folder)).invoke(turnwise, list(line))


def answer(folder: Path, *line: str, code: int = 0) -> Any:
    result = run(folder, *line, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One record twice, once more with other tokens, a body that is no body, one from tomorrow."""
    body = log_body("s", 2)
    document = orjson.loads(body)
    ahead = document["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    for record in ahead:
        record["timeUnixNano"] = str(time.time_ns() + 48 * 3600 * 10**9)
    with Journal(tmp_path / "journal") as journal:
        journal.append_sync("logs", "json", body, credential="payments")
        journal.append_sync("logs", "json", body, credential="payments")
        other = body.replace(b'"intValue": 10', b'"intValue": 11')
        journal.append_sync("logs", "json", other, credential="mallory")
        journal.append_sync("logs", "protobuf", SECRET, credential="payments")
        journal.append_sync("logs", "json", orjson.dumps(document), credential="payments")
    return tmp_path


def test_everything_received_is_accounted_for(folder: Path) -> None:
    total = answer(folder, "intake")["total"]
    assert total == {
        "received": 8,
        "stored": 2,
        "duplicates": 2,
        "conflicts": 2,
        "rejected": {"ahead_of_clock": 2},
        "bodies": 5,
        "bodies_quarantined": {"undecodable": 1},
        "bodies_refused": {},
        "balanced": True,
    }
    rows = answer(folder, "intake", "--by", "hour,source")["rows"]
    assert {row["credential"] for row in rows} == {"payments", "mallory"}
    assert sum(row["received"] for row in rows) == 8
    assert "payments" in run(folder, "intake").stdout
    assert run(folder, "intake", "--since", "yesterday").exit_code == 2


def test_a_conflict_is_shown_with_its_ruling_version(folder: Path) -> None:
    (spent,) = answer(folder, "spend", "by", "session")["rows"]
    assert spent["input_tokens"] == 2 * 11  # the larger count rules
    rows = answer(folder, "conflict", "list")["rows"]
    assert [row["versions"] for row in rows] == [2, 2]
    assert rows[0]["differs_in"] == ["input_tokens"]
    shown = answer(folder, "conflict", "show", rows[0]["conflict_id"])
    ruling, other = shown["records"]
    assert (ruling["rules"], ruling["credential"]) == (True, "mallory")
    assert (other["rules"], other["attributes"]) == (False, {"input_tokens": 10})
    assert "mallory" in run(folder, "conflict", "show", rows[0]["conflict_id"]).stdout
    assert run(folder, "conflict", "show", "none").exit_code == 2


def test_doctor_raises_the_alarm(folder: Path) -> None:
    answer(folder, "intake")  # which brings what was received into the lake
    checks = {row["check"]: row for row in answer(folder, "doctor", code=1)["rows"]}
    assert checks["intake"]["ok"]
    assert not checks["conflicts"]["ok"]
    assert checks["conflicts"]["detail"].startswith("2 records")
    assert not checks["quarantine"]["ok"]


def test_the_quarantine_shows_why_and_never_the_body(folder: Path) -> None:
    listed = answer(folder, "quarantine", "list")
    reasons = {row["name"]: row["reason"] for row in listed["rows"]}
    assert len(reasons) == 2
    assert listed["bytes"] > 0
    (name,) = [name for name, reason in reasons.items() if "no OTLP" in reason]
    result = run(folder, "quarantine", "show", name)
    assert "payments" in result.stdout
    assert "secret" not in result.output
    assert "secret" not in run(folder, "quarantine", "show", name, "--json").output
    (kept,) = [path for path in (folder / "quarantine").glob("*.sealed") if name in path.name]
    assert kept.stat().st_mode & 0o077 == 0
    assert run(folder, "quarantine", "show", "../journal/x").exit_code == 2


def test_a_replay_after_a_fix_stores_once_and_clears(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = answer(folder, "quarantine", "replay", "--all", code=1)["rows"]
    assert [row["outcome"] for row in stays] == ["quarantined", "quarantined"]
    (name,) = [row["name"] for row in stays if "no OTLP" in row["reason"]]
    iterate = otlp_protobuf.iterate

    def fixed(signal: str, body: bytes, factory: Any) -> Iterator[Event]:
        return iter(()) if body == SECRET else iterate(signal, body, factory)

    monkeypatch.setattr(otlp_protobuf, "iterate", fixed)
    assert answer(folder, "quarantine", "replay", name)["rows"][0]["outcome"] == "stored"
    assert run(folder, "quarantine", "replay", name).exit_code == 2
    assert name not in [row["name"] for row in answer(folder, "quarantine", "list")["rows"]]
    assert answer(folder, "intake")["total"]["balanced"]


def test_what_was_ahead_is_stored_once_its_time_has_come(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ahead,) = [
        row["name"]
        for row in answer(folder, "quarantine", "list")["rows"]
        if "24 hours" in row["reason"]
    ]
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + 30 * 3600 * 10**9)
    assert answer(folder, "quarantine", "replay", ahead)["rows"][0]["outcome"] == "stored"
    total = answer(folder, "intake")["total"]
    # Two records of the body were stored before the replay, as conflicts of the others.
    assert (total["balanced"], total["rejected"]) == (True, {"ahead_of_clock": 2})


def test_dropping_asks_first(folder: Path) -> None:
    assert run(folder, "quarantine", "drop", "--all").exit_code == 1
    assert len(answer(folder, "quarantine", "list")["rows"]) == 2
    assert len(answer(folder, "quarantine", "drop", "--all", "--yes")["rows"]) == 2
    assert answer(folder, "quarantine", "list")["rows"] == []
    assert run(folder, "quarantine", "drop", "none", "--yes").exit_code == 2
    assert run(folder, "quarantine", "drop", "--yes").exit_code == 2


def test_a_session_that_could_not_be_assembled_is_assembled_by_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collectors import turn_writing

    def unable(records: object) -> None:
        raise ValueError("no such number")

    with Journal(tmp_path / "journal") as journal:
        journal.append_sync("logs", "json", log_body("s"))
    with monkeypatch.context() as patch:
        patch.setattr(turn_writing, "check_storable", unable)
        (row,) = answer(tmp_path, "quarantine", "list")["rows"]
    assert (row["kind"], row["session_id"]) == ("session", "s")
    assert answer(tmp_path, "spend", "by", "session")["rows"] == []
    assert answer(tmp_path, "quarantine", "replay", row["name"])["rows"][0]["outcome"] == "stored"
    assert answer(tmp_path, "spend", "by", "session")["rows"][0]["turns"] == 1
