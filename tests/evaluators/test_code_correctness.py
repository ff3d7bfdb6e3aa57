from __future__ import annotations

import json
from dataclasses import replace

import pytest

from evaluators.code_correctness import CodeCorrectness
from evaluators.session_quality import quality_of
from loop.domain.scores import Score
from loop.domain.turns import Prompt, SessionTrace, ToolEvidence
from tests.evaluators.traces import prompt, session, tool, trace, turn

EDIT = tool("e1", "Edit", "/srv/x/a.py")
PASSED = tool("b1", "Bash", "pytest", True, "=== 5 passed in 0.1s ===")
FAILED = tool("b2", "Bash", "pytest", False, "Exit code 1\n=== 1 failed, 4 passed in 0.1s ===")


def judge(*steps: ToolEvidence) -> Score:
    return CodeCorrectness().evaluate(session(*steps, claim="Done."))


def value(*steps: ToolEvidence) -> float:
    score = judge(*steps)
    assert score.value is not None, score.unscored_reason
    return score.value


def test_the_last_run_after_the_last_edit_counts() -> None:
    assert value(EDIT, PASSED) > 0.9
    assert value(FAILED, EDIT, PASSED) == value(EDIT, PASSED)
    assert value(EDIT, FAILED) < 0.4
    assert value(EDIT, PASSED, FAILED) == value(EDIT, FAILED)


def test_a_run_before_the_last_edit_says_little() -> None:
    outdated = value(EDIT, PASSED, tool("e2", "Edit", "/srv/x/a.py"))
    assert value(EDIT, FAILED) < outdated < value(EDIT, PASSED)


def test_a_run_without_an_edit_describes_the_code_as_found() -> None:
    assert value(EDIT, FAILED) > value(FAILED) > 0.1
    assert judge(FAILED).coverage < judge(EDIT, FAILED).coverage


def test_edits_alone_prove_nothing() -> None:
    score = judge(EDIT)
    assert score.value is None
    assert "no run, commit or reaction" in score.unscored_reason


def test_no_edit_and_no_run_is_unscored() -> None:
    assert judge(tool("r1", "Read", "/a.py", True, "x")).value is None
    assert judge(tool("e1", "Edit", "/a.py", False, "no")).value is None
    assert judge(tool("e1", "Write", "/README.md")).value is None


def test_a_run_whose_result_was_not_seen_is_unscored() -> None:
    score = judge(tool("b1", "Bash", "pytest", None))
    assert score.unscored_reason == "The result of no run was seen."


def test_thrown_away_edits_cost() -> None:
    kept = value(EDIT, PASSED)
    thrown = value(EDIT, PASSED, tool("g1", "Bash", "git checkout -- a.py"))
    whole = value(EDIT, PASSED, tool("g1", "Bash", "git reset --hard"))
    other = judge(EDIT, PASSED, tool("g1", "Bash", "git checkout -- b.py"))
    assert thrown < kept
    assert whole < kept
    assert "edits kept" in [finding.claim for finding in other.findings]


def replaced(number: int, old: str, new: str, path: str = "a.py") -> ToolEvidence:
    given = json.dumps({"file_path": path, "old_string": old, "new_string": new})
    return replace(tool(f"e{number}", "Edit", path), input_text=given)


def test_an_edit_turned_back_by_hand_is_thrown_away() -> None:
    there, back = replaced(1, "a - b", "a + b"), replaced(2, "a + b", "a - b")
    findings = judge(there, back, PASSED).findings
    undone = next(finding for finding in findings if finding.claim == "edits reverted")
    assert undone.evidence == ("e2",)
    assert undone.reason == "1 of 1 edited files were thrown away."
    for kept in ((there, replaced(2, "a + b", "b + a")), (there, back, there), (back, back)):
        assert "edits kept" in [finding.claim for finding in judge(*kept, PASSED).findings]


def test_a_commit_counts_and_a_failed_one_counts_against() -> None:
    done = tool("g1", "Bash", "git commit -am x", True, "[main 1234abc] x")
    failed = tool("g1", "Bash", "git commit -am x", False, "Exit code 1\nhusky - pre-commit")
    assert value(EDIT, PASSED, done) > value(EDIT, PASSED) > value(EDIT, PASSED, failed)


def reacted(text: str, *, from_human: bool = True) -> SessionTrace:
    return trace(
        turn(1, EDIT),
        turn(2, PASSED),
        turn(3, text="Done."),
        turn(5, text="I see."),
        prompts=[prompt(1, "Fix it."), prompt(4, text, from_human=from_human)],
    )


@pytest.mark.parametrize(
    "text",
    [
        "No, that's wrong.",
        "It still fails with the same error",
        "That doesn't work, the button is gone",
        "undo that please",
        "you broke the login page",
        "this is not what I asked for",
        "[Request interrupted by user for tool use]",
    ],
)
def test_a_correction_costs(text: str) -> None:
    plain = CodeCorrectness().evaluate(reacted("Now write the docs.")).value
    corrected = CodeCorrectness().evaluate(reacted(text))
    assert plain is not None
    assert corrected.value is not None
    assert corrected.value < plain - 0.1
    assert corrected.findings[-1].evidence == ("p4",)


@pytest.mark.parametrize(
    "text", ["Now write the docs.", "No problem so far; go on with step 2", "Fix the other bug too"]
)
def test_a_new_task_is_no_reaction(text: str) -> None:
    findings = CodeCorrectness().evaluate(reacted(text)).findings
    assert "next prompt" not in [finding.claim for finding in findings]


def test_praise_counts_for_but_praise_with_a_but_does_not() -> None:
    assert _claims(reacted("Perfect, thanks!"))[-1] == "next prompt"
    assert "next prompt" not in _claims(reacted("Great, but now the layout looks odd"))


def test_a_task_notification_is_never_a_reaction() -> None:
    text = "<task-notification>\nNo, that's wrong.</task-notification>"
    assert "next prompt" not in _claims(reacted(text, from_human=False))
    assert "next prompt" not in _claims(reacted(text))


def test_a_prompt_before_the_first_edit_is_never_a_reaction() -> None:
    built = reacted("Go on.")
    early = Prompt("p0", built.turns[0].turn.started_at_us - 5, "No, that's wrong.", "present", 17)
    prompts = (early, *built.prompts)
    assert "next prompt" not in _claims(trace(*built.turns, prompts=prompts))


def _claims(built: SessionTrace) -> list[str]:
    return [finding.claim for finding in CodeCorrectness().evaluate(built).findings]


def test_quality_weighs_only_what_was_scored() -> None:
    def score(name: str, number: float | None) -> Score:
        return Score("s", name, "1", number, "" if number is not None else "no evidence")

    assert quality_of([]) is None
    assert quality_of([score("faithfulness", None)]) is None
    assert quality_of([score("tool_use", 0.5), score("faithfulness", None)]) == 0.5
    whole = [score("faithfulness", 1.0), score("tool_use", 0.5), score("code_correctness", 0.0)]
    assert quality_of(whole) == pytest.approx(0.5)
    assert quality_of([*whole, score("somebody_elses", 0.0)]) == pytest.approx(0.5)
    assert quality_of([score("tool_use", 0.1), score("tool_use", 0.9)]) == pytest.approx(0.9)
