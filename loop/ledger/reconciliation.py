"""Our estimate beside the provider's report: the residual by day, model and class, with reasons.

The residual is what the provider states less what the turns say, in tokens and in dollars. Each
line's residual is put to the first reason that explains it; what no reason explains is called so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from loop.domain.errors import NotFound
from loop.domain.model_names import plain_name
from loop.domain.money import ONE, TOKENS_PER_PRICE, Price, PriceBook, Rates, Terms
from loop.lake import Lake
from loop.ledger.billing_reports import TOKEN_CLASSES, BilledLine
from loop.ledger.pricing import Books
from loop.ledger.statements import Month

WEB_SEARCH = "web_search"
NO_TELEMETRY = "no telemetry: the provider counts what no collector received"
MISSING = "missing telemetry: the provider counts more tokens"
NOT_REPORTED = "not in the report: another provider served it, or the report is not complete yet"
UNPRICED = "unpriced turns: their tokens are counted, their cost is not known"
OTHER_DAY = "another day: the tokens cancel out with the next or the last day (clock or time zone)"
PRIORITY = "priority tier: the cost report leaves it out"
OTHER_PRICE = "another price: the tokens agree, the dollars do not"
NOT_TOKENS = "not of tokens: turnwise does not see what is charged for it"
ROUNDING = "rounding"
UNKNOWN = "not explained"
_REST = "tokens are not compared: no usage report covers the day"

Key = tuple[str, str, str]
"""Day, model, class."""


@dataclass(slots=True)
class _Ours:
    turns: int = 0
    tokens: int = 0
    unpriced_tokens: int = 0
    microusd: Fraction = Fraction(0)


@dataclass(slots=True)
class _Theirs:
    tokens: int | None = None  # None: no usage report covers the day
    microusd: Fraction | None = None  # None: no cost report covers the day
    least_digit: Fraction = Fraction(0)  # half of the amounts' last digits
    priority_tokens: int = 0


@dataclass(slots=True)
class Reconciliation:
    """``rows`` by day, model and class; dollars of the days that the cost report covers."""

    month: Month
    usage_days: list[str]
    cost_days: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    estimated_microusd: int = 0
    billed_microusd: int = 0

    @property
    def residual_microusd(self) -> int:
        return self.billed_microusd - self.estimated_microusd

    @property
    def residual_share(self) -> float | None:
        """The net residual as a share of what was billed, either way: of dollars where a cost
        report covers any day, else of tokens. ``None`` where nothing was billed."""
        residual, billed = self._compared()
        return abs(residual) / billed if billed else None

    def exceeds(self, limit_share: float) -> bool:
        """Whether the net residual is more than that share of what was billed."""
        residual, billed = self._compared()
        return abs(residual) > limit_share * abs(billed)

    def _compared(self) -> tuple[int, int]:
        if self.cost_days:
            return self.residual_microusd, self.billed_microusd
        compared = [row for row in self.rows if row["billed_tokens"] is not None]
        residual = sum(row["residual_tokens"] for row in compared)
        return residual, sum(row["billed_tokens"] for row in compared)

    def reasons(self) -> list[dict[str, Any]]:
        """The residual dollars by reason; they add up to the whole residual."""
        sums: dict[str, int] = defaultdict(int)
        for row in self.rows:
            if row["residual_microusd"] is not None:
                sums[row["reasons"][0] if row["reasons"] else ROUNDING] += row["residual_microusd"]
        rest = self.residual_microusd - sum(sums.values())
        sums[ROUNDING] += rest  # each turn is rounded once, each line of ours is not
        found = [{"reason": name, "microusd": value} for name, value in sums.items() if value]
        return sorted(found, key=lambda row: (-abs(row["microusd"]), row["reason"]))

    def summary(self) -> dict[str, Any]:
        """What a statement shows of it."""
        return {
            "billed_microusd": self.billed_microusd,
            "estimated_microusd": self.estimated_microusd,
            "residual_microusd": self.residual_microusd,
            "days": len(self.cost_days),
            "days_of_month": len(self.month.days()),
            "reasons": self.reasons(),
        }


def reconcile(
    lake: Lake,
    books: Books,
    month: Month,
    usage: Mapping[str, list[BilledLine]],
    cost: Mapping[str, list[BilledLine]],
) -> Reconciliation:
    """``usage`` and ``cost`` hold the report's lines of each day that they cover."""
    found = Reconciliation(month, sorted(usage), sorted(cost))
    days = {*usage, *cost}
    ours, turns_microusd = _estimate(lake, books, month)
    theirs = _billed(usage, cost)
    keys = sorted({key for key in ours.keys() | theirs.keys() if key[0] in days})
    for key in keys:
        us, them = ours.get(key, _Ours()), theirs.get(key, _Theirs())
        if key[0] in usage and them.tokens is None:
            them.tokens = 0
        if key[0] in cost and them.microusd is None:
            them.microusd = Fraction(0)
        theirs[key] = them
        row = _row(key, us, them)
        if any(row[name] for name in ("our_tokens", "billed_tokens", "billed_microusd")):
            found.rows.append(row)
    residuals = {
        (row["day"], row["model"], row["class"]): row["residual_tokens"] for row in found.rows
    }
    for row in found.rows:
        key = (row["day"], row["model"], row["class"])
        row["reasons"] = _reasons(row, ours.get(key, _Ours()), theirs[key], residuals)
    found.estimated_microusd = sum(turns_microusd[day] for day in cost)
    billed = sum((them.microusd or Fraction(0) for them in theirs.values()), Fraction(0))
    found.billed_microusd = round(billed)
    return found


