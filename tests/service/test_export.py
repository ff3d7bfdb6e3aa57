"""An export says all that is kept, to readers that have nothing of ours."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable
from sqlalchemy import inspect, text

from loop.lake import Lake, LakePolicy
from loop.ledger.chargeback import GROUPINGS, spend
from loop.service.assemble import assemble
from loop.service.command_line import turnwise
from loop.service.settings import load_settings
from tests.lake.conftest import s3_endpoint, s3_store  # noqa: F401 - fixtures
from tests.lake.lake_records import content, turn

PLAIN = """
    SELECT developer, CAST(sum(cost_microusd) AS BIGINT) FROM (
        SELECT * FROM read_parquet('{}/day=*/*.parquet', union_by_name = true)
        QUALIFY row_number() OVER (
            PARTITION BY session_id, turn_id ORDER BY revision DESC, "commit" DESC) = 1
    ) WHERE NOT removed GROUP BY ALL ORDER BY ALL"""


def test_an_export_holds_everything_and_reads_without_turnwise(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "export"
    parts = assemble(load_settings({}, data_dir=data))
    lake = Lake.open(parts.settings.lake_uri, policy=LakePolicy(rest_seconds=0.0))
    for revision in (1, 2, 3):
        turns = [turn(n, developer=f"d{n}", cost_microusd=n + revision) for n in range(revision)]
        lake.write_turns(turns, [content(1)], revision=revision)
        if revision == 2:
            lake.compact()
    parts.charge_table.roll_up(["2025-11-23", "2025-11-24"])
    parts.holds.add("session", "s1", reason="case 7", placed_by="counsel")
    with parts.engine.connect() as connection:
        kept = {
            name: connection.scalar(text(f"SELECT count(*) FROM {name}"))
            for name in inspect(connection).get_table_names()
        }
    parts.close()

    ran = CliRunner().invoke(turnwise, ["export", str(folder), "--data", str(data), "--json"])
    assert ran.exit_code == 0, ran.output
    manifest = json.loads((folder / "export.json").read_text())
    assert json.loads(ran.stdout) == manifest
    assert manifest["records"] == kept
    assert kept["legal_holds"] == 1
    for name, count in kept.items():
        lines = (folder / "records" / f"{name}.jsonl").read_text().splitlines()
        assert len([json.loads(line) for line in lines]) == count

    copy = Lake.open(str(folder / "tables"))
    assert {row["table"] for row in manifest["rows"]} == {
        "turns", "contents", "charges", "daily_charges"
    }  # fmt: skip
    for row in manifest["rows"]:
        table = DeltaTable(str(folder / "tables" / row["table"]))
        on_disk = {p.name for p in (folder / "tables" / row["table"]).glob("day=*/*.parquet")}
        assert {uri.rsplit("/", 1)[-1] for uri in table.file_uris()} == on_disk
    assert copy.turns_of(["s1"]) == lake.turns_of(["s1"])
    assert copy.contents_of(["s1"]) == lake.contents_of(["s1"])
    assert copy.has_daily_charges()
    assert copy.max_revision() == lake.max_revision() == 3
    for from_rollup in (False, True):
        assert spend(copy, GROUPINGS, from_rollup=from_rollup) == spend(lake, GROUPINGS)
    found = duckdb.sql(PLAIN.format(folder / "tables" / "turns")).fetchall()
    assert found == [("d0", 3), ("d1", 4), ("d2", 5)]

    again = CliRunner().invoke(turnwise, ["export", str(folder), "--data", str(data)])
    assert again.exit_code == 2
    assert "not an empty folder" in again.stderr


@pytest.mark.s3
def test_a_lake_on_s3_is_copied_byte_for_byte(
    tmp_path: Path,
    s3_store: tuple[str, dict[str, str]],  # noqa: F811
) -> None:
    uri, options = s3_store
    lake = Lake.open(uri, options, policy=LakePolicy(rest_seconds=0.0))
    for revision in (1, 2):
        turns = [turn(n, developer=f"d{n}", cost_microusd=n + revision) for n in range(3)]
        lake.write_turns(turns, [content(1)], revision=revision)
        lake.compact()
    lake.write_turns([turn(7, "s2", developer="d7", cost_microusd=7)], [], revision=3)
    reached = {name.upper(): value for name, value in options.items()}
    environment = {
        **{name: value for name, value in reached.items() if name != "AWS_ENDPOINT_URL"},
        "TURNWISE_S3_ENDPOINT": options["aws_endpoint_url"],
    }
    folder = tmp_path / "export"
    line = ["export", str(folder), "--data", str(tmp_path / "data"), "--json"]
    ran = CliRunner(env=environment).invoke(turnwise, [*line, "--lake", uri])
    assert ran.exit_code == 0, ran.output
    copied = {row["table"]: row for row in json.loads(ran.stdout)["rows"]}
    for name in ("turns", "contents"):
        log = lake.tables[name]
        files = log.snapshot().files
        assert copied[name]["files"] == len(files) > 0
        for file in files:
            with log.filesystem().open_input_stream(file.path) as stored:
                assert (folder / "tables" / name / file.path).read_bytes() == stored.read()
    copy = Lake.open(str(folder / "tables"))
    assert copy.turns_of(["s1"]) == lake.turns_of(["s1"])
    found = duckdb.sql(PLAIN.format(folder / "tables" / "turns")).fetchall()
    assert found == [("d0", 2), ("d1", 3), ("d2", 4), ("d7", 7)]


def test_no_secret_of_a_credential_leaves(tmp_path: Path) -> None:
    data, folder = str(tmp_path / "data"), tmp_path / "export"
    made = CliRunner().invoke(
        turnwise, ["token", "create", "ci", "--verbs", "read", "--data", data, "--json"]
    )
    assert made.exit_code == 0, made.output
    token = json.loads(made.stdout)["token"]
    assert CliRunner().invoke(turnwise, ["export", str(folder), "--data", data]).exit_code == 0
    (credential,) = map(
        json.loads, (folder / "records" / "credentials.jsonl").read_text().splitlines()
    )
    assert credential["name"] == "ci"
    assert "secret_hash" not in credential
    secret = token.rsplit("_", 1)[1]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret.encode() in path.read_bytes()]
