"""All recorded sessions equal their ground truth, whatever the order, encoding, duplication and
crashes: every body twice, in random order, in either encoding, with a kill at any step.

The 16 recordings that the repository ships; ``make fuzz`` takes all 22, where their folder lies
beside it, and many more orders. The doors (HTTP and gRPC, gzip or not) are held to the same truth
in ``test_otlp_protocols``.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.drainer import Drainer, DrainLimits
from collectors.journal import Journal
from collectors.segments import ContentType, RecordKind
from loop.control.intake_log import IntakeLog
from loop.control.store import open_control_store
from loop.domain.turns import Turn
from loop.lake import Lake
from loop.ledger.prices import load_price_book
from loop.service.intake_readings import sums_of
from tests.collectors.pipeline import ROOMY
from tests.collectors.recordings import DIRECTORY, Body, check_totals
from tests.collectors.test_crash_steps import Killed, killed_at

ALL = Path(__file__).parents[3] / "shared" / "fixtures" / "claude_code"
LONG = "FUZZ_SECONDS" in os.environ
FOLDER = ALL if LONG and (ALL / "expected.json").exists() else DIRECTORY
ENTRIES: list[dict[str, Any]] = orjson.loads((FOLDER / "expected.json").read_bytes())
UNCOUNTED = "a08b_bad_request"
"""After a 400 the client tries other bodies and reports one error for all, so one is counted."""
BOOK = load_price_book()


@cache
def encoded() -> list[tuple[RecordKind, dict[ContentType, bytes]]]:
    """Every recorded body in both encodings."""
    found = []
    for row in orjson.loads((FOLDER / "index.json").read_bytes()):
        content = (FOLDER / row["path"]).read_bytes()
        recorded: ContentType = "json" if row["path"].endswith(".json") else "protobuf"
        body = Body(row["session"], row["signal"], recorded, content)
        both: dict[ContentType, bytes] = {"json": body.as_json(), "protobuf": body.as_protobuf()}
        found.append((body.signal, both))
    return found


def truth() -> dict[str, dict[str, Any]]:
    """What the API served, by session: a resumed session is one session in two recordings."""
    sessions: dict[str, dict[str, Any]] = {}
    for entry in ENTRIES:
        empty = {"tokens": {}, "request_ids": [], "tools": Counter(), "errors": 0}
        known = sessions.setdefault(entry["session_id"], empty)
        for model, tokens in entry["api"]["tokens_by_model"].items():
            known["tokens"].setdefault(model, Counter()).update(tokens)
        known["request_ids"] = sorted([*known["request_ids"], *entry["api"]["request_ids_ok"]])
        known["tools"].update(call["name"] for call in entry["api"]["tool_calls"])
        known["errors"] += len(entry["api"]["errors"])
    return sessions


def stated_costs() -> dict[str, int]:
    """Micro-dollars by session as the client summed them, where it did so once, at the prices of
    the model that was served."""
    costs: dict[str, int] = {}
    for entry in ENTRIES:
        usage = entry.get("modelUsage") or {}
        times = sum(other["session_id"] == entry["session_id"] for other in ENTRIES)
        if times == 1 and set(usage) == set(entry["api"]["tokens_by_model"]):
            dollars = sum(model["costUSD"] for model in usage.values())
            costs[entry["session_id"]] = round(dollars * 1_000_000)
    return costs


def check_costs(turns: list[Turn]) -> None:
    by_session: dict[str, list[Turn]] = {}
    for turn in turns:
        by_session.setdefault(turn.session_id, []).append(turn)
    checked = 0
    for session_id, stated in stated_costs().items():
        own = by_session[session_id]
        if all(turn.model.startswith("claude-opus-4-7") for turn in own if turn.status == "ok"):
            charged = sum(turn.cost_microusd or 0 for turn in own)
            assert abs(charged - stated) <= len(own), session_id  # each turn is rounded once
            checked += 1
    assert checked >= 5


@settings(
    max_examples=30 if LONG else 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    print_blob=True,
)
@given(
    seed=st.integers(0, 2**32),
    kills=st.lists(st.integers(0, 12), min_size=1, max_size=3 if LONG else 1),
    segments=st.integers(1, 5 if LONG else 2),
)
def test_every_body_twice_in_any_order_and_encoding_with_kills(
    tmp_path_factory: Any, seed: int, kills: list[int], segments: int
) -> None:
    directory = tmp_path_factory.mktemp("exact")
    rng = random.Random(seed)
    bodies = encoded() * 2
    rng.shuffle(bodies)
    engine = open_control_store(f"sqlite:///{directory / 'control.db'}")
    size = -(-len(bodies) // segments)
    for start in range(0, len(bodies), size):
        with Journal(directory / "journal", ROOMY) as journal:
            for kind, both in bodies[start : start + size]:
                content_type = rng.choice(list(both))
                journal.append_sync(kind, content_type, both[content_type])
        if kills:
            with Draining(directory, engine) as drainer, killed_at(kills.pop()):
                try:
                    drainer.drain_once()
                except Killed:
                    continue
    with Draining(directory, engine) as drainer:
        drainer.drain_once()
        assert drainer.is_drained()
    lake, intake = Lake.open(str(directory / "lake")), IntakeLog(engine)
    known = truth()
    turns = lake.turns_of(known)
    for entry in ENTRIES:
        if entry["name"] == UNCOUNTED:
            own = [turn for turn in turns if turn.session_id == entry["session_id"]]
            known[entry["session_id"]]["errors"] = sum(turn.failed_attempts for turn in own)
    check_totals(turns, known)
    check_costs(turns)
    sums = sums_of(intake.rows())
    assert sums["balanced"]
    assert (sums["bodies"], sums["conflicts"]) == (len(bodies), 0)
    assert sums["stored"] == lake.query("SELECT count(*) AS n FROM events_rows")[0]["n"]
    assert sums["stored"] == lake.query("SELECT count(*) AS n FROM events")[0]["n"]
    engine.dispose()


class Draining:
    """A drainer that is left as a killed process leaves it: without the last pass."""

    def __init__(self, directory: Path, engine: Any) -> None:
        lake = Lake.open(str(directory / "lake"))
        self._journal = Journal(directory / "journal", ROOMY)
        limits = DrainLimits(batch_bytes=1)
        self._drainer = Drainer(self._journal, lake, BOOK, limits=limits, intake=IntakeLog(engine))

    def __enter__(self) -> Drainer:
        return self._drainer

    def __exit__(self, *_: object) -> None:
        self._drainer.close()
        self._journal.close()
