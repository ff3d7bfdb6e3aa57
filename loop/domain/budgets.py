"""Budgets: how much may be spent for whom in a period, and what follows when it is.

Days are UTC. A turn counts on the day that it began, so one that arrives late still counts in the
period that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args

from loop.domain.errors import BadInput

BudgetScope = Literal["everything", "node", "developer", "repository", "model"]
BudgetPeriod = Literal["day", "week", "month"]
BudgetState = Literal["within", "alerted", "paused", "overridden"]
SCOPES: tuple[BudgetScope, ...] = get_args(BudgetScope)
PERIODS: tuple[BudgetPeriod, ...] = get_args(BudgetPeriod)
ALERT_PERCENT, PAUSE_PERCENT = 80.0, 110.0
FORECAST_HISTORY_DAYS = 28
FORECAST_LEAST_DAYS = 3
_MAX_AMOUNT_MICROUSD = 10**15
_MAX_SUBJECT_CHARS = 512


@dataclass(frozen=True, slots=True)
class Budget:
    """``subject`` is the organization path, developer, repository or model that is budgeted, ""
    for everything. ``pause_percent`` ``None``: it only alerts."""

    budget_id: str
    scope: BudgetScope
    subject: str
    period: BudgetPeriod
    amount_microusd: int
    alert_percent: float = ALERT_PERCENT
    pause_percent: float | None = PAUSE_PERCENT
    notify: tuple[str, ...] = ()  # e-mail addresses beside the installation's

    def covers(self, spend: SpendOfDay) -> bool:
        if self.scope == "node":
            return is_below(spend.org_path, self.subject)
        if self.scope == "everything":
            return True
        return bool(getattr(spend, self.scope) == self.subject)


@dataclass(frozen=True, slots=True)
class SpendOfDay:
    """What one combination of owners and model cost on one day. ``unpriced_turns`` are in no
    sum: a budget says how many there are."""

    day: str
    org_path: str
    developer: str
    repository: str
    model: str
    cost_microusd: int
    unpriced_turns: int = 0


@dataclass(frozen=True, slots=True)
class Override:
    """Nothing is paused until then, whatever was spent."""

    until_us: int
    reason: str
    actor: str
    given_at_us: int


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """Where a budget stands in its current period. ``starts`` is its first day, ``ends`` the day
    after its last. ``forecast_microusd`` is the spend by its end, ``None`` when too few days are
    known. ``by_day`` holds the spend of its days."""

    budget: Budget
    starts: str
    ends: str
    spent_microusd: int
    unpriced_turns: int
    state: BudgetState
    forecast_microusd: int | None
    by_day: Mapping[str, int]
    override: Override | None = None

    @property
    def percent(self) -> float:
        return 100.0 * self.spent_microusd / self.budget.amount_microusd


def check_budget(budget: Budget) -> Budget:
    """The budget, when it can be kept. Raises :class:`BadInput` naming what can't."""
    if budget.scope not in SCOPES:
        raise BadInput(f"A budget can't be for {budget.scope!r}.", fix=f"One of {_list(SCOPES)}.")
    if budget.period not in PERIODS:
        raise BadInput(f"{budget.period!r} is no period.", fix=f"One of {_list(PERIODS)}.")
    if (budget.scope == "everything") != (budget.subject == ""):
        raise BadInput(
            f"A budget for a {budget.scope} needs its name."
            if budget.scope != "everything"
            else "A budget for everything names nobody."
        )
    if len(budget.subject) > _MAX_SUBJECT_CHARS:
        raise BadInput(f"The name is longer than {_MAX_SUBJECT_CHARS} characters.")
    if not 0 < budget.amount_microusd <= _MAX_AMOUNT_MICROUSD:
        raise BadInput(f"A budget of {budget.amount_microusd} micro-dollars can't be.")
    if not 0 < budget.alert_percent <= 1000:
        raise BadInput(f"An alert at {budget.alert_percent} % can't be.")
    if budget.pause_percent is not None and not (
        budget.alert_percent <= budget.pause_percent <= 1000
    ):
        raise BadInput(
            f"A pause at {budget.pause_percent} % can't be.",
            why="It must not lie below the alert, nor above 1,000 %.",
        )
    for address in budget.notify:
        local, at, domain = address.partition("@")
        if not (local and at and domain) or any(ch.isspace() or ch in ",;<>" for ch in address):
            raise BadInput(f"{address!r} is no e-mail address.")
    return budget


