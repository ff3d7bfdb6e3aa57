"""Settled files change nothing but the time that a read takes.

The model of the view is the plain rule over all stored rows: of each (session, turn) the rows of
the highest (revision, commit), and none if these are removed.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loop.domain.errors import Conflict
from loop.domain.turns import Content, Turn
from loop.lake import Lake, LakePolicy
from loop.lake.compaction import closure, settle
from loop.lake.data_files import settled_and_open
from loop.lake.delta_log import DeltaLog
from loop.lake.object_store import locate_store
from loop.lake.queries import LakeQueries
from loop.lake.schemas import TABLES
from tests.lake.lake_records import HOUR_US, NOON_US, content, turn

DAY_US = 24 * HOUR_US
ALWAYS = LakePolicy(rest_seconds=0.0)
NEVER = LakePolicy(settle_share=2.0)
MODEL = """
    SELECT * EXCLUDE ("commit", removed, supersedes_from_day, supersedes_to_day{more})
    FROM {name}_rows QUALIFY dense_rank() OVER (
        PARTITION BY session_id, turn_id ORDER BY revision DESC, "commit" DESC) = 1
    AND NOT removed ORDER BY ALL"""

Write = dict[str, list[tuple[int, int, int, int]]]
"""By session: number of a turn, its day, the day of its second text, and its cost."""

writes = st.dictionaries(
    st.sampled_from(["s1", "s2"]),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
        min_size=1,
        max_size=4,
        unique_by=lambda item: item[0],
    ),
    min_size=1,
    max_size=2,
)
settlings = st.tuples(st.just("settle"), st.sets(st.integers(0, 3), min_size=1))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), writes),
        settlings,
        st.sampled_from([("join", None), ("compact", None), ("reopen", None)]),
    ),
    min_size=3,
    max_size=8,
)


class History:
    """A folder that is written, settled and joined in any order."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.open()
        self.sessions: dict[str, tuple[list[Turn], list[Content]]] = defaultdict(lambda: ([], []))

    def open(self) -> None:
        self.lake = Lake.open(self.folder, policy=ALWAYS)
        store = locate_store(self.folder)
        self.logs = {schema.name: DeltaLog(store, schema) for schema in TABLES}
        self.queries = LakeQueries(self.logs)

    def write(self, write: Write, revision: int) -> None:
        turns, contents = [], []
        for session_id, items in write.items():
            at = [
                (number, NOON_US + day * DAY_US, NOON_US + other * DAY_US, cost)
                for number, day, other, cost in items
            ]
            own = [
                turn(number, session_id, started_at_us=start, cost_microusd=cost)
                for number, start, _, cost in at
            ]
            texts = [
                content(number, session_id, at_us=when, text=f"{cost} {when}")
                for number, start, end, cost in at
                for when in (start, end)
            ]
            self.sessions[session_id] = (own, texts)
            turns += own
            contents += texts
        self.lake.write_turns(turns, contents, revision=revision)

    def take(self, step: tuple[str, Any], revision: int) -> None:
        verb, given_ = step
        if verb == "write":
            self.write(given_, revision)
        elif verb == "settle":
            days = {f"2025-11-{23 + day}" for day in given_}
            for name in ("turns", "contents"):
                settle(self.logs[name], self.queries, days)
        elif verb == "join":
            Lake.open(self.folder, policy=NEVER).compact()
        elif verb == "compact":
            self.lake.compact()
        else:
            self.open()

    def check(self) -> None:
        for name in ("turns", "contents"):
            plain = self.queries.run(
                MODEL.format(name=name, more=", charge_key" if name == "turns" else "")
            ).to_pylist()
            for queries in (self.queries, LakeQueries(self.logs, many_rows=0)):
                assert queries.run(f"SELECT * FROM {name} ORDER BY ALL").to_pylist() == plain
        for session_id, (turns, contents) in self.sessions.items():
            assert self.lake.turns_of([session_id]) == sorted(
                turns, key=lambda t: (t.started_at_us, t.sequence, t.turn_id)
            )
            found = self.lake.contents_of([session_id])
            assert sorted(map(repr, found)) == sorted(map(repr, contents))


