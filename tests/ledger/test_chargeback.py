"""Spend adds up exactly, however it is grouped, from the turns and from the rollup."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput
from loop.domain.turns import TokenUsage, Turn
from loop.lake import Lake, LakePolicy
from loop.lake.rows import day_of
from loop.ledger.charge_table import roll_up
from loop.ledger.chargeback import GROUPINGS, TOKEN_COLUMNS, SpendRow, spend
from tests.lake.lake_records import HOUR_US, NOON_US, turn, whole_sessions

MEASURES = ["turns", *TOKEN_COLUMNS, "cost_microusd", "unpriced_turns"]


def totals(rows: list[SpendRow]) -> dict[str, int]:
    return {name: sum(row[name] or 0 for row in rows) for name in MEASURES}


def total_of(turns: list[Turn]) -> dict[str, int]:
    """The same by plain arithmetic, with none of the product's own."""
    return {
        "turns": len(turns),
        **{name: sum(getattr(turn.usage, name) for turn in turns) for name in TOKEN_COLUMNS},
        "cost_microusd": sum(turn.cost_microusd or 0 for turn in turns),
        "unpriced_turns": sum(turn.cost_microusd is None for turn in turns),
    }


groupings = st.lists(st.sampled_from(GROUPINGS), min_size=1, unique=True)


@settings(max_examples=8, deadline=None)
@given(whole_sessions(), st.lists(groupings, min_size=3, max_size=3), st.integers(1, 4))
def test_every_grouping_adds_up_to_the_turns(
    turns: list[Turn], drawn: list[list[str]], level: int
) -> None:
    expected = total_of(turns)
    days = {day_of(turn.started_at_us) for turn in turns} | {"2020-01-01"}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        lake.write_turns(turns, [], revision=1)
        roll_up(lake, days)
        assert totals(spend(lake, [])) == expected
        for by in drawn:
            rows = spend(lake, by)
            assert totals(rows) == expected
            assert spend(lake, by, from_rollup=True) == rows
        assert totals(spend(lake, ["org"], level=level)) == expected
        assert spend(lake, ["org"], level=level, from_rollup=True) == spend(
            lake, ["org"], level=level
        )
        again = spend(lake, GROUPINGS, from_rollup=True)
        roll_up(lake, days)
        assert spend(lake, GROUPINGS, from_rollup=True) == again


@settings(max_examples=4, deadline=None)
@given(st.lists(whole_sessions(), min_size=2, max_size=2), st.data())
def test_the_daily_charges_follow_the_turns_whatever_was_cut_off(
    histories: list[list[Turn]], data: st.DataObject
) -> None:
    by = ["developer", "org", "model", "day"]
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        days: set[str] = set()
        for revision, drawn in enumerate(histories):
            turns = [*drawn, turn(revision, "each time")]
            lake.write_turns(turns, [], revision=revision + 1)
            changed = {day_of(turn.started_at_us) for turn in turns}
            days |= changed
            roll_up(lake, days)
            if data.draw(st.booleans()):  # killed between the two commits
                log = lake.tables["daily_charges"]
                log.restore(log.snapshot().version - 1)
                assert not lake.has_daily_charges()
            assert spend(lake, by, from_rollup=True) == spend(lake, by)
        roll_up(lake, ["2025-11-23"])
        assert lake.has_daily_charges()
        assert spend(lake, by, from_rollup=True) == spend(lake, by)
        assert spend(lake, ["day"], from_rollup=True) == spend(lake, ["day"])


@settings(max_examples=8, deadline=None)
@given(whole_sessions())
def test_each_group_is_the_sum_of_its_turns(turns: list[Turn]) -> None:
    by_model: dict[tuple[str, str], list[Turn]] = defaultdict(list)
    for one in turns:
        by_model[one.session_id, one.served_model or one.requested_model].append(one)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        lake.write_turns(turns, [], revision=1)
        rows = spend(lake, ["session", "model"])
    assert {(row["session_id"], row["model"]) for row in rows} == set(by_model)
    for row in rows:
        group = by_model[row["session_id"], row["model"]]
        assert totals([row]) == total_of(group)
        all_unpriced = all(turn.cost_microusd is None for turn in group)
        assert (row["cost_microusd"] is None) == all_unpriced
    costs = [-1 if row["cost_microusd"] is None else row["cost_microusd"] for row in rows]
    assert costs == sorted(costs, reverse=True)


