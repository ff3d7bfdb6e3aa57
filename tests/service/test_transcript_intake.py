"""Session files over HTTP: the same turns as from this machine's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.transcript_files import find_transcripts
from collectors.transcripts import import_transcripts
from loop.domain.errors import BadInput
from loop.service.api_client import IN_PROCESS_HOST, ApiClient
from loop.service.assemble import Parts, assemble
from loop.service.http_api import api_app
from loop.service.settings import load_settings

RECORDINGS = Path(__file__).parents[2] / "examples" / "recordings"


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    assembled = assemble(load_settings({}, data_dir=tmp_path / "data"))
    yield assembled
    assembled.close()


@pytest.fixture
def client(parts: Parts) -> Iterator[ApiClient]:
    with ApiClient(f"http://{IN_PROCESS_HOST}", app=api_app(parts)) as opened:
        yield opened


def send(client: ApiClient, path: str, body: bytes) -> dict[str, object]:
    return client.request("POST", "/v1/transcripts", params={"path": path}, content=body)


def test_files_sent_one_by_one_make_the_same_turns_as_a_folder(
    parts: Parts, client: ApiClient, tmp_path: Path
) -> None:
    for file in find_transcripts([RECORDINGS]):
        send(client, "/".join(file.parts[-3:]), file.read_bytes())
    parts.catch_up()
    other = assemble(load_settings({}, data_dir=tmp_path / "folder"))
    import_transcripts([RECORDINGS], other.journal)
    other.catch_up()
    sessions = [row["session_id"] for row in other.lake.query("SELECT session_id FROM turns")]
    assert len(set(sessions)) == 4
    assert parts.lake.turns_of(sessions) == other.lake.turns_of(sessions)
    other.close()


def test_a_broken_line_is_named_and_counted_and_the_rest_is_imported(
    parts: Parts, client: ApiClient
) -> None:
    file = next((RECORDINGS / "a01_read_answer" / "transcript").glob("*.jsonl"))
    name = f"projects/-srv-demo-shop/{file.name}"
    report = send(client, name, b"{half a line\n" + file.read_bytes())
    whole = send(client, name, file.read_bytes())
    assert report["imported"] == whole["imported"]
    parts.catch_up()
    total = client.get("/v1/intake")["total"]
    assert (total["rejected"], total["balanced"]) == ({"broken_line": 1}, True)
    assert total["received"] == 2 * int(str(whole["imported"])) + 1
    (problem,) = report["problems"]  # type: ignore[misc]
    assert (problem["path"], problem["line"]) == (name, 1)


@pytest.mark.parametrize("path", ["", "notes.txt", "../../etc/cron.jsonl", "a/../../b.jsonl"])
def test_a_path_that_names_no_session_file_is_refused(client: ApiClient, path: str) -> None:
    with pytest.raises(BadInput, match="names no session file"):
        send(client, path, b"{}")
