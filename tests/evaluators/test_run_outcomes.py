from __future__ import annotations

import pytest

from evaluators.run_outcomes import (
    TestCounts,
    read_check_output,
    read_exit_code,
    read_printed_status,
    read_test_counts,
)

NONE = TestCounts(0, 0, empty=True)
OUTPUTS = {
    "pytest": ("===== 3 passed, 1 skipped in 0.12s =====", TestCounts(3, 0, 1)),
    "pytest -q": ("...\n3 passed in 0.01s", TestCounts(3, 0)),
    "pytest failed": ("= 2 failed, 3 passed, 1 error in 1.20s =", TestCounts(3, 3)),
    "pytest minutes": ("== 900 passed, 4 warnings in 75.31s (0:01:15) ==", TestCounts(900, 0)),
    "pytest color": ("\x1b[32m\x1b[1m3 passed\x1b[0m\x1b[32m in 0.01s\x1b[0m", TestCounts(3, 0)),
    "pytest none": ("collected 0 items\n\n== no tests ran in 0.01s ==", NONE),
    "pytest deselected": ("=== 4 deselected in 0.02s ===", NONE),
    "unittest": ("..\n---\nRan 2 tests in 0.000s\n\nOK", TestCounts(2, 0)),
    "unittest skipped": ("Ran 5 tests in 0.1s\n\nOK (skipped=2)", TestCounts(3, 0, 2)),
    "unittest expected failures": (
        "Ran 9 tests in 0.1s\n\nOK (skipped=1, expected failures=3)",
        TestCounts(8, 0, 1),
    ),
    "unittest failed": (
        "Ran 4 tests in 0.1s\n\nFAILED (failures=1, errors=2)",
        TestCounts(1, 3),
    ),
    "unittest none": ("Ran 0 tests in 0.000s\n\nNO TESTS RAN", NONE),
    "jest": ("Tests:       1 failed, 2 skipped, 9 passed, 12 total\n", TestCounts(9, 1, 2)),
    "vitest": ("      Tests  2 failed | 19 passed (21)\n", TestCounts(19, 2)),
    "vitest passed": (" Test Files  3 passed (3)\n      Tests  21 passed (21)", TestCounts(21, 0)),
    "go": ("ok  \texample.org/a\t0.01s\n?   \texample.org/b\t[no test files]", TestCounts(None, 0)),
    "go failed": ("--- FAIL: TestA (0.00s)\nFAIL\nFAIL\texample.org/a\t0.1s", TestCounts(None, 1)),
    "go build failed": ("FAIL\texample.org/a [build failed]\nFAIL", TestCounts(None, 1)),
    "go none": ("ok  \texample.org/a\t0.2s [no tests to run]", TestCounts(None, 0, empty=True)),
    "go -v": (
        "--- PASS: TestA (0.0s)\n--- PASS: TestB (0.0s)\nPASS\nok  \tx\t0.1s",
        TestCounts(2, 0),
    ),
    "cargo": (
        "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n"
        "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured",
        TestCounts(5, 0, 1),
    ),
    "cargo failed": ("test result: FAILED. 2 passed; 1 failed; 0 ignored", TestCounts(2, 1)),
    "cargo none": ("test result: ok. 0 passed; 0 failed; 0 ignored", NONE),
    "nextest": ("Summary [  0.1s] 9 tests run: 8 passed, 1 failed, 0 skipped", TestCounts(8, 1)),
    "mocha": ("  12 passing (30ms)\n  1 failing\n", TestCounts(12, 1)),
    "rspec": ("14 examples, 2 failures", TestCounts(12, 2)),
    "mix": ("Finished in 0.9 seconds\n15 tests, 0 failures", TestCounts(15, 0)),
    "surefire": ("Tests run: 9, Failures: 1, Errors: 1, Skipped: 2", TestCounts(5, 2, 2)),
    "ctest": ("90% tests passed, 1 tests failed out of 10", TestCounts(9, 1)),
    "bun": (
        " 12 pass\n 1 fail\n 30 expect() calls\nRan 13 tests across 2 files. [9ms]",
        TestCounts(12, 1),
    ),
    "bun tail": (
        " 0 fail\n 30 expect() calls\nRan 13 tests across 2 files. [9ms]",
        TestCounts(13, 0),
    ),
    "dotnet": ("Passed!  - Failed:     0, Passed:    12, Skipped: 0", TestCounts(12, 0)),
    "playwright": ("  1 failed\n    a.spec.ts\n  4 passed (3.2s)\n", TestCounts(4, 1)),
    "nothing": ("hello, 5 passed the exam in spring", None),
    "no files": ("No test files found, exiting with code 1", NONE),
    "a diff": ("diff --git a/x b/x\n+assert 1 == 1", None),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_counts(name: str) -> None:
    output, expected = OUTPUTS[name]
    assert read_test_counts(output) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("All checks passed!", "passed"),
        ("Found 3 errors.\n", "failed"),
        ("src/a.ts(1,2): error TS2322: no", "failed"),
        ("Success: no issues found in 3 source files", "passed"),
        ("✖ 3 problems (1 error, 2 warnings)", "failed"),
        ("✖ 2 problems (0 errors, 2 warnings)", "unknown"),
        ("0 issues.", "passed"),
        ("[lint:go] 5 issues:\n", "failed"),
        ("$ tsc --noEmit", "passed"),
        ("> web@1.0.0 lint\n> eslint src\n", "passed"),
        ("", "passed"),
        ("error: script not found", "absent"),
        ("some words", "unknown"),
        ("BUILD SUCCESSFUL in 3s", "passed"),
        ('error: script "lint" exited with code 1', "failed"),
    ],
)
def test_check_output(output: str, expected: str) -> None:
    assert read_check_output(output) == expected


def test_exit_codes() -> None:
    assert read_exit_code("Exit code 5\nno tests") == 5
    assert read_exit_code("Error: Exit code 127\nx") == 127
    assert read_exit_code("The Exit code 1 is odd") is None
    assert read_printed_status("...\nEXIT: 0\nexit code: 2") == 2
    assert read_printed_status("done") is None
