"""Budgets as the API and the command line show them, and what may be done to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from loop.access.view import ALL_ROWS, View
from loop.domain.budgets import (
    ALERT_PERCENT,
    PAUSE_PERCENT,
    Budget,
    BudgetStanding,
    Override,
    period_of,
)
from loop.domain.errors import BadInput, NotFound
from loop.lake.rows import day_of, day_start_us
from loop.service.assemble import Parts
from loop.service.budget_stage import burn_of, measure_lag

NEWEST_RECORDS = 50
FIELDS = frozenset(
    {
        "budget_id", "scope", "subject", "period", "amount_microusd", "alert_percent",
        "pause_percent", "notify", "actor", "reason",
    }
)  # fmt: skip
_MAX_INTEGER = 2**63


class Budgets:
    """Over the assembled parts. ``sees`` gives what the caller may see.

    A caller that sees a part reads the budgets of nodes in it, as the tree is today. Budgets for a
    developer, a repository, a model or everything count what all parts spend: it has none of them.
    """

    def __init__(self, parts: Parts, sees: Callable[[], View] = lambda: ALL_ROWS) -> None:
        self._parts = parts
        self._sees = sees

    def _may_see(self, budget: Budget, now_us: int) -> bool:
        view = self._sees()
        is_of_node = budget.scope == "node" and view.admits(budget.subject, day_of(now_us))
        return view.sees_all or is_of_node

    def list(self) -> dict[str, Any]:
        """Every budget in force that the caller may see, with where it stands."""
        now_us = time.time_ns() // 1000
        standings = [
            standing
            for standing in self._parts.budget_keeper.standings(now_us)
            if self._may_see(standing.budget, now_us)
        ]
        return {"rows": [_standing_row(standing) for standing in standings], "next": None}

    def show(self, budget_id: str) -> dict[str, Any]:
        """One budget: its pace, the overshoot that a pause must expect, its days and records.

        Raises :class:`NotFound` for one that is not there, or not the caller's to see.
        """
        now_us = time.time_ns() // 1000
        if not self._may_see(self._parts.budgets.get(budget_id), now_us):
            raise NotFound(f"There is no budget {budget_id!r}.", fix="`turnwise budget list`.")
        standing = next(
            standing
            for standing in self._parts.budget_keeper.standings(now_us)
            if standing.budget.budget_id == budget_id
        )
        lag = measure_lag(self._parts.budgets, self._parts.settings.budget_interval_seconds)
        burn = burn_of(standing, self._parts.lake, now_us, lag)
        override = standing.override
        return _standing_row(standing) | {
            "days": [{"day": day, "cost_microusd": cost} for day, cost in standing.by_day.items()],
            "burn_microusd_per_hour": round(3600 * burn.microusd_per_second),
            "enforcement_lag_seconds": round(lag, 1),
            "overshoot_microusd": burn.overshoot_microusd,
            "override": override
            and {
                "until_us": override.until_us,
                "reason": override.reason,
                "actor": override.actor,
                "given_at_us": override.given_at_us,
            },
            "periods": [
                {
                    "period_starts": period.period_starts,
                    "state": period.state,
                    "since_us": period.since_us,
                    "spent_microusd": period.spent_microusd,
                    "late_microusd": None
                    if period.ended_microusd is None
                    else period.spent_microusd - period.ended_microusd,
                }
                for period in self._parts.budgets.periods(budget_id)
            ],
            "records": [
                {
                    "sequence": record.sequence,
                    "at_us": record.at_us,
                    "actor": record.actor,
                    "kind": record.kind,
                    "reason": record.reason,
                    "details": record.details,
                }
                for record in self._parts.budgets.records(budget_id, NEWEST_RECORDS)
            ],
        }

    def notices(self) -> dict[str, Any]:
        """The newest notices and whether they arrived."""
        rows = [
            {
                "notice_id": record.notice.notice_id,
                "channel": record.notice.channel,
                "subject": record.notice.subject,
                "created_at_us": record.notice.created_at_us,
                "sent_at_us": record.sent_at_us,
                "attempts": record.attempts,
                "problem": record.problem,
            }
            for record in self._parts.notices.latest()
        ]
        return {"rows": rows, "next": None}

    def set(self, document: dict[str, Any]) -> dict[str, Any]:
        """Makes a budget, or changes the one of the same scope, subject and period."""
        if unknown := sorted(set(document) - FIELDS):
            raise BadInput(
                f"A budget has no field {unknown[0]!r}.", fix=f"Known: {sorted(FIELDS)}."
            )
        notify = document.get("notify", [])
        if not isinstance(notify, list) or not all(isinstance(item, str) for item in notify):
            raise BadInput("notify must be a list of e-mail addresses.")
        budget = Budget(
            _text(document, "budget_id"),
            _text(document, "scope"),  # type: ignore[arg-type]  # check_budget looks
            _text(document, "subject"),
            _text(document, "period", "month"),  # type: ignore[arg-type]
            _integer(document, "amount_microusd"),
            _percent(document, "alert_percent", ALERT_PERCENT) or 0.0,
            _percent(document, "pause_percent", PAUSE_PERCENT),
            tuple(notify),
        )
        kept = self._parts.budgets.set(
            budget, _text(document, "actor"), _text(document, "reason"), time.time_ns() // 1000
        )
        return self.show(kept.budget_id)

    def act(self, budget_id: str, verb: str, document: dict[str, Any]) -> dict[str, Any]:
        """``override`` (``until_us``, or to the end of the period), ``end-override``, ``close``."""
        actor, reason = _text(document, "actor"), _text(document, "reason")
        now_us = time.time_ns() // 1000
        book = self._parts.budgets
        if verb == "override":
            until_us = (
                _integer(document, "until_us")
                if "until_us" in document
                else self._end_of_period_us(budget_id, now_us)
            )
            book.override(budget_id, Override(until_us, reason, actor, now_us))
        elif verb == "end-override":
            book.end_override(budget_id, actor, reason, now_us)
        elif verb == "close":
            book.close(budget_id, actor, reason, now_us)
            return {"budget_id": budget_id, "closed": True}
        else:
            raise NotFound(
                f"A budget has no verb {verb!r}.", fix="One of override, end-override, close."
            )
        return self.show(budget_id)

    def _end_of_period_us(self, budget_id: str, now_us: int) -> int:
        today = datetime.fromtimestamp(now_us / 1e6, UTC).date().isoformat()
        return day_start_us(period_of(self._parts.budgets.get(budget_id).period, today)[1])


def _standing_row(standing: BudgetStanding) -> dict[str, Any]:
    budget = standing.budget
    return {
        "budget_id": budget.budget_id,
        "scope": budget.scope,
        "subject": budget.subject,
        "period": budget.period,
        "period_starts": standing.starts,
        "period_ends": standing.ends,
        "amount_microusd": budget.amount_microusd,
        "spent_microusd": standing.spent_microusd,
        "percent": round(standing.percent, 2),
        "forecast_microusd": standing.forecast_microusd,
        "unpriced_turns": standing.unpriced_turns,
        "state": standing.state,
        "alert_percent": budget.alert_percent,
        "pause_percent": budget.pause_percent,
        "notify": [*budget.notify],
    }


def _text(document: dict[str, Any], name: str, default: str = "") -> str:
    value = document.get(name, default)
    if not isinstance(value, str):
        raise BadInput(f"{name} must be a text.")
    return value


def _integer(document: dict[str, Any], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_INTEGER:
        raise BadInput(f"{name} must be a whole number.")
    return value


def _percent(document: dict[str, Any], name: str, default: float) -> float | None:
    value = document.get(name, default)
    if value is None and name == "pause_percent":
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or value != value:
        raise BadInput(f"{name} must be a number of percent.")
    return float(value)
