"""Who runs as which process, and what a kill of one costs: nothing that was acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from loop.lake import Lake
from tests.service.service_process import (
    SOON_SECONDS,
    api_request,
    clean_environment,
    serve_process,
    wait_until,
)
from tests.service.test_serve import post_logs, spend_rows


def children_of(pid: int) -> list[int]:
    """The direct child processes, zombies left out."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = status.read_text().rpartition(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = rest.split()[:2]
        if int(parent) == pid and state != "Z":
            found.append(int(status.parent.name))
    return found


def drainer_of(pid: int) -> int | None:
    """The child that drains, once it runs as such."""
    for child in children_of(pid):
        if b"--supervised" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    return None


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def turns_of(data_dir: Path) -> dict[str, int]:
    """Turns by session, as they are in the lake now."""
    lake = Lake.open(str(data_dir / "lake"))
    rows = lake.query("SELECT session_id, count(*) AS turns FROM turns GROUP BY session_id")
    return {row["session_id"]: row["turns"] for row in rows}


@contextmanager
def command(data_dir: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A long-running command and its ready line; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loop.service", *arguments],
        env=clean_environment(data_dir),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        ready = process.stderr.readline()
        assert ready.startswith("ready: "), ready + process.stderr.read()
        yield process, ready
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_killed_drainer_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with serve_process(tmp_path) as process:
        addresses = process.wait_until_ready()
        first = drainer_of(process.pid)
        assert first is not None
        assert post_logs(addresses, api_request("before", 1)).status_code == 200
        os.kill(first, signal.SIGKILL)
        # The receivers do not depend on it.
        assert post_logs(addresses, api_request("without", 1)).status_code == 200
        second = wait_until(lambda: drainer_of(process.pid))
        assert second != first
        assert post_logs(addresses, api_request("after", 1)).status_code == 200
        expected = {"before": 1, "without": 1, "after": 1}

        def is_read() -> bool:
            rows = spend_rows(httpx.get(f"{addresses.api}/v1/spend?by=session").text)
            return {name: row["turns"] for name, row in rows.items()} == expected

        wait_until(is_read)
        # The drainer is another process than the one that answers for its progress.
        collect = httpx.get(f"{addresses.api}/v1/overview").json()["stages"][0]
        assert (collect["name"], collect["count"]) == ("collect", 3)
        process.send(signal.SIGTERM)
        assert process.wait_until_ended() == 0
        assert is_gone(second)
        assert "the drainer ended with -9" in process.stderr
        assert "Traceback" not in process.stderr
        assert sum(line.startswith("ready") for line in process.lines) == 1


def test_the_drainer_ends_with_a_killed_parent(tmp_path: Path) -> None:
    with serve_process(tmp_path) as process:
        addresses = process.wait_until_ready()
        drainer = drainer_of(process.pid)
        assert drainer is not None
        assert post_logs(addresses, api_request("s", 1)).status_code == 200
        process.send(signal.SIGKILL)
        process.wait_until_ended()
        wait_until(lambda: is_gone(drainer))
    assert turns_of(tmp_path) == {"s": 1}  # its last pass


def test_receivers_and_drainer_run_as_processes_of_their_own(tmp_path: Path) -> None:
    with (
        command(tmp_path, "drain") as (drainer, _),
        command(tmp_path, "drain") as (standby, _),
        command(tmp_path, "collect", "--otlp-grpc", "off") as (receivers, ready),
    ):
        url = ready.split("OTLP/HTTP ")[1].split()[0]
        assert ready.split("OTLP/gRPC ")[1].split()[0] == "off"

        def post(number: int) -> None:
            httpx.post(
                f"{url}/v1/logs",
                content=api_request("s", number),
                headers={"Content-Type": "application/x-protobuf"},
            ).raise_for_status()

        post(1)
        wait_until(lambda: turns_of(tmp_path) == {"s": 1})
        drainer.kill()  # the one that stands by takes over
        drainer.wait()
        post(2)
        wait_until(lambda: turns_of(tmp_path) == {"s": 2})
        for process in (receivers, standby):
            process.terminate()
            assert process.wait(SOON_SECONDS) == 0
