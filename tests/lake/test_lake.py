"""The lake on a folder and on S3."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from loop.domain.errors import BadInput, Corrupt, Unavailable
from loop.lake import Lake
from tests.contracts.lake import LakeContract
from tests.lake.lake_records import event, turn


class TestFolder(LakeContract):
    @pytest.fixture
    def open_lake(self, tmp_path: Path) -> Callable[[], Lake]:
        return partial(Lake.open, str(tmp_path / "lake"))


class TestFolderWithAStrangeName(LakeContract):
    @pytest.fixture
    def open_lake(self, tmp_path: Path) -> Callable[[], Lake]:
        return partial(Lake.open, str(tmp_path / "o'lake {a,b} *? ü#x"))


@pytest.mark.s3
class TestS3(LakeContract):
    @pytest.fixture
    def open_lake(self, s3_store: tuple[str, dict[str, str]]) -> Callable[[], Lake]:
        return partial(Lake.open, *s3_store)


@pytest.mark.s3
def test_s3_is_reached_by_the_environment_alone(
    s3_store: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, options = s3_store
    monkeypatch.setenv("TURNWISE_S3_ENDPOINT", options.pop("aws_endpoint_url"))
    for name, value in options.items():
        monkeypatch.setenv(name.upper(), value)
    Lake.open(uri).write_events([event(1)], journal="j", position=1)
    assert Lake.open(uri).events_of(["s1"])["s1"] == [event(1)]


@pytest.mark.s3
def test_a_store_that_does_not_answer_is_unavailable(
    s3_store: tuple[str, dict[str, str]],
) -> None:
    _, options = s3_store
    lake = Lake.open("s3://no-such-bucket/lake", options)
    with pytest.raises(Unavailable):
        lake.write_events([event(1)], journal="j", position=1)


def test_a_folder_that_can_not_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable):
        Lake.open(str(tmp_path / "file" / "lake")).write_turns([turn(1)], [], revision=1)


def test_a_damaged_file_is_named_corrupt(tmp_path: Path) -> None:
    Lake.open(str(tmp_path)).write_turns([turn(1)], [], revision=1)
    (data_file,) = (tmp_path / "turns").rglob("*.parquet")
    data_file.write_bytes(b"PAR1" + b"\x00" * 200)
    with pytest.raises(Corrupt):
        Lake.open(str(tmp_path)).query("SELECT * FROM turns")
    with pytest.raises(Corrupt):
        Lake.open(str(tmp_path)).turns_of(["s1"])


@pytest.mark.parametrize("uri", ["", "gs://bucket/x", "s3://", "http://x", "/a%20b", "/a[1]"])
def test_an_address_of_no_store_is_refused(uri: str) -> None:
    with pytest.raises(BadInput):
        Lake.open(uri)
