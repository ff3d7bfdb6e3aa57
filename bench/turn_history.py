"""A history of turns, written in bulk in the layout that compaction leaves behind."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from loop.lake.schemas import TURNS

FIRST_DAY = datetime.date(2026, 10, 1)
TURNS_PER_SESSION = 75
DEVELOPERS, TEAMS, BUSINESS_UNITS, REPOSITORIES = 2_000, 120, 20, 300
MODELS = ("claude-opus-4-7", "claude-sonnet-4-6", "claude-haiku-4-5", "claude-opus-4-6")
_MEDIANS = {  # log-normal: mean and deviation of the logarithm
    "input_tokens": (2.0, 1.0),
    "output_tokens": (5.5, 1.2),
    "cache_read_tokens": (11.2, 0.8),
    "cache_creation_5m_tokens": (7.5, 1.1),
    "cache_creation_1h_tokens": (3.0, 2.0),
    "duration_ms": (8.5, 1.0),
}


def day_name(number: int) -> str:
    return (FIRST_DAY + datetime.timedelta(number)).isoformat()


def day_of_turns(number: int, turns: int) -> pa.Table:
    """One day's turns in the stored schema, in order of session and time."""
    random = np.random.default_rng(number)
    day = day_name(number)
    start_us = int(datetime.datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()) * 10**6
    sessions = max(1, turns // TURNS_PER_SESSION)
    session = np.sort(random.integers(0, sessions, turns))
    started_us = start_us + random.integers(0, 86_000_000_000, turns)
    started_us = started_us[np.lexsort((started_us, session))]
    developer = random.zipf(1.3, sessions) % DEVELOPERS
    team = developer % TEAMS
    model = random.choice(len(MODELS), turns, p=[0.5, 0.3, 0.15, 0.05])
    request_ids = _ids(random, turns, "req_01")
    columns: dict[str, Any] = {
        name: np.maximum(0, random.lognormal(*shape, turns)).astype(np.int64)
        for name, shape in _MEDIANS.items()
    }
    columns |= {
        "cost_microusd": columns["input_tokens"] * 5
        + columns["output_tokens"] * 25
        + columns["cache_read_tokens"] // 2
        + columns["cache_creation_5m_tokens"] * 6
        + columns["cache_creation_1h_tokens"] * 10,
        "session_id": pa.array(sorted(_ids(random, sessions, "").to_pylist())).take(session),
        "turn_id": request_ids,
        "request_id": request_ids,
        "digest": _ids(random, turns, ""),
        "revision": started_us,
        "commit": np.full(turns, 5),
        "removed": np.zeros(turns, bool),
        "started_at": started_us,
        "ended_at": started_us + 9_000_000,
        "sequence": np.arange(turns) % TURNS_PER_SESSION,
        "developer": _named(
            [f"developer{n}@example.com" for n in range(DEVELOPERS)], developer
        ).take(session),
        "org_path": _named(
            [f"acme/bu-{n % BUSINESS_UNITS}/team-{n}" for n in range(TEAMS)], team
        ).take(session),
        "repository": _named(
            [f"repository-{n}" for n in range(REPOSITORIES)],
            random.integers(0, REPOSITORIES, sessions),
        ).take(session),
        "requested_model": _named(list(MODELS), model),
        "served_model": _named(list(MODELS), model),
        "starts_prompt": random.random(turns) < 0.1,
        "supersedes_from_day": _named([day], np.zeros(turns)),
        "supersedes_to_day": _named([day], np.zeros(turns)),
    }
    stored = TURNS.arrow()
    arrays = [_column(field, columns.get(field.name), day, turns) for field in stored]
    return pa.Table.from_arrays(arrays, schema=stored)


def parts_of(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def _ids(random: np.random.Generator, count: int, prefix: str) -> pa.Array:
    digits = np.frombuffer(random.bytes(12 * count).hex().encode(), dtype="S24")
    return pa.array(np.char.add(prefix.encode(), digits).astype(str).tolist())


def _named(values: list[str], places: Any) -> pa.Array:
    return pa.array(values).take(pa.array(np.asarray(places).astype(np.int32)))


def _column(field: pa.Field, values: Any, day: str, rows: int) -> pa.Array:
    if field.name == "day":
        return _named([day], np.zeros(rows))
    if values is not None:
        return pa.array(values).cast(field.type)
    if field.type == pa.string() and field.name != "charge_key":
        return _named([""], np.zeros(rows))
    return pa.nulls(rows, field.type)
