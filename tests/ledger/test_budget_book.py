"""Budgets in the control store, and the spend that they are held against."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loop.service.assemble  # noqa: F401 - defines every table
from loop.control.store import open_control_store
from loop.domain.budgets import Budget, BudgetStanding, Override, SpendOfDay, stand
from loop.domain.errors import BadInput, Conflict, NotFound
from loop.domain.turns import TokenUsage
from loop.lake import Lake
from loop.ledger.budgets import BudgetBook
from loop.ledger.current_spend import CurrentSpend
from loop.ledger.notices import Notice, NoticeQueue
from tests.lake.lake_records import HOUR_US, NOON_US, turn
from tests.servers.postgres_server import postgres_server

NOW_US = NOON_US + HOUR_US
DAY = "2025-11-23"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'control.db'}"
        return
    with postgres_server() as url:
        yield url


def budget(**more: object) -> Budget:
    fields: dict[str, object] = {
        "budget_id": "", "scope": "node", "subject": "acme/pay", "period": "month",
        "amount_microusd": 1_000_000,
    }  # fmt: skip
    return Budget(**(fields | more))  # type: ignore[arg-type]


def standing(kept: Budget, cost: int) -> BudgetStanding:
    row = SpendOfDay(DAY, "acme/pay", "ann", "shop", "opus", cost)
    return stand(kept, [row], NOW_US)


def notice(subject: str) -> Notice:
    return Notice("webhook", subject, "text", {"event": "budget"}, NOW_US)


def test_a_budgets_life_is_kept_and_each_crossing_is_told_once(database_url: str) -> None:
    engine = open_control_store(database_url)
    book, queue = BudgetBook(engine), NoticeQueue(engine)
    kept = book.set(budget(), "ann", "a first one", NOW_US)
    same = book.set(budget(amount_microusd=2_000_000), "ann", "twice as much", NOW_US)
    assert same.budget_id == kept.budget_id
    assert [item.amount_microusd for item in book.budgets()] == [2_000_000]
    kept = same

    assert book.advance(standing(kept, 10), NOW_US, [notice("no")]) is None
    with ThreadPoolExecutor(4) as pool:  # several lookers: one crossing
        alert = standing(kept, 1_600_000)
        looks = list(pool.map(lambda _: book.advance(alert, NOW_US, [notice("alert")]), range(4)))
    assert sorted(look or "" for look in looks) == ["", "", "", "within"]
    assert book.advance(standing(kept, 2_200_000), NOW_US, [notice("pause")]) == "alerted"
    book.override(kept.budget_id, Override(NOW_US + 10, "release", "bob", NOW_US))
    overridden = replace(standing(kept, 2_200_000), state="overridden")
    assert book.advance(overridden, NOW_US, []) == "paused"
    raised = book.set(replace(kept, amount_microusd=2_500_000), "ann", "more", NOW_US)
    assert book.advance(standing(raised, 2_200_000), NOW_US, [notice("alert again")]) is not None
    assert sorted(item.notice.subject for item in queue.due(NOW_US)) == ["alert", "pause"]

    assert book.overrides()[kept.budget_id].reason == "release"
    assert [record.kind for record in reversed(book.records(kept.budget_id))] == [
        "set", "set", "alerted", "paused", "overridden", "overridden", "set", "alerted",
    ]  # fmt: skip
    book.close(kept.budget_id, "ann", "the project has ended", NOW_US)
    assert book.budgets() == []
    with pytest.raises(NotFound):
        book.get(kept.budget_id)
    assert book.set(budget(), "ann", "again", NOW_US).budget_id != kept.budget_id
    engine.dispose()


def test_what_can_not_be_kept_is_refused(tmp_path: Path) -> None:
    engine = open_control_store(f"sqlite:///{tmp_path / 'control.db'}")
    book = BudgetBook(engine)
    first = book.set(budget(), "ann", "one", NOW_US)
    second = book.set(budget(subject="acme/ops"), "ann", "two", NOW_US)
    with pytest.raises(Conflict, match=first.budget_id):
        book.set(replace(second, subject="acme/pay"), "ann", "both", NOW_US)
    with pytest.raises(NotFound):
        book.set(budget(budget_id="b_none", subject="x"), "ann", "none", NOW_US)
    for actor, reason in (("", "why"), ("ann", " ")):
        with pytest.raises(BadInput):
            book.set(budget(subject="acme/x"), actor, reason, NOW_US)
    with pytest.raises(BadInput, match="future"):
        book.override(first.budget_id, Override(NOW_US, "late", "ann", NOW_US))
    engine.dispose()


def test_a_period_that_ended_says_what_arrived_late(tmp_path: Path) -> None:
    engine = open_control_store(f"sqlite:///{tmp_path / 'control.db'}")
    book = BudgetBook(engine)
    kept = book.set(budget(), "ann", "one", NOW_US)
    book.advance(standing(kept, 700_000), NOW_US)
    next_month = stand(kept, [], NOW_US + 10 * 24 * HOUR_US)
    book.advance(next_month, NOW_US)
    book.correct_period(kept.budget_id, "2025-11-01", 750_000)
    newest, ended = book.periods(kept.budget_id)
    assert (newest.period_starts, newest.ended_microusd) == ("2025-12-01", None)
    assert (ended.ended_microusd, ended.spent_microusd) == (700_000, 750_000)
    engine.dispose()


def test_a_notice_is_due_until_it_has_arrived_at_growing_pauses(tmp_path: Path) -> None:
    engine = open_control_store(f"sqlite:///{tmp_path / 'control.db'}")
    book, queue = BudgetBook(engine), NoticeQueue(engine)
    kept = book.set(budget(), "ann", "one", NOW_US)
    book.advance(standing(kept, 900_000), NOW_US, [notice("alert")])
    now_us = NOW_US
    for pause_seconds in (5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600):
        (record,) = queue.due(now_us)
        queue.note_failed(record, "away", now_us)
        now_us += pause_seconds * 1_000_000
        assert queue.due(now_us - 1) == []
    assert queue.due(now_us) != []
    assert queue.due(NOW_US + 4 * 24 * HOUR_US) == []  # given up after three days, still shown
    assert queue.latest()[0].problem == "away"
    queue.note_sent(record.notice.notice_id, now_us)
    assert queue.due(now_us) == []
    engine.dispose()


WRITES = st.lists(
    st.tuples(
        st.sampled_from(["s1", "s2", "s3"]),
        st.lists(st.tuples(st.integers(0, 90), st.integers(0, 500) | st.none()), max_size=4),
    ),
    max_size=6,
)


@settings(max_examples=8, deadline=None)
@given(WRITES, st.integers(0, 2))
def test_sums_kept_up_to_date_equal_sums_made_anew(
    writes: list[tuple[str, list[tuple[int, int | None]]]], first: int
) -> None:
    first_day = ["2025-11-22", "2025-11-24", "2025-11-26"][first]
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        current = CurrentSpend(lake)
        current.look("2025-11-25")
        for revision, (session_id, costs) in enumerate(writes, 1):
            turns = [
                turn(number, session_id, started_at_us=NOON_US + hours * HOUR_US,
                     cost_microusd=cost, usage=TokenUsage(1))
                for number, (hours, cost) in enumerate(costs)
            ]  # fmt: skip
            lake.write_turns(turns, [], revision=revision)
            current.look("2025-11-25" if revision % 2 else first_day)
        current.look(first_day)
        anew = CurrentSpend(lake)
        anew.look(first_day)
        key = repr
        assert sorted(current.rows(), key=key) == sorted(anew.rows(), key=key)
        total = lake.query(
            "SELECT coalesce(sum(cost_microusd), 0) AS cost FROM turns WHERE day >= ?", [first_day]
        )[0]["cost"]
        assert sum(row.cost_microusd for row in current.rows()) == total
