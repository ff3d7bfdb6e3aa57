"""What is vendored is what it says it is, and is credited."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "loop" / "service" / "web"
FILES: list[dict[str, Any]] = tomllib.loads((WEB / "vendored.toml").read_text())["file"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file["name"])
def test_each_vendored_file_has_its_hash_its_version_and_its_notice(file: dict[str, Any]) -> None:
    path = ROOT / file["path"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
    assert file["version"] in path.name
    notice = (ROOT / "NOTICE").read_text()
    assert f"{file['name']} {file['version']} ({file['licence']}" in notice
    assert file["path"] in notice
    for bundled in file.get("bundles", ()):
        assert bundled in notice


def test_nothing_is_vendored_without_being_listed() -> None:
    vendored = {
        str(path.relative_to(ROOT))
        for folder in (WEB / "static" / "vendor", ROOT / "tests" / "browser" / "vendor")
        for path in folder.iterdir()
    }
    assert vendored == {file["path"] for file in FILES}


def test_what_only_tests_use_is_not_shipped() -> None:
    for file in FILES:
        assert file["path"].startswith("loop/") == file["shipped"]
