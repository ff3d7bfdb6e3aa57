"""Budgets: periods, states at their marks, forecasts, and whom a pause stops."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.domain.budget_pauses import BudgetPause, Requester, find_pause
from loop.domain.budgets import (
    PERIODS,
    Budget,
    Override,
    SpendOfDay,
    check_budget,
    period_of,
    stand,
)
from loop.domain.errors import BadInput

DAYS = st.dates(date(2020, 1, 1), date(2035, 12, 31))
NODES = ("acme", "acme/pay", "acme/pay/cards", "acme/payments", "beta")


def at(day: str, hour: float = 12.0) -> int:
    moment = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    return int((moment + timedelta(hours=hour)).timestamp() * 1_000_000)


def budget(amount: int = 1_000_000, **more: object) -> Budget:
    fields: dict[str, object] = {"scope": "everything", "subject": "", "period": "month"}
    return Budget("b", amount_microusd=amount, **(fields | more))  # type: ignore[arg-type]


def spent(day: str, cost: int, **more: object) -> SpendOfDay:
    fields: dict[str, object] = {
        "org_path": "acme/pay", "developer": "ann", "repository": "shop", "model": "opus",
    }  # fmt: skip
    return SpendOfDay(day, cost_microusd=cost, **(fields | more))  # type: ignore[arg-type]


@given(DAYS, st.sampled_from(PERIODS))
def test_every_day_lies_in_one_period_and_periods_follow_each_other(day: date, period: str) -> None:
    starts, ends = period_of(period, day.isoformat())  # type: ignore[arg-type]
    assert starts <= day.isoformat() < ends
    last = (date.fromisoformat(ends) - timedelta(days=1)).isoformat()
    assert period_of(period, last) == (starts, ends)  # type: ignore[arg-type]
    assert period_of(period, ends)[0] == ends  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cost", "state"),
    [
        (799_999, "within"),
        (800_000, "alerted"),
        (1_099_999, "alerted"),
        (1_100_000, "paused"),
        (9_000_000, "paused"),
    ],
)
def test_the_marks_are_met_to_the_micro_dollar(cost: int, state: str) -> None:
    standing = stand(budget(), [spent("2026-11-03", cost)], at("2026-11-24"))
    assert standing.state == state


def test_a_budget_that_never_pauses_only_alerts() -> None:
    only_alerts = budget(pause_percent=None)
    assert stand(only_alerts, [spent("2026-11-03", 10**9)], at("2026-11-24")).state == "alerted"


def test_a_new_period_begins_with_nothing_spent() -> None:
    rows = [spent("2026-10-31", 5_000_000), spent("2026-11-01", 300_000)]
    before = stand(budget(), rows[:1], at("2026-10-31", 23.9))
    after = stand(budget(), rows, at("2026-11-01", 0.1))
    assert (before.state, before.spent_microusd) == ("paused", 5_000_000)
    assert (after.state, after.spent_microusd, after.starts) == ("within", 300_000, "2026-11-01")


def test_an_override_lifts_the_pause_until_it_ends() -> None:
    rows = [spent("2026-11-03", 2_000_000)]
    override = Override(at("2026-11-24", 13), "release week", "ann", at("2026-11-24", 9))
    assert stand(budget(), rows, at("2026-11-24", 12.99), override).state == "overridden"
    ended = stand(budget(), rows, at("2026-11-24", 13), override)
    assert (ended.state, ended.override) == ("paused", None)


@given(
    st.lists(st.tuples(st.sampled_from(NODES), st.integers(0, 10**9)), max_size=20),
    st.sampled_from(NODES),
)
def test_a_node_pays_for_itself_and_all_below_it_and_for_nobody_else(
    spends: list[tuple[str, int]], node: str
) -> None:
    rows = [spent("2026-11-02", cost, org_path=path) for path, cost in spends]
    standing = stand(budget(scope="node", subject=node), rows, at("2026-11-24"))
    below = [cost for path, cost in spends if f"{path}/".startswith(f"{node}/")]
    assert standing.spent_microusd == sum(below)


@given(st.lists(st.integers(0, 10**8), min_size=28, max_size=28), st.floats(0, 23.9))
def test_the_forecast_never_lies_below_what_is_spent(costs: list[int], hour: float) -> None:
    first = date(2026, 10, 28)
    rows = [spent((first + timedelta(days=n)).isoformat(), cost) for n, cost in enumerate(costs)]
    standing = stand(budget(), rows, at("2026-11-24", hour))
    forecast = standing.forecast_microusd
    assert forecast is None or forecast >= standing.spent_microusd


def test_the_forecast_knows_weekends_and_is_silent_without_history() -> None:
    # Week days cost 10, weekends nothing: 2026-11-24 is a Tuesday at noon.
    rows = [
        spent(day.isoformat(), 10_000_000 if day.weekday() < 5 else 0)
        for day in (date(2026, 10, 27) + timedelta(days=n) for n in range(28))
    ]
    standing = stand(budget(), rows, at("2026-11-24"))
    # 16 week days lie in 1..23 November; half of today and 25, 26, 27, 30 are left.
    assert standing.spent_microusd == 160_000_000
    assert standing.forecast_microusd == 160_000_000 + 5_000_000 + 4 * 10_000_000
    fresh = stand(budget(), [spent("2026-11-23", 5)], at("2026-11-24"))
    assert fresh.forecast_microusd is None


def test_unpriced_turns_are_counted_not_charged() -> None:
    rows = [spent("2026-11-03", 0, unpriced_turns=7), spent("2026-10-03", 0, unpriced_turns=9)]
    standing = stand(budget(), rows, at("2026-11-24"))
    assert (standing.unpriced_turns, standing.state) == (7, "within")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scope": "planet", "subject": "x"},
        {"scope": "node", "subject": ""},
        {"scope": "everything", "subject": "x"},
        {"period": "year"},
        {"amount": 0},
        {"alert_percent": 0.0},
        {"alert_percent": 120.0},
        {"pause_percent": float("nan")},
        {"notify": ("nobody",)},
        {"notify": ("a@b.c\nBcc: d@e.f",)},
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        check_budget(budget(**wrong))  # type: ignore[arg-type]


def test_a_pause_stops_those_it_is_for_and_only_them() -> None:
    node = BudgetPause("n", "used up", org_path="acme/pay", device_ids=("d1",))
    repository = BudgetPause("r", "used up", repository="shop", session_ids=("s1",))
    model = BudgetPause("m", "used up", model="opus")
    stopped = [
        (node, Requester(org_path="acme/pay/cards"), "haiku"),
        (node, Requester(device_id="d1"), "haiku"),
        (repository, Requester(repository="shop"), "haiku"),
        (repository, Requester(session_id="s1"), "haiku"),
        (model, Requester(), "opus"),
        (BudgetPause("e", "used up", everything=True), Requester(), ""),
    ]
    served = [
        (node, Requester(org_path="acme/payments", device_id="d1"), "haiku"),
        (node, Requester(device_id="d2"), "haiku"),
        (node, Requester(), "haiku"),
        (repository, Requester(repository="other", session_id="s1"), "haiku"),
        (model, Requester(device_id="d1"), "haiku"),
    ]
    assert all(find_pause([pause], who, routed) is pause for pause, who, routed in stopped)
    assert not any(find_pause([pause], who, routed) for pause, who, routed in served)
