"""Replay of logged turns under one policy, in turns per second, beside a plain Python loop.

``python -m bench.bench_replay [--turns N …] [--sessions PATH]`` writes
``bench/results/replay.md`` and ``.json``. ``--sessions`` takes the ``requests.parquet`` of the
public Claude Code sessions; of these only sums are written.

Times are seconds of processor time of the one thread that works (the replay starts no others), the
best of three: the machine may be shared. The loop calls ``decide()`` on requests that were made
before the clock started, and keeps its caches in dictionaries; its costs must equal the columns'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.replay_report import report
from loop.domain.money import PriceBook
from loop.domain.policies import Condition, Guards, Route, RoutingPolicy, Rule, decide, unit_key
from loop.domain.turns import TokenUsage
from loop.ledger.prices import load_price_book
from optimizers.calibration import calibrate
from optimizers.classic import classic_policy
from optimizers.reach import rule_reach
from optimizers.replay import Replayer
from optimizers.replay_assumptions import ReplayAssumptions
from optimizers.routing_search import SearchSettings, search
from optimizers.turn_columns import TextColumn
from optimizers.turn_frame import TurnFrame

RESULTS = Path(__file__).parents[1] / "bench" / "results"
OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
TURNS_PER_SESSION = 25
LOOP_TURNS = 100_000
SHARED_TOKENS = 15_000
DAY = "2026-01-05"
START_US = 1_767_600_000_000_000
SAME_TOKENS = ReplayAssumptions(tokenizer_ratio={})


def small_to_haiku(tokens: int, measure: str, unit: str, min_run: int = 0) -> RoutingPolicy:
    rule = Rule("short", (Condition("input_tokens", "<", tokens),), HAIKU)
    guards = Guards({HAIKU: 150_000}, unit != "request", min_run)
    return RoutingPolicy("bench", (rule,), measure, unit, guards=guards)  # type: ignore[arg-type]


POLICIES = {
    "decided once per session, prompt under 500": small_to_haiku(500, "prompt_tokens", "session"),
    "at each user turn, prompt under 500": small_to_haiku(500, "prompt_tokens", "user_turn"),
    "at each request, total under 50,000": small_to_haiku(50_000, "total_input_tokens", "request"),
    "at each request, new tokens under 1,000": small_to_haiku(1_000, "new_tokens", "request"),
    "the same, three requests at least": small_to_haiku(1_000, "new_tokens", "request", 3),
}


def synthetic_log(turns: int, book: PriceBook, seed: int = 0, shared: int = 0) -> TurnFrame:
    """Sessions of 25 turns on Opus, 40 seconds apart, with a first prompt of 30,000 tokens, of
    which so many are read from what other sessions cached."""
    random = np.random.default_rng(seed)
    sessions = turns // TURNS_PER_SESSION
    n = sessions * TURNS_PER_SESSION
    session, place = np.divmod(np.arange(n), TURNS_PER_SESSION)
    new = random.integers(200, 4_000, n)
    new[place == 0] = 30_000
    total = np.cumsum(new.reshape(sessions, -1), axis=1).ravel()
    output = random.integers(20, 900, n)
    price = book.find(OPUS, DAY)
    assert price is not None
    new[place == 0] -= shared
    read = total - new
    millionths = (
        3 * price.input_microusd
        + output * price.output_microusd
        + read * price.cache_read_microusd
        + new * price.cache_creation_5m_microusd
    )
    names = tuple(f"s{number:08d}" for number in range(sessions))
    same = np.zeros(n, np.int8)
    return TurnFrame.from_columns(
        {
            "session_id": TextColumn(session, names),
            "started_at_us": START_US + session * 1_000_000 + place * 40_000_000,
            "requested_model": TextColumn(same, (OPUS,)),
            "served_model": TextColumn(same, (OPUS,)),
            "request_class": TextColumn(same, ("main",)),
            "starts_prompt": place % 6 == 0,
            "prompt_chars": np.repeat(random.integers(10, 6_000, (n + 4) // 5), 5)[:n],
            "input_tokens": np.full(n, 3),
            "output_tokens": output,
            "cache_read_tokens": read,
            "cache_creation_5m_tokens": new,
            "cache_creation_1h_tokens": np.zeros(n, np.int64),
            "cost_microusd": (millionths + 500_000) // 1_000_000,
        }
    )


class Warmth:
    """Until when the shared system prompt lives on each model, by what turns before an instant
    left; what others leave at the same instant is not found yet."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, int, int]] = {}  # at, ends before it, ends since

    def ends(self, model: str, at_us: int) -> int:
        last, before, since = self._ends.get(model, (0, -1, -1))
        return since if last < at_us else before

    def leave(self, model: str, at_us: int, ends_us: int) -> None:
        last, before, since = self._ends.get(model, (0, -1, -1))
        self._ends[model] = (at_us, since if last < at_us else before, max(since, ends_us))