def is_below(org_path: str, node_path: str) -> bool:
    """Whether a path is a node or lies below it."""
    return org_path == node_path or org_path.startswith(node_path + "/")


def period_of(period: BudgetPeriod, day: str) -> tuple[str, str]:
    """The first day of the period that holds ``day``, and the first after it. Weeks begin on
    Monday."""
    at = date.fromisoformat(day)
    if period == "day":
        return day, (at + timedelta(days=1)).isoformat()
    if period == "week":
        monday = at - timedelta(days=at.weekday())
        return monday.isoformat(), (monday + timedelta(days=7)).isoformat()
    first = at.replace(day=1)
    return first.isoformat(), (first + timedelta(days=32)).replace(day=1).isoformat()


def stand(
    budget: Budget, spend: Iterable[SpendOfDay], now_us: int, override: Override | None = None
) -> BudgetStanding:
    """Where a budget stands. ``spend`` holds the days of its period and, for the forecast, the
    :data:`FORECAST_HISTORY_DAYS` before now; days beyond are passed over."""
    moment = datetime.fromtimestamp(now_us / 1e6, UTC)
    starts, ends = period_of(budget.period, moment.date().isoformat())
    costs: dict[str, int] = {}
    unpriced = 0
    for row in spend:
        if budget.covers(row):
            costs[row.day] = costs.get(row.day, 0) + row.cost_microusd
            unpriced += row.unpriced_turns if starts <= row.day < ends else 0
    by_day = {day: cost for day, cost in sorted(costs.items()) if starts <= day < ends}
    spent = sum(by_day.values())
    in_force = override is not None and override.until_us > now_us
    return BudgetStanding(
        budget,
        starts,
        ends,
        spent,
        unpriced,
        _state(budget, spent, in_force=in_force),
        _forecast(costs, spent, ends, moment),
        by_day,
        override if in_force else None,
    )


def _state(budget: Budget, spent_microusd: int, *, in_force: bool) -> BudgetState:
    pause = budget.pause_percent
    # In integers: at exactly 110 % it is paused, whatever floats make of it.
    if pause is not None and spent_microusd * 10_000 >= budget.amount_microusd * round(100 * pause):
        return "overridden" if in_force else "paused"
    if spent_microusd * 10_000 >= budget.amount_microusd * round(100 * budget.alert_percent):
        return "alerted"
    return "within"


def _forecast(costs: Mapping[str, int], spent: int, ends: str, now: datetime) -> int | None:
    """The spend so far, and for what is left of the period the mean day's.

    Week days and weekends have means of their own, over the whole days of the last four weeks
    since the first spend. The rest of today counts by the share of it that is left.
    """
    today = now.date()
    first = min((date.fromisoformat(day) for day, cost in costs.items() if cost), default=today)
    first = max(first, today - timedelta(days=FORECAST_HISTORY_DAYS))
    known = [first + timedelta(days=number) for number in range((today - first).days)]
    if len(known) < FORECAST_LEAST_DAYS:
        return None
    means: dict[bool, float] = {}
    for is_weekend in (False, True):
        days = [day for day in known if (day.weekday() >= 5) is is_weekend] or known
        means[is_weekend] = sum(costs.get(day.isoformat(), 0) for day in days) / len(days)
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    left_of_today = 1.0 - (now - midnight) / timedelta(days=1)
    left = means[today.weekday() >= 5] * left_of_today
    day = today + timedelta(days=1)
    while day.isoformat() < ends:
        left += means[day.weekday() >= 5]
        day += timedelta(days=1)
    return spent + round(left)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
