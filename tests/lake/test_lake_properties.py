"""Any order, any duplication, any compaction: the same reads."""

from __future__ import annotations

import tempfile
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.turns import Event, Turn
from loop.lake import Lake
from loop.lake.delta_log import DeltaLog
from loop.lake.object_store import locate_store
from loop.lake.queries import LakeQueries
from loop.lake.schemas import TABLES
from tests.lake.lake_records import events, turns, whole_sessions

SESSIONS = ["s1", "s2", "s3"]


@settings(max_examples=10, deadline=None)
@given(st.lists(events(), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_events_in_any_order_and_twice_read_the_same(drawn: list[Event], random: object) -> None:
    shuffled = drawn * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        straight, twisted = Lake.open(one), Lake.open(other)
        straight.write_events(drawn, journal="j", position=1)
        for position in range(0, len(shuffled), 5):
            part = shuffled[position : position + 5]
            twisted.write_events(part, journal="j", position=position)
            twisted.write_events(part, journal="j", position=position)
        assert twisted.events_of(SESSIONS) == straight.events_of(SESSIONS)
        twisted.compact()
        assert twisted.events_of(SESSIONS) == straight.events_of(SESSIONS)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(whole_sessions(), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_revisions_replayed_and_compacted_read_as_the_last_of_each_session(
    writes: list[list[Turn]], interruptions: list[bool]
) -> None:
    """The model: a dict of whole sessions, in which each write replaces those it names."""
    model: dict[str, list[Turn]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        for revision, written in enumerate(writes):
            for session_id in {turn.session_id for turn in written}:
                model[session_id] = [t for t in written if t.session_id == session_id]
            lake.write_turns(written, [], revision=revision)
            if interruptions[revision]:
                lake = Lake.open(folder)
                lake.write_turns(written, [], revision=revision)
                lake.compact()
        expected = sorted(
            (turn for found in model.values() for turn in found),
            key=lambda t: (t.session_id, t.started_at_us, t.sequence, t.turn_id),
        )
        assert lake.turns_of(SESSIONS) == expected
        columns = lake.turn_columns(["turn_id", "session_id"])
        assert columns["turn_id"].tolist() == [turn.turn_id for turn in expected]
        count = "SELECT count(*) AS n, sum(cost_microusd) AS cost FROM turns"
        (few,) = lake.query(count)
        assert few["n"] == len(expected)
        store = locate_store(folder)
        logs = {schema.name: DeltaLog(store, schema) for schema in TABLES}
        assert LakeQueries(logs, many_rows=0).run(count).to_pylist() == [few]


@settings(max_examples=5, deadline=None)
@given(st.lists(turns(), max_size=30, unique_by=lambda turn: turn.turn_id))
def test_turns_come_back_whole(written: list[Turn]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Lake.open(folder).write_turns(written, [], revision=0)
        found = Lake.open(folder).turns_of(["s1"])
    assert sorted(found, key=lambda turn: turn.turn_id) == sorted(
        written, key=lambda turn: turn.turn_id
    )
