"""A gateway's span that names nothing is suspected beside the client's own report, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loop.domain.turns import TokenUsage, Turn
from loop.lake import Lake
from loop.ledger.chargeback import spend
from loop.ledger.suspected_doubles import suspected_doubles
from tests.lake.lake_records import NOON_US, turn

SECOND_US = 1_000_000


def client(number: int, **given: Any) -> Turn:
    fields: dict[str, Any] = {
        "started_at_us": NOON_US + number * 60 * SECOND_US,
        "ended_at_us": NOON_US + number * 60 * SECOND_US + 9 * SECOND_US,
        "usage": TokenUsage(10 + number, 20, 30, 4, 5),
        "sources": ("otlp-log",),
    }
    return turn(number, **(fields | given))


def traced(number: int, **given: Any) -> Turn:
    """The same by a gateway: its clock two seconds late, cache writes unsplit, ids of its own."""
    start_us = NOON_US + number * 60 * SECOND_US + 2 * SECOND_US
    fields: dict[str, Any] = {
        "session_id": f"trace:{number:032x}",
        "turn_id": f"span-{number}",
        "request_id": "",
        "started_at_us": start_us,
        "ended_at_us": start_us + 6 * SECOND_US,
        "usage": TokenUsage(10 + number, 20, 30, 9, 0),
        "sources": ("portkey",),
        "cost_microusd": 1_000 + number,
    }
    return client(number, **(fields | given))


def found(lake: Lake, **options: Any) -> list[tuple[str, str, int]]:
    rows = suspected_doubles(lake, **options)
    return [(row["turn_id"], row["of_turn_id"], row["cost_microusd"]) for row in rows]


def test_the_same_request_is_suspected_with_its_amount(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    own = [client(1), client(2), client(3), client(4), client(5), client(6)]
    spans = [
        traced(1),
        traced(2, served_model="claude-haiku-4-5"),  # another model
        traced(3, usage=TokenUsage(13, 21, 30, 9, 0)),  # another count
        traced(4, started_at_us=NOON_US + 400 * SECOND_US, ended_at_us=NOON_US + 409 * SECOND_US),
        traced(5, sources=("litellm", "otlp-span")),  # the client's, too: joined already
        traced(6, session_id="s9"),  # it names a session
        traced(7),  # nobody else tells of it
    ]
    lake.write_turns([*own, *spans], [], revision=1)
    assert found(lake) == [("span-1", "req_s1_1", 1_001)]
    (total,) = spend(lake, [])
    assert total["turns"] == len(own) + len(spans)
    assert found(lake, since="2025-11-24") == []
    assert found(lake, only=("org_path = ?", ["engineering/payments"])) == found(lake)
    assert found(lake, only=("org_path = ?", ["elsewhere"])) == []


def test_each_turn_is_paired_once_with_the_nearest(tmp_path: Path) -> None:
    """Two equal requests, three spans: two are doubles, of different requests."""
    lake = Lake.open(str(tmp_path))
    usage = TokenUsage(1, 2, 3, 4, 5)
    own = [
        client(1, usage=usage),
        client(
            2,
            usage=usage,
            started_at_us=NOON_US + 63 * SECOND_US,
            ended_at_us=NOON_US + 72 * SECOND_US,
        ),
    ]
    unsplit = TokenUsage(1, 2, 3, 9, 0)
    spans = [
        traced(
            number,
            usage=unsplit,
            started_at_us=NOON_US + at * SECOND_US,
            ended_at_us=NOON_US + (at + 9) * SECOND_US,
        )
        for number, at in enumerate((60, 63, 64))
    ]
    lake.write_turns([*own, *spans], [], revision=1)
    assert found(lake) == [("span-0", "req_s1_1", 1_000), ("span-1", "req_s1_2", 1_001)]
