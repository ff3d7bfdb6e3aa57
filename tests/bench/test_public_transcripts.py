"""The benchmark of the import: how the files are laid out, and what it says of differences."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from bench.public_transcripts import differences, measure, our_totals, report, unpack

RECORDINGS = Path(__file__).parents[2] / "examples" / "recordings"


def test_files_are_laid_out_and_measured_as_the_client_keeps_them(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in (RECORDINGS / "a05_subagent" / "transcript").rglob("*.jsonl"):
        is_agent = path.parent.name == "subagents"
        session = path.parent.parent.name if is_agent else path.stem
        name = f"acme+shop__{session}" + (f"__subagents__{path.stem}" if is_agent else "")
        (raw / f"{name}.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    projects = tmp_path / "projects"
    assert unpack(raw, projects) == 2
    assert len(list(projects.glob("acme+shop/*/subagents/agent-*.jsonl"))) == 1
    timing = measure(projects, 1)
    assert timing["import"].wall_ratio > 0
    _, totals, unpriced = our_totals(projects, tmp_path / "data")
    assert (set(totals), unpriced) == ({"claude-opus-4-7"}, 0)
    assert differences(totals, totals) == []


def test_a_difference_is_told_by_model_and_class() -> None:
    ours = {"m": dict.fromkeys(("input", "output", "cache_read", "cache_creation"), 5)}
    ours["m"]["cost_microusd"] = 9
    (row,) = differences(ours, {})
    assert (row["model"], row["output"], row["cost_microusd"]) == ("m", 5, 9)
    timing = {"wall_seconds": 1.0, "cpu_seconds": 1.0, "wall_ratio": 1.5, "cpu_ratio": 1.25}
    peer: dict[str, Any] = {"version": "1", "seconds": 2.0, "models": 1, "cost_microusd": 4}
    answer = {
        "files": 1, "megabytes": 3.0, "runs": 1, "load_average": 0.5, "process_seconds": 2.0,
        "timing": {"orjson": timing, "import": timing}, "turns": 7, "cost_microusd": 9,
        "peer": peer | {"differences": [row]},
    }  # fmt: skip
    text = report(answer)
    assert "| m | +5 | +5 | +5 | +5 | +9 |" in text
    assert "there: +5" in text
    assert "was not measured" in report(answer | {"peer": None})
