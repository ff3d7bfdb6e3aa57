"""Status, verification, restoring and pinned versions, through the keeper and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from loop.domain.errors import BadInput, NotFound, Refused
from loop.lake import Lake
from loop.ledger.chargeback import spend
from loop.service import api_client
from loop.service.assemble import Parts, assemble
from loop.service.command_line import turnwise
from loop.service.lake_keeping import LakeKeeper
from loop.service.maintenance import maintenance, writing_allowed
from loop.service.server import only_server
from loop.service.settings import load_settings
from tests.lake.lake_records import content, event, turn
from tests.service.service_process import wait_until

DAYS = ["2025-11-23", "2025-11-24"]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = assemble(load_settings({}, data_dir=tmp_path))
    lake = parts.lake
    for revision in (1, 2, 3):
        lake.write_events([event(revision)], journal="collectors", position=revision)
        lake.write_turns([turn(n) for n in range(revision)], [content(0)], revision=revision)
    parts.charge_table.roll_up(DAYS)
    yield parts
    parts.close()


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(turnwise, ["lake", *arguments, "--data", str(folder)])
    return result.exit_code, result.stdout, result.stderr


def test_status_says_what_there_is(parts: Parts, tmp_path: Path) -> None:
    code, out, _ = run(tmp_path, "status", "--json")
    rows = {row["table"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    assert rows.keys() == {"events", "turns", "contents", "charges", "daily_charges"}
    assert (rows["turns"]["rows"], rows["turns"]["open_rows"]) == (3, 3)
    assert rows["turns"]["files"] == rows["turns"]["small_files"] == 3
    assert (rows["turns"]["min_reader_version"], rows["turns"]["features"]) == (1, [])
    code, out, _ = run(tmp_path, "compact", "--json")
    assert {row["table"]: row["files_saved"] for row in json.loads(out)["rows"]}["turns"] == 2
    after = {row["table"]: row for row in LakeKeeper(parts).status()["rows"]}
    assert (after["turns"]["open_rows"], after["turns"]["old_files"]) == (0, 3)
    assert after["turns"]["last_compaction_at_us"]
    assert run(tmp_path, "compact", "--table", "none")[0] == 2


def test_a_whole_lake_verifies(parts: Parts, tmp_path: Path) -> None:
    for _ in range(2):
        code, out, _ = run(tmp_path, "verify", "--json")
        assert (code, json.loads(out)["rows"]) == (0, [])
        parts.lake.compact()


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(4, len(content) // 2):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [(_remove, "missing"), (_cut, "bytes long"), (_flip, "can't be read")],
)
def test_damage_is_named(
    parts: Parts, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    parts.lake.compact()
    (path,) = (
        tmp_path / "lake" / "turns" / file.path
        for file in parts.lake.tables["turns"].snapshot().files
    )
    damage(path)
    code, out, _ = run(tmp_path, "verify", "--json")
    assert code == 1
    (problem,) = json.loads(out)["rows"]
    assert problem["table"] == "turns"
    assert words in problem["what"]
    assert problem["file"] in str(path)


def test_charges_that_are_not_the_turns_are_named(parts: Parts, tmp_path: Path) -> None:
    parts.stage_log.record("charge", revision=parts.lake.max_revision(), at_us=1, done=1)
    assert run(tmp_path, "verify")[0] == 0
    parts.lake.replace_charges("SELECT * FROM charges WHERE false", [], [DAYS[0]])
    code, out, _ = run(tmp_path, "verify", "--json")
    assert code == 1
    assert DAYS[0] in json.loads(out)["rows"][0]["what"]


def test_a_file_that_no_version_names_is_told_apart(parts: Parts, tmp_path: Path) -> None:
    source = next((tmp_path / "lake" / "turns").rglob("*.parquet"))
    (source.parent / "left-over.parquet").write_bytes(source.read_bytes())
    answer = LakeKeeper(parts).verify()
    assert answer["ok"]
    assert list(answer["orphans"]) == ["turns"]


def test_a_table_goes_back_and_forth(parts: Parts, tmp_path: Path) -> None:
    version = parts.lake.versions()["turns"]
    total = spend(parts.lake, [])
    code, out, _ = run(tmp_path, "restore", "turns", "--version", "2", "--json")
    (row,) = json.loads(out)["rows"]
    assert (code, row["rows_now"], row["rows_then"], row["committed"]) == (0, 3, 2, None)
    assert len(parts.lake.turns_of(["s1"])) == 3
    run(tmp_path, "restore", "turns", "--version", "2", "--yes")
    assert len(Lake.open(str(tmp_path / "lake")).turns_of(["s1"])) == 2
    assert spend(parts.lake, [])[0]["turns"] == 2
    assert spend(parts.lake, [], from_rollup=True) == spend(parts.lake, [])
    run(tmp_path, "restore", "turns", "--version", str(version), "--yes")
    assert spend(parts.lake, []) == spend(parts.lake, [], from_rollup=True) == total
    assert run(tmp_path, "restore", "turns")[0] == 2
    assert run(tmp_path, "restore", "turns", "--version", "99")[0] == 2
    assert run(tmp_path, "restore", "--at", "yesterday")[0] == 2
    with pytest.raises(BadInput):
        LakeKeeper(parts).restore(version=1)


def test_all_tables_go_back_to_a_time(parts: Parts, tmp_path: Path) -> None:
    table = parts.lake.tables["turns"].open_table()
    assert table is not None
    at = next(c["timestamp"] for c in table.history() if c["version"] == 2) / 1000
    answer = LakeKeeper(parts).restore(
        at=datetime.fromtimestamp(at).astimezone().isoformat(),
        dry_run=False,
    )
    assert {row["table"] for row in answer["rows"]} == {"events", "turns"}
    assert len(parts.lake.turns_of(["s1"])) == 2
    assert len(parts.lake.events_of(["s1"])["s1"]) == 2


def test_a_pinned_version_reads_the_same_through_compaction_until_its_files_go(
    parts: Parts,
) -> None:
    versions = parts.lake.versions()
    expected = parts.lake.turns_of(["s1"])
    parts.lake.write_turns([turn(9)], [], revision=4)
    parts.lake.compact()
    pinned = parts.lake.at(versions)
    assert pinned.turns_of(["s1"]) == expected
    assert pinned.turn_columns(["turn_id"])["turn_id"].tolist() == [t.turn_id for t in expected]
    assert parts.lake.at({}).turns_of(["s1"]) == []
    with pytest.raises(Refused):
        pinned.write_turns([turn(1)], [], revision=5)
    parts.lake.tables["turns"].change(
        lambda table: table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    )
    with pytest.raises(NotFound, match="superseded"):
        parts.lake.at(versions).turns_of(["s1"])


def test_maintenance_waits_for_who_writes_and_lets_nobody_begin_meanwhile(parts: Parts) -> None:
    folder = parts.settings.data_dir

    def maintain() -> None:
        with maintenance(parts):
            pass

    def is_refused() -> bool:
        with writing_allowed(folder) as allowed:
            return not allowed

    with ThreadPoolExecutor() as pool:
        with writing_allowed(folder) as allowed:
            assert allowed
            waiting = pool.submit(maintain)
            wait_until(is_refused)
            assert not waiting.done()
        waiting.result(60)
    assert not is_refused()


def test_maintenance_holds_the_drainer_up_and_keeps_off_another_server(parts: Parts) -> None:
    folder = parts.settings.data_dir
    with maintenance(parts), writing_allowed(folder) as allowed:
        assert not allowed
    with writing_allowed(folder) as allowed:
        assert allowed
    with only_server(folder):
        with maintenance(parts):
            pass  # the server itself may
        (folder / "serve.lock").write_text("1\n")
        with pytest.raises(Refused, match="--api"), maintenance(parts):
            pass


def test_holds_are_kept_by_the_command_line(parts: Parts, tmp_path: Path) -> None:
    code, out, _ = run(
        tmp_path, "hold", "add", "developer", "dana@example.com", "--reason", "case", "--json"
    )
    hold_id = json.loads(out)["hold_id"]
    assert run(tmp_path, "erase", "dana@example.com", "--reason", "request")[0] == 3
    assert run(tmp_path, "hold", "release", hold_id)[0] == 0
    assert run(tmp_path, "hold", "add", "planet", "x", "--reason", "case")[0] == 2
    code, out, err = run(tmp_path, "erase", "dana@example.com", "--reason", "request")
    assert (code, "Nothing was changed" in err) == (0, True)
    code, out, err = run(tmp_path, "erase", "dana@example.com", "--reason", "r", "--yes", "--json")
    assert json.loads(out)["sessions"] == 1
    assert "legal_holds.value" in json.loads(out)["still_named_in"]
    assert run(tmp_path, "erase", "--resume", "--yes")[0] == 0
    code, out, _ = run(tmp_path, "hold", "list", "--json")
    assert [row["released_at_us"] is None for row in json.loads(out)["rows"]] == [False]
    assert spend(parts.lake, ["developer"])[0]["developer"] == "erased"


@pytest.mark.parametrize("verb", ["compact", "verify"])
def test_long_work_says_what_it_is_at(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Data stays on stdout; each step is told once on stderr."""
    monkeypatch.setattr(api_client, "WATCH_SECONDS", 0.001)
    code, out, err = run(tmp_path, verb, "--json")
    assert code == 0
    assert json.loads(out)["next"] is None
    steps = [line for line in err.splitlines() if line.startswith(f"{verb}: ")]
    assert steps
    assert len(steps) == len(set(steps))


