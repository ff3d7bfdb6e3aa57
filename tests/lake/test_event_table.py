"""Attributes as JSON text."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from loop.lake.event_table import write_json

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
).filter(lambda value: "inf" not in repr(value))


@given(st.dictionaries(st.text(max_size=4), JSON_VALUES))
def test_what_is_written_reads_the_same_and_has_one_spelling(document: dict[str, object]) -> None:
    written = write_json(document)
    assert json.loads(written) == document
    assert write_json(dict(reversed(document.items()))) == written


def test_what_json_has_no_word_for() -> None:
    assert write_json({"b": b"\x00\xff", "t": (1, 2)}) == '{"b":"AP8=","t":[1,2]}'
    assert json.loads(write_json({"n": math.nan, "i": math.inf})) == {"n": None, "i": None}
    assert json.loads(write_json({"half": "\ud800", "large": 2**70})) == {
        "half": "\ud800",
        "large": 2**70,
    }
