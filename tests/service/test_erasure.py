"""One developer is erased: no byte stays, the sums do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from collectors.segments import Record
from loop.domain.errors import BadInput, NotFound, Refused
from loop.domain.runs import OptimizationRun
from loop.lake import Lake
from loop.ledger.chargeback import spend
from loop.service.assemble import Parts, assemble
from loop.service.lake_keeping import LakeKeeper
from loop.service.settings import load_settings
from routing_policies.version_store import AS_REQUESTED
from tests.lake.conftest import s3_endpoint, s3_store  # noqa: F401 - fixtures
from tests.lake.lake_records import (
    HOUR_US,
    NOON_US,
    cluster,
    content,
    decision,
    event,
    score,
    turn,
)

DANA, LEE = "dana.quist@example.com", "lee@example.com"
HERS = ("5f0d2c1e-1111-4aaa-8000-000000000001", "5f0d2c1e-1111-4aaa-8000-000000000002")
HIS = "9e8d7c6b-2222-4bbb-8000-000000000003"
SECRET = "what only dana wrote"
TRACES = (DANA, *HERS, SECRET)


def fill(lake: Lake) -> None:
    """Two developers over three days, in several revisions and versions, settled and open."""
    for revision in range(1, 4):
        for number, session_id in enumerate((*HERS, HIS)):
            who = LEE if session_id == HIS else DANA
            resource = {"user.email": who, "session.id": session_id}
            lake.write_events(
                [
                    event(revision * 10 + n, session_id, resource=resource, attributes={"by": who})
                    for n in range(3)
                ],
                journal="collectors",
                position=revision * 10 + number,
            )
        turns = [
            turn(
                n,
                session_id,
                developer=LEE if session_id == HIS else DANA,
                started_at_us=NOON_US + n * 20 * HOUR_US,
                cost_microusd=1000 * n + revision,
                org_path="acme/pay" if n % 2 else "acme/risk",
                repository="dana.quist/dotfiles" if session_id == HERS[1] else "shop",
            )
            for session_id in (*HERS, HIS)
            for n in range(2 + revision)
        ]
        quoting = f"{LEE} asked {DANA} about {HERS[0]}"
        contents = [
            content(n, session_id, text=quoting if session_id == HIS else f"{SECRET} {n}")
            for session_id in (*HERS, HIS)
            for n in range(3)
        ]
        lake.write_turns(turns, contents, revision=revision)
        if revision == 2:
            lake.compact()
    lake.write_scores([score(session_id) for session_id in (*HERS, HIS)])
    finding = replace(score(HIS).findings[0], claim=f"as {DANA} said")
    lake.write_scores([score(HIS, evaluator="tool_use", findings=(finding,))])
    lake.write_decisions(
        [decision(1, session_id) for session_id in (*HERS, HIS)], journal="j", position=1
    )
    lake.write_clusters([replace(cluster("c", NOON_US), session_ids=(*HERS, HIS), exemplars=HERS)])


def open_parts(folder: Path, store: str = "", environment: dict[str, str] | None = None) -> Parts:
    settings = load_settings(environment or {}, data_dir=folder, store_uri=store or None)
    return assemble(settings)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = open_parts(tmp_path / "data")
    yield parts
    parts.close()


def erase(parts: Parts) -> dict[str, object]:
    keeper = LakeKeeper(parts)
    return keeper.erase(DANA, asked_by="counsel", reason="a request", dry_run=False)


def texts_in(content: bytes, name: str) -> bytes:
    """The bytes of a file, and of all values that it holds compressed."""
    if not name.endswith(".parquet"):
        return content
    table = pq.read_table(pa.BufferReader(content), partitioning=None)
    return content + json.dumps(table.to_pylist(), default=str, ensure_ascii=False).encode()


def traces_in(files: dict[str, bytes]) -> list[str]:
    return [
        f"{trace} in {name}"
        for name, content in files.items()
        for trace in TRACES
        if trace.encode() in texts_in(content, name)
    ]


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sums(lake: Lake, *by: str) -> list[dict[str, object]]:
    return spend(lake, by)


def test_no_byte_stays_and_every_sum_does(parts: Parts) -> None:
    lake = parts.lake
    fill(lake)
    parts.charge_table.roll_up(["2025-11-23", "2025-11-24"])
    parts.quarantine.put_record(
        "q-1",
        Record("logs", "json", f'{{"user":"{DANA}"}}'.encode(), 1),
        "odd",  # type: ignore[arg-type]
    )
    before = {by: sums(lake, *by) for by in ((), ("org",), ("model", "day"), ("day",))}
    his = sums(lake, "session")
    assert traces_in(all_files(parts.settings.data_dir))
    dry = LakeKeeper(parts).erase(DANA, asked_by="counsel", reason="a request")
    assert dry["dry_run"]
    assert dry["sessions"] == 2
    assert {by: sums(lake, *by) for by in before} == before

    answer = erase(parts)

    assert traces_in(all_files(parts.settings.data_dir)) == []
    for reader in (lake, open_parts(parts.settings.data_dir).lake):
        assert {by: sums(reader, *by) for by in before} == before
        for by in before:
            assert spend(reader, by, from_rollup=True) == before[by]
        assert {row["developer"] for row in sums(reader, "developer")} == {LEE, "erased"}
        kept = [row for row in sums(reader, "session") if row["session_id"] == HIS]
        assert kept == [row for row in his if row["session_id"] == HIS]
        assert {text.text for text in reader.contents_of([HIS])} == {
            f"{LEE} asked [erased] about [erased]"
        }
        assert reader.latest_clusters()[0].session_ids == (HIS,)
    rows = {row["table"]: row for row in answer["rows"]}  # type: ignore[attr-defined]
    assert rows["turns"]["old_files_deleted"] > 0
    assert answer["still_named_in"] == []
    (record,) = parts.erasures.list()
    assert record["finished_at_us"]
    assert LakeKeeper(parts).verify()["rows"] == []
    # Rolling up again, and erasing again, changes nothing.
    parts.charge_table.roll_up(["2025-11-23", "2025-11-24"])
    erase(parts)
    assert {by: sums(lake, *by) for by in before} == before
    assert spend(lake, ("day",), from_rollup=True) == before["day",]


def test_a_run_that_read_erased_rows_says_so_and_they_do_not_come_back(parts: Parts) -> None:
    lake = parts.lake
    fill(lake)
    run = OptimizationRun(
        "run-1", "finished", 1, 2, 0, AS_REQUESTED, lake.versions(), (), None, "done"
    )
    parts.runs.save(run)
    parts.runs.save(replace(run, run_id="run-2", table_versions={"estimates": -1}))
    version = run.table_versions["turns"]
    erasure_id = erase(parts)["erasure_id"]
    assert parts.runs.load("run-1").tombstones == (erasure_id,)
    assert parts.runs.load("run-2").tombstones == ()
    with pytest.raises(NotFound, match=str(erasure_id)):
        lake.at(run.table_versions).query("SELECT * FROM turns")
    with pytest.raises(NotFound, match=str(erasure_id)):
        LakeKeeper(parts).restore("turns", version=version, dry_run=False)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("developer", DANA), ("session", HERS[1]), ("repository", "shop"), ("org", "acme")],
)
def test_a_legal_hold_is_stronger(parts: Parts, kind: str, value: str) -> None:
    fill(parts.lake)
    parts.holds.add(kind, value, reason="case 7", placed_by="counsel")
    other = parts.holds.add("developer", LEE, reason="case 8", placed_by="counsel")
    with pytest.raises(Refused, match="case 7"):
        erase(parts)
    parts.holds.release(parts.holds.list()[0]["hold_id"], released_by="counsel")
    with pytest.raises(NotFound):
        parts.holds.release("hold-none", released_by="counsel")
    assert parts.holds.list(in_force=True) == [other]
    erase(parts)


def test_the_record_may_not_name_the_person(parts: Parts) -> None:
    for reason, actor in ((f"{DANA.upper()} asked", "counsel"), ("asked", DANA)):
        with pytest.raises(BadInput, match="don't name"):
            LakeKeeper(parts).erase(DANA, asked_by=actor, reason=reason)


@pytest.mark.parametrize("steps", [1, 9, 30])
def test_an_erasure_that_is_killed_is_ended_by_the_next(tmp_path: Path, steps: int) -> None:
    parts = open_parts(tmp_path)
    fill(parts.lake)
    before = sums(parts.lake, "day", "org")
    parts.close()
    killed = subprocess.run(
        [sys.executable, "-m", "tests.service.erasing_process", str(tmp_path), DANA, str(steps)],
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    parts = open_parts(tmp_path)
    keeper = LakeKeeper(parts)
    if keeper.status()["unfinished_erasures"]:
        assert any("cut off" in row["what"] for row in keeper.verify()["rows"])
        assert keeper.resume()["dry_run"]
        assert keeper.status()["unfinished_erasures"]
        keeper.resume(dry_run=False)
    else:
        erase(parts)
    assert traces_in(all_files(tmp_path)) == []
    assert sums(parts.lake, "day", "org") == before
    assert keeper.verify()["rows"] == []
    parts.close()


@pytest.mark.s3
def test_no_object_of_a_bucket_names_the_person(
    tmp_path: Path,
    s3_store: tuple[str, dict[str, str]],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri, options = s3_store
    endpoint = options.pop("aws_endpoint_url")
    monkeypatch.setenv("TURNWISE_S3_ENDPOINT", endpoint)
    for name, value in options.items():
        monkeypatch.setenv(name.upper(), value)
    parts = open_parts(tmp_path, uri)
    fill(parts.lake)
    before = sums(parts.lake, "day", "org")
    erase(parts)
    found = objects_of(endpoint, uri.split("/")[2])
    assert any(name.endswith(".parquet") for name in found)
    assert traces_in(found) == []
    assert sums(parts.lake, "day", "org") == before
    parts.close()


def objects_of(endpoint: str, bucket: str) -> dict[str, bytes]:
    filesystem = pafs.S3FileSystem(
        access_key="test", secret_key="test", endpoint_override=endpoint, region="us-east-1"
    )
    infos = filesystem.get_file_info(pafs.FileSelector(bucket, recursive=True))
    return {
        info.path: filesystem.open_input_file(info.path).read() for info in infos if info.is_file
    }
