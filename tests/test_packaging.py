"""The wheel holds what the service reads at run time, and nothing of the tests."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("loop", "collectors", "evaluators", "optimizers", "routing_policies")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The wheel's files and their sizes. Built with the installed hatchling: no network."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=110,
    )
    (wheel,) = target.glob("turnwise-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {item.filename: item.file_size for item in archive.infolist()}


def tracked(*patterns: str) -> set[str]:
    """Files of the checkout, caches left out."""
    return {
        str(path.relative_to(ROOT))
        for pattern in patterns
        for path in ROOT.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_and_type_marker_is_in(files: dict[str, int], package: str) -> None:
    assert f"{package}/py.typed" in files
    modules = tracked(f"{package}/**/*.py")
    assert modules
    assert modules <= files.keys()


@pytest.mark.parametrize(
    ("patterns", "at_least"),
    [
        (("loop/service/web/templates/*.html",), 10),
        (("loop/service/web/static/**/*",), 5),
        (("loop/ledger/prices.json",), 1),
        (("optimizers/classic_policy.json",), 1),
        (("routing_policies/policy.schema.json", "routing_policies/model_capabilities.json"), 2),
        (("loop/control/migrations/versions/*.py", "loop/control/migrations/*.mako"), 2),
    ],
    ids=["templates", "static", "prices", "classic", "policies", "migrations"],
)
def test_files_that_are_no_modules_are_in(
    files: dict[str, int], patterns: tuple[str, ...], at_least: int
) -> None:
    wanted = tracked(*patterns)
    assert len(wanted) >= at_least
    for name in wanted:
        assert files.get(name) == (ROOT / name).stat().st_size, name


def test_nothing_else_is_in(files: dict[str, int]) -> None:
    tops = {name.split("/", 1)[0] for name in files}
    others = tops - set(PACKAGES)
    assert all(name.startswith("turnwise-") and name.endswith(".dist-info") for name in others)
    assert len(others) == 1
    for name in files:
        parts = Path(name).parts
        assert not {"tests", "bench", "__pycache__"} & set(parts), name
        assert "test_" not in parts[-1], name


def test_the_licence_and_the_command_are_declared(files: dict[str, int]) -> None:
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in files)
    assert any(name.endswith("dist-info/entry_points.txt") for name in files)
