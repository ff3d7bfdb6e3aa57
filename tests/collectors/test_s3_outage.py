"""The store away and back: what was acknowledged meanwhile is all there, once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lake.conftest import s3_endpoint, s3_store  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "tests.collectors.s3_outage"]


def outage(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)


def arguments(store: tuple[str, dict[str, str]]) -> list[str]:
    uri, options = store
    return [options["aws_endpoint_url"], uri.removeprefix("s3://").partition("/")[0]]


@pytest.mark.s3
def test_the_store_goes_away_and_comes_back(
    tmp_path: Path,
    s3_store: tuple[str, dict[str, str]],  # noqa: F811
) -> None:
    full = os.geteuid() == 0  # only root may mount the small file system
    command = [*MODULE, str(tmp_path), *arguments(s3_store)]
    if full:
        mount = f"mount -t tmpfs -o size=8m none {tmp_path} && exec"
        listed = " ".join([*command, "full"])
        run = outage(["unshare", "-m", "sh", "-c", f"{mount} {listed}"])
        # A container may keep even root from mounting.
        full = not run.stderr.startswith(("mount: ", "unshare: "))
    if not full:
        run = outage(command)
    assert run.returncode == 0, run.stderr
    stored, refused = (int(word) for word in run.stdout.split()[1::2])
    assert stored > 15
    assert refused == int(full)