def test_an_erasure_is_resumed_with_yes_only(parts: Parts, tmp_path: Path) -> None:
    jobs = tmp_path / "erasures"
    jobs.mkdir()
    job = {"erasure_id": "erasure-1", "developer": "dana@example.com", "sessions": ["s1"]}
    (jobs / "erasure-1.json").write_text(
        json.dumps(job | {"asked_by": "counsel", "reason": "asked", "at_us": 1})
    )
    code, out, err = run(tmp_path, "erase", "--resume")
    assert (code, out) == (0, "erasure-1 cut off\n")
    assert "Nothing was changed" in err
    assert parts.lake.turns_of(["s1"])
    code, out, _ = run(tmp_path, "erase", "--resume", "--yes")
    assert (code, out) == (0, "erasure-1 ended\n")
    assert Lake.open(str(tmp_path / "lake")).turns_of(["s1"]) == []


def test_the_settings_keep_the_lake(tmp_path: Path) -> None:
    environment = {
        "TURNWISE_LAKE_VACUUM_HOURS": "1",
        "TURNWISE_LAKE_TARGET_BYTES": "1000",
        "TURNWISE_LAKE_CHECKPOINT_COMMITS": "2",
    }
    parts = assemble(load_settings(environment, data_dir=tmp_path))
    for revision in (1, 2, 3):
        parts.lake.write_turns([turn(revision)], [], revision=revision)
    parts.lake.compact()
    log = parts.lake.tables["turns"]
    assert list((tmp_path / "lake" / "turns" / "_delta_log").glob("*.checkpoint.parquet"))
    table = log.open_table()
    assert table is not None
    assert table.metadata().configuration["delta.checkpointInterval"] == "2"
    assert LakeKeeper(parts).status()["policy"]["vacuum_hours"] == 1
    parts.close()
