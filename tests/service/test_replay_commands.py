"""`turnwise replay`: a policy file on the recorded turns, and what is an error and no number."""

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

EVERYTHING_TO_HAIKU = classic_policy().to_document() | {
    "rules": [],
    "default": {"model": "claude-haiku-4-5"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data")
    with Journal(folder / "journal") as journal:
        for recording in read_recordings():
            if recording.signal == "logs":
                kind = "json" if recording.content_type == "application/json" else "protobuf"
                journal.append_sync(recording.signal, kind, recording.path.read_bytes())
    return folder


def run(folder: Path, *words: str) -> Result:
    return CliRunner(env=clean_environment(folder)).invoke(turnwise, ["replay", *words])


def policy_file(tmp_path: Path, document: dict[str, Any]) -> str:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_a_policy_file_is_replayed_with_the_reach_of_its_rules(
    folder: Path, tmp_path: Path
) -> None:
    file = policy_file(tmp_path, classic_policy().to_document())
    answer = json.loads(run(folder, "policy", file, "--json").stdout)
    assert answer["saving_share"] == pytest.approx(
        1 - answer["candidate_cost_microusd"] / answer["incumbent_cost_microusd"]
    )
    own = [row for row in answer["reach"] if row["measure"] == "total_input_tokens"]
    assert [row["rule_id"] for row in own] == ["short", "default"]
    assert sum(row["token_share"] for row in own) == pytest.approx(1.0)
    assert sum(row["turn_share"] for row in own) == pytest.approx(1.0)
    assert answer["reach_words"][0].startswith("short matches ")
    told = run(folder, "policy", file).stdout
    assert answer["reach_words"][0] in told.replace("\n", " ")
    assert "a replay that ignores the cache" in told


def test_moving_everything_to_the_cheaper_model_saves_and_says_what_the_cache_costs(
    folder: Path, tmp_path: Path
) -> None:
    answer = json.loads(
        run(folder, "policy", policy_file(tmp_path, EVERYTHING_TO_HAIKU), "--json").stdout
    )
    assert 0.5 < answer["saving_share"] <= answer["naive_saving_share"] + 0.1
    assert answer["altered_turns"] >= answer["rerouted_turns"] > 0


def test_the_models_as_served_give_back_the_bill(folder: Path) -> None:
    answer = json.loads(run(folder, "calibration", "--json").stdout)
    as_served = answer["as_served"]
    assert as_served["replayed_cost_microusd"] == as_served["billed_cost_microusd"] > 0
    *groups, everything = answer["rows"]
    for name in ("requests", "billed_cost_microusd", "logged_cache_write_tokens"):
        assert sum(group[name] for group in groups) == everything[name]
    assert "replay to" in run(folder, "calibration").stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"default": {"model": "claude-haiku-4-6"}}, "'claude-haiku-4-6', which has no price"),
        ({"measure": "input_tokens"}, "measure: must be one of total_input_tokens"),
        ({"schema": "turnwise.policy/9"}, "schema: must be"),
    ],
)
def test_what_cannot_be_replayed_is_bad_input_and_no_number(
    folder: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    file = policy_file(tmp_path, classic_policy().to_document() | change)
    result = run(folder, "policy", file, "--json")
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


def test_a_log_without_turns_is_an_error_and_no_saving(tmp_path: Path) -> None:
    result = run(tmp_path, "policy", policy_file(tmp_path, EVERYTHING_TO_HAIKU))
    assert result.exit_code == 3
    assert "nothing to replay" in result.stderr
    assert result.stdout == ""
    assert "There are no turns yet." in run(tmp_path, "calibration").stderr
