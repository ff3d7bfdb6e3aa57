"""JavaScript and Lua give every answer that the vectors expect, and that Python gives."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing_policies.conformance.cases import SECTIONS, load_vectors
from routing_policies.conformance.generation import sampled_vectors

HERE = Path(__file__).parent
LUA_MODULE = Path(__file__).parents[3] / "routing_policies" / "gateways" / "turnwise_decide.lua"
LUAS = ("lua5.1", "luajit")
VECTORS = load_vectors()


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: `make system-packages` installs what the tests need")
    return found


def javascript_answers(vectors: Any) -> dict[str, Any]:
    command = [program("node"), str(HERE / "answer_vectors.mjs")]
    done = subprocess.run(
        command, input=json.dumps(vectors).encode(), capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def lua_literal(value: Any) -> str:
    """``None`` is left out of its table, as a Lua JSON decoder would be told to."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03d}" for byte in value.encode()) + '"'
    if isinstance(value, list):
        return "{" + ",".join(lua_literal(item) for item in value) + "}"
    rows = ((key, item) for key, item in value.items() if item is not None)
    return "{" + ",".join(f"[{lua_literal(key)}]={lua_literal(item)}" for key, item in rows) + "}"


def lua_answers(lua: str, vectors: Any, folder: Path) -> list[list[str]]:
    wanted = {name: vectors[name] for name in ("policies", "buckets", "arms", "decisions")}
    # One function a section: a Lua function holds a limited number of constants.
    sections = [
        f"[{lua_literal(name)}]=(function() local t={{}}\n"
        + "\n".join(
            f"t[{lua_literal(key)}]=(function() return {lua_literal(item)} end)()"
            for key, item in (part.items() if isinstance(part, dict) else enumerate(part, start=1))
        )
        + "\nreturn t end)()"
        for name, part in wanted.items()
    ]
    table = folder / "vectors.lua"
    table.write_text("return {" + ",".join(sections) + "}")
    command = [program(lua), str(HERE / "answer_vectors.lua"), str(table), str(LUA_MODULE)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def expected_of_lua(vectors: Any) -> list[list[str]]:
    rows = [[str(case["expected"])] for case in vectors["buckets"]]
    rows += [[case["expected"]["arm"], str(case["expected"]["bucket"])] for case in vectors["arms"]]
    for case in vectors["decisions"]:
        route = case["expected"]["route"]
        as_requested = str(route["as_requested"]).lower()
        rows.append(
            [route["model"], route["rule_id"], route["effort"], as_requested]
            + [str(route["run_requests"])]
            + case["expected"]["unit_key"]
        )
    return rows


@pytest.fixture(scope="module")
def javascript() -> dict[str, Any]:
    return javascript_answers(VECTORS)


@pytest.mark.parametrize("section", SECTIONS)
def test_javascript_holds_to_the_vectors(section: str, javascript: dict[str, Any]) -> None:
    assert len(javascript[section]) == len(VECTORS[section]) > 0
    for case, found in zip(VECTORS[section], javascript[section], strict=True):
        assert found == case["expected"], case


@pytest.mark.parametrize("lua", LUAS)
def test_lua_holds_to_the_vectors(lua: str, tmp_path: Path) -> None:
    assert lua_answers(lua, VECTORS, tmp_path) == expected_of_lua(VECTORS)


@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_javascript_agrees_on_fresh_samples(seed: int) -> None:
    sample = sampled_vectors(seed, buckets=20, arms=20, decisions=200, features=100, repairs=100)
    answers = javascript_answers(sample)
    for section in SECTIONS:
        for case, found in zip(sample[section], answers[section], strict=True):
            assert found == case["expected"], case


@pytest.mark.parametrize("lua", LUAS)
def test_lua_agrees_on_fresh_samples(lua: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(max_examples=5)
    @given(st.integers(0, 2**32))
    def agrees(seed: int) -> None:
        sample = sampled_vectors(seed, buckets=20, arms=20, decisions=200, features=0, repairs=0)
        folder = tmp_path_factory.mktemp("lua")
        assert lua_answers(lua, sample, folder) == expected_of_lua(sample)

    agrees()