def _row(key: Key, us: _Ours, them: _Theirs) -> dict[str, Any]:
    estimated = round(us.microusd)
    billed = None if them.microusd is None else round(them.microusd)
    return {
        "day": key[0],
        "model": key[1],
        "class": key[2],
        "our_tokens": us.tokens,
        "billed_tokens": them.tokens,
        "residual_tokens": None if them.tokens is None else them.tokens - us.tokens,
        "estimated_microusd": estimated,
        "billed_microusd": billed,
        "residual_microusd": None if billed is None else billed - estimated,
        "reasons": [],
    }


def _reasons(
    row: Mapping[str, Any], us: _Ours, them: _Theirs, residuals: Mapping[Key, int | None]
) -> list[str]:
    """Those that hold, the first being the one that the dollars are put to."""
    tokens, dollars = row["residual_tokens"], row["residual_microusd"]
    found = []
    if row["class"] not in (*TOKEN_CLASSES, WEB_SEARCH):
        return [NOT_TOKENS]
    if not tokens and not dollars:
        return []
    allowed = them.least_digit + Fraction(us.turns + 1, 2)
    is_rounding = dollars is not None and abs(dollars) <= allowed
    if tokens and _cancels(row, residuals):
        found.append(OTHER_DAY)
    if tokens and tokens > 0:
        found.append(MISSING if us.tokens else NO_TELEMETRY)
    if tokens and tokens < 0:
        found.append(NOT_REPORTED)
    if us.unpriced_tokens:
        found.append(UNPRICED)
    if them.priority_tokens:
        found.append(PRIORITY)
    if not found and dollars and is_rounding:
        found.append(ROUNDING)
    if not found and dollars:
        found.append(OTHER_PRICE if tokens == 0 else f"{UNKNOWN}: {_REST}")
    return found


def _cancels(row: Mapping[str, Any], residuals: Mapping[Key, int | None]) -> bool:
    """Whether a neighbouring day has nine tenths of the same difference the other way."""
    day, tokens = date.fromisoformat(row["day"]), row["residual_tokens"]
    for step in (-1, 1):
        other_day = (day + timedelta(days=step)).isoformat()
        other = residuals.get((other_day, row["model"], row["class"]))
        if other and (other > 0) != (tokens > 0) and 10 * abs(other + tokens) <= abs(tokens):
            return True
    return False


