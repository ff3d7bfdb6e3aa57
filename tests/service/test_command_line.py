"""Every command on a folder of recordings: shapes, streams, exit codes, and what stays hidden."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from collectors.journal import Journal
from loop.service.command_line import turnwise as group
from loop.service.demo.recordings import RECORDINGS, read_expected, read_recordings
from optimizers.classic import classic_policy
from tests.service.service_process import api_request, clean_environment
from tests.service.service_process import turnwise as run_process

GROUPING_COLUMNS = {
    "developer": "developer",
    "session": "session_id",
    "repo": "repository",
    "org": "org_path",
    "model": "model",
    "day": "day",
}
TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_5m_tokens",
    "cache_creation_1h_tokens",
)
AMOUNTS = ["turns", *TOKENS, "cost_microusd", "unpriced_turns"]
LISTS = (
    "spend by day",
    "session list",
    "cluster list",
    "run list",
    "policy list",
    "rollout list",
    "settings show",
    "doctor",
)
ESCAPES = "esc\x1b[31mred\x1b]0;title\x07\x08end"
HAIKU = "claude-haiku-4-5"
UNREACHABLE = "http://127.0.0.1:9"


def run(folder: Path, line: str, *more: str, **environment: str) -> Result:
    """One command in this process; its streams apart."""
    values = clean_environment(folder, **environment)
    return CliRunner(env=values).invoke(group, [*line.split(), *more])


def ok(folder: Path, line: str, *more: str) -> Any:
    """The command's JSON answer; stdout holds nothing else, and stderr no data."""
    result = run(folder, line, *more, "--json")
    assert result.exit_code == 0, result.output
    assert "{" not in result.stderr
    return json.loads(result.stdout)


def names() -> Iterator[str]:
    def below(command: click.Command, path: str) -> Iterator[str]:
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from below(child, f"{path} {name}".strip())
        else:
            yield path

    yield from below(group, "")


