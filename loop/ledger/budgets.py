"""Budgets in the control store: what they are, how far each has come, and who was told.

A budget's state in its period is kept, so that each crossing is acted on once, in one transaction
with its record and its notices. Records are never changed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    Row,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import OperationalError

from loop.control.store import metadata
from loop.domain.budgets import Budget, BudgetStanding, BudgetState, Override, check_budget
from loop.domain.errors import BadInput, Conflict, NotFound, Unavailable
from loop.ledger.notices import Notice, add_notice

_BUDGETS = Table(
    "budgets",
    metadata,
    Column("budget_id", String(32), primary_key=True),
    Column("scope", String(16), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("period", String(8), nullable=False),
    Column("amount_microusd", BigInteger, nullable=False),
    Column("alert_percent", Float, nullable=False),
    Column("pause_percent", Float, nullable=True),
    Column("notify", Text, nullable=False),
    Column("closed_at_us", BigInteger, nullable=False),  # 0: in force
)
_STATES = Table(
    "budget_states",
    metadata,
    Column("budget_id", String(32), primary_key=True),
    Column("period_starts", String(10), primary_key=True),
    Column("state", String(12), nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("spent_microusd", BigInteger, nullable=False),
    Column("ended_microusd", BigInteger, nullable=True),  # as the next period began
)
_OVERRIDES = Table(
    "budget_overrides",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("budget_id", String(32), nullable=False, index=True),
    Column("until_us", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("given_at_us", BigInteger, nullable=False),
)
_RECORDS = Table(
    "budget_records",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("budget_id", String(32), nullable=False, index=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("details", Text, nullable=False),
)
CONTROLLER = "turnwise"
_MAX_REASON_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class BudgetRecord:
    """One thing that happened to a budget: ``set``, ``alerted``, ``paused``, ``within`` (again),
    ``overridden``, ``override_ended``, ``closed``, ``delivered`` (a pause reached the gateways)."""

    sequence: int
    budget_id: str
    at_us: int
    actor: str
    kind: str
    reason: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PeriodRecord:
    """``ended_microusd`` is what was spent as the period ended; ``spent_microusd`` what is known
    of it now. Their difference arrived late."""

    period_starts: str
    state: BudgetState
    since_us: int
    spent_microusd: int
    ended_microusd: int | None


class BudgetBook:
    """The only writer of the budgets' tables."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def set(self, budget: Budget, actor: str, reason: str, at_us: int) -> Budget:
        """Keeps a budget, or changes the one with its id; one without an id is new.

        There is one budget of a scope, subject and period. Raises :class:`BadInput`,
        :class:`NotFound` for an id that there is not, :class:`Conflict` for a second one.
        """
        check_budget(budget)
        _check_said(actor, reason)
        with self._writing() as connection:
            twin = self._find_twin(connection, budget)
            if twin is not None and twin.budget_id != budget.budget_id:
                if budget.budget_id:
                    raise Conflict(f"Budget {twin.budget_id} is for the same already.")
                budget = _with_id(budget, twin.budget_id)
            values = _values(budget)
            if not budget.budget_id:
                budget = _with_id(budget, "b_" + secrets.token_hex(6))
                connection.execute(
                    insert(_BUDGETS).values(
                        **(values | {"budget_id": budget.budget_id}), closed_at_us=0
                    )
                )
            else:
                self._require(connection, budget.budget_id)
                connection.execute(
                    update(_BUDGETS)
                    .where(_BUDGETS.c.budget_id == budget.budget_id)
                    .values(**values)
                )
            self._record(
                connection, budget.budget_id, at_us, actor, "set", reason, _document(budget)
            )
        return budget

    def close(self, budget_id: str, actor: str, reason: str, at_us: int) -> None:
        """Ends a budget; what it paused goes on. Raises :class:`NotFound`."""
        _check_said(actor, reason)
        with self._writing() as connection:
            self._require(connection, budget_id)
            connection.execute(
                update(_BUDGETS).where(_BUDGETS.c.budget_id == budget_id).values(closed_at_us=at_us)
            )
            self._record(connection, budget_id, at_us, actor, "closed", reason, {})

    def override(self, budget_id: str, override: Override) -> None:
        """Lets a budget's requests through until then. Raises :class:`NotFound`,
        :class:`BadInput` for a time that has passed."""
        _check_said(override.actor, override.reason)
        if override.until_us <= override.given_at_us:
            raise BadInput("An override must end in the future.")
        self._add_override(budget_id, override, "overridden")

    def end_override(self, budget_id: str, actor: str, reason: str, at_us: int) -> None:
        """Takes the override in force back. Raises :class:`NotFound`."""
        _check_said(actor, reason)
        self._add_override(budget_id, Override(at_us, reason, actor, at_us), "override_ended")

    def budgets(self) -> list[Budget]:
        """Those in force, by scope and subject."""
        query = (
            select(_BUDGETS)
            .where(_BUDGETS.c.closed_at_us == 0)
            .order_by(_BUDGETS.c.scope, _BUDGETS.c.subject, _BUDGETS.c.period)
        )
        with self._reading() as connection:
            return [_budget_of(row) for row in connection.execute(query)]

    def get(self, budget_id: str) -> Budget:
        """Raises :class:`NotFound` for one that there is not, or that was closed."""
        with self._reading() as connection:
            return self._require(connection, budget_id)

    def overrides(self) -> dict[str, Override]:
        """The last override of each budget, whether in force or not."""
        query = select(_OVERRIDES).order_by(_OVERRIDES.c.sequence)
        with self._reading() as connection:
            return {
                row.budget_id: Override(row.until_us, row.reason, row.actor, row.given_at_us)
                for row in connection.execute(query)
            }

    def records(self, budget_id: str | None = None, limit: int = 100) -> list[BudgetRecord]:
        """What happened, the newest first."""
        query = select(_RECORDS).order_by(_RECORDS.c.sequence.desc()).limit(limit)
        if budget_id is not None:
            query = query.where(_RECORDS.c.budget_id == budget_id)
        with self._reading() as connection:
            return [
                BudgetRecord(
                    row.sequence,
                    row.budget_id,
                    row.at_us,
                    row.actor,
                    row.kind,
                    row.reason,
                    json.loads(row.details),
                )
                for row in connection.execute(query)
            ]

    def periods(self, budget_id: str) -> list[PeriodRecord]:
        """The budget's periods, the newest first."""
        query = (
            select(_STATES)
            .where(_STATES.c.budget_id == budget_id)
            .order_by(_STATES.c.period_starts.desc())
        )
        with self._reading() as connection:
            return [PeriodRecord(*row[1:]) for row in connection.execute(query)]

    def advance(
        self, standing: BudgetStanding, at_us: int, notices: Sequence[Notice] = ()
    ) -> BudgetState | None:
        """Writes where a budget stands; the state that it left when it changed, else ``None``.

        A change is recorded and its notices are queued in the same transaction, so each crossing
        tells once, whatever stops in between. An alert is not told again after a pause.
        """
        budget_id = standing.budget.budget_id
        key = (_STATES.c.budget_id == budget_id) & (_STATES.c.period_starts == standing.starts)
        with self._writing() as connection:
            row = connection.execute(select(_STATES).where(key)).one_or_none()
            before: BudgetState = row.state if row is not None else "within"
            if row is None:
                self._end_periods_before(connection, budget_id, standing.starts)
                connection.execute(
                    insert(_STATES).values(
                        budget_id=budget_id,
                        period_starts=standing.starts,
                        state=standing.state,
                        since_us=at_us,
                        spent_microusd=standing.spent_microusd,
                        ended_microusd=None,
                    )
                )
            elif (row.state, row.spent_microusd) != (standing.state, standing.spent_microusd):
                since_us = row.since_us if row.state == standing.state else at_us
                connection.execute(
                    update(_STATES)
                    .where(key)
                    .values(
                        state=standing.state,
                        since_us=since_us,
                        spent_microusd=standing.spent_microusd,
                    )
                )
            if before == standing.state:
                return None
            details = {
                "period_starts": standing.starts,
                "spent_microusd": standing.spent_microusd,
                "amount_microusd": standing.budget.amount_microusd,
                "percent": round(standing.percent, 2),
                "from": before,
            }
            self._record(connection, budget_id, at_us, CONTROLLER, standing.state, "", details)
            if standing.state == "paused" or before == "within":
                for notice in notices:
                    add_notice(connection, notice)
        return before

    def correct_period(self, budget_id: str, period_starts: str, spent_microusd: int) -> None:
        """What is known now of a period that has ended."""
        key = (_STATES.c.budget_id == budget_id) & (_STATES.c.period_starts == period_starts)
        with self._writing() as connection:
            connection.execute(update(_STATES).where(key).values(spent_microusd=spent_microusd))

    def record_delivery(
        self, budget_ids: Sequence[str], at_us: int, details: dict[str, Any]
    ) -> None:
        """Notes that every gateway has taken up the pauses of a publication."""
        with self._writing() as connection:
            for budget_id in budget_ids:
                self._record(connection, budget_id, at_us, CONTROLLER, "delivered", "", details)

    def _add_override(self, budget_id: str, override: Override, kind: str) -> None:
        with self._writing() as connection:
            self._require(connection, budget_id)
            last = connection.scalar(select(func.max(_OVERRIDES.c.sequence))) or 0
            connection.execute(
                insert(_OVERRIDES).values(
                    sequence=last + 1,
                    budget_id=budget_id,
                    until_us=override.until_us,
                    reason=override.reason,
                    actor=override.actor,
                    given_at_us=override.given_at_us,
                )
            )
            self._record(
                connection,
                budget_id,
                override.given_at_us,
                override.actor,
                kind,
                override.reason,
                {"until_us": override.until_us},
            )

    def _end_periods_before(self, connection: Connection, budget_id: str, starts: str) -> None:
        open_before = (
            (_STATES.c.budget_id == budget_id)
            & (_STATES.c.period_starts < starts)
            & (_STATES.c.ended_microusd.is_(None))
        )
        connection.execute(
            update(_STATES).where(open_before).values(ended_microusd=_STATES.c.spent_microusd)
        )

    def _find_twin(self, connection: Connection, budget: Budget) -> Budget | None:
        row = connection.execute(
            select(_BUDGETS).where(
                _BUDGETS.c.scope == budget.scope,
                _BUDGETS.c.subject == budget.subject,
                _BUDGETS.c.period == budget.period,
                _BUDGETS.c.closed_at_us == 0,
            )
        ).first()
        return None if row is None else _budget_of(row)

    def _require(self, connection: Connection, budget_id: str) -> Budget:
        row = connection.execute(
            select(_BUDGETS).where(_BUDGETS.c.budget_id == budget_id, _BUDGETS.c.closed_at_us == 0)
        ).first()
        if row is None:
            raise NotFound(f"There is no budget {budget_id!r}.", fix="`turnwise budget list`.")
        return _budget_of(row)

    def _record(
        self,
        connection: Connection,
        budget_id: str,
        at_us: int,
        actor: str,
        kind: str,
        reason: str,
        details: dict[str, Any],
    ) -> None:
        last = connection.scalar(select(func.max(_RECORDS.c.sequence))) or 0
        connection.execute(
            insert(_RECORDS).values(
                sequence=last + 1,
                budget_id=budget_id,
                at_us=at_us,
                actor=actor,
                kind=kind,
                reason=reason,
                details=json.dumps(details),
            )
        )

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _answering(), self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("LOCK TABLE budgets IN SHARE ROW EXCLUSIVE MODE")
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _answering(), self._engine.connect() as connection:
            yield connection


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise Unavailable(
            "The control store does not answer.", why=str(error.orig), fix="Try again."
        ) from error


def _check_said(actor: str, reason: str) -> None:
    if not actor.strip() or len(actor) > 255:
        raise BadInput("Who does this?", fix="Name the actor, in at most 255 characters.")
    if not reason.strip() or len(reason) > _MAX_REASON_CHARS:
        raise BadInput(
            "A budget is not changed without a reason.",
            fix=f"Give one of at most {_MAX_REASON_CHARS:,} characters.",
        )


def _with_id(budget: Budget, budget_id: str) -> Budget:
    return replace(budget, budget_id=budget_id)


def _values(budget: Budget) -> dict[str, Any]:
    return {
        "scope": budget.scope,
        "subject": budget.subject,
        "period": budget.period,
        "amount_microusd": budget.amount_microusd,
        "alert_percent": budget.alert_percent,
        "pause_percent": budget.pause_percent,
        "notify": json.dumps(budget.notify),
    }


def _document(budget: Budget) -> dict[str, Any]:
    return _values(budget) | {"notify": list(budget.notify)}


def _budget_of(row: Row[Any]) -> Budget:
    return Budget(
        row.budget_id,
        row.scope,
        row.subject,
        row.period,
        row.amount_microusd,
        row.alert_percent,
        row.pause_percent,
        tuple(json.loads(row.notify)),
    )
