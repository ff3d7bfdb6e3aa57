"""What can't be estimated gives a verdict or an error, through the commands, and no number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from collectors.journal import Journal
from loop.service.command_line import turnwise
from loop.service.demo.recordings import read_recordings
from optimizers.classic import classic_policy
from tests.service.service_process import clean_environment

CLASSIC = classic_policy().to_document()
UNKNOWN_MODEL = CLASSIC | {"name": "unknown", "default": {"model": "claude-haiku-4-6"}}
CHEAP: dict[str, Any] = CLASSIC | {
    "name": "cheap",
    "rules": [{"id": "all", "set": {"model": "claude-haiku-4-5", "effort": "low"}}],
}


def run(folder: Path, *words: str) -> Result:
    return CliRunner(env=clean_environment(folder)).invoke(turnwise, [*words, "--json"])


def propose(folder: Path, document: dict[str, Any]) -> str:
    file = folder / "policy.json"
    file.write_text(json.dumps(document))
    result = run(folder, "policy", "propose", str(file), "--as", "ann")
    assert result.exit_code == 0, result.stderr
    return str(json.loads(result.stdout)["version"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of the client: no session drew its model, all are served as asked."""
    folder: Path = tmp_path_factory.mktemp("data")
    with Journal(folder / "journal") as journal:
        for recording in read_recordings():
            if recording.signal == "logs":
                kind = "json" if recording.content_type == "application/json" else "protobuf"
                journal.append_sync(recording.signal, kind, recording.path.read_bytes())
    return folder


def test_a_model_without_a_price_is_an_error_at_the_gate(folder: Path) -> None:
    result = run(folder, "policy", "gate", propose(folder, UNKNOWN_MODEL))
    assert result.exit_code == 2
    assert "'claude-haiku-4-6', which has no price" in result.stderr
    assert result.stdout == ""


def test_an_unknown_measure_is_never_a_version(folder: Path) -> None:
    file = folder / "wrong.json"
    file.write_text(json.dumps(CLASSIC | {"measure": "tokens"}))
    result = run(folder, "policy", "propose", str(file), "--as", "ann")
    assert result.exit_code == 2
    assert "measure: must be one of total_input_tokens" in result.stderr


def test_a_log_that_people_made_is_inconclusive_on_quality(folder: Path) -> None:
    result = run(folder, "policy", "gate", propose(folder, CHEAP))
    report = json.loads(result.stdout)
    assert result.exit_code == 5
    assert report["verdict"] == "inconclusive"
    (quality,) = [check for check in report["checks"] if check["name"] == "quality"]
    assert quality["value"] is None
    assert "no logged randomised propensity" in quality["reason"]


def test_nothing_is_found_and_nothing_measured_in_an_empty_lake(tmp_path: Path) -> None:
    result = run(tmp_path, "policy", "gate", propose(tmp_path, CHEAP))
    report = json.loads(result.stdout)
    assert result.exit_code == 4
    assert [check["value"] for check in report["checks"]] == [None]
    assert "nothing was measured" in report["checks"][0]["reason"]
    searched = run(tmp_path, "optimize", "--trials", "3")
    assert "the log holds 0 sessions" in json.loads(searched.stdout)["outcome"]
    assert json.loads(searched.stdout)["found"] is None
