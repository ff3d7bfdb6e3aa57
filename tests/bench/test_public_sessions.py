"""Sessions of the shape of the public ones: user turns, predicted reads, savings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from bench.public_sessions import (
    _held_to_windows,
    _moved_above_window,
    measure_calibration,
    measure_reach,
    measure_savings,
    measure_sessions,
    predict_reads,
    read_frame,
    search_on_cost,
)
from bench.public_sessions_report import report
from loop.domain.policies import RoutingPolicy
from loop.ledger.prices import load_price_book
from optimizers.turn_frame import TurnFrame

MINUTE = 60
BOOK = load_price_book()


def request(
    session: str, number: int, at: int, read: int, write: int, **more: Any
) -> dict[str, Any]:
    hours, minutes = divmod(at // MINUTE, 60)
    return {
        "session_id": session, "request_ix": number, "message_id": f"{session}.{number}",
        "timestamp": f"2026-01-05T{9 + hours:02}:{minutes:02}:{at % MINUTE:02}.000Z",
        "model": "claude-opus-4-6", "input_tokens": 3, "output_tokens": 100,
        "cache_creation_tokens": write, "cache_creation_1h_tokens": 0.0,
        "cache_read_tokens": read, "is_subagent": False, "agent_id": None, "tools": ["Bash"],
        "copied_history": False,
    } | more  # fmt: skip


def read(tmp_path: Path, rows: list[dict[str, Any]]) -> TurnFrame:
    path = tmp_path / "claude_code_sessions" / "requests.parquet"
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return read_frame(tmp_path, BOOK)


ONE_SESSION = [
    request("s1", 0, 0, 0, 20_000),
    request("s1", 1, 30, 20_000, 1_000, tools=[]),  # ends the user turn
    request("s1", 2, 10 * MINUTE, 0, 22_000),  # expired
    request("s1", 3, 11 * MINUTE, 5_000, 3_000),  # compacted: warm, yet little was read
    request("s1", 4, 12 * MINUTE, 8_000, 500),
]


def test_a_user_turn_begins_after_an_answer_without_a_tool(tmp_path: Path) -> None:
    other = request("s1", 9, 40, 0, 9_000, is_subagent=True, agent_id="a1")
    frame = read(tmp_path, [*ONE_SESSION, other, request("s0", 0, 0, 0, 0, copied_history=True)])
    assert frame.session_ids == ("s1",)
    assert frame.starts_user_turn.tolist() == [True, False, True, False, False, True]
    assert (frame.in_tool_loop == ~frame.starts_user_turn).all()


def test_reads_are_predicted_blind_and_with_the_logs_compactions(tmp_path: Path) -> None:
    reads = predict_reads(read(tmp_path, ONE_SESSION), BOOK)
    assert reads.logged.tolist() == [0, 20_000, 0, 5_000, 8_000]
    assert reads.blind.tolist() == [0, 20_000, 0, 8_000, 8_000]
    assert reads.replay.tolist() == [0, 20_000, 0, 5_000, 8_000]


def test_calibration_counts_each_request_once(tmp_path: Path) -> None:
    found = measure_calibration(read(tmp_path, ONE_SESSION), BOOK)
    everything, *bands = found["by_pause"]
    assert everything["requests"] == sum(band["requests"] for band in bands) == 5
    assert everything["blind"]["within_5_percent"] == pytest.approx(0.8)
    assert everything["replay"]["within_5_percent"] == 1.0
    assert found["as_served_equals_bill"]
    assert found["bill_residual"] == pytest.approx(0.0, abs=1e-3)


def many_sessions() -> list[dict[str, Any]]:
    rows = []
    for number in range(16):
        name = f"s{number:02}"
        size = 20_000 + 4_000 * (number % 4)
        rows.append(request(name, 0, number, 0, size))
        for place in range(1, 6):
            rows.append(request(name, place, number + 30 * place, size, 1_000))
            size += 1_000
    return rows


def test_switching_on_the_way_saves_less_than_it_seems(tmp_path: Path) -> None:
    frame = read(tmp_path, many_sessions())
    rows = {(r["unit"], r["tokens"]): r for r in measure_savings(frame, BOOK, (30_000,), 50)}
    mixed, kept = rows["request", 30_000], rows["session", 30_000]
    assert mixed["true_saving"] < mixed["naive_saving"]
    assert kept["true_saving"] == pytest.approx(kept["naive_saving"], abs=0.01)
    assert mixed["true_saving_low"] <= mixed["true_saving"] <= mixed["true_saving_high"]


def test_the_classic_rule_reaches_by_what_is_measured(tmp_path: Path) -> None:
    reach = {row["measure"]: row for row in measure_reach(read(tmp_path, many_sessions()))}
    assert reach["total_input_tokens"]["turn_share"] == 0.0
    assert reach["uncached_input_tokens"]["turn_share"] == 1.0
    assert reach["new_tokens"]["turn_share"] == pytest.approx(5 / 6)


def test_a_search_on_cost_alone_says_that_quality_is_unknown(tmp_path: Path) -> None:
    found = search_on_cost(read(tmp_path, many_sessions()), BOOK, 20, 0)
    assert not found["quality_is_estimated"]
    assert "no logged randomised propensity" in found["refusals"][0]
    assert found["test_saving"] > 0.3
    assert found["moved_above_window"] == 0.0
    assert found["test_saving_inside_windows"] == pytest.approx(found["test_saving"])


def test_the_report_holds_no_name(tmp_path: Path) -> None:
    rows = [row | {"session_id": "secret " + row["session_id"]} for row in many_sessions()]
    read(tmp_path, rows)
    text = report(measure_sessions(tmp_path, searches=1, trials=5))
    assert "96 requests of 16 sessions" in text
    assert "secret" not in text


def test_a_model_is_held_to_its_window(tmp_path: Path) -> None:
    """The search sets a ceiling for Haiku only; the other small windows count here."""
    rows = [row | {"cache_read_tokens": 190_000} for row in many_sessions()]
    frame = read(tmp_path, rows)
    everything = RoutingPolicy("all", (), default_model="claude-sonnet-4-5")
    to_large = RoutingPolicy("all", (), default_model="claude-sonnet-4-6")
    assert _moved_above_window(frame, everything) == pytest.approx(1 / 6)
    assert _moved_above_window(frame, _held_to_windows(everything)) == 0.0
    assert _moved_above_window(frame, to_large) == 0.0
    assert _held_to_windows(to_large) == to_large
