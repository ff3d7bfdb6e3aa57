"""The result files of the ingest benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_RUNS = (
    ("full", "as fast as answered"),
    ("full_spans", "spans alone, as fast as answered"),
    ("target", "20,000 records/s"),
    ("half", "10,000 records/s"),
    ("calm", "2,000 records/s"),
    ("calm_json", "2,000 records/s, OTLP/JSON"),
    ("calm_grpc", "2,000 records/s, gRPC"),
    ("soak", "5,000 records/s, long"),
)


def last_figures() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((RESULTS / "ingest.json").read_text())["figures"]
    return figures


def write_results(figures: dict[str, Any], settings: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    document = {"settings": settings, "figures": figures}
    (RESULTS / "ingest.json").write_text(json.dumps(document, indent=2) + "\n")
    (RESULTS / "ingest.md").write_text("\n".join(_report(figures, settings)) + "\n")


def _report(figures: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    full = figures["full"]
    return [
        "# Ingest, end to end",
        "",
        "`turnwise collect` and `turnwise drain` as they are run, each a process, with redaction,",
        "deduplication and pricing, on a data folder on the local disk; sender and watcher on",
        "the same machine. The load is real Claude Code sessions (log events, spans and metric",
        "points of the shipped recordings) that grow for ten rounds, each record with ids and",
        "times of its own, in bodies of one signal of several sessions: "
        f"{full['records'] // full['bodies']} records and",
        f"{full['bytes'] // full['bodies'] // 1000} kB on average. Numbers and texts repeat from "
        "round to round, which real ones do less.",
        "",
        "*Acknowledged* is answered with 200, so fsynced. *Queryable* is in `events`, and",
        "assembled, priced and stored in `turns`; the rate is over the time from the first body",
        "sent until the last record is queryable. *Fresh* is the time from the answer until then.",
        "",
        f"Machine: {settings['cpus']} CPUs ({settings['machine']}), Python {settings['python']};",
        f"load average {settings['load_average_before']} from other work when the run began.",
        *([settings["remark"]] if settings.get("remark") else []),
        "",
        "| run | records/s acknowledged | records/s queryable | ack p50 ms | p99 | fresh p50 s "
        "| p99 | max |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {words} | {run['acknowledged_records_per_second']:,} "
            f"| {run['queryable_records_per_second']:,} | {run['ack_p50_ms']:,} "
            f"| {run['ack_p99_ms']:,} | {run['fresh_p50_seconds']} | {run['fresh_p99_seconds']} "
            f"| {run['fresh_max_seconds']} |"
            for name, words in _RUNS
            if (run := figures.get(name))
        ),
        "",
        "As fast as answered, the time to the answer is waiting in line, and the receivers run",
        "ahead of the drainer: what waits is on the disk.",
        "",
        "## What it takes",
        "",
        "| run | CPU us a record: receiver | drainer | its child, decoding | cores for 20,000 "
        "records/s | resident MB of receiver | of drainer and child |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {words} | {_processor_time(run)} | {_over_time(run['rss_mb']['collect'])} "
            f"| {_over_time(run['rss_mb']['drain'])} |"
            for name, words in _RUNS
            if (run := figures.get(name))
        ),
        "",
        "The cores are those that the three processes together keep busy at that rate, by their",
        "processor time in the run; sender and watcher are not in it. The same work takes more",
        "processor time the more runs beside it: within one run on a busy machine, decoding took",
        "36 to 64 us a record. The drainer is one process and uses one core: however many there",
        "are, it bounds the rate once a record takes it more than 50 us.",
        "",
        "Resident memory from the start of the run to its end, at equal distances.",
        "",
        "## Peers in the same run",
        "",
        "Spans of the same sessions over OTLP/HTTP, 4 connections for 10 seconds, SQLite defaults;",
        "a span counts once it is a row of their database. The ratio is ours on spans alone.",
        "",
        *_peers(figures),
        "",
        "Repeat with `python -m bench.bench_ingest --seconds 15 --soak 120 --peers DIR`.",
    ]


def _processor_time(run: dict[str, Any]) -> str:
    """Of receiver, drainer and its child, and the cores that these take at 20,000 records/s."""
    records, seconds = run["records"], run["cpu_seconds"]
    cores = 20_000 * (seconds["collect"] + seconds["drain"]) / records
    if "decode" in seconds:
        drainer, decode = seconds["drain"] - seconds["decode"], f"{_us(seconds['decode'], records)}"
    else:  # not told apart by earlier runs
        drainer, decode = seconds["drain"], "in it"
    return f"{_us(seconds['collect'], records)} | {_us(drainer, records)} | {decode} | {cores:.1f}"


def _us(seconds: float, records: int) -> int:
    return round(1e6 * seconds / records)


def _over_time(values: list[int]) -> str:
    return " ".join(map(str, values))


def _peers(figures: dict[str, Any]) -> list[str]:
    ours = figures["full_spans"]["queryable_records_per_second"]
    rows = []
    for name in ("mlflow", "phoenix"):
        peer = figures.get(name)
        if not peer:
            rows.append(f"| {name} | not installed | | | | |")
            continue
        rows.append(
            f"| {name} {peer['version']} | {peer['stored_spans_per_second']:,} "
            f"| {ours / peer['stored_spans_per_second']:.0f} | {peer['ack_p50_ms']:,} "
            f"| {peer['ack_p99_ms']:,} | {peer['acknowledged_spans'] - peer['stored_spans']} |"
        )
    return [
        "| peer | spans/s stored | turnwise is faster by | ack p50 ms | p99 | acknowledged, not "
        "yet stored two minutes later |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
