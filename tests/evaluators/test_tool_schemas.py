"""Inputs against schemas, and calls against those that a label asks for."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.expected_calls import GivenCall, match_calls
from evaluators.tool_schemas import schema_violation
from evaluators.tool_use import ToolUse
from loop.domain.scores import Score
from loop.domain.turns import ExpectedCall, ToolDefinition
from tests.evaluators.traces import session, tool

READ = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "file_path": {"type": "string"},
        "limit": {"type": "integer"},
        "mode": {"enum": ["text", "hex"]},
        "ranges": {"prefixItems": [{"type": "integer"}], "items": False},
    },
    "required": ["file_path"],
    "additionalProperties": False,
}
DEFINITION = ToolDefinition("Read", json.dumps(READ))


@pytest.mark.parametrize(
    ("given_input", "words"),
    [
        ('{"file_path": "a"}', None),
        ('{"limit": 3}', "the input lacks file_path"),
        ('{"file_path": "a", "limit": "3"}', "limit is not of type integer"),
        ('{"file_path": "a", "secret": 1}', "the input has secret"),
        ('{"file_path": "a", "mode": "key=hunter2"}', "mode is not one of the values allowed"),
        ('{"file_path": "a", "ranges": [1, 2]}', "ranges breaks the rule items"),
        ("{cut", "the input is no JSON"),
        ("", "the input lacks file_path"),
    ],
)
def test_an_input_is_held_to_the_schema_and_its_values_are_not_told(
    given_input: str, words: str | None
) -> None:
    assert schema_violation(DEFINITION, given_input) == words


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{",
        "[]",
        '{"type": 7}',
        '{"$ref": "http://127.0.0.1:9/never.json"}',
        '{"$ref": "#/nowhere"}',
        '{"$ref": "#"}',
        '{"type": "string", "pattern": "(a+)+$"}',
        json.dumps({"allOf": [{"$ref": "#/allOf/0"}]}),
    ],
)
def test_a_schema_that_is_odd_or_hostile_says_nothing_and_takes_no_time(schema: str) -> None:
    started = time.process_time()
    assert schema_violation(ToolDefinition("t", schema), json.dumps("a" * 40 + "!")) is None
    assert time.process_time() - started < 2.0


def judge(*steps: object, **given_fields: object) -> Score:
    built = session(*steps, claim="Done.")  # type: ignore[arg-type]
    return ToolUse().evaluate(replace(built, **given_fields))  # type: ignore[arg-type]


def labels(score: Score) -> list[str]:
    return [finding.claim for finding in score.findings if finding.claim != "wasted tokens"]


def test_a_call_against_its_schema_is_flagged_whatever_became_of_it() -> None:
    def outcome(success: bool | None) -> Score:
        return judge(tool("t1", "Read", "/a.py", success, "x"), tools=(wrong,))

    wrong = ToolDefinition("Read", json.dumps({"required": ["path"]}))
    assert labels(outcome(None)) == labels(outcome(False)) == ["invalid arguments"]
    assert labels(outcome(True)) == ["against its schema"]
    assert outcome(None).findings[0].reason == "Read: the input lacks path."
    assert labels(judge(tool("t1", "Read", "/a.py", True, "x"), tools=(DEFINITION,))) == []
    hidden = judge(tool("t1", "Read", None, True, "x"), tools=(wrong,))
    assert "against its schema" not in labels(hidden)


WEATHER = ExpectedCall("weather", {"city": ("Paris", "paris"), "days": (2, ""), "unit": ("C",)})


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"city": "Paris", "days": 2, "unit": "C"}, ""),
        ({"city": "paris", "unit": "C"}, ""),
        ({"city": "Paris", "days": 2.0, "unit": "C"}, ""),
        ({"city": "Paris", "days": True, "unit": "C"}, "days has another value"),
        ({"city": "Paris"}, "unit is missing"),
        ({"city": "Rome", "unit": "C"}, "city has another value"),
        ({"city": "Paris", "unit": "C", "lang": "fr"}, "lang is not expected"),
        (None, "its arguments can't be read"),
    ],
)
def test_a_call_is_compared_with_the_one_expected(
    arguments: dict[str, object] | None, wrong: str
) -> None:
    match = match_calls([GivenCall("weather", arguments)], [WEATHER])
    assert match.wrong == (wrong,)
    assert match.is_right == (wrong == "")


def test_paths_are_compared_as_they_are() -> None:
    wanted = [ExpectedCall("read", {"path": ("src/a_b.py",)})]
    assert not match_calls([GivenCall("read", {"path": "srcab.py"})], wanted).is_right


def test_objects_and_lists_are_compared_by_their_parts() -> None:
    wanted = [ExpectedCall("f", {"grades": ({"math": [90], "art": [70, ""]},), "ids": ([1, 2],)})]
    assert match_calls([GivenCall("f", {"grades": {"math": 90}, "ids": [1, 2]})], wanted).is_right
    for arguments in (
        {"grades": {"math": 91}, "ids": [1, 2]},
        {"grades": {"art": 70}, "ids": [1, 2]},
        {"grades": {"math": 90, "bio": 1}, "ids": [1, 2]},
        {"grades": {"math": 90}, "ids": [2, 1]},
    ):
        assert not match_calls([GivenCall("f", arguments)], wanted).is_right


@given(st.permutations([("a", 1), ("b", 2), ("a", 3)]))
def test_parallel_calls_match_without_order(order: list[tuple[str, int]]) -> None:
    wanted = [ExpectedCall(name, {"x": (value,)}) for name, value in [("a", 1), ("b", 2), ("a", 3)]]
    calls = [GivenCall(name, {"x": value}) for name, value in order]
    assert match_calls(calls, wanted).is_right
    match = match_calls(calls[:2], wanted)
    assert [call.name for call in match.missing] == [order[2][0]]
    assert not match_calls([*calls, calls[0]], wanted).is_right


def test_a_label_scores_calls_that_have_no_result() -> None:
    called = tool("t1", "Read", "/a.py", None)
    right = (ExpectedCall("Read", {"file_path": ("/a.py",)}),)
    assert judge(called).value is None
    assert judge(called, expected_calls=right).value == 0.75
    wrong = judge(called, expected_calls=(ExpectedCall("Read", {"file_path": ("/b.py",)}),))
    assert labels(wrong) == ["not expected", "expected call missing"]
    assert wrong.value == pytest.approx(0.5 / 3, abs=1e-6)
    none_expected = judge(called, expected_calls=())
    assert labels(none_expected) == ["not expected"]
    assert labels(judge(expected_calls=right)) == ["expected call missing"]
    assert judge(expected_calls=()).unscored_reason == "No tool call."
