from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint

import pytest

from evaluators import CodeCorrectness, Faithfulness, ToolUse, default_evaluators
from evaluators.contract import Evaluator, count_evidence, digest_trace
from evaluators.registry import evaluate_safely, load_evaluators
from evaluators.testing import EvaluatorContract
from loop.domain.scores import EvidenceUsed, Score
from loop.domain.turns import ExpectedCall, SessionTrace, ToolDefinition
from tests.evaluators.traces import session, tool


class TestFaithfulnessContract(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        return Faithfulness()


class TestToolUseContract(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        return ToolUse()


class TestCodeCorrectnessContract(EvaluatorContract):
    @pytest.fixture
    def evaluator(self) -> Evaluator:
        return CodeCorrectness()


def test_default_evaluators_have_names_of_their_own() -> None:
    names = [evaluator.name for evaluator in default_evaluators()]
    assert names == sorted({*names, "faithfulness", "tool_use", "code_correctness"})


def test_digest_changes_with_everything_an_evaluator_reads() -> None:
    plain = session(tool("t1", "Bash", "pytest", True, "1 passed"), claim="Tests pass.")
    others = [
        session(tool("t1", "Bash", "pytest", True, "2 passed"), claim="Tests pass."),
        session(tool("t1", "Bash", "pytest", False, "1 passed"), claim="Tests pass."),
        session(tool("t1", "Bash", "pytest -q", True, "1 passed"), claim="Tests pass."),
        session(tool("t1", "Bash", "pytest", True, "1 passed"), claim="Tests passed."),
        session(tool("t1", "Bash", "pytest", True, "1 passed"), claim="Tests pass.", asked="?"),
        dataclasses.replace(plain, session_id="s2"),
        dataclasses.replace(plain, attributes={"repository": "shop"}),
        dataclasses.replace(plain, tools=(ToolDefinition("Bash"),)),
        dataclasses.replace(plain, expected_calls=()),
        dataclasses.replace(plain, expected_calls=(ExpectedCall("f", {"a": (1,)}),)),
    ]
    digests = [digest_trace(trace) for trace in (plain, *others)]
    assert len(set(digests)) == len(digests)
    assert digest_trace(dataclasses.replace(plain)) == digests[0]
    charged = dataclasses.replace(plain, attributes={"org_path": "a/b", "developer": "d"})
    assert digest_trace(charged) == digests[0]


def test_digest_does_not_confuse_texts_that_join_alike() -> None:
    one = session(claim="a\nb")
    (last,) = one.turns
    two = dataclasses.replace(one, turns=(dataclasses.replace(last, texts=("a", "b")),))
    assert digest_trace(one) != digest_trace(two)


def test_a_score_says_what_evidence_it_had() -> None:
    built = session(
        tool("t1", "Bash", "pytest", True, "1 passed"),
        tool("t2", "Bash", None, True),
        claim="Tests pass.",
    )
    assert count_evidence(built) == (
        EvidenceUsed("prompts", 1, 0),
        EvidenceUsed("answers", 1, 0),
        EvidenceUsed("tool inputs", 1, 1),
        EvidenceUsed("tool results", 1, 1),
    )
    score = Faithfulness().evaluate(built)
    assert score.evidence_used == count_evidence(built)
    assert score.cost_microusd == 0
    assert score.identity == (Faithfulness().evaluate(session(claim="Hello."))).identity


class Sound(ToolUse):
    name = "sound"


class Broken(ToolUse):
    name = "broken"

    def evaluate(self, trace: SessionTrace) -> Score:
        raise KeyError("no")


class Nameless(ToolUse):
    name = ""


class Impostor(ToolUse):
    name = "quality"


def _entry(name: str, what: str) -> EntryPoint:
    return EntryPoint(name, f"tests.evaluators.test_contract:{what}", "turnwise.evaluators")


def test_plug_ins_are_loaded_and_a_broken_one_is_left_out_with_its_reason() -> None:
    names = ("Sound", "Nameless", "Impostor", "NotThere", "Broken")
    registry = load_evaluators([_entry(name.lower(), name) for name in names])
    assert [evaluator.name for evaluator in registry.evaluators] == ["broken", "sound"]
    assert len(registry.problems) == 3
    assert all("left out" in problem for problem in registry.problems)
    twice = load_evaluators([_entry("a", "Sound"), _entry("b", "Sound")])
    assert len(twice.evaluators) == 1
    assert "the name sound is taken" in twice.problems[0]


def test_an_evaluator_that_raises_leaves_the_session_unscored() -> None:
    built = session(tool("t1", "Bash", "pytest", True, "1 passed"), claim="Tests pass.")
    score = evaluate_safely(Broken(), built)
    assert score.unscored_reason == "The evaluator failed on this session (KeyError)."
    assert score.input_digest == digest_trace(built)
    assert evaluate_safely(Sound(), built).is_scored
