"""Texts written to make matching slow: what models and repositories write is not to be trusted."""

from __future__ import annotations

import time

import pytest

from evaluators import default_evaluators
from tests.evaluators.traces import session, tool

CHARS = 60_000
CLAIMS = [
    "all tests ",
    "tests, lint, ",
    "tests (",
    "> ",
    '"',
    "*",
    "1,000 ",
    "a/",
    "`a`, ",
    " ",
    "\n",
]
COMMANDS = ["<<a ", "'", '"', "\\", "(", "$(", "a|", "&", "\n", "A=1 ", "#\n"]
OUTPUTS = ["Ran 1 tests in ", "1 fail\n", "=", "1 passed, ", "Summary [", "1", " ", "ok\n", "[a"]


@pytest.mark.parametrize(
    ("claim", "command", "output"),
    [
        *[(part, "pytest", "1 passed in 1s") for part in CLAIMS],
        *[("x", part, "") for part in COMMANDS],
        *[("x", "pytest | cat", part) for part in OUTPUTS],
    ],
)
def test_hostile_texts_are_read_in_time(claim: str, command: str, output: str) -> None:
    built = session(
        tool("t1", "Bash", command * (CHARS // len(command)) if len(command) < 6 else command,
             True, output * (CHARS // max(1, len(output))) if len(output) < 20 else output),
        claim=claim * (CHARS // len(claim)) + " pass",
    )  # fmt: skip
    started = time.process_time()
    for evaluator in default_evaluators():
        evaluator.evaluate(built)
    assert time.process_time() - started < 2.0
