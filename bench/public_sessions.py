"""Public Claude Code sessions under threshold policies: reach, savings, calibration, search.

Only sums over all sessions leave this module. Intervals are 95 % percentile bootstraps over
sessions; the sessions are few teams' work and no random sample, so the intervals speak of
sessions like these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.bench_replay import read_sessions, small_to_haiku
from bench.public_data import data_folder, data_parser, machine, read_rows, write_results
from bench.public_sessions_report import report
from loop.domain.money import PriceBook
from loop.domain.policies import UNITS, RoutingPolicy
from loop.ledger.prices import load_price_book
from optimizers.cache_model import CacheModel
from optimizers.calibration import calibrate
from optimizers.classic import classic_policy
from optimizers.output_lengths import OutputLengths
from optimizers.reach import rule_reach
from optimizers.replay import Replayer, replay
from optimizers.replay_assumptions import ReplayAssumptions, undated
from optimizers.routing import routes
from optimizers.routing_search import SearchSettings, search
from optimizers.session_splits import split_sessions
from optimizers.turn_frame import TurnFrame

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
REQUESTS = "claude_code_sessions/requests.parquet"
THRESHOLDS = (5_000, 10_000, 20_000, 30_000, 50_000, 75_000, 100_000, 150_000, 200_000)
PAUSES = ("first of its agent or model", "under 5 minutes", "5 minutes to 1 hour", "over 1 hour")
WINDOW_TOKENS = 200_000
# Models with that context window, by LiteLLM's price list; the others here hold a million.
SMALL_WINDOWS = (
    "claude-haiku-4-5",
    "claude-opus-4-5",
    "claude-sonnet-4",
    "claude-sonnet-4-5",
)
MINUTE_US = 60_000_000
CLOSE_SHARE = 0.05  # of the cacheable prompt


def read_frame(data: Path, book: PriceBook) -> TurnFrame:
    """The requests as turns. A request starts a user turn if it is its agent's first or if the
    agent's request before it called no tool; the table does not hold the prompts themselves."""
    frame = read_sessions(data / REQUESTS, book)
    calls = {
        (row["session_id"], row["message_id"]): bool(row["tools"])
        for row in read_rows(data, REQUESTS, ["session_id", "message_id", "tools"])
    }
    asked = np.array(
        [
            calls[frame.session_ids[session], turn_id]
            for session, turn_id in zip(frame.session, frame.turn_ids, strict=True)
        ],
        bool,
    )
    starts = np.ones(len(frame), bool)
    starts[1:] = (frame.segment[1:] != frame.segment[:-1]) | ~asked[:-1]
    return replace(frame, starts_user_turn=starts, in_tool_loop=~starts)


def measure_reach(frame: TurnFrame) -> list[dict[str, Any]]:
    """The classic rule under each measure that the set holds."""
    is_main = frame.request_class.equals("main")
    parts = []
    for item in rule_reach(classic_policy(), frame):
        if item.rule_id == "short" and item.measure != "prompt_tokens":
            sizes = frame.measure(item.measure, classic_policy().estimator)
            matched = sizes < 10_000
            parts.append(
                {
                    "measure": item.measure,
                    "turn_share": item.turn_share,
                    "token_share": item.token_share,
                    "cost_share": item.cost_share,
                    "session_share": _share_of_sessions(frame, matched),
                    "main_turn_share": _share(matched, is_main),
                    "subagent_turn_share": _share(matched, ~is_main),
                }
            )
    return parts


def measure_savings(
    frame: TurnFrame, book: PriceBook, thresholds: Sequence[int] = THRESHOLDS, draws: int = 1_000
) -> list[dict[str, Any]]:
    """Under T total input tokens to Haiku 4.5, else as requested, for each unit."""
    replayer = Replayer(frame, book)
    unlimited = Replayer(frame, book, ReplayAssumptions(lookback_blocks=None))
    counts = _resampled_sessions(frame.n_sessions, draws)
    answers = []
    for unit in UNITS:
        for tokens in thresholds:
            policy = small_to_haiku(tokens, "total_input_tokens", unit)
            result = replayer.replay(policy)
            logged = np.where(result.is_priced, frame.cost_microusd, 0)
            true = 1.0 - result.candidate_turn_cost_microusd.sum() / logged.sum()
            naive = 1.0 - result.naive_turn_cost_microusd.sum() / logged.sum()
            bill = _session_sums(frame, logged)
            left = counts @ _session_sums(frame, result.candidate_turn_cost_microusd)
            low, high = np.quantile(1.0 - left / (counts @ bill), (0.025, 0.975))
            answers.append(
                {
                    "unit": unit,
                    "tokens": tokens,
                    "rerouted_share": result.rerouted_turns / len(frame),
                    "altered_share": float(result.is_altered.mean()),
                    "naive_saving": float(naive),
                    "true_saving": float(true),
                    "unlimited_lookback_saving": unlimited.replay(policy).saving_share,
                    "unpriced_turns": result.unpriced_turns,
                    "true_saving_low": float(low),
                    "true_saving_high": float(high),
                }
            )
    return answers


