"""Chargeback over millions of turns: developer × organization × model × day.

``python -m bench.bench_chargeback [--turns N …] [--peers]`` writes ``bench/results/chargeback.md``
and ``.json``. The turns are written in bulk, in the files that compaction leaves behind, into a
temporary folder (some 100 bytes a turn) that is removed at the end; on top of them lies what a
running collector leaves: 2,000 turns of the last day in 20 open files, half of which supersede
settled ones.

Each figure is the best of three, wall clock and processor seconds: the machine may be shared. The
sums of all ways must agree to the micro-dollar. ``--peers`` also runs chdb (ClickHouse's engine)
over the same settled files, if it is installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.turn_history import day_name, day_of_turns, parts_of
from loop.lake import Lake, Order
from loop.lake.current_rows import NEWEST_OF_MANY
from loop.lake.delta_log import DeltaLog
from loop.lake.object_store import locate_store
from loop.lake.queries import LakeQueries
from loop.lake.schemas import TABLES
from loop.ledger.charge_table import roll_up
from loop.ledger.chargeback import spend

RESULTS = Path(__file__).parent / "results"
DAYS = 30
PART_ROWS = 1_000_000
OPEN_FILES, OPEN_ROWS = 20, 100
BY = ("developer", "org", "model", "day")
THREADS = 2


class _Recorder:
    """Takes the place of a lake to learn the SQL of a reading."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[object], Order]] = []

    def query(
        self, sql: str, parameters: Sequence[object] = (), *, order: Order = ()
    ) -> list[dict[str, Any]]:
        self.asked.append((sql, parameters, order))
        return []

    def has_daily_charges(self) -> bool:
        return True


def sql_of(**options: Any) -> tuple[str, Sequence[object], Order]:
    recorder = _Recorder()
    spend(recorder, BY, **options)  # type: ignore[arg-type]
    return recorder.asked[-1]


def best_of(action: Callable[[], Any], times: int = 3) -> tuple[float, float, Any]:
    """Wall and processor seconds of the fastest, and what it returned."""
    best = (float("inf"), 0.0, None)
    for _ in range(times):
        before, start = _cpu(), time.perf_counter()
        result = action()
        seconds = time.perf_counter() - start
        if seconds < best[0]:
            best = (seconds, _cpu() - before, result)
    return best


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(turns: int, *, peers: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="turnwise-chargeback-") as folder:
        return _measure(folder, turns, peers=peers)