def _billed(
    usage: Mapping[str, list[BilledLine]], cost: Mapping[str, list[BilledLine]]
) -> dict[Key, _Theirs]:
    found: dict[Key, _Theirs] = defaultdict(_Theirs)
    for line in _all(usage):
        them = found[line.day, line.model, line.kind]
        them.tokens = (them.tokens or 0) + line.tokens
        if line.service_tier.startswith("priority"):
            them.priority_tokens += line.tokens
    for line in _all(cost):
        them = found[line.day, line.model, line.kind]
        usd = Decimal(line.usd)
        them.microusd = (them.microusd or Fraction(0)) + Fraction(usd) * 1_000_000
        exponent = usd.as_tuple().exponent
        digits = exponent if isinstance(exponent, int) else 0
        them.least_digit += Fraction(Decimal(1).scaleb(digits)) * 500_000
    return dict(found)


def _all(lines: Mapping[str, list[BilledLine]]) -> Iterable[BilledLine]:
    return (line for day in sorted(lines) for line in lines[day])


def _estimate(lake: Lake, books: Books, month: Month) -> tuple[dict[Key, _Ours], Mapping[str, int]]:
    """Our tokens and exact dollars by class, and the turns' own sum by day."""
    limits = _long_input_limits(lake, books, month)
    total = "input_tokens + cache_read_tokens + cache_creation_5m_tokens + cache_creation_1h_tokens"
    tier = " + ".join(f"CAST({total} > {limit:d} AS INTEGER)" for limit in limits) or "0"
    sums = ", ".join(f"sum({name}) AS {name}" for name in TOKEN_CLASSES)
    rows = lake.query(
        f"""
        SELECT day, coalesce(nullif(served_model, ''), requested_model) AS model,
            coalesce(price_version, '') AS price_version, coalesce(speed, '') AS speed,
            coalesce(service_tier, '') AS service_tier,
            coalesce(inference_geo, '') AS inference_geo, {tier} AS tier,
            cost_microusd IS NULL AS unpriced, max({total}) AS largest_input,
            sum(coalesce(web_search_requests, 0)) AS web_search, count(*) AS turns,
            coalesce(sum(cost_microusd), 0) AS cost_microusd, {sums}
        FROM turns WHERE day >= ? AND day < ? GROUP BY ALL""",  # noqa: S608
        [month.first_day, month.end_day],
    )
    found: dict[Key, _Ours] = defaultdict(_Ours)
    by_day: dict[str, int] = defaultdict(int)
    for row in rows:
        by_day[row["day"]] += int(row["cost_microusd"])
        price = None if row["unpriced"] else _price(books, row)
        for kind in (*TOKEN_CLASSES, WEB_SEARCH):
            tokens = int(row[kind])
            if not tokens:
                continue
            us = found[row["day"], plain_name(row["model"]), kind]
            us.turns += row["turns"]
            us.tokens += tokens
            if price is None:
                us.unpriced_tokens += tokens
            else:
                us.microusd += _microusd(price, row, kind, tokens)
    return dict(found), by_day


def _long_input_limits(lake: Lake, books: Books, month: Month) -> list[int]:
    """Where the rates of any book that the month was charged by change with the size of input."""
    rows = lake.query(
        "SELECT DISTINCT price_version FROM turns WHERE day >= ? AND day < ? "
        "AND price_version <> ''",
        [month.first_day, month.end_day],
    )
    used = [_book(books, row["price_version"]) for row in rows]
    return sorted({p.long_input_tokens for b in used for p in b.prices() if p.long_input_tokens})


def _book(books: Books, label: str) -> PriceBook:
    try:
        return books.find(label)
    except NotFound:
        return books.in_force()


def _price(books: Books, row: Mapping[str, Any]) -> Price | None:
    return _book(books, row["price_version"]).find(row["model"], row["day"])


def _microusd(price: Price, row: Mapping[str, Any], kind: str, tokens: int) -> Fraction:
    if kind == WEB_SEARCH:
        return Fraction(tokens * (price.web_search_microusd or 0))
    rates: Rates | Price = price
    if price.long_input_rates is not None and row["largest_input"] > (price.long_input_tokens or 0):
        rates = price.long_input_rates
    name = kind.removesuffix("_tokens")
    cost = Fraction(tokens * int(getattr(rates, f"{name}_microusd")), TOKENS_PER_PRICE)
    terms = Terms(row["speed"], row["service_tier"], row["inference_geo"])
    for multiplier in price.multipliers_of(terms):
        cost *= Fraction(multiplier, ONE)
    return cost