@dataclass(frozen=True)
class CacheReads:
    """Predicted reads per request, shape ``(n,)``, on the routes that were logged.

    ``blind`` knows the length of each cacheable prompt, times and lifetimes, and nothing else.
    ``replay`` also learns of compactions from the log, as the replay does: where a warm request
    read less than was there, it takes the logged read.
    """

    logged: Integers
    prefix: Integers  # cacheable prompt: read or written
    blind: Integers
    replay: Integers
    pause_us: Integers  # since the model's last request of the agent, -1 for none
    is_usable: Booleans


def predict_reads(frame: TurnFrame, book: PriceBook) -> CacheReads:
    assumptions = ReplayAssumptions()
    caches = CacheModel(frame, book, assumptions, OutputLengths())
    previous = caches.logged_previous
    known = np.zeros(len(frame), np.int64)
    for code in range(len(caches.models)):
        rows = np.flatnonzero(caches.is_billable & (caches.served == code))
        if len(rows):
            known[rows] = caches.read_tokens(code, rows, previous[rows], caches.logged_world)
    prefix = (
        frame.cache_read_tokens + frame.cache_creation_5m_tokens + frame.cache_creation_1h_tokens
    )
    has_previous = previous >= 0
    pause = np.where(has_previous, frame.started_at_us - frame.started_at_us[previous], -1)
    lifetime = np.where(_lives_long(frame), assumptions.long_ttl_us, assumptions.short_ttl_us)
    is_warm = has_previous & (pause <= lifetime[previous])
    blind = np.where(is_warm, np.minimum(prefix[previous], prefix), 0)
    return CacheReads(
        frame.cache_read_tokens, prefix, blind, known, pause, caches.is_billable & (prefix > 0)
    )


def measure_calibration(frame: TurnFrame, book: PriceBook) -> dict[str, Any]:
    """Predicted beside logged cache reads request by request, and the bills they make."""
    reads = predict_reads(frame, book)
    hour = 60 * MINUTE_US
    band = np.select(
        [reads.pause_us < 0, reads.pause_us < 5 * MINUTE_US, reads.pause_us <= hour], [0, 1, 2], 3
    )
    replayer = Replayer(frame, book)
    as_served = replayer.replay_as_served()
    *by_model, calibration = calibrate(replayer)
    modelled = replayer.modelled_turn_cost_microusd
    excess = (modelled - frame.cost_microusd) / max(1, frame.cost_microusd.sum())
    rows = []
    for name, chosen in [("all", reads.is_usable)] + [
        (name, reads.is_usable & (band == place)) for place, name in enumerate(PAUSES)
    ]:
        row = _compare_reads(name, reads, chosen)
        row["bill_error_share"] = float(excess[chosen].sum())
        rows.append(row)
    is_billed = frame.is_priced & (frame.cost_microusd > 0)
    off = np.abs(modelled[is_billed] / frame.cost_microusd[is_billed] - 1.0)
    return {
        "by_pause": rows,
        "as_served_equals_bill": as_served.candidate_cost_microusd
        == as_served.logged_cost_microusd,
        "bill_residual": calibration.residual,
        "by_model": [asdict(row) | {"residual": row.residual} for row in by_model],
        "reads_ratio": calibration.modelled_cache_read_tokens
        / calibration.logged_cache_read_tokens,
        "turn_cost_within_5_percent": float((off <= 0.05).mean()),
        "turn_cost_median_error": float(np.median(off)),
    }


def _compare_reads(name: str, reads: CacheReads, chosen: Booleans) -> dict[str, Any]:
    logged, prefix = reads.logged[chosen], reads.prefix[chosen]
    row: dict[str, Any] = {
        "pause": name,
        "requests": int(chosen.sum()),
        "logged_read_share": float(logged.sum() / max(1, prefix.sum())),
    }
    for method in ("blind", "replay"):
        predicted = getattr(reads, method)[chosen]
        off = np.abs(predicted - logged)
        row[method] = {
            "read_share": float(predicted.sum() / max(1, prefix.sum())),
            "within_5_percent": float((off <= CLOSE_SHARE * prefix).mean()) if len(off) else None,
            "median_error_tokens": float(np.median(off)) if len(off) else None,
            "mean_error_tokens": float(off.mean()) if len(off) else None,
        }
    return row