def takes_json(name: str) -> bool:
    command: click.Command = group
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[part]
    return any("--json" in parameter.opts for parameter in command.params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All recordings through the journal, scored, clustered, searched; one policy proposed."""
    folder: Path = tmp_path_factory.mktemp("data")
    with Journal(folder / "journal") as journal:
        for recording in read_recordings():
            kind = "json" if recording.content_type == "application/json" else "protobuf"
            journal.append_sync(recording.signal, kind, recording.path.read_bytes())
    transcripts = [str(path) for path in sorted(RECORDINGS.glob("*/transcript"))]
    ok(folder, "import transcripts", *transcripts)
    ok(folder, "evaluate")
    ok(folder, "cluster list --refresh")
    ok(folder, "optimize --trials 2 --seed 1")
    propose(folder, classic_policy().to_document())
    return folder


def propose(folder: Path, document: dict[str, Any]) -> int:
    file = folder / "policy.json"
    file.write_text(json.dumps(document))
    version: int = ok(folder, "policy propose --as ada", str(file))["version"]
    return version


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def session_id(name: str) -> str:
    return str(next(row["session_id"] for row in read_expected() if row["name"] == name))


# -- spend -----------------------------------------------------------------------------------------


def test_spend_equals_what_the_model_api_served(folder: Path) -> None:
    served: dict[tuple[str, str], Counter[str]] = {}
    for expected in read_expected():  # a session that was resumed is in several recordings
        for model, tokens in expected["api"]["tokens_by_model"].items():
            served.setdefault((expected["session_id"], model), Counter()).update(tokens)
    rows = ok(folder, "spend by session,model")["rows"]
    found = {(row["session_id"], row["model"]): row for row in rows}
    for key, total in served.items():
        row = found[key]
        written = row["cache_creation_5m_tokens"] + row["cache_creation_1h_tokens"]
        assert row["input_tokens"] == total["input"]
        assert row["output_tokens"] == total["output"]
        assert row["cache_read_tokens"] == total["cacheRead"]
        assert written == total["cacheCreation"]


@pytest.mark.parametrize(
    "grouping",
    [
        *GROUPING_COLUMNS,
        "session,model",
        "model,session",
        "day,org,developer",
        ",".join(reversed(GROUPING_COLUMNS)),
    ],
)
def test_spend_rows_have_the_documented_keys_in_any_order(folder: Path, grouping: str) -> None:
    answer = ok(folder, f"spend by {grouping}")
    assert list(answer) == ["rows", "next"]
    assert answer["next"] is None
    columns = [GROUPING_COLUMNS[name] for name in grouping.split(",")]
    for row in answer["rows"]:
        assert list(row) == [*columns, *AMOUNTS]
        assert all(type(row[name]) is int for name in ("turns", *TOKENS, "unpriced_turns"))
        assert row["cost_microusd"] is None or type(row["cost_microusd"]) is int
    total = ok(folder, "spend by session,model,day")["rows"]
    for name in AMOUNTS:
        assert sum(row[name] or 0 for row in answer["rows"]) == sum(row[name] or 0 for row in total)


def test_spend_can_be_cut_by_days_and_levels(folder: Path) -> None:
    (day,) = {row["day"] for row in ok(folder, "spend by day")["rows"]}
    assert ok(folder, f"spend by day --since {day}")["rows"]
    assert ok(folder, f"spend by day --until {day}")["rows"] == []
    for row in ok(folder, "spend by org --level 1")["rows"]:
        assert "/" not in row["org_path"]


# -- shapes and streams ----------------------------------------------------------------------------


@pytest.mark.parametrize("line", LISTS)
def test_lists_are_rows_and_next(folder: Path, line: str) -> None:
    result = run(folder, line, "--json")
    answer = json.loads(result.stdout)
    assert list(answer)[:2] == ["rows", "next"]
    assert all(isinstance(row, dict) for row in answer["rows"])
    assert result.stderr == ""


@pytest.mark.parametrize("line", LISTS)
def test_people_read_tables_on_stdout(folder: Path, line: str) -> None:
    result = run(folder, line)
    if line == "rollout list":  # there is none: that is said, not printed as data
        assert result.stdout == ""
        assert "No rollouts yet" in result.stderr
        return
    assert len(result.stdout.splitlines()) >= 2
    assert "{" not in result.stdout
    if line == "cluster list":
        assert result.stderr.endswith("unscored sessions are in no cluster.\n")
        return
    assert result.stderr == ""


@pytest.mark.parametrize("line", ["spend by day", "session list", "cluster list", "run list"])
def test_an_empty_folder_has_no_data_but_a_hint(tmp_path: Path, line: str) -> None:
    result = run(tmp_path, line)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("No ")
    answer = ok(tmp_path, line)
    assert (answer["rows"], answer["next"]) == ([], None)


def test_sessions_come_page_by_page(folder: Path) -> None:
    everything = [row["session_id"] for row in ok(folder, "session list --limit 500")["rows"]]
    assert set(everything) >= {row["session_id"] for row in read_expected() if row["api"]["ok"]}
    paged: list[str] = []
    cursor: list[str] = []
    for _ in itertools.count():
        page = ok(folder, "session list --limit 5", *cursor)
        paged += [row["session_id"] for row in page["rows"]]
        if page["next"] is None:
            break
        cursor = ["--cursor", page["next"]]
    assert paged == everything
    more = run(folder, "session list --limit 5")
    assert "--cursor" in more.stderr
    assert "--cursor" not in more.stdout
    by_quality = [row["quality"] for row in ok(folder, "session list --sort quality")["rows"]]
    known = [value for value in by_quality if value is not None]
    assert known == sorted(known)


def test_sessions_whose_sources_disagree_are_listed_with_the_reason(own_folder: Path) -> None:
    assert ok(own_folder, "session list --disagreeing") == {"rows": [], "next": None}
    shown = run(own_folder, f"session show {session_id('a05_subagent')}").stdout
    assert "checked    event and metric and span tell the same sums" in shown
    (recorded,) = [
        recording
        for recording in read_recordings()
        if recording.session == "a13_oauth_identity" and recording.signal == "metrics"
    ]
    later = json.loads(recorded.path.read_bytes())
    for point in _points(later):
        for time in ("startTimeUnixNano", "timeUnixNano"):
            point[time] = str(int(point[time]) + 60_000_000_000)
    with Journal(own_folder / "journal") as journal:
        journal.append_sync("metrics", "json", json.dumps(later).encode())
    (row,) = ok(own_folder, "session list --disagreeing --limit 1")["rows"]
    assert row["session_id"] == session_id("a13_oauth_identity")
    check = row["cross_check"]
    assert [reason["reason"] for reason in check["reasons"]] == ["logs_behind"]
    for item in check["sums"]:
        if item["by_metric"] is not None:
            assert item["by_metric"] == pytest.approx(2 * item["by_event"], abs=2)
    told = run(own_folder, "session list --disagreeing").stdout
    assert "differs    claude-sonnet-4-6 output_tokens: event" in told
    assert "Metrics count more than log events" in told


def _points(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for item in node:
            yield from _points(item)
    elif isinstance(node, dict):
        yield from node.get("dataPoints", ())
        for item in node.values():
            yield from _points(item)


@pytest.mark.parametrize("recording", ["a01_read_answer", "a04_overload_retry_unfaithful"])
def test_texts_are_shown_only_when_asked_for(folder: Path, recording: str) -> None:
    expected = next(row for row in read_expected() if row["name"] == recording)
    prompt = expected["prompts"][0]
    line = f"session show {expected['session_id']}"
    shown = ok(folder, line)
    assert list(shown) == ["session", "prompts", "turns", "scores", "labels", "cross_check"]
    for result in (run(folder, line), run(folder, line, "--json")):
        assert prompt not in result.stdout
    for result in (run(folder, line, "--content"), run(folder, line, "--content", "--json")):
        assert result.exit_code == 0
        assert prompt in result.stdout


def test_the_unfaithful_session_is_shown_with_its_evidence(folder: Path) -> None:
    result = run(folder, f"session show {session_id('a04_overload_retry_unfaithful')}")
    (line, *_) = [line for line in result.stdout.splitlines() if "contradicted" in line]
    assert "[" in line


def test_escapes_of_traces_do_not_reach_the_terminal(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append_sync("logs", "protobuf", api_request(ESCAPES, 1))
    for line in ("spend by session", "session list"):
        result = run(tmp_path, line)
        assert result.exit_code == 0
        assert "escredend" in result.stdout
        assert not set(result.stdout) & {"\x1b", "\x07", "\x08"}
    for result in (
        run(tmp_path, "session show", ESCAPES),
        run(tmp_path, "session show", ESCAPES + "none"),
    ):
        assert not set(result.output) & {"\x1b", "\x07", "\x08"}
    (row,) = ok(tmp_path, "spend by session")["rows"]
    assert row["session_id"] == ESCAPES  # JSON keeps it, escaped


def test_runs_and_policies_are_shown(folder: Path) -> None:
    (listed,) = ok(folder, "run list")["rows"]
    assert listed["state"] == "finished"
    assert len(ok(folder, f"run show {listed['run_id']}")["trials"]) <= 2
    versions = {row["version"] for row in ok(folder, "policy list")["rows"]}
    assert versions == {1, 2}
    shown = ok(folder, "policy show 2")
    assert {row["measure"] for row in shown["reach"]} >= {"total_input_tokens", "new_tokens"}
    assert "haiku" in run(folder, "policy show 2").stdout
    assert ok(folder, "policy diff 1 2")["words"]
    assert "haiku" in run(folder, "policy diff 1 2").stdout
    assert run(folder, f"run show {listed['run_id']}").stdout.startswith("run ")


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(names()))
def test_help_says_what_json_holds(name: str) -> None:
    result = CliRunner().invoke(group, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    if takes_json(name):
        assert "JSON: " in result.stdout


@pytest.mark.parametrize(
    "line",
    [
        "session show {session}",
        "run show {run}",
        "policy show 2",
        "policy diff 1 2",
        "evaluate",
        "spend by day",
        "settings show",
    ],
)
def test_help_names_every_key_of_the_answer(folder: Path, line: str) -> None:
    (run_row,) = ok(folder, "run list")["rows"]
    filled = line.format(session=session_id("a01_read_answer"), run=run_row["run_id"])
    answer = json.loads(run(folder, filled, "--json").stdout)
    help_text = run(folder, " ".join(line.split()[:2]), "--help").stdout
    for key in {*answer, *(answer["rows"][0] if answer.get("rows") else ())} - {"day"}:
        assert key in help_text, key


# -- exit codes ------------------------------------------------------------------------------------


def talked(result: Result) -> str:
    """What was said of a failure; stdout stays empty, and no stack trace is shown."""
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "spend by colour",
        "spend by day --since yesterday",
        "spend by day --level 2",
        "spend by org --level 9",
        "session list --limit 0",
        "session list --sort size",
        "session list --cursor zzz",
        "session show none",
        "run show none",
        "rollout status none",
        "policy show 99",
        "policy show x",
        "policy diff 1 99",
        "policy explore two=half --reason r",
        "policy explore 2=0.2 2=0.3 --reason r",
        "policy explore 1=0.5 --reason r",
        "policy approve 2",
        "optimize --trials 0",
        "import transcripts",
        "import transcripts no/such/file.jsonl",
        "import bodies no/such/folder",
        "serve --http nowhere",
        "fly",
    ],
)
def test_bad_input_is_2(folder: Path, line: str) -> None:
    result = run(folder, line)
    assert result.exit_code == 2, result.output
    assert talked(result)


@pytest.mark.parametrize(
    "line",
    [
        "policy approve 1 --reason r",
        "policy publish 2 --reason r",
        "policy submit 2 --reason r",
        "policy explore 2=0.5 --reason r",
    ],
)
def test_what_a_rule_refuses_is_3(folder: Path, line: str) -> None:
    result = run(folder, line)
    assert result.exit_code == 3, result.output
    assert talked(result).startswith("turnwise: ")


@pytest.mark.parametrize("line", ["spend by day", "session list", "evaluate", "policy show 1"])
def test_an_unreachable_server_is_4(tmp_path: Path, line: str) -> None:
    result = run(tmp_path, line, "--api", UNREACHABLE)
    assert result.exit_code == 4
    assert UNREACHABLE in talked(result)


def test_a_publication_is_verified_as_a_gateway_does_it(own_folder: Path, tmp_path: Path) -> None:
    held = run(own_folder, "policy verify --json")
    assert held.exit_code == 0, held.output
    found = json.loads(held.stdout)
    assert [arm["name"] for arm in found["arms"]] == ["stable"]
    assert run(own_folder, f"policy verify --seen {found['serial'] + 1}").exit_code == 3
    nobody = tmp_path / "keys.json"
    nobody.write_text('{"keys": []}')
    refused = run(own_folder, f"policy verify --keys {nobody}")
    assert (refused.exit_code, "No key that signed this is trusted" in talked(refused)) == (3, True)
    cut = tmp_path / "envelope.json"
    cut.write_text('{"payload": "e30="')
    assert run(own_folder, f"policy verify {cut}").exit_code == 2


def test_a_version_is_exported_and_the_history_kept(own_folder: Path, tmp_path: Path) -> None:
    shown = run(own_folder, "policy export 2 --to cel --json")
    assert "_tokens < 10000" in json.loads(shown.stdout)["document"]["expression"]
    kept = run(own_folder, f"policy history {tmp_path / 'history'} --json")
    assert json.loads(kept.stdout)["commits"] >= 2
    assert (tmp_path / "history" / "policies" / "2" / "policy.json").exists()


def test_the_gate_exits_by_its_verdict(own_folder: Path) -> None:
    cheap = classic_policy().to_document() | {"rules": [], "default": {"model": HAIKU}}
    inconclusive = run(own_folder, f"policy gate {propose(own_folder, cheap)} --json")
    assert inconclusive.exit_code == 5, inconclusive.output
    assert json.loads(inconclusive.stdout)["verdict"] == "inconclusive"
    same = classic_policy().to_document() | {"name": "same", "rules": [], "default": {"model": ""}}
    failed = run(own_folder, f"policy gate {propose(own_folder, same)}")
    assert failed.exit_code == 1, failed.output
    assert "saving" in failed.stdout


def test_a_version_goes_to_review_and_its_proposer_may_not_approve(own_folder: Path) -> None:
    cheap = classic_policy().to_document() | {"rules": [], "default": {"model": HAIKU}}
    version = propose(own_folder, cheap)
    assert run(own_folder, f"policy gate {version}").exit_code == 5
    submitted = run(own_folder, f"policy submit {version} --as ada --reason look")
    assert (submitted.exit_code, submitted.stdout) == (0, f"Version {version} is now in review.\n")
    own = run(own_folder, f"policy approve {version} --as ada --reason mine")
    assert own.exit_code == 3
    stale = run(own_folder, f"policy approve {version} --as grace --reason late --cycle 7")
    assert stale.exit_code == 3
    approved = run(own_folder, f"policy approve {version} --as grace --reason good --cycle 1")
    assert (approved.exit_code, approved.stdout) == (0, f"Version {version} is now approved.\n")
    explored = ok(own_folder, f"policy explore {version}=0.25 --as grace --reason learn")
    shares = {arm["policy_version"]: arm["weight"] for arm in explored["arms"]}
    assert shares == {version: 2500, 1: 7500}
    people = run(own_folder, f"policy explore {version}=0.5 --as grace --reason more")
    assert "50.00 %" in people.stdout
    assert "serial" in people.stderr


def test_data_and_api_exclude_each_other(folder: Path) -> None:
    result = run(folder, "spend by day", "--data", str(folder), "--api", UNREACHABLE)
    assert result.exit_code == 2
    assert "exclude" in talked(result)


# -- import, settings, doctor ----------------------------------------------------------------------


def test_a_broken_line_is_named_and_the_rest_imported(tmp_path: Path) -> None:
    """A client that writes right now leaves half a line: that is no failure, so the code is 0."""
    (whole,) = (RECORDINGS / "a01_read_answer" / "transcript").rglob("*.jsonl")
    lines = whole.read_text().splitlines(keepends=True)
    broken = tmp_path / "projects" / whole.name
    broken.parent.mkdir()
    broken.write_text("".join([*lines[:2], '{"type": "assistant", "mess\n', *lines[2:]]))
    result = run(tmp_path / "data", "import transcripts", str(broken.parent), "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    (problem,) = report["problems"]
    assert (problem["path"], problem["line"]) == (str(broken), 3)
    assert f"{broken.name}:3" in result.stderr.replace("\n", "")
    alone = tmp_path / "alone"
    assert ok(alone, "import transcripts", str(whole))["problems"] == []
    for line in ("spend by session", "session list"):
        assert ok(tmp_path / "data", line) == ok(alone, line)


def test_importing_again_changes_nothing(folder: Path, own_folder: Path) -> None:
    before = ok(own_folder, "spend by session,model,day")
    transcripts = [str(path) for path in sorted(RECORDINGS.glob("*/transcript"))]
    unchanged = ok(own_folder, "import transcripts", *transcripts)
    assert unchanged["unchanged"] == unchanged["files"] > 0
    report = ok(own_folder, "import transcripts", *transcripts, "--again")
    assert report["problems"] == []
    assert len(report["sessions"]) == 4
    assert ok(own_folder, "spend by session,model,day") == before


def test_a_missing_path_imports_nothing(tmp_path: Path) -> None:
    (whole,) = (RECORDINGS / "a01_read_answer" / "transcript").rglob("*.jsonl")
    result = run(tmp_path, "import transcripts", str(whole), str(tmp_path / "none"))
    assert result.exit_code == 2
    assert "none" in talked(result)
    assert ok(tmp_path, "spend by session")["rows"] == []


def test_settings_say_where_they_come_from_and_keep_secrets(tmp_path: Path) -> None:
    secret = "s3cret-token"
    result = run(tmp_path, "settings show --json", TURNWISE_API_TOKEN=secret)
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    assert rows["api_token"]["value"] == "set"
    assert rows["api_token"]["from"] == "TURNWISE_API_TOKEN"
    assert rows["channel"]["from"] == "default"
    assert secret not in result.output
    assert secret not in run(tmp_path, "settings show", TURNWISE_API_TOKEN=secret).output
    wrong = run(tmp_path, "settings show", TURNWISE_DRAIN_INTERVAL_MS="often")
    assert wrong.exit_code == 2
    assert "TURNWISE_DRAIN_INTERVAL_MS" in talked(wrong)


def test_doctor_exits_1_when_it_finds_something(folder: Path, tmp_path: Path) -> None:
    healthy = run(tmp_path, "doctor --json")
    assert healthy.exit_code == 0, healthy.output
    checks = {row["check"]: row for row in json.loads(healthy.stdout)["rows"]}
    assert checks.keys() >= {"data folder", "disk", "lake", "control store", "clock", "gateways"}
    assert "openinference" in checks["conventions"]["detail"]
    full = run(tmp_path, "doctor --json", TURNWISE_MIN_FREE_BYTES=str(10**18))
    assert full.exit_code == 1
    (disk,) = [row for row in json.loads(full.stdout)["rows"] if not row["ok"]]
    assert disk["check"] == "disk"
    assert disk["fix"]


# -- as a process ----------------------------------------------------------------------------------


def test_a_process_keeps_the_streams_and_codes_apart(folder: Path) -> None:
    good = run_process(folder, "spend", "by", "day", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["rows"]
    assert good.stderr == ""
    bad = run_process(folder, "session", "show", "none")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("turnwise: No session 'none'.")


@pytest.mark.parametrize("arguments", [["spend", "by", "day"], ["session", "list"]])
def test_a_reading_command_loads_no_stage_it_does_not_need(
    folder: Path, arguments: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "loop.service", *arguments, "--json"],
        env=clean_environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "duckdb" in loaded
    assert not loaded & {"sklearn", "scipy", "optuna", "evaluators", "grpc", "alembic", "uvicorn"}
