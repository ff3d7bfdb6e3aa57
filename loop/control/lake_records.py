"""Legal holds, and the audit record of each erasure. An erasure's record names no person."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, Column, Engine, String, Table, Text, insert, select, update

from loop.control.store import metadata
from loop.domain.errors import BadInput, NotFound

HOLD_KINDS = ("developer", "session", "repository", "org")
_HOLDS = Table(
    "legal_holds",
    metadata,
    Column("hold_id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("value", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("placed_by", String(255), nullable=False),
    Column("placed_at_us", BigInteger, nullable=False),
    Column("released_by", String(255), nullable=False),
    Column("released_at_us", BigInteger),
)
_ERASURES = Table(
    "erasures",
    metadata,
    Column("erasure_id", String(64), primary_key=True),
    Column("asked_by", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("started_at_us", BigInteger, nullable=False),
    Column("finished_at_us", BigInteger),
    Column("counts", Text, nullable=False),  # JSON: rows and files by table
)


class LegalHolds:
    """The only writer of ``legal_holds``. A released hold stays as a record."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, kind: str, value: str, *, reason: str, placed_by: str) -> dict[str, Any]:
        """Raises :class:`BadInput` for an unknown kind or an empty value."""
        if kind not in HOLD_KINDS:
            raise BadInput(
                f"A hold can't be on a {kind!r}.", fix=f"One of {', '.join(HOLD_KINDS)}."
            )
        if not value.strip():
            raise BadInput(f"Say which {kind} to hold.")
        row = {
            "hold_id": f"hold-{uuid.uuid4().hex[:12]}",
            "kind": kind,
            "value": value.strip(),
            "reason": reason,
            "placed_by": placed_by,
            "placed_at_us": time.time_ns() // 1000,
            "released_by": "",
            "released_at_us": None,
        }
        with self._engine.begin() as connection:
            connection.execute(insert(_HOLDS).values(**row))
        return row

    def release(self, hold_id: str, *, released_by: str) -> dict[str, Any]:
        """Raises :class:`NotFound` unless such a hold is in force."""
        values = {"released_by": released_by, "released_at_us": time.time_ns() // 1000}
        is_it = (_HOLDS.c.hold_id == hold_id) & _HOLDS.c.released_at_us.is_(None)
        with self._engine.begin() as connection:
            done = connection.execute(update(_HOLDS).where(is_it).values(**values))
            if done.rowcount == 0:
                raise NotFound(
                    f"No hold {hold_id!r} is in force.", fix="`turnwise lake hold list` shows all."
                )
            query = select(_HOLDS).where(_HOLDS.c.hold_id == hold_id)
            return dict(connection.execute(query).mappings().one())

    def list(self, *, in_force: bool = False) -> list[dict[str, Any]]:
        """All holds, the oldest first; only those in force if asked."""
        query = select(_HOLDS).order_by(_HOLDS.c.placed_at_us, _HOLDS.c.hold_id)
        if in_force:
            query = query.where(_HOLDS.c.released_at_us.is_(None))
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


class ErasureLog:
    """The only writer of ``erasures``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, erasure_id: str, *, asked_by: str, reason: str, at_us: int) -> None:
        """Notes that an erasure has begun; again changes nothing."""
        with self._engine.begin() as connection:
            known = select(_ERASURES.c.erasure_id).where(_ERASURES.c.erasure_id == erasure_id)
            if connection.scalar(known) is None:
                row = {"started_at_us": at_us, "finished_at_us": None, "counts": "{}"}
                statement = insert(_ERASURES).values(
                    erasure_id=erasure_id, asked_by=asked_by, reason=reason, **row
                )
                connection.execute(statement)

    def finish(self, erasure_id: str, counts: Mapping[str, Any]) -> None:
        values = {"finished_at_us": time.time_ns() // 1000, "counts": json.dumps(dict(counts))}
        with self._engine.begin() as connection:
            connection.execute(
                update(_ERASURES).where(_ERASURES.c.erasure_id == erasure_id).values(**values)
            )

    def list(self) -> list[dict[str, Any]]:
        """All erasures, the oldest first."""
        query = select(_ERASURES).order_by(_ERASURES.c.started_at_us, _ERASURES.c.erasure_id)
        with self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return [row | {"counts": json.loads(row["counts"])} for row in rows]
