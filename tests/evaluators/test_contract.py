from __future__ import annotations

import dataclasses

import pytest

from evaluators import CodeCorrectness, Faithfulness, ToolUse, default_evaluators
from evaluators.contract import Evaluator, digest_trace
from tests.contracts.evaluator import EvaluatorContract
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
    assert names == ["faithfulness", "tool_use", "code_correctness"]


def test_digest_changes_with_everything_an_evaluator_reads() -> None:
    plain = session(tool("t1", "Bash", "pytest", True, "1 passed"), claim="Tests pass.")
    others = [
        session(tool("t1", "Bash", "pytest", True, "2 passed"), claim="Tests pass."),
        session(tool("t1", "Bash", "pytest", False, "1 passed"), claim="Tests pass."),
        session(tool("t1", "Bash", "pytest -q", True, "1 passed"), claim="Tests pass."),
        session(tool("t1", "Bash", "pytest", True, "1 passed"), claim="Tests passed."),
        session(tool("t1", "Bash", "pytest", True, "1 passed"), claim="Tests pass.", asked="?"),
        dataclasses.replace(plain, session_id="s2"),
        dataclasses.replace(plain, attributes={"tools": "Bash"}),
    ]
    digests = [digest_trace(trace) for trace in (plain, *others)]
    assert len(set(digests)) == len(digests)
    assert digest_trace(dataclasses.replace(plain)) == digests[0]


def test_digest_does_not_confuse_texts_that_join_alike() -> None:
    one = session(claim="a\nb")
    (last,) = one.turns
    two = dataclasses.replace(one, turns=(dataclasses.replace(last, texts=("a", "b")),))
    assert digest_trace(one) != digest_trace(two)
