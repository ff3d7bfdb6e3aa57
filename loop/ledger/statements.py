"""Statements: what a month's turns cost, by every level, exact to the micro-dollar.

All figures of a statement come from one set of lines (organization path, developer, repository,
model), read from the turns at one version of the table, so each level adds up to the same total.
A closed statement never changes. What changes in its month afterwards, by late records, a
re-pricing or another attribution, stands in the next statement as adjustments.
"""

from __future__ import annotations

import calendar
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loop.domain.errors import BadInput, Corrupt, Unavailable
from loop.lake import Lake
from loop.ledger.chargeback import ROLLED_UP_CHARGES, TOKEN_COLUMNS, TURN_CHARGES

SCHEMA = "turnwise.statement/1"
KEYS = ("org_path", "developer", "repository", "model")
AMOUNTS = ("turns", "unpriced_turns", *TOKEN_COLUMNS, "cost_microusd")
DRAFT = "draft"
_ATTEMPTS = 5

Row = dict[str, Any]
LineKey = tuple[str, ...]
Lines = dict[LineKey, dict[str, int]]
Condition = tuple[str, Sequence[object]]
"""SQL over the columns ``day`` and ``org_path``, with its parameters."""
ALL_ROWS: Condition = ("true", ())


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in UTC: the days from ``first_day`` until ``end_day`` (exclusive)."""

    name: str  # YYYY-MM
    first_day: str
    end_day: str

    @classmethod
    def parse(cls, text: str) -> Month:
        """Raises :class:`BadInput` for what is no ``YYYY-MM``."""
        year, _, month = text.partition("-")
        is_month = len(year) == 4 and len(month) == 2 and (year + month).isdecimal()
        if not (is_month and text.isascii() and 1 <= int(month) <= 12 and int(year) >= 1970):
            raise BadInput(f"{text!r} is no month.", fix="Write YYYY-MM, such as 2026-11.")
        following = (int(year) + int(month) // 12, int(month) % 12 + 1)
        return cls(text, f"{text}-01", f"{following[0]:04d}-{following[1]:02d}-01")

    def days(self) -> list[str]:
        year, month = (int(part) for part in self.name.split("-"))
        return [f"{self.name}-{n:02d}" for n in range(1, calendar.monthrange(year, month)[1] + 1)]


def build_statement(
    lake: Lake,
    month: Month,
    org_path: str,
    closed: Sequence[Mapping[str, Any]],
    billed: Mapping[str, Any] | None = None,
    *,
    only: Condition = ALL_ROWS,
    from_rollup: bool = False,
) -> Row:
    """The statement of a month as it would be closed now: its document without id and hash.

    ``closed`` are the closed statements of the same organization path, in order of month;
    ``billed`` is what the provider billed, where that is known. Rows beside ``only`` are neither
    shown nor counted. ``from_rollup`` reads the lines from ``charges``, as long as these add up to
    the turns. Raises :class:`Corrupt` when the
    levels do not add up to the sum of the turns, and :class:`Unavailable` when turns are written
    faster than they can be read.
    """
    months = [Month.parse(str(document["month"])) for document in closed]
    for _ in range(_ATTEMPTS):
        versions = lake.versions()
        read = {one.name: _scope(one, org_path, only) for one in [*months, month]}
        now = {name: _read_lines(lake, scope, from_rollup) for name, scope in read.items()}
        lines = now.pop(month.name)
        terms = _read_terms(lake, read[month.name])
        check = sum(_read_total(lake, scope) for scope in read.values())
        if from_rollup and _cost(lines, *now.values()) != check:
            from_rollup = False
            continue
        if lake.versions().get("turns") == versions.get("turns"):
            break
    else:
        raise Unavailable("Turns are being written all the time.", fix="Try again in a minute.")
    adjustments = _adjustments(closed, now)
    totals = _sum(lines.values())
    adjusted = sum(row["cost_microusd"] for row in adjustments)
    opening = sum(document["control"]["total_microusd"] for document in closed)
    total = totals["cost_microusd"] + adjusted
    if opening + total != check:
        raise Corrupt(
            f"The statement of {month.name} does not add up.",
            why=f"It closes at {opening + total} micro-dollars, the turns at {check}.",
        )
    return {
        "schema": SCHEMA,
        "month": month.name,
        "from": month.first_day,
        "until": month.end_day,
        "org_path": org_path,
        "currency": "USD",
        "price_versions": terms["price_versions"],
        "charge_versions": terms["charge_versions"],
        "table_versions": {"turns": versions.get("turns", -1)},
        "totals": _shown(totals),
        "by_org": _by_level(lines),
        **{
            f"by_{name}": _by_key(lines, position) for position, name in enumerate(KEYS) if position
        },
        "lines": [dict(zip(KEYS, key, strict=True)) | _shown(lines[key]) for key in sorted(lines)],
        "unpriced": terms["unpriced"],
        "adjustments": adjustments,
        "billed": None if billed is None else dict(billed),
        "control": {
            "opening_microusd": opening,
            "charges_microusd": totals["cost_microusd"],
            "adjustments_microusd": adjusted,
            "total_microusd": total,
            "closing_microusd": opening + total,
            "turns": totals["turns"],
            "unpriced_turns": totals["unpriced_turns"],
        },
    }


def seal(document: Mapping[str, Any], **own: Any) -> Row:
    """The document with what is said of its closing, its content hash and its id."""
    content = {**document, **own}
    digest = hashlib.sha256(canonical(content).encode()).hexdigest()
    is_closed = content.get("state") == "closed"
    statement_id = f"{content['month']}-{digest[:12]}" if is_closed else DRAFT
    return {**content, "statement_id": statement_id, "content_hash": digest}


def canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _read_lines(lake: Lake, scope: Condition, from_rollup: bool) -> Lines:
    source = ROLLED_UP_CHARGES if from_rollup else TURN_CHARGES
    sums = ", ".join(f"sum({name}) AS {name}" for name in TOKEN_COLUMNS)
    rows = lake.query(
        f"""
        SELECT {", ".join(KEYS)}, sum(turn_count) AS turns, sum(unpriced_count) AS unpriced_turns,
            {sums}, coalesce(sum(cost_microusd), 0) AS cost_microusd
        FROM ({source}) AS charged WHERE {scope[0]} GROUP BY ALL""",  # noqa: S608
        scope[1],
    )
    return {
        tuple(row[name] for name in KEYS): {name: int(row[name]) for name in AMOUNTS}
        for row in rows
    }


def _read_terms(lake: Lake, scope: Condition) -> Row:
    versions = lake.query(
        f"""
        SELECT DISTINCT coalesce(price_version, '') AS price_version,
            coalesce(charge_version, 0) AS charge_version
        FROM turns WHERE {scope[0]}""",  # noqa: S608
        scope[1],
    )
    unpriced = lake.query(
        f"""
        SELECT coalesce(unpriced_reason, '') AS reason,
            coalesce(nullif(served_model, ''), requested_model) AS model, count(*) AS turns
        FROM turns WHERE {scope[0]} AND cost_microusd IS NULL
        GROUP BY ALL ORDER BY turns DESC, reason, model""",  # noqa: S608
        scope[1],
    )
    return {
        "price_versions": sorted({row["price_version"] for row in versions} - {""}),
        "charge_versions": sorted({row["charge_version"] for row in versions}),
        "unpriced": unpriced,
    }


def _read_total(lake: Lake, scope: Condition) -> int:
    """The plain sum of the turns: the control of everything else."""
    (row,) = lake.query(
        f"""
        SELECT coalesce(sum(cost_microusd), 0) AS n
        FROM ({TURN_CHARGES}) AS charged WHERE {scope[0]}""",  # noqa: S608
        scope[1],
    )
    return int(row["n"])


def _cost(*found: Lines) -> int:
    return sum(amounts["cost_microusd"] for lines in found for amounts in lines.values())


def _scope(month: Month, org_path: str, only: Condition) -> Condition:
    """The rows of a month that are charged to a path, or below it."""
    sql, parameters = "day >= ? AND day < ?", [month.first_day, month.end_day]
    if org_path:
        sql += " AND (org_path = ? OR starts_with(org_path, ? || '/'))"
        parameters += [org_path, org_path]
    return f"{sql} AND {only[0]}", [*parameters, *only[1]]


def _adjustments(closed: Sequence[Mapping[str, Any]], now: Mapping[str, Lines]) -> list[Row]:
    """By month and line, what is charged now less what was stated so far."""
    stated: dict[str, Lines] = defaultdict(dict)
    for document in closed:
        for row in document["lines"]:
            _add(stated[document["month"]], row)
        for row in document["adjustments"]:
            _add(stated[row["month"]], row)
    found = []
    for month in sorted(now):
        for key in sorted(now[month].keys() | stated[month].keys()):
            current = now[month].get(key, _NOTHING)
            before = stated[month].get(key, _NOTHING)
            difference = {name: current[name] - before[name] for name in AMOUNTS}
            if any(difference.values()):
                row = {"month": month, **dict(zip(KEYS, key, strict=True)), **difference}
                found.append(row | {"cause": _cause(difference)})
    return found


def _cause(difference: Mapping[str, int]) -> str:
    if difference["turns"] > 0:
        return "turns that arrived or were attributed here after the month was closed"
    if difference["turns"] < 0:
        return "turns that were attributed elsewhere or removed after the month was closed"
    if any(difference[name] for name in TOKEN_COLUMNS):
        return "tokens that became known after the month was closed"
    return "charged anew after the month was closed"


def _add(lines: Lines, row: Mapping[str, Any]) -> None:
    key = tuple(str(row[name]) for name in KEYS)
    sums = lines.setdefault(key, dict(_NOTHING))
    for name in AMOUNTS:
        sums[name] += row[name] or 0


_NOTHING = dict.fromkeys(AMOUNTS, 0)


def _by_level(lines: Lines) -> list[Row]:
    """Every node of the organization that has turns below it, each level apart."""
    sums: dict[str, list[Mapping[str, int]]] = defaultdict(list)
    for key, amounts in lines.items():
        parts = key[0].split("/")
        for level in range(1, len(parts) + 1):
            sums["/".join(parts[:level])].append(amounts)
    return [
        {"org_path": path, "level": path.count("/") + 1, **_shown(_sum(sums[path]))}
        for path in sorted(sums, key=lambda path: path.split("/"))
    ]


def _by_key(lines: Lines, position: int) -> list[Row]:
    sums: dict[str, list[Mapping[str, int]]] = defaultdict(list)
    for key, amounts in lines.items():
        sums[key[position]].append(amounts)
    rows = [{KEYS[position]: name, **_shown(_sum(sums[name]))} for name in sorted(sums)]
    return sorted(rows, key=lambda row: -(row["cost_microusd"] or 0))


def _sum(amounts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    sums = dict(_NOTHING)
    for one in amounts:
        for name in AMOUNTS:
            sums[name] += one[name]
    return sums


def _shown(amounts: Mapping[str, int]) -> Row:
    """Where no turn has a price there is no cost, rather than one of 0."""
    none = 0 < amounts["turns"] == amounts["unpriced_turns"]
    return {**amounts, "cost_microusd": None if none else amounts["cost_microusd"]}
