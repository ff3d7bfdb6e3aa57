"""Every call of a judge: what was set aside for it, what it cost, what came of it.

The one record of what was spent, of what is on its way, and of the probability with which each
session was drawn. It holds no text: verdicts are by the keys of items.

Before a request is sent, the most that it can cost is set aside; what it did cost takes that place
once it is known. So spending can't pass a limit, however many requests are on their way.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    text,
    update,
)

from loop.control.store import metadata
from loop.domain.errors import BadInput

Purpose = Literal["sample", "chosen", "anchor", "name"]
"""Only sampled sessions stand for others: those that somebody chose enter no mean. A ``name`` is of
a cluster: such a call is about no session."""
CallState = Literal["reserved", "sent", "settled", "released"]

judge_calls = Table(
    "judge_calls",
    metadata,
    Column("call_id", String(32), primary_key=True),
    Column("day", String(10), nullable=False),
    Column("rubric", String(40), nullable=False),
    Column("identity", String(16), nullable=False),
    Column("version", String(255), nullable=False),
    Column("model", String(128), nullable=False),
    Column("purpose", String(10), nullable=False),
    Column("session_id", String(255), nullable=False),
    Column("session_ended_at_us", BigInteger, nullable=False),
    Column("input_digest", String(64), nullable=False),
    Column("org_path", String(512), nullable=False),
    Column("arm", String(64), nullable=False),
    Column("probability", Float, nullable=False),
    Column("state", String(10), nullable=False),
    Column("batch_id", String(128), nullable=False),
    Column("reserved_microusd", BigInteger, nullable=False),
    Column("cost_microusd", BigInteger, nullable=True),
    Column("failure", String(40), nullable=False),
    Column("value", Float, nullable=True),
    Column("verdicts", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("settled_at_us", BigInteger, nullable=True),
    Index("ix_judge_calls_day", "day"),
    Index("ix_judge_calls_identity_session_id", "identity", "session_id"),
    Index("ix_judge_calls_state", "state"),
)
FAILED_BY_CHANCE = ("api_error", "expired", "canceled", "changed")
"""What may be tried again: it says nothing of the session."""
_LOCK = "SELECT pg_advisory_xact_lock(7453018267)"
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class JudgeLimits:
    """Micro-dollars per UTC day: in all, and for sessions charged to a path or below it."""

    total_microusd: int
    by_path: Mapping[str, int] = field(default_factory=dict)


def parse_limits(usd_per_day: float, entries: Iterable[str]) -> JudgeLimits:
    """Raises :class:`BadInput` for an entry that is no ``PATH=USD``."""
    by_path: dict[str, int] = {}
    for entry in entries:
        path, separator, amount = entry.rpartition("=")
        try:
            usd = float(amount)
        except ValueError:
            usd = -1.0
        if not separator or not path.strip("/ ") or not 0 <= usd < 1e9:
            raise BadInput(f"judge_budgets: {entry!r} is no budget.", fix="Write PATH=USD.")
        by_path[path.strip("/ ")] = round(usd * 1e6)
    return JudgeLimits(round(usd_per_day * 1e6), by_path)


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """One call. ``cost_microusd`` is ``None`` until it is known; then what was set aside counts.

    ``failure`` says why a settled call gave no judgement; ``value`` is ``None`` then, and also
    where the judge found nothing to decide. ``verdicts`` are by the key of the item.
    """

    day: str
    rubric: str
    identity: str
    version: str
    model: str
    purpose: Purpose
    session_id: str
    session_ended_at_us: int
    input_digest: str
    org_path: str
    arm: str
    probability: float
    reserved_microusd: int
    call_id: str = ""
    state: CallState = "reserved"
    batch_id: str = ""
    cost_microusd: int | None = None
    failure: str = ""
    value: float | None = None
    verdicts: Mapping[str, str] = field(default_factory=dict)
    created_at_us: int = 0
    settled_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What came of a call. ``cost_microusd`` ``None``: it may have been charged."""

    call_id: str
    cost_microusd: int | None
    failure: str = ""
    value: float | None = None
    verdicts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reserved:
    """``taken`` have their money set aside; ``busy`` are on their way to the same judge already;
    ``stopped_by`` is the limit, in words, that the next one would have passed."""

    taken: tuple[JudgeCall, ...]
    busy: tuple[JudgeCall, ...] = ()
    stopped_by: str = ""


