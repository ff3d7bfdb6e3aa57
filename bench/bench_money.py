"""Re-pricing and statements over a month of synthetic turns, per second of processor time.

``python -m bench.bench_money [--turns N] [--days D]`` writes ``bench/results/money.md`` and
``.json``. Times are of all threads of this process: the machine may be shared. Every sum of a
statement is compared with the turns, and one in a hundred costs with the price of its row alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from loop.control.store import open_control_store
from loop.domain.money import PriceBook, Terms
from loop.domain.turns import TokenUsage
from loop.lake import Lake
from loop.lake.compaction import settle
from loop.lake.delta_log import DeltaLog
from loop.lake.object_store import locate_store
from loop.lake.queries import LakeQueries
from loop.lake.schemas import BOOL, INT64, STRING, TIMESTAMP, TURNS
from loop.ledger.charge_table import ChargeTable
from loop.ledger.charge_versions import ChargeVersionStore
from loop.ledger.chargeback import spend
from loop.ledger.column_pricing import TOKENS, price_columns
from loop.ledger.price_book_store import PriceBookStore
from loop.ledger.prices import load_price_book
from loop.ledger.repricing import Repricing
from loop.ledger.statement_store import StatementStore
from loop.ledger.statements import Month

RESULTS = Path(__file__).parent / "results"
MODELS = ("claude-opus-4-7", "claude-sonnet-4-6", "claude-haiku-4-5", "claude-what-9-9")
MONTH = Month.parse("2026-09")
TURNS_PER_SESSION = 30
DAY_US = 86_400_000_000


def synthetic_day(book: PriceBook, day: str, turns: int, seed: int) -> pa.Table:
    """Turns of one day in the stored schema, priced by the book: 2,000 developers in 60 cost
    centers, 300 repositories, four models of which the book does not know one."""
    random = np.random.default_rng(seed)
    start = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1_000_000
    numbers = np.arange(turns)
    developers = random.integers(0, 2_000, turns // TURNS_PER_SESSION + 1)[
        numbers // TURNS_PER_SESSION
    ]
    model = random.choice(4, turns, p=[0.5, 0.3, 0.195, 0.005])
    hexes = random.integers(0, 2**62, turns)

    def texts(words: list[str], which: Any) -> pa.Array:
        return pa.array(words).take(pa.array(which))

    started = start + random.integers(0, DAY_US, turns)
    paths = [f"acme/unit-{n % 4}/sub-{n % 20}/cc-{n}" for n in range(60)]
    columns: dict[str, Any] = {
        "day": pa.array([day] * turns),
        "session_id": texts(
            [f"{day}-{seed:04d}-{n:08x}-session" for n in range(turns // TURNS_PER_SESSION + 1)],
            numbers // TURNS_PER_SESSION,
        ),
        "turn_id": pa.array([f"req_{value:016x}{n:08x}" for n, value in enumerate(hexes)]),
        "revision": pa.array(np.full(turns, 1)),
        "commit": pa.array(np.full(turns, 1)),
        "removed": pa.array(np.zeros(turns, bool)),
        "digest": pa.array([f"{value:024x}" for value in hexes]),
        "started_at": pa.array(started).cast(TIMESTAMP),
        "ended_at": pa.array(started + random.integers(10**6, 10**7, turns)).cast(TIMESTAMP),
        "sequence": pa.array(numbers % TURNS_PER_SESSION),
        "developer": texts([f"dev-{n}@example.com" for n in range(2_000)], developers),
        "org_path": texts(paths, developers % 60),
        "repository": texts([f"github.com/acme/repo-{n}" for n in range(300)], developers % 300),
        "requested_model": texts(list(MODELS), model),
        "served_model": texts(list(MODELS), model),
        "speed": texts(["standard", "fast"], random.choice(2, turns, p=[0.98, 0.02])),
        "web_search_requests": pa.array(random.choice([0, 2], turns, p=[0.99, 0.01])),
        "status": texts(["ok", "error"], random.choice(2, turns, p=[0.98, 0.02])),
        "duration_ms": pa.array(random.integers(1_000, 60_000, turns)),
        "attempts": pa.array(np.ones(turns, np.int64)),
        "charge_version": pa.array(np.zeros(turns, np.int64)),
        "supersedes_from_day": pa.array([day] * turns),
        "supersedes_to_day": pa.array([day] * turns),
    }
    calls = [{"tool_use_id": "toolu_01", "name": "Read", "success": True, "duration_ms": 12}]
    columns["tool_calls"] = pa.array([calls if n % 2 else [] for n in range(turns)]).cast(
        TURNS.arrow().field("tool_calls").type
    )
    for name, high in zip(TOKENS, (2_000, 3_000, 180_000, 6_000, 3_000), strict=True):
        columns[name] = pa.array(random.integers(0, high, turns))
    empty = {STRING: "", INT64: 0, BOOL: False}
    for field in TURNS.arrow():
        if field.name not in columns:
            value = empty.get(field.type)
            columns[field.name] = (
                pa.nulls(turns, field.type)
                if value is None
                else pa.repeat(pa.scalar(value, field.type), turns)
            )
    columns["cost_microusd"] = pa.nulls(turns, INT64)
    rows = pa.table([columns[field.name] for field in TURNS.arrow()], schema=TURNS.arrow())
    priced = price_columns(rows, day, book)
    for name in priced.column_names:
        rows = rows.set_column(
            rows.schema.get_field_index(name), rows.schema.field(name), priced[name]
        )
    return rows


@contextmanager
def clock(figures: dict[str, Any], name: str, turns: int) -> Iterator[None]:
    began, before = time.perf_counter(), _cpu()
    yield
    cpu, wall = _cpu() - before, time.perf_counter() - began
    figures[name] = {
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "turns_per_cpu_second": round(turns / cpu),
    }
    print(name, figures[name], flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(folder: Path, turns: int, days: int) -> dict[str, Any]:
    engine = open_control_store(f"sqlite:///{folder / 'control.db'}")
    lake, versions = Lake.open(str(folder / "lake")), ChargeVersionStore(engine)
    base = load_price_book()
    books = PriceBookStore(engine, base)
    charges = ChargeTable(lake, versions)
    log = DeltaLog(locate_store(str(folder / "lake"), None), TURNS)
    span, names = (MONTH.first_day, MONTH.end_day), MONTH.days()[:days]
    for number, day in enumerate(names):
        rows = synthetic_day(books.in_force(), day, turns // days, number)
        log.append(rows, transaction=("turnwise.revision", number + 1))
    turns = turns // days * days
    figures: dict[str, Any] = {}
    with clock(figures, "settle", turns):
        for day in names:
            settle(log, LakeQueries({"turns": log}), [day])
    dearer = [replace(one, input_microusd=2 * one.input_microusd) for one in base.prices()]
    books.add(dearer, author="bench", reason="twice the input")
    book, repricing = books.in_force(), Repricing(lake, charges, versions)
    statements = StatementStore(engine, lake)

    with clock(figures, "statement_from_turns", turns):
        drawn = statements.draft(MONTH, "")
    with clock(figures, "roll_up", turns):
        charges.roll_up(names)
    current = StatementStore(engine, lake, is_rolled_up=lambda *_: True)
    with clock(figures, "statement_from_rollup", turns):
        same = current.draft(MONTH, "")
    with clock(figures, "print_html", turns):
        html = current.printed(MONTH, "", "html")
    assert drawn == same
    assert drawn["totals"]["turns"] == turns

    with clock(figures, "preview", turns):
        preview = repricing.preview(book, *span)
    version = versions.begin(
        *span, book.version, author="bench", reason="r", outcome=preview.as_dict()
    )
    numbers = itertools.count(1_000)

    @contextmanager
    def revising() -> Iterator[int]:
        yield next(numbers)

    with clock(figures, "rewrite", turns):
        for _ in repricing.rewrite(version, book, revising):
            pass
    repricing.finish(version)
    _check(lake, book, preview.total().after_microusd)
    (old,) = spend(lake, [], charge_version=0, repricings=versions.list())
    assert old["cost_microusd"] == drawn["totals"]["cost_microusd"]
    figures["html_bytes"] = len(html)
    figures["lines"] = len(drawn["lines"])
    figures["turns"], figures["days"] = turns, days
    figures["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    engine.dispose()
    return figures


def _check(lake: Lake, book: PriceBook, expected: int) -> None:
    (row,) = lake.query("SELECT sum(cost_microusd) AS n, min(charge_version) AS v FROM turns")
    assert (row["n"], row["v"]) == (expected, 1)
    tokens = ", ".join(TOKENS)
    for row in lake.query(
        f"SELECT day, served_model, speed, web_search_requests, cost_microusd, {tokens} "
        "FROM turns WHERE hash(turn_id) % 100 = 0"
    ):
        usage = TokenUsage(*(row[name] for name in TOKENS))
        terms = Terms(row["speed"], web_search_requests=row["web_search_requests"])
        cost = book.cost(row["served_model"], row["day"], usage, terms)
        assert cost.microusd == row["cost_microusd"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.turns, options.days)
    figures["machine"] = f"Python {platform.python_version()} on {platform.machine()}"
    figures["load"] = round(os.getloadavg()[0], 1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "money.json").write_text(json.dumps(figures, indent=2) + "\n")
    (RESULTS / "money.md").write_text(report(figures))


_STEPS = {
    "settle": "the days settled, once",
    "preview": "what a re-pricing would change (`--dry-run`)",
    "rewrite": "the turns stored with their new cost",
    "roll_up": "a month rolled up into `charges`",
    "statement_from_turns": "statement of the month, from the turns",
    "statement_from_rollup": "statement of the month, from the rollup",
    "print_html": "the same, printed as HTML",
}


def report(figures: dict[str, Any]) -> str:
    lines = [
        "# Re-pricing and statements",
        "",
        f"{figures['turns']:,} synthetic turns on {figures['days']} days, 60 cost",
        f"centers, 2,000 developers: {figures['lines']:,} lines of statement. All equals the",
        "sum of the turns to the micro-dollar. Processor time is of all threads.",
        f"{figures['machine']}, load average {figures['load']}, peak memory "
        f"{figures['peak_bytes'] / 1e6:,.0f} MB.",
        "",
        "| step | CPU s | wall s | turns per CPU second |",
        "|---|---|---|---|",
    ]
    for name, words in _STEPS.items():
        one = figures[name]
        lines.append(
            f"| {words} | {one['cpu_seconds']} | {one['wall_seconds']} "
            f"| {one['turns_per_cpu_second']:,} |"
        )
    return "\n".join([*lines, "", "Repeat with `python -m bench.bench_money`.", ""])


if __name__ == "__main__":
    main()
