"""What the journal acknowledges on a disk that fails, by faults put under a real process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from collectors.journal import recover, sealed_segments
from collectors.segments import read_segment

SOURCE = Path(__file__).with_name("disk_faults.c")
SENDER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from collectors.journal import Journal, JournalLimits
    from loop.domain.errors import Unavailable
    journal = Journal(Path(sys.argv[1]), JournalLimits(0, 100.0, seal_after_seconds=60))
    for index in range(12):
        try:
            journal.append_sync("logs", "json", (b"%d " % index) * 400)
        except Unavailable as error:
            print("refused", index, error.retry_after_seconds > 0, error.why.split(" (")[0])
        else:
            print("acknowledged", index)
    journal.close()
    """
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("Debian's gcc is missing; `make test` installs it where permitted.")
    library = tmp_path_factory.mktemp("shim") / "disk_faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"],
        check=True,
        timeout=60,
    )
    return library


class Outcome:
    def __init__(self, stdout: str, directory: Path, log: Path) -> None:
        lines = [line.split(maxsplit=3) for line in stdout.splitlines()]
        self.acknowledged = [int(line[1]) for line in lines if line[0] == "acknowledged"]
        self.refused = {int(line[1]): line[3] for line in lines if line[0] == "refused"}
        assert all(line[2] == "True" for line in lines if line[0] == "refused")
        recover(directory)
        contents = [read_segment(path) for path in sealed_segments(directory)]
        assert [content.damage for content in contents if content.damage] == []
        bodies = [record.body for content in contents for record in content.records]
        self.kept = [int(body.split()[0]) for body in bodies]
        assert all(
            body == (b"%d " % index) * 400 for index, body in zip(self.kept, bodies, strict=True)
        )
        self.log = [line.split() for line in log.read_text().splitlines()]


def send(shim: Path, directory: Path, **faults: int) -> Outcome:
    log = directory / "faults.log"
    environment = {name: str(value) for name, value in faults.items()}
    run = subprocess.run(
        [sys.executable, "-c", SENDER, str(directory / "journal")],
        env={**os.environ, **environment, "LD_PRELOAD": str(shim), "FAULT_LOG": str(log)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return Outcome(run.stdout, directory / "journal", log)


def failed_descriptor_syncs(log: list[list[str]]) -> int:
    """How often a descriptor was synced after a sync of it had failed and before it was closed."""
    failed: set[str] = set()
    again = 0
    for what, descriptor, result in log:
        if what == "close":
            failed.discard(descriptor)
        elif descriptor in failed:
            again += 1
        elif result == "-1":
            failed.add(descriptor)
    assert any(line[0] == "sync" and line[2] == "-1" for line in log)
    return again


def test_a_failed_fsync_is_never_tried_again_on_its_descriptor(shim: Path, tmp_path: Path) -> None:
    outcome = send(shim, tmp_path, FAIL_FDATASYNC=4)
    assert outcome.refused == {3: "Input/output error"}
    assert set(outcome.acknowledged) <= set(outcome.kept)
    assert outcome.acknowledged == [index for index in range(12) if index != 3]
    assert failed_descriptor_syncs(outcome.log) == 0
    assert len(sealed_segments(tmp_path / "journal")) == 2  # what came after is in another one


def test_a_segment_whose_directory_entry_is_not_durable_acknowledges_nothing(
    shim: Path, tmp_path: Path
) -> None:
    outcome = send(shim, tmp_path, FAIL_FSYNC=1)
    assert outcome.refused == {0: "Input/output error"}
    assert outcome.kept == outcome.acknowledged == list(range(1, 12))


def test_writes_that_take_only_a_part_are_continued(shim: Path, tmp_path: Path) -> None:
    outcome = send(shim, tmp_path, SHORT_WRITES=7)
    assert outcome.kept == outcome.acknowledged == list(range(12))


def test_a_write_that_ends_in_a_full_disk_leaves_a_torn_tail(shim: Path, tmp_path: Path) -> None:
    outcome = send(shim, tmp_path, FULL_AFTER=5000)
    assert set(outcome.refused.values()) == {"No space left on device"}
    assert outcome.kept == outcome.acknowledged
    assert 0 < len(outcome.acknowledged) < 12


def test_the_last_sync_of_a_segment_may_fail_without_loss(shim: Path, tmp_path: Path) -> None:
    outcome = send(shim, tmp_path, FAIL_FDATASYNC=13)  # that of the trailer
    assert outcome.refused == {}
    assert outcome.kept == outcome.acknowledged == list(range(12))
    assert failed_descriptor_syncs(outcome.log) == 0