def plain_loop(
    policy: RoutingPolicy,
    requests: list[Any],
    rows: list[tuple[int, ...]],
    book: PriceBook,
    in_time: Iterable[int],
    system: int = 0,
) -> int:
    """The same replay, one turn after the other; for logs as :func:`synthetic_log` makes them,
    with a ``system`` prompt of so many tokens that sessions share."""
    facts = ReplayAssumptions()
    kept: dict[tuple[str, str], Route] = {}
    caches: dict[tuple[str, str], tuple[int, int, int]] = {}
    logged: dict[str, int] = {}
    warmth = Warmth()
    total_cost, lookback = 0, facts.lookback_turns or len(rows)
    for number in in_time:
        request = requests[number]
        at_us, uncached, output, read, write, billed = rows[number]
        key = unit_key(policy, request)
        route = kept[key] = decide(policy, request, kept.get(key))
        model, session = route.model, request.session_id
        there = caches.get((session, model))
        prefix = read + write
        if model == OPUS and (there[2] if there else None) == logged.get(session):
            cost = billed
        else:
            ratio = facts.ratio(model) / facts.ratio(OPUS)
            in_all = round(prefix * ratio)
            hit = 0
            if there and at_us <= there[1]:
                is_near = number - there[2] <= lookback
                hit = min(there[0], prefix) if is_near else min(there[0], prefix, system)
            if system and hit < system and warmth.ends(model, at_us) >= at_us:
                hit = min(system, prefix)
            hit = round(hit * ratio)
            answer = round(output * ratio)
            usage = TokenUsage(round(uncached * ratio), answer, hit, in_all - hit, 0)
            cost = book.cost(model, DAY, usage).microusd or 0
        ends_us = at_us + facts.short_ttl_us
        caches[session, model] = (prefix, ends_us, number)
        if system:
            warmth.leave(model, at_us, ends_us)
        logged[session] = number
        total_cost += cost
    return total_cost


