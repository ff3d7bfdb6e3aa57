"""Without data the benchmarks say so; the sets are read as they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import bench.public_evaluators
import bench.public_routing
from bench.public_data import read_rows
from bench.public_routing_sets import GEMINI_FLASH, HAIKU_3, routellm, routerarena, routerbench
from loop.domain.errors import BadInput


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize("program", [bench.public_routing.main, bench.public_evaluators.main])
def test_the_data_must_be_named(program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program([])
    assert ended.value.code == 2
    assert "--data PATH" in capsys.readouterr().err


@pytest.mark.parametrize("program", [bench.public_routing.main, bench.public_evaluators.main])
def test_a_set_that_is_not_there_is_named(program: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not in the data folder"):
        program(["--data", str(tmp_path)])


def test_a_folder_that_is_not_there_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.public_routing.main(["--data", "no/such/folder"])
    assert "is no folder" in capsys.readouterr().err


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, "set/data.parquet", [{"a": 1, "b": 2}])
    assert read_rows(tmp_path, "set/data.parquet", ["b"]) == [{"b": 2}]


def test_routellm_leaves_repeated_prompts_and_other_benches_out(tmp_path: Path) -> None:
    row = {
        "bench": "mmlu", "domain": "law", "prompt": "Why?", "strong_correct": True,
        "weak_correct": False, "duplicate": False,
    }  # fmt: skip
    rows = [row, row | {"duplicate": True}, row | {"bench": "gsm8k"}]
    write(tmp_path, "routellm/data.parquet", rows)
    prompts = routellm(tmp_path, "mmlu")
    assert len(prompts) == 1
    assert prompts.gain.tolist() == [1.0]
    assert prompts.prompt_chars.tolist() == [4]


def test_routerbench_needs_both_scores(tmp_path: Path) -> None:
    strong, weak = "gpt-4-1106-preview|score", "mistralai/mixtral-8x7b-chat|score"
    row = {"sample_id": "x.1", "prompt": "Say A.", "eval_name": "x", strong: 1.0, weak: 0.25}
    write(tmp_path, "routerbench/data.parquet", [row, row | {weak: None}])
    prompts = routerbench(tmp_path)
    assert prompts.gain.tolist() == [0.75]
    assert prompts.domains.tolist() == ["x"]


def test_routerarena_pairs_the_models_by_question(tmp_path: Path) -> None:
    row = {"item_id": "q1", "dataset": "d", "question": "?", "model": HAIKU_3, "score": 0.5}
    rows = [row, row | {"model": GEMINI_FLASH, "score": 1.0}, row | {"item_id": "q2"}]
    write(tmp_path, "routerarena/data.parquet", rows)
    prompts = routerarena(tmp_path)
    assert prompts.strong_quality.tolist() == [1.0]
    assert prompts.weak_quality.tolist() == [0.5]
