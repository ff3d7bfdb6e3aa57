"""``turnwise budget``: how much may be spent, and what follows when it is."""

from __future__ import annotations

import re
import time
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from loop.domain.budgets import PERIODS, SCOPES
from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads, reason_option
from loop.service.printing import Column, print_json, print_lines, print_rows, show

_COLUMNS = (
    Column("budget_id", "budget"),
    Column("scope", "for"),
    Column("subject", "name"),
    Column("period", "period"),
    Column("amount_microusd", "amount", "money"),
    Column("spent_microusd", "spent", "money"),
    Column("share", "used", "share"),
    Column("forecast_microusd", "by its end", "money"),
    Column("unpriced_turns", "unpriced", "count"),
    Column("state", "state"),
)
_RECORD_COLUMNS = (
    Column("at_us", "at (UTC)", "time"),
    Column("kind", "what"),
    Column("actor", "by"),
    Column("reason", "why"),
)
_NOTICE_COLUMNS = (
    Column("created_at_us", "at (UTC)", "time"),
    Column("channel", "by"),
    Column("subject", "notice"),
    Column("sent_at_us", "arrived (UTC)", "time"),
    Column("attempts", "attempts", "count"),
    Column("problem", "problem"),
)
_DURATION = re.compile(r"(\d{1,6})\s*([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


@click.group()
def budget() -> None:
    """Budgets: alerts, pauses and overrides."""


@budget.command("list")
@reads
def list_budgets(client: ApiClient, as_json: bool) -> None:
    """Every budget with what was spent of it, its forecast and its state.

    A forecast of null: fewer than three days are known. JSON: {"rows": [{budget_id, scope,
    subject, period, period_starts, period_ends, amount_microusd, spent_microusd, percent,
    forecast_microusd, unpriced_turns, state, alert_percent, pause_percent, notify}], "next": null}.
    """
    answer = client.get("/v1/budgets")
    if as_json:
        return print_json(answer)
    rows = [row | {"share": row["percent"] / 100} for row in answer["rows"]]
    print_rows(rows, _COLUMNS, "No budgets yet: `turnwise budget set` makes one.")
    return None


@budget.command("show")
@click.argument("budget_id")
@reads
def show_budget(client: ApiClient, budget_id: str, as_json: bool) -> None:
    """One budget: its days, its pace, what a pause would let through, and what happened.

    JSON: the fields of `budget list`, days, burn_microusd_per_hour, enforcement_lag_seconds,
    overshoot_microusd, override, periods, records.
    """
    answer = client.get(f"/v1/budgets/{budget_id}")
    if as_json:
        return print_json(answer)
    _print_budget(answer)
    print_rows(answer["records"], _RECORD_COLUMNS, "")
    return None


@budget.command("set")
@click.argument("amount")
@click.option("--for", "scope", type=click.Choice(SCOPES), required=True, help="What it is for.")
@click.option("--name", "subject", default="", help="Org path, developer, repository or model.")
@click.option(
    "--period",
    type=click.Choice(PERIODS),
    default="month",
    show_default=True,
    help="Calendar period, UTC.",
)
@click.option("--alert", type=float, default=80.0, show_default=True, help="Percent to alert at.")
@click.option("--pause", type=float, default=110.0, show_default=True, help="Percent to pause at.")
@click.option("--never-pause", is_flag=True, help="Only alert.")
@click.option("--notify", multiple=True, metavar="ADDRESS", help="E-mail address to tell as well.")
@actor_option
@reason_option
@reads
def set_budget(
    client: ApiClient,
    amount: str,
    scope: str,
    subject: str,
    period: str,
    alert: float,
    pause: float,
    never_pause: bool,
    notify: tuple[str, ...],
    actor: str,
    reason: str,
    as_json: bool,
) -> None:
    """Make a budget of AMOUNT dollars, or change the one for the same name and period.

    When so many percent are spent it alerts; at the pause, gateways answer its requests with 402.
    JSON: the budget as `budget show` prints it.
    """
    document: dict[str, Any] = {
        "scope": scope,
        "subject": subject,
        "period": period,
        "amount_microusd": _microusd(amount),
        "alert_percent": alert,
        "pause_percent": None if never_pause else pause,
        "notify": list(notify),
        "actor": actor,
        "reason": reason,
    }
    _tell(client.post("/v1/budgets", document), as_json)


@budget.command("override")
@click.argument("budget_id")
@click.option(
    "--for",
    "duration",
    metavar="TIME",
    help="How long, as in 90m, 8h or 2d (default: to the end of the period).",
)
@actor_option
@reason_option
@reads
def override_budget(
    client: ApiClient, budget_id: str, duration: str | None, actor: str, reason: str, as_json: bool
) -> None:
    """Let a used-up budget's requests through for a while. JSON: as `budget show`."""
    document: dict[str, Any] = {"actor": actor, "reason": reason}
    if duration is not None:
        document["until_us"] = time.time_ns() // 1000 + 1_000_000 * _duration_seconds(duration)
    _tell(client.post(f"/v1/budgets/{budget_id}/override", document), as_json)


@budget.command("end-override")
@click.argument("budget_id")
@actor_option
@reason_option
@reads
def end_override(client: ApiClient, budget_id: str, actor: str, reason: str, as_json: bool) -> None:
    """Take an override back before it ends. JSON: as `budget show`."""
    document = {"actor": actor, "reason": reason}
    _tell(client.post(f"/v1/budgets/{budget_id}/end-override", document), as_json)


@budget.command("close")
@click.argument("budget_id")
@actor_option
@reason_option
@reads
def close_budget(client: ApiClient, budget_id: str, actor: str, reason: str, as_json: bool) -> None:
    """End a budget; what it paused goes on. JSON: {budget_id, closed}."""
    answer = client.post(f"/v1/budgets/{budget_id}/close", {"actor": actor, "reason": reason})
    if as_json:
        print_json(answer)
    else:
        print_lines(f"Budget {budget_id} is closed.")


@budget.command("notices")
@reads
def list_notices(client: ApiClient, as_json: bool) -> None:
    """The newest notices and whether they arrived.

    JSON: {"rows": [{notice_id, channel, subject, created_at_us, sent_at_us, attempts, problem}],
    "next": null}.
    """
    answer = client.get("/v1/notices")
    if as_json:
        return print_json(answer)
    print_rows(answer["rows"], _NOTICE_COLUMNS, "No notices yet.")
    return None


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        _print_budget(answer)


def _print_budget(row: dict[str, Any]) -> None:
    pause = (
        "never pauses" if row["pause_percent"] is None else f"pauses at {row['pause_percent']:g} %"
    )
    print_lines(
        f"Budget {row['budget_id']}: {row['scope']} {row['subject']}".rstrip()
        + f", {show(row['amount_microusd'], 'money')} a {row['period']}",
        f"  {row['state']}: {show(row['spent_microusd'], 'money')} spent since "
        f"{row['period_starts']} ({row['percent']:.1f} %); alerts at {row['alert_percent']:g} %, "
        + pause,
        f"  by {row['period_ends']}: {show(row['forecast_microusd'], 'money')} at the pace of the "
        "last weeks"
        if row["forecast_microusd"] is not None
        else "  no forecast: fewer than three days are known",
        f"  now {show(row['burn_microusd_per_hour'], 'money')} an hour; a pause holds within "
        f"{row['enforcement_lag_seconds']:g} s, about {show(row['overshoot_microusd'], 'money')} "
        "more",
    )
    if row["unpriced_turns"]:
        print_lines(f"  {row['unpriced_turns']} turns have no price and are not counted")
    if row["override"]:
        given = row["override"]
        print_lines(
            f"  overridden until {show(given['until_us'], 'time')} UTC by {given['actor']}: "
            f"{given['reason']}"
        )


def _microusd(amount: str) -> int:
    try:
        microusd = Decimal(amount.removeprefix("$").replace(",", "")) * 1_000_000
        if microusd == microusd.to_integral_value() and microusd > 0:
            return int(microusd)
    except InvalidOperation:
        pass
    raise click.UsageError(f"{amount!r} is no amount of dollars, such as 5000 or 49.50.")


def _duration_seconds(text: str) -> int:
    match = _DURATION.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise click.UsageError(f"{text!r} is no time, such as 90m, 8h or 2d.")
    return int(match[1]) * _SECONDS[match[2]]
