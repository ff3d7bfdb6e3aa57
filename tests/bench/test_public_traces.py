"""Public runs become traces that hold what the sets hold, and no more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from bench.public_calls import bfcl_calls, read_calls
from bench.public_evaluators import (
    classify_valid,
    compare_with_labels,
    judge,
    measure_calls,
    measure_runs,
    measure_sessions,
)
from bench.public_evaluators_report import report
from bench.public_traces import mini_swe_runs, swe_bench_runs, tau_bench_runs


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def swe_bench_row(name: str = "made__up-1", denials: list[Any] | None = None, **more: Any) -> Any:
    return {
        "instance_id": name, "resolved": False, "eval_status": "unresolved", "num_turns": 12,
        "cost_usd": 0.2, "latency_ms": 9_000, "output_tokens": 900, "is_error": False,
        "final_message": "I created `a.py`. All tests pass.",
        "permission_denials_json": json.dumps(denials or []),
    } | more  # fmt: skip


def test_refused_calls_are_not_taken_for_the_whole_session(tmp_path: Path) -> None:
    """The write was refused, but a later one may have been carried out: nothing is contradicted."""
    refused = {"tool_name": "Write", "tool_use_id": "w1", "tool_input": {"file_path": "a.py"}}
    write(tmp_path, "claude_code_swebench_lite/data.parquet", [swe_bench_row(denials=[refused])])
    [judged] = judge(swe_bench_runs(tmp_path))
    decisions = [tool.call.decision for turn in judged.run.trace.turns for tool in turn.tools]
    assert decisions == ["", "reject", ""]
    verdicts = {f.verdict for s in judged.scores for f in s.findings if s.evaluator != "tool_use"}
    assert verdicts == {"not_checkable"}
    assert judged.values["faithfulness"] is None
    assert judged.values["tool_use"] is not None


def test_without_a_call_at_hand_nothing_is_scored(tmp_path: Path) -> None:
    write(tmp_path, "claude_code_swebench_lite/data.parquet", [swe_bench_row()])
    [judged] = judge(swe_bench_runs(tmp_path))
    assert set(judged.values.values()) == {None}


def mini_step(number: int, message: str, code: float | None, seen: str, chars: int = 0) -> Any:
    return {
        "instance_id": "made__up-1", "step": number, "prompt_tokens": 900, "cached_tokens": 500,
        "completion_tokens": 50, "cost_usd": 0.01, "returncode": code,
        "observation_chars": chars or len(seen), "message": message, "observation_head": seen,
    }  # fmt: skip


def test_a_command_keeps_its_code_and_what_is_left_of_its_output(tmp_path: Path) -> None:
    run = {
        "instance_id": "made__up-1", "resolved": True, "patch_applied": True,
        "exit_status": "Submitted", "cost_usd": 0.1, "api_calls": 4, "patch": "diff",
    }  # fmt: skip
    failed = "<returncode>1</returncode>\n<output>\n=== 1 failed in 0.1s ===\n</output>"
    steps = [
        mini_step(0, "Run it.\n\n```bash\npytest -q\n```", 1.0, failed),
        mini_step(1, "Two.\n```bash\nls\n```\n```bash\nls\n```", None, "Please always provide"),
        mini_step(2, "Look.\n\n```bash\nls\n```", 0.0, "<returncode>0</returncode>\n<out", 5_000),
        mini_step(3, "All tests pass.\n\n```bash\necho DONE\n```", None, "diff --git a/x b/x"),
    ]
    write(tmp_path, "minisweagent_gemini3pro/runs.parquet", [run])
    write(tmp_path, "minisweagent_gemini3pro/steps.parquet", steps)
    [judged] = judge(mini_swe_runs(tmp_path))
    tools = [turn.tools for turn in judged.run.trace.turns]
    assert [len(item) for item in tools] == [1, 0, 1, 1]
    assert tools[0][0].call.success is False
    assert tools[0][0].output_text == "Exit code 1\n=== 1 failed in 0.1s ==="
    assert json.loads(tools[0][0].input_text) == {"command": "pytest -q"}
    assert tools[2][0].output_state == "truncated"
    assert tools[3][0].call.success is None
    findings = [
        f.verdict for s in judged.scores if s.evaluator == "faithfulness" for f in s.findings
    ]
    assert findings == ["contradicted"]


def tau_row(trial: int, reward: float, result: str) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "book", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Book it."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "name": "book", "content": result},
        {"role": "assistant", "content": "It is booked."},
    ]
    return {
        "item_id": "airline:0", "trial": trial, "reward": reward, "n_messages": len(messages),
        "n_tool_calls": 1, "trajectory_json": json.dumps(messages),
    }  # fmt: skip


def test_an_error_of_the_environment_is_a_failed_call(tmp_path: Path) -> None:
    rows = [tau_row(0, 0.0, "Error: no seat"), tau_row(1, 1.0, '{"id": 1}')]
    write(tmp_path, "taubench_airline_gpt4o/data.parquet", rows)
    bad, good = judge(tau_bench_runs(tmp_path))
    assert (bad.values["tool_use"] or 0) < (good.values["tool_use"] or 0)
    assert (bad.run.is_good, good.run.is_good) == (False, True)
    assert bad.run.group == good.run.group
    assert [prompt.text for prompt in good.run.trace.prompts] == ["Book it."]


def test_calls_are_read_from_objects_and_from_notation() -> None:
    assert read_calls([{"math.add": '{"a": 1}'}]) == [("math_add", '{"a": 1}')]
    assert read_calls("[math.add(a=1), go()]") == [("math_add", '{"a": 1}'), ("go", "{}")]
    assert read_calls("No function fits.") == []
    assert read_calls("[1, 2]") == []
    assert read_calls(None) == []


PARAMETERS = {
    "type": "dict",
    "properties": {"a": {"type": "integer"}, "b": {"type": "float"}},
    "required": ["a"],
}


def bfcl_data(folder: Path) -> None:
    question = {
        "id": "simple_python_1", "category": "simple_python",
        "functions_json": json.dumps([{"name": "math.add", "parameters": PARAMETERS}]),
        "possible_answer_json": json.dumps([{"math.add": {"a": [1], "b": [2.0, ""]}}]),
    }  # fmt: skip
    call = {
        "id": "simple_1", "category": "simple", "model": "m1", "valid": True, "error_type": None,
        "result_json": json.dumps([{"math_add": '{"a": 1}'}]), "input_tokens": 9,
        "output_tokens": 5, "latency_s": 1.0,
    }  # fmt: skip
    wrong = call | {
        "model": "m2", "valid": False, "result_json": json.dumps("[subtract(a=1)]"),
        "error_type": "simple_function_checker:wrong_func_name",
    }  # fmt: skip
    unknown = wrong | {"id": "simple_2", "error_type": "ast_decoder:decoder_failed"}
    write(folder, "bfcl/questions.parquet", [question])
    mistyped = wrong | {
        "model": "m3", "result_json": json.dumps("[math.add(a='1')]"),
        "error_type": "type_error:simple",
    }  # fmt: skip
    write(folder, "bfcl/model_calls_2024_08.parquet", [call, wrong, unknown, mistyped])


def measure_bfcl(folder: Path) -> dict[str, Any]:
    bfcl_data(folder)
    calls = bfcl_calls(folder)
    unlabelled = [replace(run, trace=replace(run.trace, expected_calls=None)) for run in calls]
    found = measure_calls(judge(unlabelled), compare_with_labels(calls), 20)
    return found | {"valid_by_category": classify_valid(judge(calls), 20)}


def test_a_call_against_the_functions_at_hand_is_flagged(tmp_path: Path) -> None:
    found = measure_bfcl(tmp_path)
    assert found["all"]["scored"] == found["all"]["scored_and_invalid"] == 2
    assert found["all"]["functions_known"] == 3
    assert found["errors"]["seen_in_signature"] == 2
    assert found["errors"]["no_call_to_read"] == 1


def test_calls_are_compared_with_the_answers_that_are_right(tmp_path: Path) -> None:
    simple, total = measure_bfcl(tmp_path)["agreement"]
    assert (simple["answers"], total["answers"]) == (3, 3)
    assert simple["exactly"] == simple["loosely"] == 1.0


def test_no_text_of_a_run_reaches_the_report(tmp_path: Path) -> None:
    write(
        tmp_path,
        "claude_code_swebench_lite/data.parquet",
        [swe_bench_row(f"secret__name-{n}", resolved=n % 2 == 0) for n in range(24)],
    )
    answer = {
        "machine": {"python": "3"},
        "evaluators": {"faithfulness": "1"},
        "sets": {"made up": measure_runs(judge(swe_bench_runs(tmp_path)), 20)},
        "bfcl": measure_bfcl(tmp_path),
        "texts": {},
        "sessions": measure_sessions(run.trace for run in swe_bench_runs(tmp_path)),
    }
    text = report(answer) + json.dumps(answer)
    assert "secret" not in text
    assert "a.py" not in text
    assert "| fewer: turns | 24 (100%) | 0.500 (0.500–0.500)" in text
