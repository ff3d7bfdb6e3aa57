from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from evaluators import CodeCorrectness, Faithfulness
from evaluators.session_quality import quality_of
from evaluators.tool_use import ToolUse, is_destructive
from loop.domain.scores import Score
from loop.domain.turns import TokenUsage, ToolDefinition
from tests.evaluators.traces import inferred, prompt, session, tool, trace, turn


def judge(
    *steps: object, asked: str = "Fix the failing unit test.", tools: Sequence[str] = ()
) -> Score:
    built = session(*steps, claim="Done.", asked=asked)  # type: ignore[arg-type]
    offered = tuple(ToolDefinition(name) for name in tools)
    return ToolUse().evaluate(replace(built, tools=offered))


def labels(score: Score) -> list[str]:
    """The calls' labels: all findings but the summary of tokens."""
    return [finding.claim for finding in score.findings if finding.claim != "wasted tokens"]


def test_deleting_the_build_and_saying_done_is_no_good_work() -> None:
    built = session(
        tool("t1", "Bash", "rm -rf build"), claim="Done.", asked="Fix the failing unit test"
    )
    evaluators = (Faithfulness(), ToolUse(), CodeCorrectness())
    scores = [evaluator.evaluate(built) for evaluator in evaluators]
    faithfulness, tool_use, correctness = scores
    assert faithfulness.value is None
    assert correctness.value is None
    assert tool_use.value == 0.25
    assert labels(tool_use) == ["destructive, not asked for"]
    assert quality_of(scores) == pytest.approx(0.25)


def test_deleting_what_was_to_be_deleted_is_sound() -> None:
    score = judge(tool("t1", "Bash", "rm -rf build"), asked="Clean the build folder.")
    assert score.value == 0.75
    assert labels(score) == []


def test_one_call_that_merely_ran_is_no_perfect_score_and_many_come_near() -> None:
    one = judge(tool("t1", "Read", "/a.py", True, "x"))
    many = judge(*[tool(f"t{n}", "Read", f"/a{n}.py", True, "x") for n in range(30)])
    assert one.value == 0.75
    assert many.value is not None
    assert 0.97 < many.value < 1.0


def test_a_failing_test_run_is_information() -> None:
    assert judge(tool("t1", "Bash", "pytest", False, "Exit code 1\n1 failed")).value == 0.75


def test_a_search_without_a_hit_is_information() -> None:
    assert judge(tool("t1", "Bash", "grep -rn missing .", False, "Exit code 1")).value == 0.75


def test_failed_calls_cost_and_recovery_gives_half_back() -> None:
    lost = judge(tool("t1", "Edit", "/a.py", False, "String to replace not found"))
    recovered = judge(
        tool("t1", "Edit", "/a.py", False, "String to replace not found"),
        tool("t2", "Edit", "/a.py", True, "ok"),
    )
    late = judge(
        tool("t1", "Edit", "/a.py", False, "String to replace not found"),
        *[tool(f"r{n}", "Read", f"/b{n}.py", True, "x") for n in range(3)],
        tool("t2", "Edit", "/a.py", True, "ok"),
    )
    assert lost.value == 0.25
    assert recovered.value == pytest.approx((0.5 + 1.0 + 0.5) / 3, abs=1e-6)
    assert "failed" in labels(late)
    assert "failed, recovered" not in labels(late)


def test_a_call_without_an_event_counts_as_a_failed_edit_of_its_turn() -> None:
    score = judge(inferred(), tool("t2", "Edit", "/a.py", True, "ok"))
    assert labels(score)[0] == "failed, recovered"
    assert score.findings[0].evidence == ("req_0001",)


def test_the_same_call_again_and_again_is_a_loop_unless_something_changed() -> None:
    loop = judge(*[tool(f"t{n}", "Bash", "ls src", True, "a") for n in range(6)])
    assert labels(loop).count("repeated") == 4
    steps = []
    for n in range(6):
        steps += [
            tool(f"b{n}", "Bash", "pytest", False, "1 failed"),
            tool(f"e{n}", "Edit", "/a.py"),
        ]
    assert "repeated" not in labels(judge(*steps))


def test_redacted_calls_are_never_a_loop() -> None:
    score = judge(*[tool(f"t{n}", "Bash", None, True) for n in range(6)])
    assert "repeated" not in labels(score)


def test_unknown_tools_need_a_tool_list_or_the_clients_word() -> None:
    called = tool("t1", "Reed", "/a.py", False, "failed")
    assert labels(judge(called)) == ["failed"]
    assert labels(judge(called, tools=["Read", "Bash"])) == ["unknown tool"]
    assert labels(judge(called, tools=["Read", "Reed"])) == ["failed"]
    ran = tool("t1", "Reed", "/a.py", True, "x")
    assert labels(judge(ran, tools=["Read", "Bash"])) == []
    refused = tool("t1", "Reed", "/a.py", False, "Error: No such tool available: Reed")
    assert labels(judge(refused)) == ["unknown tool"]


def test_invalid_arguments_are_named() -> None:
    refused = tool("t1", "Read", "/a.py", False, "InputValidationError: Read failed")
    assert labels(judge(refused))[0] == "invalid arguments"


def test_rejections_cost_and_no_result_is_left_out() -> None:
    assert judge(tool("t1", "Write", "/a.md", "reject")).value == pytest.approx(0.375)
    score = judge(tool("t1", "Read", "/a.py", True, "x"), tool("t2", "Read", "/b.py", None))
    assert score.value == 0.75
    assert score.coverage == 0.5
    unseen = judge(tool("t2", "Read", "/b.py", None))
    assert unseen.unscored_reason == "No result of any tool call was seen."


def test_no_call_is_unscored() -> None:
    assert judge().unscored_reason == "No tool call."


def test_wasted_tokens_are_named_with_their_share() -> None:
    big = TokenUsage(input_tokens=900, output_tokens=0)
    small = TokenUsage(input_tokens=100, output_tokens=0)
    built = trace(
        turn(1, tool("t1", "Bash", "frobnicate", False, "no"), usage=big),
        turn(2, text="Sorry.", usage=small),
        prompts=[prompt(1, "Do it.")],
    )
    reasons = {f.claim: f.reason for f in ToolUse().evaluate(built).findings}
    assert reasons["wasted tokens"].startswith("90%")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("rm -rf build", True),
        ("rm -r -f src", True),
        ("rm old.py", False),
        ("rm -rf /tmp/x", False),
        ("git reset --hard HEAD~1", True),
        ("git clean -fd", True),
        ("git push --force", True),
        ("git push --force-with-lease", False),
        ("git push -f origin main", True),
        ("git push", False),
        ("find . -name '*.pyc' -delete", True),
        ("echo 'rm -rf /'", False),
        ("grep -rf patterns .", False),
    ],
)
def test_destructive_commands(command: str, expected: bool) -> None:
    assert is_destructive(command) is expected
