"""The committed vectors, our own implementation and the generator hold together."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing_policies.conformance.cases import SECTIONS, answer, load_vectors
from routing_policies.conformance.generation import build_vectors, sampled_vectors

VECTORS = load_vectors()
CASES = [
    pytest.param(section, case, id=f"{section}-{number}")
    for section in SECTIONS
    for number, case in enumerate(VECTORS[section])
]


@pytest.mark.parametrize(("section", "case"), CASES)
def test_this_implementation_gives_the_expected_answer(section: str, case: Any) -> None:
    found = answer(section, case, VECTORS["policies"])
    assert json.loads(json.dumps(found)) == case["expected"], case.get("name", "")


def test_the_file_is_what_the_generator_writes() -> None:
    assert json.loads(json.dumps(build_vectors())) == VECTORS


def test_the_file_covers_every_outcome() -> None:
    outcomes = Counter(case["expected"]["outcome"] for case in VECTORS["envelopes"])
    assert set(outcomes) == {"accepted", "Refused", "Conflict", "BadInput"}
    rules = {case["expected"]["route"]["rule_id"] for case in VECTORS["decisions"]}
    assert {"default", "guard:max_context_tokens", "rule-0", "rule-1"} <= rules
    assert {case["expected"]["outcome"] for case in VECTORS["repairs"]} == {"repaired", "Refused"}
    fixes = {
        fix.split(":")[0]
        for case in VECTORS["repairs"]
        for fix in case["expected"].get("fixes", ())
    }
    assert fixes >= {
        "effort_set",
        "effort",
        "effort_dropped",
        "thinking",
        "thinking_dropped",
        "clear_thinking_dropped",
        "max_tokens",
        "temperature_dropped",
        "beta_added",
        "beta_dropped",
        "system_message_to_reminder",
        "message_output_config_dropped",
    }


@given(st.integers(0, 2**32))
def test_any_sample_survives_the_way_through_json(seed: int) -> None:
    sample = sampled_vectors(seed, buckets=2, arms=2, decisions=10, features=3, repairs=3)
    read = json.loads(json.dumps(sample))
    for section in SECTIONS:
        for case in read[section]:
            found = answer(section, case, read["policies"])
            assert json.loads(json.dumps(found)) == case["expected"]
