"""A developer is erased by a server that is receiving, its drainer in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx

from loop.lake import Lake
from loop.service.assemble import assemble
from loop.service.lake_keeping import LakeKeeper
from loop.service.settings import load_settings
from tests.service.service_process import api_request, serve_process, wait_until
from tests.service.test_erasure import all_files, texts_in
from tests.service.test_process_layout import drainer_of
from tests.service.test_serve import post_logs

HERS, HIS = "5f0d2c1e-1111-4aaa-8000-00000000000a", "9e8d7c6b-2222-4bbb-8000-00000000000b"


def body(session_id: str, number: int) -> bytes:
    return api_request(session_id, number, device_id=f"device-of-{session_id[:8]}")


def test_an_erasure_through_a_live_server(tmp_path: Path) -> None:
    with serve_process(tmp_path) as serve:
        addresses = serve.wait_until_ready()
        assert wait_until(lambda: drainer_of(serve.pid))
        for number in range(3):
            for session_id in (HERS, HIS):
                post_logs(addresses, body(session_id, number))
        lake = Lake.open(str(tmp_path / "lake"))
        wait_until(lambda: lake.turns_of([HERS]))
        developer = lake.turns_of([HERS])[0].developer
        # Not waited for: what was received before the erasure is brought in by it.
        post_logs(addresses, body(HERS, 3))
        answer = httpx.post(
            f"{addresses.api}/v1/lake/erasures",
            json={
                "developer": developer,
                "actor": "counsel",
                "reason": "a request",
                "dry_run": False,
            },
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["sessions"] == 1
        assert lake.turns_of([HERS]) == []
        # The drainer goes on.
        post_logs(addresses, body(HIS, 4))
        wait_until(lambda: len(lake.turns_of([HIS])) == 4)
        named = [
            name
            for name, content in all_files(tmp_path).items()
            if HERS.encode() in texts_in(content, name)
        ]
        assert named == []


def test_archived_segments_that_name_the_person_go_and_others_stay(tmp_path: Path) -> None:
    parts = assemble(load_settings({}, data_dir=tmp_path))
    archive = tmp_path / "archive"
    parts.drainer.limits = replace(parts.drainer.limits, archive_directory=archive)
    for session_id in (HERS, HIS):
        parts.journal.append_sync("logs", "protobuf", body(session_id, 1))
        parts.journal.seal()
        parts.drainer.drain_once()
    assert len(list(archive.iterdir())) == 2
    developer = parts.lake.turns_of([HERS])[0].developer
    keeper = LakeKeeper(parts)
    keeper.erase(developer, asked_by="counsel", reason="a request", dry_run=False)
    (left,) = archive.iterdir()
    assert HIS.encode() in left.read_bytes()
    assert [turn.session_id for turn in parts.lake.turns_of([HERS, HIS])] == [HIS]
    parts.close()
