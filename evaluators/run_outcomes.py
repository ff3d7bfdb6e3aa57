"""What came of a check: counts and outcome read from runners' own summaries and exit statuses.

Formats after the runners' documented output: pytest, unittest, jest, vitest, mocha, playwright,
go test, cargo test and nextest, rspec, ExUnit, surefire, ctest, bun, dotnet; ruff, eslint, mypy,
pyright, tsc, golangci-lint, credo, Maven and Gradle for the other checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

Outcome = Literal["passed", "failed", "empty", "absent", "unknown"]


@dataclass(frozen=True, slots=True)
class TestCounts:
    """Sums over the summaries of one output; ``None`` where the runner prints no number."""

    __test__ = False  # not a test class, whatever its name says

    passed: int | None
    failed: int
    skipped: int = 0
    empty: bool = False
    # Whether the last of several summaries reports no failure.
    ends_well: bool = field(default=False, compare=False)


OUTPUT_CHARS = 30_000  # read from the end: as much as the client keeps of a command's output
_BLANK_LINES = re.compile(r"\n{3,}")
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_EXIT_CODE = re.compile(r"\A\s*(?:Error:\s*)?Exit code (\d+)\b")
_PRINTED_STATUS = re.compile(r"(?i)\b(?:exit|status|rc|code)\b[ _a-z]*[:=]\s*(\d{1,3})\b")
_OPAQUE_ERRORS = frozenset(("", "Shell command failed", "Error", "<REDACTED>"))

# Words of pytest's summary line, which this reads: nothing is skipped or expected to fail here.
_PYTEST = re.compile(
    r"(?m)^=*\s*((?:\d+ (?:failed|passed|skipped|errors?|xfailed|xpassed|deselected|warnings?"
    r"|rerun|subtests (?:passed|failed)|snapshots? (?:passed|failed"
    r"|updated))(?:, )?)+) in [\d.:]+ ?s"
)
_PYTEST_WORDS = (
    "passed",
    "failed",
    "error",
    "skipped",
    "deselected",
    "xfailed",
    "warning",
    "no tests ran",
)
# What pytest counts, in its own words: they are read here, and nothing is skipped by them.
_PYTEST_COUNTS = ("failed", "passed", "skipped", "error", "xfailed", "xpassed")
_PYTEST_PART = re.compile(rf"(\d+) ({'|'.join(_PYTEST_COUNTS)})")
_SYMPY_PART = re.compile(r"(\d+) (passed|failed|exceptions|skipped)")
_PYTEST_EMPTY = re.compile(r"(?m)^=*\s*no tests ran\b|^collected 0 items")
_UNITTEST = re.compile(r"(?m)^Ran (\d+) tests? in [\d.]+s\s*\n+\s*(OK|FAILED|NO TESTS RAN)([^\n]*)")
_UNITTEST_PART = re.compile(r"(?<!expected )(failures|errors|skipped)=(\d+)")
_JEST = re.compile(r"(?m)^\s*Tests:\s+(.*\btotal)\s*$")
_VITEST = re.compile(r"(?m)^\s*Tests\s{2,}(.*\(\d+\))\s*$|^\s*Tests\s+(\d+ (?:failed|passed).*)$")
_NOT_RUN = ("skipped", "todo", "pending")
_SUITES_FAILED = re.compile(r"(?m)^\s*Test (?:Suites|Files):?\s+(\d+) failed")
_PHPUNIT_OK = re.compile(r"(?m)^OK(?:, but .*)? \((\d+) tests?, ")
_PHPUNIT = re.compile(
    r"(?m)^(?:ERRORS"
    r"|FAILURES)!\s+Tests: (\d+), Assertions: \d+(?:, Errors: (\d+))?(?:, Failures: (\d+))?"
)
_WORDED_COUNT = re.compile(r"(\d+) (failed|passed|skipped|todo|pending|total)")
_NO_FILES = re.compile(
    r"No test files found|No tests (?:were )?found|no tests to run\]?\s*\Z|\[no test files\]"
)
_CARGO = re.compile(r"test result: (ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored")
_NEXTEST = re.compile(r"Summary \[[^\]\n]{0,40}\] +(\d+)(?:/\d+)? tests? run: (\d+) passed(.*)")
_GO_OK = re.compile(r"(?m)^ok\s+\S+")
_GO_FAIL = re.compile(r"(?m)^(?:--- FAIL: |FAIL\s+\S+\s|FAIL$)")
_GO_PASSED = re.compile(r"(?m)^\s*--- PASS: ")
_MOCHA = re.compile(r"(?m)^\s*(\d+) passing\b")
_MOCHA_FAIL = re.compile(r"(?m)^\s*(\d+) failing\b")
_EXAMPLES = re.compile(r"(?m)^\s*(?:\d+ doctests?, )?(\d+) (?:examples?|tests?), (\d+) failures?")
_SUREFIRE = re.compile(r"Tests run: (\d+), Failures: (\d+), Errors: (\d+)(?:, Skipped: (\d+))?")
_CTEST = re.compile(r"\b\d{1,3}% tests passed, (\d+) tests failed out of (\d+)")
_PLAYWRIGHT = re.compile(r"(?m)^\s+(\d+) (passed|failed|skipped|flaky)(?: \([\d.]+m?s\))?$")
_BUN = re.compile(r"(?m)^ *(\d+) fail$")
_BUN_RAN = re.compile(r"\bRan (\d+) tests? across ")
_BUN_OTHER = re.compile(r"(?m)^ *(\d+) (skip|errors?)$")
_DOTNET = re.compile(r"(?:Passed|Failed)!\s+- Failed:\s+(\d+), Passed:\s+(\d+)")


def read_exit_code(text: str) -> int | None:
    """The status in ``Exit code N``, with which the client opens a failed Bash result."""
    match = _EXIT_CODE.match(text)
    return int(match.group(1)) if match else None


def read_printed_status(text: str) -> int | None:
    """The last status that the command line itself printed, as in ``echo "exit: $?"``."""
    found = _PRINTED_STATUS.findall(text)
    return int(found[-1]) if found else None


def is_opaque_error(text: str) -> bool:
    """An error text that holds no output of the command (plain telemetry of a failed Bash)."""
    return text.strip() in _OPAQUE_ERRORS


def _sum_counts(found: list[tuple[int, int, int]], *, empty: bool = False) -> TestCounts:
    passed = sum(item[0] for item in found)
    failed = sum(item[1] for item in found)
    skipped = sum(item[2] for item in found)
    return TestCounts(
        passed,
        failed,
        skipped,
        empty or (passed + failed + skipped == 0),
        ends_well=len(found) > 1 and found[-1][1] == 0,
    )


def _worded(text: str) -> tuple[int, int, int]:
    counts = {name: int(number) for number, name in _WORDED_COUNT.findall(text)}
    return (
        counts.get("passed", 0),
        counts.get("failed", 0),
        sum(counts.get(name, 0) for name in _NOT_RUN),
    )


def _pytest(text: str) -> TestCounts | None:
    summaries = _PYTEST.findall(text)
    if not summaries:
        return TestCounts(0, 0, empty=True) if _PYTEST_EMPTY.search(text) else None
    found = []
    for summary in summaries:
        counts = dict.fromkeys(_PYTEST_COUNTS, 0)
        for number, name in _PYTEST_PART.findall(summary):
            counts[name] += int(number)
        # Tests of the session under judgement that pytest itself left out of passed and failed.
        not_counted = counts["skipped"] + counts["xfailed"] + counts["xpassed"]
        found.append((counts["passed"], counts["failed"] + counts["error"], not_counted))
    return _sum_counts(found)


def _sympy(text: str) -> TestCounts | None:
    found = []
    for line in re.findall(r"tests finished: ([^\n]*)", text):
        counts = {name: int(number) for number, name in _SYMPY_PART.findall(line)}
        failed = counts.get("failed", 0) + counts.get("exceptions", 0)
        found.append((counts.get("passed", 0), failed, counts.get("skipped", 0)))
    return _sum_counts(found) if found else None


def _unittest(text: str) -> TestCounts | None:
    found = []
    for ran, word, details in _UNITTEST.findall(text):
        parts = {name: int(number) for name, number in _UNITTEST_PART.findall(details)}
        failed = parts.get("failures", 0) + parts.get("errors", 0)
        if word == "FAILED" and not failed:
            failed = 1
        skipped = parts.get("skipped", 0)
        found.append((max(0, int(ran) - failed - skipped), failed, skipped))
    return _sum_counts(found) if found else None


def _go(text: str) -> TestCounts | None:
    passed, skipped = len(_GO_PASSED.findall(text)), text.count("--- SKIP: ")
    if _GO_FAIL.search(text):
        return TestCounts(passed or None, max(1, text.count("--- FAIL: ")), skipped)
    if not _GO_OK.search(text) and not _GO_PASSED.search(text):
        return None
    ran = [
        line
        for line in text.splitlines()
        if line.startswith("ok") and "no tests to run" not in line
    ]
    return TestCounts(passed or None, 0, skipped, empty=not ran and not passed)


def _end_of(output: str) -> str:
    """The last part, where runners summarise, without colours and runs of blanks."""
    text = output[-OUTPUT_CHARS:]
    if "\x1b" in text:
        text = ANSI.sub("", text)
    return _BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text


def read_test_counts(output: str) -> TestCounts | None:
    """Counts from a test runner's output, or ``None`` if it shows no runner's summary."""
    text = _end_of(output)
    if " in " in text and any(word in text for word in _PYTEST_WORDS):
        counts = _pytest(text)
        if counts is not None:
            return counts
    if "tests finished: " in text:
        return _sympy(text)
    if "no tests ran" in text or "collected 0 items" in text:
        return TestCounts(0, 0, empty=True)
    if "Ran " in text and " in " in text:
        counts = _unittest(text)
        if counts is not None:
            return counts
    if "Tests" in text:
        found = [_worded(line) for line in _JEST.findall(text)]
        found += [_worded(first or second) for first, second in _VITEST.findall(text)]
        if found:
            counts = _sum_counts(found)
            suites = _SUITES_FAILED.search(text) if not counts.failed else None
            return replace(counts, failed=int(suites.group(1))) if suites else counts
        surefire = _SUREFIRE.findall(text)
        if surefire:
            ran, failures, errors, skipped = (int(part or 0) for part in surefire[-1])
            failed = failures + errors
            return _sum_counts([(ran - failed - skipped, failed, skipped)])
    if "test result: " in text:
        found = [(int(p), int(f), int(i)) for _, p, f, i in _CARGO.findall(text)]
        if found:
            return _sum_counts(found)
    for hint, pattern, reader in _LESS_COMMON:
        match = pattern.search(text) if hint in text else None
        if match:
            return reader(text, match)
    if text.startswith("ok") or any(hint in text for hint in ("\nok", "FAIL", "--- PASS")):
        counts = _go(text)
        if counts is not None:
            return counts
    if _NO_FILES.search(text):
        return TestCounts(0, 0, empty=True)
    return None


def _read_mocha(text: str, match: re.Match[str]) -> TestCounts:
    failing = _MOCHA_FAIL.search(text)
    return _sum_counts([(int(match.group(1)), int(failing.group(1)) if failing else 0, 0)])


def _read_examples(text: str, match: re.Match[str]) -> TestCounts:
    return _sum_counts(
        [(int(ran) - int(failed), int(failed), 0) for ran, failed in _EXAMPLES.findall(text)]
    )


def _read_ctest(text: str, match: re.Match[str]) -> TestCounts:
    failed, total = int(match.group(1)), int(match.group(2))
    return _sum_counts([(total - failed, failed, 0)])


def _read_nextest(text: str, match: re.Match[str]) -> TestCounts:
    failed = re.search(r"(\d+) failed", match.group(3))
    return _sum_counts([(int(match.group(2)), int(failed.group(1)) if failed else 0, 0)])


def _read_playwright(text: str, match: re.Match[str]) -> TestCounts:
    counts = {name: int(number) for number, name in _PLAYWRIGHT.findall(text)}
    return _sum_counts(
        [(counts.get("passed", 0), counts.get("failed", 0), counts.get("skipped", 0))]
    )


def _read_bun(text: str, match: re.Match[str]) -> TestCounts:
    failed = int(_BUN.findall(text)[-1])
    ran = _BUN_RAN.search(text, match.end())
    others = {name[:4]: int(number) for number, name in _BUN_OTHER.findall(text)}
    skipped = others.get("skip", 0)
    passed = (int(ran.group(1)) if ran else 0) - failed - skipped
    return _sum_counts([(max(0, passed), max(failed, others.get("erro", 0)), skipped)])


def _read_phpunit(text: str, match: re.Match[str]) -> TestCounts:
    if match.re is _PHPUNIT_OK:
        return _sum_counts([(int(match.group(1)), 0, 0)])
    failed = int(match.group(2) or 0) + int(match.group(3) or 0)
    return _sum_counts([(int(match.group(1)) - failed, failed, 0)])


def _read_dotnet(text: str, match: re.Match[str]) -> TestCounts:
    return _sum_counts([(int(p), int(f), 0) for f, p in _DOTNET.findall(text)])


_LESS_COMMON = (
    ("Assertions: ", _PHPUNIT, _read_phpunit),
    (" assertions)", _PHPUNIT_OK, _read_phpunit),
    ("Summary [", _NEXTEST, _read_nextest),
    (" failure", _EXAMPLES, _read_examples),
    (" passing", _MOCHA, _read_mocha),
    ("% tests passed", _CTEST, _read_ctest),
    (" fail", _BUN, _read_bun),
    ("Failed:", _DOTNET, _read_dotnet),
    (" passed", _PLAYWRIGHT, _read_playwright),
    (" failed", _PLAYWRIGHT, _read_playwright),
)

_CHECK_FAILED = re.compile(
    r"error TS\d+|Found [1-9]\d* errors?\b(?! \(\d+ fixed, 0 remaining)"
    r"|\b[1-9]\d* problems? \([1-9]\d* errors?"
    r"|(?m:^[1-9]\d* errors?, \d+ warnings?)|(?m:^(?:\[[\w:-]+\] )?[1-9]\d* issues?[:.])"
    r"|BUILD FAIL(?:ED|URE)|exited with code [1-9]|ERROR task failed|Some (?:errors"
    r"|warnings) were emitted|npm ERR!|ELIFECYCLE|(?m:^error(?:\[E\d+\])?: )|Failed to compile"
    r"|\bBuild failed\b|(?m:^[\w./-]+\.go:\d+:\d+: )"
    r"|failed to solve|\b[1-9]\d* offenses? detected|Code style issues found"
)
_CHECK_PASSED = re.compile(
    r"All checks passed!|\(\d+ fixed, 0 remaining\)|Success: no issues found"
    r"|(?m:^(?:\[[\w:-]+\] )?0 issues\.)"
    r"|No fixes applied|\bBuild success\b|found no issues|BUILD SUCCESS(?:FUL)?"
    r"|No ESLint warnings or errors|Found 0 errors|(?m:^0 errors, )|(?m:^\s*Finished )"
    r"|\bbuilt in [\d.]+m?s\b|Compiled successfully|no problems found|no offenses detected"
)


_ECHOED_COMMAND = re.compile(r"(?m)^(?:\[[\w:-]+\] )?[$>] .*$")
_ABSENT = re.compile(
    r"(?i)command not found|no such file or directory|missing script|script not found"
    r"|unrecognized subcommand|has no script|_NO_SCRIPT|no module named (?:pytest|mypy)"
    r"|no rule to make target|no test specified|is not recognized as"
)


_MISUSED = re.compile(
    r"(?i)unrecognized arguments?:|unknown options?\b|unrecognized options?\b|invalid option"
    r"|unknown flag"
    r"|unexpected argument '|flag provided but not defined|no such option|unknown argument"
    r"|file or directory not found: |cannot find package|matched no packages"
)


def says_misused(output: str) -> bool:
    """Does the output say that the runner was called wrongly, so that it ran nothing?"""
    return _MISUSED.search(output[:1_500]) is not None


def says_absent(output: str) -> bool:
    """Does the output begin by saying that the runner, script or folder isn't there?"""
    return _ABSENT.search(output[:600]) is not None


def read_check_output(output: str) -> Outcome:
    """Passed, failed, absent or unknown from the output of a linter, type checker or build.

    Linters and type checkers are silent when they find nothing: an output of which nothing is left
    but the echoed command counts as passed.
    """
    text = _end_of(output)
    if says_absent(text):
        return "absent"
    if _CHECK_FAILED.search(text):
        return "failed"
    if _CHECK_PASSED.search(text) or not _ECHOED_COMMAND.sub("", text).strip():
        return "passed"
    return "unknown"