class JudgeCalls:
    """The only writer of ``judge_calls``. Safe between threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reserve(self, calls: Sequence[JudgeCall], limits: JudgeLimits) -> Reserved:
        """Sets money aside for the calls in their order, until a limit would be passed."""
        taken: list[JudgeCall] = []
        busy: list[JudgeCall] = []
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(text(_LOCK))
            spent = {day: _spent(connection, day) for day in {call.day for call in calls}}
            on_their_way = _on_their_way(connection, calls)
            stopped_by = ""
            for call in calls:
                if (
                    call.purpose not in ("anchor", "name")
                    and (call.identity, call.session_id) in on_their_way
                ):
                    busy.append(call)
                    continue
                stopped_by = _passed_limit(spent[call.day], call, limits)
                if stopped_by:
                    break
                today = spent[call.day]
                today[call.org_path] = today.get(call.org_path, 0) + call.reserved_microusd
                now_us = time.time_ns() // 1000
                taken.append(replace(call, call_id=uuid.uuid4().hex, created_at_us=now_us))
            if taken:
                connection.execute(insert(judge_calls), [_row(call) for call in taken])
        return Reserved(tuple(taken), tuple(busy), stopped_by)

    def record(self, calls: Sequence[JudgeCall]) -> None:
        """Sessions for which nothing had to be asked."""
        now_us = time.time_ns() // 1000
        rows = [
            _row(
                replace(
                    call,
                    call_id=uuid.uuid4().hex,
                    state="settled",
                    cost_microusd=0,
                    created_at_us=now_us,
                    settled_at_us=now_us,
                )
            )
            for call in calls
        ]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(insert(judge_calls), rows)

    def mark_sent(self, call_ids: Collection[str], batch_id: str) -> None:
        self._update(call_ids, state="sent", batch_id=batch_id)

    def release(self, call_ids: Collection[str]) -> None:
        """Gives back what was set aside for calls that were never sent."""
        self._update(call_ids, state="released", cost_microusd=0)

    def settle(self, outcomes: Sequence[CallOutcome]) -> None:
        """Records what came of calls, all at once."""
        now_us = time.time_ns() // 1000
        with self._engine.begin() as connection:
            for outcome in outcomes:
                values = {name: getattr(outcome, name) for name in outcome.__slots__}
                values |= {"verdicts": json.dumps(dict(outcome.verdicts), sort_keys=True)}
                statement = update(judge_calls).where(judge_calls.c.call_id == outcome.call_id)
                connection.execute(
                    statement.values(**values, state="settled", settled_at_us=now_us)
                )

    def unsettled(self) -> list[JudgeCall]:
        """What is on its way, the oldest first."""
        return self._select(judge_calls.c.state.in_(("reserved", "sent")))

    def judged(self, rubric: str | None = None) -> list[JudgeCall]:
        """Every settled call whose session is known, the oldest first."""
        conditions = [judge_calls.c.state == "settled", judge_calls.c.session_id != ""]
        if rubric is not None:
            conditions.append(judge_calls.c.rubric == rubric)
        return self._select(*conditions)

    def sessions_done(self, identity: str) -> dict[str, int]:
        """Until when (``session_ended_at_us``) sessions were judged by an identity, or will be."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(judge_calls.c.session_id, judge_calls.c.session_ended_at_us).where(
                    judge_calls.c.identity == identity,
                    judge_calls.c.purpose != "anchor",
                    judge_calls.c.state != "released",
                    judge_calls.c.failure.not_in(FAILED_BY_CHANCE),
                )
            ).all()
        done: dict[str, int] = {}
        for session_id, ended_at_us in rows:
            done[session_id] = max(ended_at_us, done.get(session_id, 0))
        return done

    def spent(self, day: str) -> dict[str, int]:
        """Micro-dollars of a UTC day by organization path, with what is set aside."""
        with self._engine.connect() as connection:
            return _spent(connection, day)

    def forget(self, session_ids: Collection[str]) -> int:
        """Takes the sessions' names and verdicts out of their calls; what was spent stays."""
        changed = 0
        nobody = {"session_id": "", "verdicts": "{}", "value": None, "input_digest": ""}
        with self._engine.begin() as connection:
            for chunk in _chunks(sorted(set(session_ids) - {""})):
                condition = judge_calls.c.session_id.in_(chunk)
                answer = connection.execute(update(judge_calls).where(condition).values(**nobody))
                changed += answer.rowcount
        return changed

    def _update(self, call_ids: Collection[str], **values: Any) -> None:
        with self._engine.begin() as connection:
            for chunk in _chunks(list(call_ids)):
                condition = judge_calls.c.call_id.in_(chunk)
                connection.execute(update(judge_calls).where(condition).values(**values))

    def _select(self, *conditions: Any) -> list[JudgeCall]:
        query = select(judge_calls).where(*conditions)
        query = query.order_by(judge_calls.c.created_at_us, judge_calls.c.call_id)
        with self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return [JudgeCall(**(row | {"verdicts": json.loads(row["verdicts"])})) for row in rows]


def _row(call: JudgeCall) -> dict[str, Any]:
    row = {name: getattr(call, name) for name in call.__slots__}
    return row | {"verdicts": json.dumps(dict(call.verdicts), sort_keys=True)}


def _spent(connection: Connection, day: str) -> dict[str, int]:
    amount = func.sum(func.coalesce(judge_calls.c.cost_microusd, judge_calls.c.reserved_microusd))
    query = select(judge_calls.c.org_path, amount).group_by(judge_calls.c.org_path)
    query = query.where(judge_calls.c.day == day, judge_calls.c.state != "released")
    return {path: int(spent) for path, spent in connection.execute(query).all()}


def _on_their_way(connection: Connection, calls: Sequence[JudgeCall]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for chunk in _chunks(sorted({call.session_id for call in calls})):
        query = select(judge_calls.c.identity, judge_calls.c.session_id).where(
            judge_calls.c.session_id.in_(chunk),
            judge_calls.c.purpose != "anchor",
            judge_calls.c.state.in_(("reserved", "sent")),
        )
        found |= {(identity, session_id) for identity, session_id in connection.execute(query)}
    return found


def _passed_limit(spent: Mapping[str, int], call: JudgeCall, limits: JudgeLimits) -> str:
    if sum(spent.values()) + call.reserved_microusd > limits.total_microusd:
        return f"the day's budget of ${limits.total_microusd / 1e6:g}"
    for path, limit in limits.by_path.items():
        if not is_within(call.org_path, path):
            continue
        used = sum(amount for other, amount in spent.items() if is_within(other, path))
        if used + call.reserved_microusd > limit:
            return f"the day's budget of ${limit / 1e6:g} for {path}"
    return ""


def is_within(org_path: str, path: str) -> bool:
    """Whether an organization path is another or lies below it."""
    return org_path == path or org_path.startswith(f"{path}/")


def _chunks(names: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(names), _CHUNK):
        yield names[start : start + _CHUNK]
