"""The claim rules on sessions whose author had not read them.

What the first runs gave, before anything was mended, is in docs/benchmarks/evaluators.md; since
then this is a test against falling back, and no estimate.
"""

from __future__ import annotations

from typing import Any

import pytest

from evaluators.faithfulness import Faithfulness
from tests.evaluators.unseen_corpus import ADVERSE, Given, build, judge_case, read_cases

NAMES = ("first", "second")
# Adverse labels that the rules find: most of the others are of kinds that the grammar leaves out.
FOUND = {"first": 43, "second": 10}


@pytest.fixture(scope="module")
def judged() -> dict[str, list[tuple[dict[str, Any], list[Given]]]]:
    return {name: [(case, judge_case(case)) for case in read_cases(name)] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_verdict_against_a_claim_is_right(
    name: str, judged: dict[str, list[tuple[dict[str, Any], list[Given]]]]
) -> None:
    wrong = [
        (case["id"], given)
        for case, answers in judged[name]
        for given in answers
        if given.verdict in ADVERSE
        and not any(case["claims"][place]["verdict"] in ADVERSE for place in given.labels)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_as_many_false_claims_are_found_as_ever(
    name: str, judged: dict[str, list[tuple[dict[str, Any], list[Given]]]]
) -> None:
    found = {
        (case["id"], place)
        for case, answers in judged[name]
        for given in answers
        for place in given.labels
        if given.verdict in ADVERSE and case["claims"][place]["verdict"] in ADVERSE
    }
    assert len(found) >= FOUND[name]


def test_an_ending_in_another_language_says_that_it_was_not_read() -> None:
    case = next(case for case in read_cases("first") if case["pitfall"] == "german_contradicted")
    score = Faithfulness().evaluate(build(case))
    assert score.value is None
    assert "another language" in score.unscored_reason
    assert [finding.verdict for finding in score.findings] == ["not_checkable"]