@settings(max_examples=6, deadline=None)
@given(steps)
@example(  # texts of one turn under two days, of which one is settled
    [
        ("write", {"s2": [(1, 1, 1, 0)]}),
        ("write", {"s1": [(0, 0, 0, 0)], "s2": [(1, 0, 1, 0)]}),
        ("settle", {1}),
    ]
)
def test_any_history_reads_as_by_the_plain_rule(taken: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(folder)
        for revision, step in enumerate(taken):
            history.take(step, revision)
        history.check()


def test_every_kind_of_step_at_least_once(tmp_path: Path) -> None:
    """A turn moves over two days, is settled in between, removed, and comes back."""
    history = History(str(tmp_path))
    one: Write = {"s1": [(0, 1, 1, 0), (1, 1, 2, 0)], "s2": [(2, 0, 3, 0)]}
    moved: Write = {"s1": [(0, 2, 1, 1), (1, 1, 2, 0)]}
    gone: Write = {"s1": [(1, 1, 2, 0)]}
    plan: list[tuple[str, Any]] = [
        ("write", one),
        ("settle", {1}),
        ("write", moved),
        ("settle", {2}),
        ("write", gone),
        ("join", None),
        ("write", {"s1": [(0, 3, 3, 2)]}),
        ("settle", {0}),
        ("reopen", None),
        ("write", moved),
        ("compact", None),
        ("write", one),
        ("settle", {0, 1, 2, 3}),
    ]
    for revision, step in enumerate(plan):
        history.take(step, revision)
        if revision % 3 == 0:
            history.check()
    history.check()
    files = history.logs["turns"].snapshot().files
    assert all(file.is_settled for file in files)
    assert sum(file.rows for file in files) == 3


def test_only_the_days_that_open_rows_name_are_looked_through(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    history.write({"s1": [(0, 0, 0, 0)], "s2": [(1, 1, 1, 0), (2, 2, 2, 0)]}, 1)
    history.lake.compact()
    history.write({"s1": [(0, 3, 3, 0)]}, 2)
    files = history.logs["turns"].snapshot().files
    straight, looked_through, opened = settled_and_open(files)
    assert {file.day for file in straight} == {"2025-11-24", "2025-11-25"}
    assert {file.day for file in looked_through} == {"2025-11-23"}
    assert {file.day for file in opened} == {"2025-11-26"}
    assert closure(files, ["2025-11-26"]) == {"2025-11-23", "2025-11-26"}
    assert closure(files, ["2025-11-24"]) == {"2025-11-24"}
    history.check()


def test_a_large_day_is_cut_by_session(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path), policy=LakePolicy(part_rows=10, rest_seconds=0.0))
    turns = [turn(n, f"s{s:02}", started_at_us=NOON_US + n) for s in range(12) for n in range(4)]
    lake.write_turns(turns, [], revision=1)
    lake.compact()
    files = DeltaLog(locate_store(str(tmp_path)), TABLES[1]).snapshot().files
    assert len(files) == 5
    assert sorted(file.rows for file in files) == [8, 8, 8, 12, 12]
    assert lake.turns_of([f"s{s:02}" for s in range(12)]) == turns


def test_of_two_processes_that_settle_one_day_the_second_gives_way(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    history.write({"s1": [(0, 0, 0, 0)]}, 1)
    log, other = history.logs["turns"], DeltaLog(locate_store(str(tmp_path)), TABLES[1])
    seen = log.snapshot().files
    settle(other, LakeQueries({"turns": other}), ["2025-11-23"])
    with pytest.raises(Conflict):
        log.rewrite(seen, [], note="test")
    history.check()
    assert [file.rows for file in log.snapshot().files] == [1]


def test_what_is_appended_while_a_day_is_settled_stays(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    history.write({"s1": [(0, 0, 0, 0)]}, 1)
    log = history.logs["turns"]
    run = history.queries.run

    def run_late(*args: Any, **options: Any) -> Any:
        rows = run(*args, **options)
        history.write({"s1": [(0, 1, 1, 2)], "s2": [(0, 0, 0, 1)]}, 2)
        return rows

    class Slow:
        run: Callable[..., Any] = staticmethod(run_late)

    settle(log, Slow(), ["2025-11-23"])  # type: ignore[arg-type]
    history.check()
    assert [file.is_settled for file in log.snapshot().files].count(True) == 1