odd_names = st.text("a\x1e\x1f01é👩‍🔧", max_size=4)
charged = st.lists(
    st.builds(
        lambda number, day, developer, path, served, cost: turn(
            number,
            started_at_us=NOON_US + day * 24 * HOUR_US,
            developer=developer,
            org_path=path,
            served_model=served,
            cost_microusd=cost,
        ),
        st.integers(0, 5),
        st.integers(0, 2),
        odd_names,
        odd_names,
        odd_names,
        st.none() | st.integers(0, 9),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda turn: turn.turn_id,
)


@settings(max_examples=10, deadline=None)
@given(st.lists(charged, min_size=2, max_size=3), st.data())
def test_settled_files_are_charged_like_open_ones(
    histories: list[list[Turn]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder, policy=LakePolicy(rest_seconds=0.0))
        for revision, turns in enumerate(histories, 1):
            lake.write_turns(turns, [], revision=revision)
            if revision < len(histories) or data.draw(st.booleans()):
                lake.compact()
            if data.draw(st.booleans()):  # as a version before the charge key settled it
                for path in Path(folder).glob("turns/day=2025-11-23/settled-*.parquet"):
                    names = pq.read_schema(path).names
                    earlier = [name for name in names if name != "charge_key"]
                    pq.write_table(pq.ParquetFile(path).read(earlier), path)
                    lake = Lake.open(folder, policy=LakePolicy(rest_seconds=0.0))
        current = histories[-1]
        groups: dict[tuple[str, ...], list[Turn]] = defaultdict(list)
        for one in current:
            model = one.served_model or one.requested_model
            groups[one.developer, one.org_path, model, day_of(one.started_at_us)].append(one)
        rows = spend(lake, ["developer", "org", "model", "day"])
        keys = [(row["developer"], row["org_path"], row["model"], row["day"]) for row in rows]
        assert sorted(keys) == sorted(groups)
        for key, row in zip(keys, rows, strict=True):
            assert totals([row]) == total_of(groups[key])
        second = [one for one in current if day_of(one.started_at_us) == "2025-11-24"]
        assert totals(spend(lake, ["model"], "2025-11-24", "2025-11-25")) == total_of(second)
        named = [one for one in second if one.org_path == "a"]
        only = ("org_path = ?", ["a"])
        assert totals(spend(lake, ["org"], "2025-11-24", "2025-11-25", only=only)) == total_of(
            named
        )


def test_sums_beyond_64_bits_stay_exact(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    huge = 2**63 - 1
    turns = [turn(n, usage=TokenUsage(huge), cost_microusd=huge) for n in range(3)]
    lake.write_turns(turns, [], revision=1)
    (row,) = spend(lake, ["developer"])
    assert row["cost_microusd"] == row["input_tokens"] == 3 * huge
    with pytest.raises(BadInput):  # rather than a wrong number
        roll_up(lake, ["2025-11-23"])


def test_daily_sums_beyond_64_bits_are_added_up_from_the_charges(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    huge = 2**63 - 1
    turns = [turn(1, f"s{n}", usage=TokenUsage(huge), cost_microusd=huge) for n in range(3)]
    lake.write_turns(turns, [], revision=1)
    assert roll_up(lake, ["2025-11-23"]) == 3
    assert not lake.has_daily_charges()
    (row,) = spend(lake, ["developer", "org", "model", "day"], from_rollup=True)
    assert row["cost_microusd"] == row["input_tokens"] == 3 * huge


def test_rows_have_the_columns_that_scripts_know(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    assert spend(lake, ["developer"]) == []
    assert spend(lake, []) == [dict.fromkeys(MEASURES, 0)]
    lake.write_turns([turn(1)], [], revision=1)
    own = ["developer", "session_id", "repository", "org_path", "model", "day"]
    (row,) = spend(lake, GROUPINGS)
    assert list(row) == [*own, *MEASURES]
    assert all(type(row[name]) is int for name in MEASURES)


def test_a_failed_request_is_a_turn_that_costs_nothing(tmp_path: Path) -> None:
    failed = turn(1, status="error", usage=TokenUsage(), cost_microusd=0, served_model="")
    Lake.open(str(tmp_path)).write_turns([failed], [], revision=1)
    (row,) = spend(Lake.open(str(tmp_path)), ["model"])
    assert (row["model"], row["turns"], row["cost_microusd"]) == ("claude-opus-4-7", 1, 0)


def test_days_bound_the_turns(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    days = ["2025-11-23", "2025-11-24", "2025-11-25"]
    turns = [turn(n, started_at_us=NOON_US + n * 24 * HOUR_US) for n in range(3)]
    lake.write_turns(turns, [], revision=1)

    def found(**bounds: str) -> list[str]:
        return sorted(row["day"] for row in spend(lake, ["day"], **bounds))

    assert found() == days
    assert found(since=days[1]) == days[1:]
    assert found(until=days[1]) == days[:1]
    assert found(since=days[1], until=days[2]) == [days[1]]


def test_a_day_whose_turns_went_away_loses_its_charges(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    lake.write_turns([turn(1), turn(2)], [], revision=1)
    assert roll_up(lake, ["2025-11-23"]) == 1
    lake.write_turns([turn(1, started_at_us=NOON_US + 24 * HOUR_US)], [], revision=2)
    assert roll_up(lake, ["2025-11-23", "2025-11-24"]) == 1
    assert spend(lake, ["day"], from_rollup=True) == spend(lake, ["day"])
    assert roll_up(lake, []) == 0


@pytest.mark.parametrize(
    ("by", "given_"),
    [
        (["colour"], {}),
        (["day"], {"since": "yesterday"}),
        (["day"], {"until": "2025-13-01"}),
        (["org"], {"level": 0}),
        (["org"], {"level": 5}),
        (["day"], {"level": 1}),
    ],
)
def test_what_can_not_be_grouped_is_refused(
    tmp_path: Path, by: list[str], given_: dict[str, object]
) -> None:
    with pytest.raises(BadInput):
        spend(Lake.open(str(tmp_path)), by, **given_)  # type: ignore[arg-type]
