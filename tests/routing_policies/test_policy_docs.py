"""The JSON Schema agrees with ``parse_policy``, and docs/policies.md with both and the code."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from loop.domain.errors import BadInput
from loop.domain.lifecycle import LEGAL_MOVES
from loop.domain.policies import (
    BUCKETS,
    MEASURES,
    NUMBER_FIELDS,
    TEXT_FIELDS,
    UNITS,
    Arm,
    Publication,
)
from loop.domain.policy_documents import parse_policy
from routing_policies.repair import capability_table
from tests.fakes.policy_service import size_policy
from tests.fakes.policy_strategies import policies

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "routing_policies" / "policy.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
DOCS = (ROOT / "docs" / "policies.md").read_text()


def parses(document: object) -> bool:
    try:
        parse_policy(document)
    except BadInput:
        return False
    return True


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@settings(deadline=None)
@given(policies())
def test_every_policy_fits_the_schema(policy: Any) -> None:
    assert VALIDATOR.is_valid(json.loads(policy.to_json()))


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = document.items() if isinstance(document, dict) else ()
    for key, value in [*children, *(enumerate(document) if isinstance(document, list) else ())]:
        yield from places(value, (*path, key))


junk = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        7,
        0.25,
        21.5,
        "",
        "x",
        "in",
        "==",
        "guard:x",
        "default",
        [],
        ["x"],
        [""],
        {},
        *MEASURES,
        *UNITS,
        *TEXT_FIELDS,
    ]
)


@settings(deadline=None)
@given(policies(), st.data())
def test_schema_and_parser_agree_on_damaged_documents(policy: Any, data: st.DataObject) -> None:
    document = copy.deepcopy(json.loads(policy.to_json()))
    path = data.draw(st.sampled_from([path for path in places(document) if path]))
    place = document
    for step in path[:-1]:
        place = place[step]
    action = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if action == "replace":
        place[path[-1]] = data.draw(junk)
    elif action == "remove":
        del place[path[-1]]
    elif isinstance(place, dict):
        place["another"] = data.draw(junk)
    assert VALIDATOR.is_valid(document) == parses(document), document


def test_the_example_in_the_documents_is_a_policy() -> None:
    (example,) = re.findall(r"```json\n(\{\n  \"schema\": .*?)```", DOCS, re.DOTALL)
    document = json.loads(example)
    assert parse_policy(document).to_document() == document
    assert VALIDATOR.is_valid(document)


def keys(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}"
        if isinstance(inner, dict):
            yield from keys(inner, f"{path}{name}.")
            if "items" in inner:
                yield from keys(inner["items"], f"{path}{name}[].")


def test_every_key_of_the_document_is_documented_and_no_other() -> None:
    section = DOCS.split("## The document")[1].split("### Measures")[0]
    named = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    assert named == set(keys(SCHEMA))


@pytest.mark.parametrize("name", [*MEASURES, *UNITS, *NUMBER_FIELDS, *TEXT_FIELDS])
def test_every_measure_unit_and_field_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS


def test_every_key_of_the_publication_is_documented() -> None:
    arm = Arm("stable", BUCKETS, 1, size_policy(1))
    document = Publication(1, "prod", (arm,), "s", 1, 2).to_document()
    section = DOCS.split("## The publication")[1].split("Envelope:")[0]
    named = set(re.findall(r"`([a-z_]+(?:\[\]\.[a-z_]+)?)`", section))
    assert set(document) | {f"arms[].{key}" for key in document["arms"][0]} <= named


def test_the_table_of_moves_is_the_one_in_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| ([\w, ]+) \|$", DOCS, re.MULTILINE)
    documented = {(start, to): set(kinds.split(", ")) for start, to, kinds in rows}
    assert documented == {move: set(kinds) for move, kinds in LEGAL_MOVES.items()}


def test_every_capability_is_documented() -> None:
    capabilities = next(iter(capability_table().values()))
    for name in type(capabilities).__dataclass_fields__:
        assert f"| `{name}` |" in DOCS
