"""The journal: what was acknowledged is read back, whatever happened to the process or the disk."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.journal import Journal, JournalLimits, has_records, recover, sealed_segments
from collectors.segments import MAGIC, Record, encode_record, encode_trailer, read_segment
from loop.domain.errors import Unavailable
from tests.collectors.pipeline import ROOMY

RECORDS = st.builds(
    Record,
    kind=st.sampled_from(["logs", "metrics", "traces", "transcript", "decisions"]),
    content_type=st.sampled_from(["protobuf", "json"]),
    body=st.binary(max_size=200),
    received_at_us=st.integers(0, 2**62),
    credential=st.text(max_size=20),
)


def bodies(directory: Path) -> list[bytes]:
    return [
        record.body for path in sealed_segments(directory) for record in read_segment(path).records
    ]


@given(records=st.lists(RECORDS, max_size=8))
def test_a_sealed_segment_reads_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    path = tmp_path_factory.mktemp("segment") / "1.sealed"
    path.write_bytes(MAGIC + b"".join(map(encode_record, records)) + encode_trailer(len(records)))
    content = read_segment(path)
    assert list(content.records) == records
    assert content.damage == ""


@settings(deadline=None)
@given(records=st.lists(RECORDS, min_size=1, max_size=5), data=st.data())
def test_a_torn_tail_loses_only_what_was_torn(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("segment") / "1.sealed"
    frames = [encode_record(record) for record in records]
    whole = MAGIC + b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    content = read_segment(path)
    ends = [len(MAGIC) + sum(map(len, frames[: index + 1])) for index in range(len(frames))]
    assert len(content.records) == sum(end <= cut for end in ends)
    assert list(content.records) == records[: len(content.records)]
    assert content.damage == ""


@settings(deadline=None)
@given(records=st.lists(RECORDS, min_size=1, max_size=5), data=st.data())
def test_damage_inside_a_sealed_segment_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("segment") / "1.sealed"
    content = bytearray(
        MAGIC + b"".join(map(encode_record, records)) + encode_trailer(len(records))
    )
    end = len(content) - len(encode_trailer(0))
    position = data.draw(st.integers(len(MAGIC), end - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert read_segment(path).damage


def test_concurrent_appends_share_a_segment(tmp_path: Path) -> None:
    async def append_all(journal: Journal) -> None:
        await asyncio.gather(
            *(journal.append("logs", "json", str(index).encode()) for index in range(200))
        )

    with Journal(tmp_path, ROOMY) as journal:
        asyncio.run(append_all(journal))
        assert has_records(tmp_path)
        journal.seal()
        assert len(sealed_segments(tmp_path)) == 1
        assert sorted(map(int, bodies(tmp_path))) == list(range(200))


def test_an_open_segment_is_sealed_by_age(tmp_path: Path) -> None:
    limits = JournalLimits(0, 100.0, seal_after_seconds=0.05)
    with Journal(tmp_path, limits) as journal:
        journal.append_sync("logs", "json", b"1")
        for _ in range(100):
            if sealed_segments(tmp_path):
                break
            time.sleep(0.02)
        assert bodies(tmp_path) == [b"1"]


def test_a_live_segment_is_never_recovered_and_a_dead_one_is(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from collectors.journal import Journal, JournalLimits
        journal = Journal(Path(sys.argv[1]), JournalLimits(0, 100.0, seal_after_seconds=60))
        journal.append_sync("logs", "json", b"acknowledged")
        print("ready", flush=True)
        sys.stdin.read()
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.readline() == b"ready\n"
        assert recover(tmp_path) == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        assert len(recover(tmp_path)) == 1
    assert bodies(tmp_path) == [b"acknowledged"]


def test_a_disk_that_fills_up_refuses_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from collectors.journal import Journal, JournalLimits
        from loop.domain.errors import Unavailable
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = Journal(Path(sys.argv[1]), JournalLimits(0, 100.0, seal_after_seconds=60))
        journal.append_sync("logs", "json", b"a" * 1000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
        for _ in range(3):
            try:
                journal.append_sync("logs", "json", b"b" * 5000)
            except Unavailable as error:
                print("refused", error.retry_after_seconds > 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, resource.RLIM_INFINITY))
        journal.append_sync("logs", "json", b"c" * 5000)
        journal.close()
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, timeout=60, check=True
    )
    assert run.stdout.splitlines() == [b"refused True"] * 3
    assert bodies(tmp_path) == [b"a" * 1000, b"c" * 5000]
    assert all(read_segment(path).damage == "" for path in sealed_segments(tmp_path))


# Only root may mount. The refusal itself is tested everywhere, by a limit on the size of files in
# the test above; here the file system is really full.
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_no_space_left_on_a_real_file_system(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from collectors.journal import Journal, JournalLimits, sealed_segments
        from collectors.segments import read_segment
        from loop.domain.errors import Unavailable
        directory = Path(sys.argv[1])
        journal = Journal(directory / "journal", JournalLimits(0, 100.0))
        acknowledged = 0
        try:
            for index in range(1000):
                journal.append_sync("logs", "json", bytes([index % 256]) * 4096)
                acknowledged += 1
        except Unavailable as error:
            assert "No space left" in error.why, error.why
        journal.close()
        read = sum(
            len(read_segment(path).records) for path in sealed_segments(directory / "journal")
        )
        assert 0 < acknowledged <= read < 1000, (acknowledged, read)
        """
    )
    mount = f"mount -t tmpfs -o size=256k none {tmp_path} && exec {sys.executable} -c"
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} "$0" {tmp_path}', script],
        capture_output=True,
        timeout=60,
    )
    if run.returncode != 0 and run.stderr.startswith((b"mount: ", b"unshare: ")):
        # A container may keep even root from mounting; then nothing was run that could fail.
        pytest.skip("this machine does not let us mount a tmpfs")
    assert run.returncode == 0, run.stderr.decode()


def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ROOMY)
    journal.close()
    with pytest.raises(Unavailable):
        journal.append_sync("logs", "json", b"late")


def test_only_this_user_can_read_what_was_received(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", ROOMY) as journal:
        journal.append_sync("logs", "json", b"1")
        journal.seal()
    (segment,) = sealed_segments(tmp_path / "journal")
    assert segment.stat().st_mode & 0o077 == 0
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
