"""The index names every file that holds rows of a session, and hardly any other."""

from __future__ import annotations

import tempfile

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.lake import Lake
from loop.lake import session_files as module
from loop.lake.session_files import SessionFiles
from tests.lake.lake_records import turn

SESSIONS = [f"session-{n}" for n in range(6)]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from(SESSIONS), min_size=1), min_size=1, max_size=4),
    st.sets(st.sampled_from([*SESSIONS, "session-unknown"])),
    st.booleans(),
    st.booleans(),
)
def test_the_files_named_are_those_that_hold_rows(
    writes: list[set[str]], wanted: set[str], compacted: bool, colliding: bool
) -> None:
    """Also where hashes collide: then files may be named in vain, but none is left out."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROW_GROUP_ROWS", 2)
        if colliding:
            patch.setattr(module, "hash", lambda text: len(text) % 2, raising=False)
        lake = Lake.open(folder)
        for revision, names in enumerate(writes):
            turns = [turn(revision * 10 + n, name) for name in names for n in range(3)]
            lake.write_turns(turns, [], revision=revision)
        index = SessionFiles(lake.tables["turns"])
        index.holding([])
        if compacted:
            lake.compact()
        holding = {
            file.path
            for file in lake.tables["turns"].snapshot().files
            if wanted & set(pq.read_table(file.uri, partitioning=None)["session_id"].to_pylist())
        }
        named = {file.path for file in index.holding(wanted)}
        assert named >= holding
        if not colliding:
            assert named == holding