def best_seconds(work: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    best, answer = float("inf"), None
    for _ in range(repeats):
        started = time.process_time()
        answer = work()
        best = min(best, time.process_time() - started)
    return best, answer


@dataclass(frozen=True)
class Measured:
    policy: str
    turns: int
    seconds: float
    rerouted_share: float
    saving_share: float

    @property
    def turns_per_second(self) -> float:
        return self.turns / self.seconds


def measure_shared(turns: int, book: PriceBook) -> list[Measured]:
    """Every policy where the log shows that sessions share a system prompt: which other sessions
    keep it warm on which model is found anew in each replay."""
    frame = synthetic_log(turns, book, shared=SHARED_TOKENS)
    replayer = Replayer(frame, book)
    measured = []
    for name, policy in POLICIES.items():
        seconds, result = best_seconds(lambda policy=policy: replayer.replay(policy))  # type: ignore[misc]
        share = result.rerouted_turns / len(frame)
        measured.append(Measured(name, len(frame), seconds, share, result.saving_share or 0.0))
    return measured


def measure_replay(turns: int, book: PriceBook) -> tuple[list[Measured], dict[str, Any]]:
    """Every policy over that many turns, and what else the size takes."""
    frame = synthetic_log(turns, book)
    prepared, replayer = best_seconds(lambda: Replayer(frame, book), 1)
    first, _ = best_seconds(lambda: replayer.replay(next(iter(POLICIES.values()))), 1)
    measured = []
    for name, policy in POLICIES.items():
        seconds, result = best_seconds(lambda policy=policy: replayer.replay(policy))  # type: ignore[misc]
        measured.append(
            Measured(
                name, len(frame), seconds, result.rerouted_turns / len(frame), result.saving_share
            )
        )
    size = {
        "turns": len(frame),
        "preparation_seconds": prepared,
        "first_replay_seconds": first,
        "scan_seconds": measure_scan(frame),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    return measured, size


def measure_loop(book: PriceBook, shared: int = 0) -> list[dict[str, Any]]:
    """The loop beside the columns on the same turns; raises when their costs differ."""
    frame = synthetic_log(LOOP_TURNS, book, shared=shared)
    replayer = Replayer(frame, book)
    columns = (
        frame.started_at_us,
        frame.input_tokens,
        frame.output_tokens,
        frame.cache_read_tokens,
        frame.new_tokens - frame.input_tokens,
        frame.cost_microusd,
    )
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    plain = RoutingPolicy("plain", ())
    requests = [frame.request(row, plain) for row in range(len(frame))]
    in_time = (
        np.argsort(frame.started_at_us, kind="stable").tolist() if shared else range(len(rows))
    )
    answers = []
    for name, policy in POLICIES.items():
        slow, cost = best_seconds(
            lambda p=policy: plain_loop(p, requests, rows, book, in_time, shared),  # type: ignore[misc]
            1,
        )
        fast, result = best_seconds(lambda p=policy: replayer.replay(p), 5)  # type: ignore[misc]
        if cost != result.candidate_cost_microusd:
            raise AssertionError(f"{name}: {cost} by loop, {result.candidate_cost_microusd}")
        answers.append(
            {
                "policy": name,
                "turns": len(frame),
                "loop_turns_per_second": len(frame) / slow,
                "columns_turns_per_second": len(frame) / fast,
                "ratio": slow / fast,
            }
        )
    return answers


def measure_scan(frame: TurnFrame) -> float:
    """Processor seconds of one DuckDB scan of the columns that a replay reads: their sums, on one
    thread, from memory."""
    import duckdb
    import pyarrow

    names = ("started_at_us", "input_tokens", "output_tokens", "cache_read_tokens",
             "cache_creation_5m_tokens", "cache_creation_1h_tokens", "total_input_tokens",
             "prompt_chars", "segment", "cost_microusd")  # fmt: skip
    turns = pyarrow.table({name: getattr(frame, name) for name in names})
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.register("turns", turns)
        sums = ", ".join(f"sum({name})" for name in names)
        return best_seconds(lambda: connection.execute(f"SELECT {sums} FROM turns").fetchall())[0]


def measure_search(book: PriceBook, turns: int, trials: int) -> dict[str, Any]:
    """A search on cost alone; wall time, too, for that is what somebody waits for."""
    frame = synthetic_log(turns, book)
    settings = SearchSettings(trials=trials, seconds=3_600.0)
    started = time.perf_counter()
    seconds, run = best_seconds(
        lambda: search(frame, book, incumbent=RoutingPolicy("as requested", ()), settings=settings),
        1,
    )
    return {
        "turns": len(frame),
        "trials": len(run.trials),
        "policies": len({trial.policy.digest for trial in run.trials}),
        "seconds": seconds,
        "wall_seconds": time.perf_counter() - started,
    }


def read_sessions(path: Path, book: PriceBook) -> TurnFrame:
    """The public sessions' requests, without those copied from an earlier session."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path).to_pylist()
    kept = [row for row in table if not row["copied_history"] and row["timestamp"]]
    columns: dict[str, list[Any]] = {name: [] for name in ("cost_microusd", "started_at_us")}
    for name in (
        "turn_id", "session_id", "agent_id", "sequence", "requested_model", "served_model",
        "request_class", "input_tokens", "output_tokens", "cache_read_tokens",
        "cache_creation_5m_tokens", "cache_creation_1h_tokens",
    ):  # fmt: skip
        columns[name] = []
    for row in kept:
        at = datetime.fromisoformat(row["timestamp"])
        long = int(row["cache_creation_1h_tokens"] or 0)
        usage = TokenUsage(
            row["input_tokens"],
            row["output_tokens"],
            row["cache_read_tokens"],
            row["cache_creation_tokens"] - long,
            long,
        )
        columns["turn_id"].append(row["message_id"])
        columns["session_id"].append(row["session_id"])
        columns["agent_id"].append(row["agent_id"] or ("sub" if row["is_subagent"] else ""))
        columns["sequence"].append(row["request_ix"])
        columns["started_at_us"].append(int(at.timestamp() * 1e6))
        columns["requested_model"].append(row["model"])
        columns["served_model"].append(row["model"])
        columns["request_class"].append("subagent" if row["is_subagent"] else "main")
        for name in ("input_tokens", "output_tokens", "cache_read_tokens"):
            columns[name].append(getattr(usage, name))
        columns["cache_creation_5m_tokens"].append(usage.cache_creation_5m_tokens)
        columns["cache_creation_1h_tokens"].append(long)
        day = at.astimezone(UTC).date().isoformat()
        columns["cost_microusd"].append(book.cost(row["model"], day, usage).microusd)
    return TurnFrame.from_columns(columns)


def measure_sessions(path: Path, book: PriceBook) -> dict[str, Any]:
    frame = read_sessions(path, book)
    reach = [
        {"measure": item.measure, "turn_share": item.turn_share, "cost_share": item.cost_share}
        for item in rule_reach(classic_policy(), frame)
        if item.rule_id == "short" and item.measure != "prompt_tokens"
    ]
    replayer, same_tokens = Replayer(frame, book), Replayer(frame, book, SAME_TOKENS)
    thresholds = []
    for tokens in (10_000, 20_000, 50_000, 100_000):
        for unit in ("request", "session"):
            policy = small_to_haiku(tokens, "total_input_tokens", unit)
            plain, true = same_tokens.replay(policy), replayer.replay(policy)
            cost = plain.incumbent_cost_microusd
            thresholds.append(
                {
                    "tokens": tokens,
                    "unit": unit,
                    "rerouted_share": plain.rerouted_turns / len(frame),
                    "naive_saving_share": 1 - plain.naive_cost_microusd / cost,
                    "cache_true_saving_share": plain.saving_share,
                    "cache_true_with_tokenizer_ratio": true.saving_share,
                }
            )
    calibration = calibrate(replayer)[-1]
    return {
        "sessions": frame.n_sessions,
        "turns": len(frame),
        "unpriced_turns": int(len(frame) - frame.is_priced.sum()),
        "classic_rule_reach": reach,
        "thresholds": thresholds,
        "calibration_residual": calibration.residual,
        "modelled_to_logged_cache_reads": calibration.modelled_cache_read_tokens
        / calibration.logged_cache_read_tokens,
    }


def write_results(answer: dict[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "replay.json").write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "replay.md").write_text(report(answer), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, nargs="*", default=[1_000_000, 10_000_000, 20_000_000])
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--sessions", type=Path)
    options = parser.parse_args(arguments)
    book = load_price_book()
    answer: dict[str, Any] = {
        "machine": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "processors": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        "replay": [],
        "sizes": [],
        "loop": measure_loop(book),
        "shared_loop": measure_loop(book, SHARED_TOKENS),
    }
    if options.sessions:
        answer["sessions"] = measure_sessions(options.sessions, book)
    for turns in options.turns:
        measured, size = measure_replay(turns, book)
        answer["sizes"].append(size)
        answer["replay"] += [
            vars(item) | {"turns_per_second": item.turns_per_second} for item in measured
        ]
    answer["shared"] = [
        vars(item) | {"turns_per_second": item.turns_per_second}
        for item in measure_shared(1_000_000, book)
    ]
    answer["search"] = measure_search(book, 1_000_000, options.trials)
    write_results(answer)
    print((RESULTS / "replay.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
