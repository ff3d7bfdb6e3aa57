"""The look at the budgets: sums brought up to date, crossings told, pauses handed to gateways.

How late a pause comes is the sum of what lies before it: a turn is told of when it ends, the
collectors take up to three seconds to bring it into the lake, a look every
``budget_interval_seconds`` sees it, and a gateway that polls hears of the publication at once. What
is in flight at that moment is still served. :func:`measure_lag` measures the parts that this
process can see, and every pause's record says when all gateways had it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loop.control.stage_progress import StageLog
from loop.domain.budget_pauses import MAX_LISTED, BudgetPause
from loop.domain.budgets import (
    BudgetStanding,
    period_of,
    stand,
)
from loop.domain.lifecycle import Actor, ActorKind
from loop.lake import Lake
from loop.ledger.budgets import BudgetBook
from loop.ledger.current_spend import CurrentSpend
from loop.ledger.notices import Notice, NoticeQueue
from loop.service.notice_sending import NoticeTargets, read_targets, send_due
from loop.service.settings import Settings
from routing_policies.version_store import VersionStore

BUDGET_KEEPER = Actor(ActorKind.INSTALLATION, "budgets")
ACTIVE_DAYS = 14  # whose devices belong to an owner: those seen in the last two weeks
BURN_SECONDS = 900
LIVE_SECONDS = 120.0  # a gateway that has not polled for this long is not waited for
STAGE = "budget"


@dataclass(frozen=True, slots=True)
class Burn:
    """How fast an owner spends now, and what that means for a pause that comes late."""

    microusd_per_second: float
    overshoot_microusd: int


class BudgetKeeper:
    """Looks at every budget. One at a time in an installation: it publishes."""

    def __init__(
        self,
        settings: Settings,
        *,
        lake: Lake,
        budgets: BudgetBook,
        notices: NoticeQueue,
        versions: VersionStore,
        stage_log: StageLog,
    ) -> None:
        self._settings = settings
        self._lake = lake
        self._budgets = budgets
        self._notices = notices
        self._versions = versions
        self._stage_log = stage_log
        self._spend = CurrentSpend(lake)
        self._lock = threading.Lock()  # over the sums, which readers ask for too
        self._waiting: tuple[int, int, tuple[str, ...]] | None = None  # serial, at, budgets

    def tick(self) -> bool:
        """One look; whether anything changed state.

        Raises :class:`Unavailable` when the lake or the control store does not answer: then
        everything stays as it is.
        """
        now_us = time.time_ns() // 1000
        standings = self.standings(now_us)
        targets = read_targets(self._settings)
        changed = False
        for standing in standings:
            notices = notices_of(standing, targets, now_us)
            if self._budgets.advance(standing, now_us, notices) is not None:
                changed = True
        self._correct_ended(standings)
        self._publish(standings, now_us)
        self._note_delivery(now_us)
        self._stage_log.record(
            STAGE,
            revision=self._spend.revision,
            at_us=now_us,
            done=int(changed),
            note=_words(standings),
        )
        send_due(self._notices, targets)
        return False

    def standings(self, now_us: int) -> list[BudgetStanding]:
        """Where every budget in force stands."""
        budgets = self._budgets.budgets()
        if not budgets:
            return []
        overrides = self._budgets.overrides()
        today = datetime.fromtimestamp(now_us / 1e6, UTC).date()
        # The first day of last month: four weeks for the forecast, and the period before for
        # what arrives late.
        first = (today.replace(day=1) - timedelta(days=1)).replace(day=1).isoformat()
        with self._lock:
            self._spend.look(first)
            rows = list(self._spend.rows())
        return [stand(budget, rows, now_us, overrides.get(budget.budget_id)) for budget in budgets]

    def _correct_ended(self, standings: Sequence[BudgetStanding]) -> None:
        """Spend that arrived late belongs to the period that it was made in: the last one of each
        budget is kept right for as long as its days are in the sums."""
        with self._lock:
            rows, first_day = list(self._spend.rows()), self._spend.first_day
        for budget in (standing.budget for standing in standings):
            for period in self._budgets.periods(budget.budget_id)[1:2]:
                starts, ends = period_of(budget.period, period.period_starts)
                covered = [row for row in rows if starts <= row.day < ends and budget.covers(row)]
                spent = sum(row.cost_microusd for row in covered)
                if starts >= first_day and spent != period.spent_microusd:
                    self._budgets.correct_period(budget.budget_id, starts, spent)

    def _publish(self, standings: Sequence[BudgetStanding], now_us: int) -> None:
        paused = [standing for standing in standings if standing.state == "paused"]
        pauses = [pause_of(standing, self._lake, now_us) for standing in paused]
        published = self._versions.publish_pauses(
            self._settings.channel,
            pauses,
            BUDGET_KEEPER,
            "budgets paused: " + (", ".join(pause.budget_id for pause in pauses) or "none"),
            not_after_seconds=self._settings.publication_lifetime_seconds,
        )
        if published is not None:
            ids = tuple(standing.budget.budget_id for standing in paused)
            self._waiting = (published.serial, now_us, ids)

    def _note_delivery(self, now_us: int) -> None:
        if self._waiting is None:
            return
        serial, published_at_us, budget_ids = self._waiting
        live = [
            gateway
            for gateway in self._versions.acknowledgements(self._settings.channel)
            if now_us - gateway.seen_at_us <= LIVE_SECONDS * 1e6
        ]
        if all(gateway.has_applied(serial) for gateway in live):
            details = {
                "serial": serial,
                "gateways": len(live),
                "seconds": round((now_us - published_at_us) / 1e6, 1),
            }
            if budget_ids:
                self._budgets.record_delivery(budget_ids, now_us, details)
            self._waiting = None


def pause_of(standing: BudgetStanding, lake: Lake, now_us: int) -> BudgetPause:
    """What gateways are told of a used-up budget."""
    budget = standing.budget
    since = (
        datetime.fromtimestamp(now_us / 1e6, UTC).date() - timedelta(days=ACTIVE_DAYS)
    ).isoformat()
    devices: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    if budget.scope == "node":
        devices = _listed(
            lake,
            "device_id",
            "(org_path = ? OR starts_with(org_path, ? || '/'))",
            [budget.subject] * 2,
            since,
        )
    elif budget.scope == "developer":
        devices = _listed(lake, "device_id", "developer = ?", [budget.subject], since)
    elif budget.scope == "repository":
        sessions = _listed(lake, "session_id", "repository = ?", [budget.subject], since)
    return BudgetPause(
        budget.budget_id,
        message_of(standing),
        everything=budget.scope == "everything",
        org_path=budget.subject if budget.scope == "node" else "",
        developer=budget.subject if budget.scope == "developer" else "",
        repository=budget.subject if budget.scope == "repository" else "",
        model=budget.subject if budget.scope == "model" else "",
        device_ids=devices,
        session_ids=sessions,
    )


def _listed(
    lake: Lake, column: str, condition: str, parameters: list[object], since: str
) -> tuple[str, ...]:
    """The most recently seen first, then by name, so that the list is stable."""
    rows = lake.query(
        f"""
        SELECT {column} AS id FROM turns WHERE day >= ? AND {condition} AND {column} <> ''
        GROUP BY {column} ORDER BY max(day) DESC, id LIMIT {MAX_LISTED}""",  # noqa: S608
        [since, *parameters],
    )
    return tuple(row["id"] for row in rows)


def message_of(standing: BudgetStanding) -> str:
    """What the developer whose request is stopped reads."""
    budget = standing.budget
    return (
        f"The budget of {subject_words(standing)} is used up: "
        f"${standing.spent_microusd / 1e6:,.2f} of ${budget.amount_microusd / 1e6:,.2f} "
        f"({standing.percent:.0f} %) for the {budget.period} that began on {standing.starts}. "
        f"Requests go on on {standing.ends}, or when the budget {budget.budget_id} is raised or "
        "overridden (ask its owner)."
    )


def subject_words(standing: BudgetStanding) -> str:
    budget = standing.budget
    return "the whole installation" if budget.scope == "everything" else budget.subject


def notices_of(standing: BudgetStanding, targets: NoticeTargets, now_us: int) -> list[Notice]:
    """What is told when a budget comes into its state; nothing for a return to within."""
    if standing.state not in ("alerted", "paused"):
        return []
    budget = standing.budget
    who = subject_words(standing)
    spent = (
        f"${standing.spent_microusd / 1e6:,.2f} of ${budget.amount_microusd / 1e6:,.2f} "
        f"({standing.percent:.1f} %)"
    )
    if standing.state == "paused":
        subject = f"Budget used up: {who} is paused at {standing.percent:.0f} %"
        text = f"{who} has spent {spent}. Gateways answer its requests with 402 from now on.\n"
    else:
        subject = f"Budget alert: {who} is at {standing.percent:.0f} %"
        text = f"{who} has spent {spent}.\n"
        if budget.pause_percent is not None:
            text += f"At {budget.pause_percent:.0f} % its requests will be paused.\n"
    if standing.forecast_microusd is not None:
        text += (
            f"At the pace of the last weeks it will be ${standing.forecast_microusd / 1e6:,.2f} "
            f"by {standing.ends}.\n"
        )
    if standing.unpriced_turns:
        text += f"{standing.unpriced_turns} turns have no price and are not counted.\n"
    document = {
        "event": f"budget.{standing.state}",
        "budget_id": budget.budget_id,
        "scope": budget.scope,
        "budget_subject": budget.subject,
        "period": budget.period,
        "period_starts": standing.starts,
        "period_ends": standing.ends,
        "spent_microusd": standing.spent_microusd,
        "amount_microusd": budget.amount_microusd,
        "percent": round(standing.percent, 2),
        "forecast_microusd": standing.forecast_microusd,
    }
    notices = []
    if targets.webhook_url:
        notices.append(Notice("webhook", subject, text, document, now_us))
    recipients = tuple(dict.fromkeys((*targets.recipients, *budget.notify)))
    if targets.sends_email and recipients:
        notices.append(Notice("email", subject, text, document, now_us, recipients))
    return notices


def burn_of(standing: BudgetStanding, lake: Lake, now_us: int, lag_seconds: float) -> Burn:
    """The pace of the last quarter of an hour, and what would be spent before a pause holds:
    that pace for the lag, and as much again as is in flight (the same pace for the mean time
    that a request takes)."""
    budget = standing.budget
    since_us = now_us - BURN_SECONDS * 1_000_000
    conditions = {
        "everything": ("true", []),
        "node": ("(org_path = ? OR starts_with(org_path, ? || '/'))", [budget.subject] * 2),
        "developer": ("developer = ?", [budget.subject]),
        "repository": ("repository = ?", [budget.subject]),
        "model": ("coalesce(nullif(served_model, ''), requested_model) = ?", [budget.subject]),
    }
    condition, parameters = conditions[budget.scope]
    days = [
        datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat() for at_us in (since_us, now_us)
    ]
    (row,) = lake.query(
        f"""
        SELECT coalesce(sum(cost_microusd), 0) AS cost, coalesce(avg(duration_ms), 0) AS duration
        FROM turns WHERE day IN (?, ?) AND started_at_us >= ? AND {condition}""",  # noqa: S608
        [*days, since_us, *parameters],
    )
    pace = float(row["cost"]) / BURN_SECONDS
    return Burn(pace, round(pace * (lag_seconds + float(row["duration"]) / 1000)))


def measure_lag(budgets: BudgetBook, interval_seconds: float) -> float:
    """Seconds from the end of a request to the pause that it causes, in the slowest case: the
    bound on freshness, the pause between two looks, and the slowest of the last deliveries."""
    deliveries = [
        float(record.details["seconds"])
        for record in budgets.records(limit=200)
        if record.kind == "delivered"
    ][:20]
    return FRESH_SECONDS + interval_seconds + max(deliveries, default=1.0)


FRESH_SECONDS = 3.0


def _words(standings: Sequence[BudgetStanding]) -> str:
    counts = {
        state: sum(standing.state == state for standing in standings)
        for state in ("alerted", "paused", "overridden")
    }
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{len(standings)} budgets" + (f": {told}" if told else "")