def _measure(folder: str, turns: int, *, peers: bool) -> dict[str, Any]:
    store = locate_store(folder)
    logs = {schema.name: DeltaLog(store, schema) for schema in TABLES}
    lake = Lake(logs)
    log = logs["turns"]
    last: pa.Table | None = None
    for number in range(DAYS):
        last = day_of_turns(number, turns // DAYS)
        log.rewrite(
            [], ((day_name(number), part, True) for part in parts_of(last, PART_ROWS)), note="bulk"
        )
    assert last is not None
    for number in range(OPEN_FILES):
        newer = last.slice(number * OPEN_ROWS, OPEN_ROWS)
        revised = newer.set_column(
            newer.schema.get_field_index("revision"),
            "revision",
            pa.array([value + 10**9 for value in newer["revision"].to_pylist()]),
        )
        if number % 2:  # turns that are new
            ids = pa.array([f"new-{value}" for value in newer["turn_id"].to_pylist()])
            place = newer.schema.get_field_index("turn_id")
            revised = revised.set_column(place, "turn_id", ids)
        log.append(revised.cast(newer.schema))
    queries = LakeQueries(logs)
    queries._connection.execute(f"SET GLOBAL threads = {THREADS}")
    sql, parameters, order = sql_of()
    found = best_of(lambda: queries.run(sql, parameters, order=order))
    plain_view = NEWEST_OF_MANY["turns"].format(rows="turns_rows")
    plain = best_of(
        lambda: queries.run(
            sql.replace("FROM turns_keyed WHERE true", "FROM turns_keyed WHERE false")
            .replace("FROM turns_superseded", "FROM turns_superseded WHERE false")
            .replace("FROM turns_unkeyed", f"FROM ({plain_view})"),
            parameters,
            order=order,
        ),
        1,
    )
    settled = [file.uri for file in log.snapshot().files if file.is_settled]
    days = [day_name(number) for number in range(DAYS)]
    rolling = best_of(lambda: roll_up(lake, days), 1)
    rollup_sql, rollup_parameters, order = sql_of(from_rollup=True)
    rollup = best_of(lambda: queries.run(rollup_sql, rollup_parameters, order=order))
    totals = [_total(table) for _, _, table in (found, plain, rollup)]
    assert totals[0] == totals[1] == totals[2], totals
    rows = spend(lake, [])[0]
    assert (rows["turns"], rows["cost_microusd"]) == totals[0]
    result: dict[str, Any] = {
        "turns": totals[0][0],
        "groups": found[2].num_rows,
        "cost_microusd": totals[0][1],
        "bytes": sum(file.size_bytes for file in log.snapshot().files),
        "base": _figure(found),
        "plain_view": _figure(plain),
        "roll_up": _figure(rolling),
        "charge_rows": rolling[2],
        "rollup": _figure(rollup),
        "daily_charge_rows": sum(f.rows for f in logs["daily_charges"].snapshot().files),
        "as_records": _figure(best_of(lambda: spend(lake, BY), 1)),
        "rollup_as_records": _figure(best_of(lambda: spend(lake, BY, from_rollup=True), 1)),
    }
    if peers:
        result["chdb"] = _chdb(settled)
    return result


def _total(table: pa.Table) -> tuple[int, int]:
    return int(sum(table["turns"].to_pylist())), int(sum(table["cost_microusd"].to_pylist()))


def _figure(found: tuple[float, float, Any]) -> dict[str, float]:
    return {"seconds": round(found[0], 3), "cpu_seconds": round(found[1], 3)}


def _chdb(files: Sequence[str]) -> dict[str, float] | None:
    """The same grouping in ClickHouse's engine, over settled files, which need no revisions."""
    try:
        chdb = importlib.import_module("chdb")
    except ImportError:
        return None
    folder = str(Path(files[0]).parents[1])
    sums = ", ".join(
        f"sum({name})"
        for name in (
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_creation_5m_tokens",
            "cache_creation_1h_tokens",
            "cost_microusd",
        )
    )
    sql = f"""SELECT developer, org_path,
            coalesce(nullIf(served_model, ''), requested_model) AS model, _path, count(), {sums},
            countIf(cost_microusd IS NULL)
        FROM file('{folder}/day=*/settled-*.parquet', Parquet)
        GROUP BY developer, org_path, model, _path
        SETTINGS max_threads = {THREADS} FORMAT Null"""
    return _figure(best_of(lambda: chdb.query(sql)))


def report(results: Sequence[dict[str, Any]], machine: dict[str, Any]) -> str:
    lines = [
        "# Chargeback",
        "",
        f"Developer × organization × model × day, with five sums of tokens and the cost, on "
        f"{machine['cpus']} CPUs ({machine['processor']}), {THREADS} threads of DuckDB; load "
        f"average {machine['load']} at the start. Seconds of wall clock (processor seconds), the "
        "best of three, warm; the plain view, the roll-up and the records once.",
        "",
        "| turns | groups | from turns | plain view | from rollup | rolling all days up "
        "| turns as Python records | rollup as Python records | chdb |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        shown = [
            f"{result[name]['seconds']:.2f} ({result[name]['cpu_seconds']:.2f})"
            if result.get(name)
            else "–"
            for name in (
                "base",
                "plain_view",
                "rollup",
                "roll_up",
                "as_records",
                "rollup_as_records",
                "chdb",
            )
        ]
        lines.append(f"| {result['turns']:,} | {result['groups']:,} | {' | '.join(shown)} |")
    lines += [
        "",
        "The sums of all ways agree to the micro-dollar. *Plain view*: the rule of "
        "docs/turn-table.md over all rows, as any other engine would read them. *From turns*: what "
        "`turnwise spend` runs, which takes settled files as they are. *From rollup*: from "
        "`daily_charges`. chdb reads the settled "
        "files only, so it does less.",
        "",
        f"Bytes a turn on disk: {results[-1]['bytes'] / results[-1]['turns']:.0f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, nargs="+", default=[5_000_000, 10_000_000, 20_000_000])
    parser.add_argument("--peers", action="store_true", help="chdb, too, if it is installed")
    options = parser.parse_args()
    machine = {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "load": round(os.getloadavg()[0], 1),
    }
    results = []
    for turns in options.turns:
        results.append(measure(turns, peers=options.peers))
        print(json.dumps(results[-1]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine, "threads": THREADS, "results": results}
    (RESULTS / "chargeback.json").write_text(json.dumps(document, indent=2) + "\n")
    (RESULTS / "chargeback.md").write_text(report(results, machine))


if __name__ == "__main__":
    main()
