"""The evaluators over the shipped recordings of the real client."""

from __future__ import annotations

import pytest

from evaluators import CodeCorrectness, Faithfulness, ToolUse, default_evaluators
from evaluators.session_quality import quality_of
from loop.domain.scores import Score
from tests.evaluators.recordings import RECORDINGS, load_trace, recording_names

UNFAITHFUL = "a04_overload_retry_unfaithful"
FAILED_RUN = "toolu_01dfe7f4e46851104004fe4b"
SOURCES = {
    "telemetry": {"transcript": False},
    "transcript": {"otlp": False},
    "both": {},
}


def with_transcript() -> list[str]:
    return [name for name in recording_names() if (RECORDINGS / name / "transcript").is_dir()]


def cases() -> list[tuple[str, str]]:
    both = [(name, source) for name in with_transcript() for source in ("transcript", "both")]
    return [(name, "telemetry") for name in recording_names()] + both


def against(score: Score) -> list[str]:
    return [f.claim for f in score.findings if f.verdict in ("contradicted", "stale")]


@pytest.mark.parametrize(("name", "source"), cases())
def test_only_the_unfaithful_answer_is_contradicted(name: str, source: str) -> None:
    score = Faithfulness().evaluate(load_trace(name, **SOURCES[source]))
    assert bool(against(score)) == (name == UNFAITHFUL)


@pytest.mark.parametrize("source", SOURCES)
def test_the_unfaithful_answer_is_contradicted_by_the_failed_run(source: str) -> None:
    score = Faithfulness().evaluate(load_trace(UNFAITHFUL, **SOURCES[source]))
    assert score.value == 0.0
    assert score.coverage == 1.0
    first = score.findings[0]
    assert first.verdict == "contradicted"
    assert first.claim.startswith("All 14 tests pass")
    assert first.evidence == (FAILED_RUN,)


@pytest.mark.parametrize("source", SOURCES)
def test_the_faithful_answer_is_supported_by_what_was_read(source: str) -> None:
    score = Faithfulness().evaluate(load_trace("a01_read_answer", **SOURCES[source]))
    assert score.value == 1.0
    assert [finding.verdict for finding in score.findings] == ["supported"]


@pytest.mark.parametrize("source", SOURCES)
def test_the_fixed_bug_scores_well_though_an_edit_failed(source: str) -> None:
    trace = load_trace("a02_fix_bug_failed_edit", **SOURCES[source])
    faithfulness = Faithfulness().evaluate(trace)
    tool_use = ToolUse().evaluate(trace)
    correctness = CodeCorrectness().evaluate(trace)
    assert faithfulness.value == 1.0
    assert correctness.value is not None
    assert correctness.value > 0.9
    assert tool_use.value is not None
    assert tool_use.value < 0.9
    assert "failed, recovered" in [finding.claim for finding in tool_use.findings]


def test_honest_report_of_a_denied_write_is_supported() -> None:
    trace = load_trace("a07_permission_denied")
    assert Faithfulness().evaluate(trace).value == 1.0
    assert [finding.claim for finding in ToolUse().evaluate(trace).findings] == ["rejected"]


def test_commit_and_new_tests_of_a_recording_count() -> None:
    score = CodeCorrectness().evaluate(load_trace("a03_write_test_commit"))
    assert {finding.claim for finding in score.findings} >= {"tests after the last edit", "commit"}
    verdicts = Faithfulness().evaluate(load_trace("a03_write_test_commit")).findings
    assert len(verdicts) >= 3
    assert {finding.verdict for finding in verdicts} == {"supported"}


def test_redacted_telemetry_is_unscored_and_says_why() -> None:
    score = Faithfulness().evaluate(load_trace("a09_defaults_redacted", transcript=False))
    assert score.unscored_reason == "The assistant's texts are redacted."


@pytest.mark.parametrize("name", ["a08_retries_exhausted", "a15_refusal"])
def test_a_session_without_evidence_has_no_quality(name: str) -> None:
    trace = load_trace(name)
    assert quality_of([evaluator.evaluate(trace) for evaluator in default_evaluators()]) is None


def test_task_notification_is_no_human_reaction() -> None:
    trace = load_trace("a05_subagent", transcript=False)
    assert [prompt.from_human for prompt in trace.prompts] == [True, False]
    assert CodeCorrectness().evaluate(trace).value is None