def search_on_cost(frame: TurnFrame, book: PriceBook, trials: int, seed: int) -> dict[str, Any]:
    """What the search finds where no session was routed by chance."""
    settings = SearchSettings(trials=trials, seconds=120.0, seed=seed)
    run = search(
        frame,
        book,
        incumbent=RoutingPolicy("as requested", ()),
        settings=settings,
        run_id=f"public-sessions-{seed}",
    )
    quality = run.test.quality if run.test else None
    too_long = held = None
    if run.found is not None:
        too_long = _moved_above_window(frame, run.found)
        later = frame.of_sessions(split_sessions(frame, test_share=settings.test_share).test)
        held = replay(_held_to_windows(run.found), later, book).saving_share
    return {
        "seed": seed,
        "trials": len(run.trials),
        "outcome": run.outcome,
        "policy": run.found.description if run.found else "",
        "moved_above_window": too_long,
        "selection_saving": run.selection.saving_share if run.selection else None,
        "test_saving_inside_windows": held,
        "test_saving": run.test.saving_share if run.test else None,
        "quality_is_estimated": bool(quality and quality.value is not None),
        "refusals": list(quality.refusals) if quality else [],
    }


def _moved_above_window(frame: TurnFrame, policy: RoutingPolicy) -> float:
    """The share of requests that the policy gives to a model which can't hold them."""
    routed = routes(policy, frame)
    names = np.array([undated(name) for name in routed.models])[routed.model]
    served = np.array([undated(name) for name in frame.served_model.values])
    moved = (names != served[frame.served_model.codes]) & np.isin(names, SMALL_WINDOWS)
    return float((moved & (frame.total_input_tokens > WINDOW_TOKENS)).mean())


def _held_to_windows(policy: RoutingPolicy) -> RoutingPolicy:
    """The policy with a ceiling for every small window; lower ones that it has stay."""
    ceilings = {name: WINDOW_TOKENS for name in policy.models() if undated(name) in SMALL_WINDOWS}
    limits = ceilings | dict(policy.guards.max_context_tokens)
    return replace(policy, guards=replace(policy.guards, max_context_tokens=limits))


def describe_frame(frame: TurnFrame) -> dict[str, Any]:
    model = frame.served_model
    same_segment = frame.segment[1:] == frame.segment[:-1]
    return {
        "sessions": frame.n_sessions,
        "requests": len(frame),
        "unpriced_requests": int(len(frame) - frame.is_priced.sum()),
        "model_switches": int((same_segment & (model.codes[1:] != model.codes[:-1])).sum()),
        "user_turns": int(frame.starts_user_turn.sum()),
        "bill_usd": float(frame.cost_microusd.sum() / 1e6),
    }


def _lives_long(frame: TurnFrame) -> Booleans:
    """Whether the last write of the segment, up to each turn, was a one-hour one."""
    long = frame.cache_creation_1h_tokens > 0
    writes = long | (frame.cache_creation_5m_tokens > 0)
    place = np.maximum.accumulate(np.where(writes, np.arange(len(frame)), -1))
    is_same = (place >= 0) & (frame.segment[place] == frame.segment)
    return np.asarray(is_same & long[place])


def _share(matched: Booleans, among: Booleans) -> float:
    return float(matched[among].sum() / max(1, among.sum()))


def _share_of_sessions(frame: TurnFrame, matched: Booleans) -> float:
    return len(np.unique(frame.session[matched])) / max(1, frame.n_sessions)


def _session_sums(frame: TurnFrame, values: Integers) -> Floats:
    return np.bincount(frame.session, weights=values, minlength=frame.n_sessions)


def _resampled_sessions(sessions: int, draws: int) -> Floats:
    random = np.random.default_rng(0)
    counts = [
        np.bincount(random.integers(0, sessions, sessions), minlength=sessions)
        for _ in range(draws)
    ]
    return np.array(counts, float)


def measure_sessions(data: Path, *, searches: int, trials: int) -> dict[str, Any]:
    book = load_price_book()
    frame = read_frame(data, book)
    return {
        "machine": machine(),
        "about": describe_frame(frame),
        "reach": measure_reach(frame),
        "savings": measure_savings(frame, book),
        "calibration": measure_calibration(frame, book),
        "searches": [search_on_cost(frame, book, trials, seed) for seed in range(searches)],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--trials", type=int, default=400)
    options = parser.parse_args(arguments)
    answer = measure_sessions(
        data_folder(parser, options), searches=options.searches, trials=options.trials
    )
    write_results("public_sessions", answer, report(answer))
    print(report(answer))


if __name__ == "__main__":
    main()
