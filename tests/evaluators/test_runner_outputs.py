"""What real runners print, recorded with their versions, read as it is in a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluators.session_evidence import read_evidence
from tests.evaluators.traces import session, tool

FOLDER = Path(__file__).with_name("runner_outputs")
INDEX: dict[str, dict[str, Any]] = json.loads((FOLDER / "index.json").read_text("utf-8"))
COUNTS = {  # passed, failed, skipped; by the tests that were run
    "pytest_passed": (2, 0, 1),
    "pytest_quiet_passed": (2, 0, 1),
    "pytest_failed": (1, 1, 1),
    "pytest_quiet_failed": (1, 1, 1),
    "pytest_error": (0, 1, 0),
    "unittest_passed": (3, 0, 1),
    "unittest_failed": (2, 1, 1),
    "cargo_test_passed": (2, 0, 1),
    "cargo_test_failed": (0, 2, 1),
    "go_test_verbose_passed": (2, 0, 1),
    "go_test_verbose_failed": (1, 1, 1),
    "ctest_passed": (2, 0, 0),
    "ctest_failed": (1, 1, 0),
    "jest_passed": (2, 0, 1),
    "jest_failed": (1, 1, 1),
    "vitest_passed": (2, 0, 1),
    "vitest_failed": (1, 1, 1),
}
OUTCOMES = {"error": "failed", "fixed": "passed", "warned": "passed"}


def wanted_outcome(name: str) -> str:
    ending = name.rsplit("_", 1)[1]
    return OUTCOMES.get(ending, ending)


def outcome(name: str, command: str, *, is_seen: bool) -> tuple[str, tuple[int, int, int] | None]:
    """What the evidence says of the run; ``is_seen`` is whether its exit status is the line's."""
    recorded = INDEX[name]
    output = (FOLDER / f"{name}.txt").read_text("utf-8")
    success = not is_seen or recorded["exit_status"] == 0
    if not success:
        output = f"Exit code {recorded['exit_status']}\n{output}"
    evidence = read_evidence(session(tool("t1", "Bash", command, success, output), claim=""))
    check, *also = evidence.checks
    assert [found.kind for found in also] in ([], ["build"])  # tests that don't even compile
    counts = check.counts
    known = (counts.passed or 0, counts.failed, counts.skipped) if counts else None
    return check.outcome, known


@pytest.mark.parametrize("name", INDEX)
def test_a_run_is_read_from_its_status_and_summary(name: str) -> None:
    read, counts = outcome(name, INDEX[name]["command"], is_seen=True)
    assert read == wanted_outcome(name)
    if name in COUNTS:
        assert counts == COUNTS[name]


@pytest.mark.parametrize("name", [name for name in INDEX if not name.endswith("_warned")])
def test_a_run_whose_status_is_hidden_is_read_from_its_summary(name: str) -> None:
    read, counts = outcome(name, f"{INDEX[name]['command']} 2>&1 | tail -400", is_seen=False)
    assert read == wanted_outcome(name)
    if name in COUNTS:
        assert counts == COUNTS[name]


def test_every_recording_says_its_version() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(INDEX)
    assert all(recorded["version"][0].isdigit() for recorded in INDEX.values())
