"""The store goes away and comes back while records keep coming: run as a process of its own.

``python -m tests.collectors.s3_outage DIRECTORY ENDPOINT BUCKET [full]``; with ``full`` the
directory is a small file system, and records come until its high-water mark.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from collectors.drainer import Drainer
from collectors.journal import Journal, JournalLimits
from loop.domain.errors import Unavailable
from loop.lake import Lake
from tests.collectors.pipeline import PRICES
from tests.collectors.recordings import log_body

MIB = 1024 * 1024
QUICK = {"max_retries": "1", "retry_timeout": "1s"}  # so that the test need not wait for minutes


class ProxyProcess:
    """The proxy in a process of its own: the store's client keeps Python waiting for answers."""

    def __init__(self, endpoint: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.tcp_proxy", endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._answer())

    def up(self) -> None:
        self._tell("up")

    def down(self) -> None:
        self._tell("down")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        assert self._answer() == word

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def main(directory: Path, endpoint: str, bucket: str, *, full: bool) -> None:
    proxy = ProxyProcess(endpoint)
    options = {
        "aws_endpoint_url": f"http://127.0.0.1:{proxy.port}",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "aws_region": "us-east-1",
        **QUICK,
    }
    lake = Lake.open(f"s3://{bucket}/lake", options)
    limits = JournalLimits(min_free_bytes=2 * MIB if full else 0, max_used_percent=100.0)
    with (
        Journal(directory / "journal", limits) as journal,
        Drainer(journal, lake, PRICES) as drainer,
    ):
        acknowledged: list[str] = []

        def send(count: int) -> None:
            for _ in range(count):
                session_id = f"s{len(acknowledged)}"
                journal.append_sync("logs", "json", log_body(session_id, 1, filler="x" * 100_000))
                acknowledged.append(session_id)

        send(3)
        drainer.drain_once()
        proxy.down()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused = away = 0
        for _ in range(3):  # the drainer tries again and again; receiving goes on
            send(5)
            try:
                drainer.drain_once()
            except Unavailable:
                away += 1
        assert away == 3, away
        while full and not refused:
            try:
                send(1)
            except Unavailable as error:
                refused += error.retry_after_seconds > 0 and "disk is full" in error.what
                if not refused:
                    raise
            assert len(acknowledged) < 500
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 * 1024, f"memory grew by {grown} KiB"
        proxy.up()
        drainer.drain_once()
        assert drainer.is_drained()
        time.sleep(0.6)  # the disk is looked at twice a second
        send(1)
        drainer.drain_once()
        rows = lake.query("SELECT session_id, count(*) AS n FROM events_rows GROUP BY ALL")
        assert {row["session_id"] for row in rows} == set(acknowledged)
        assert {row["n"] for row in rows} == {1}
        assert len(lake.turns_of(acknowledged)) == len(acknowledged)
        proxy.close()
        print("stored", len(acknowledged), "refused", refused)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], full="full" in sys.argv)
