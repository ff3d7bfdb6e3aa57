"""The written retention policy: an append-only, hash-chained record of its changes.

The policy in force is what all changes together say; nothing else is stored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Integer, String, Table, Text, insert, select
from sqlalchemy.exc import IntegrityError

from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, Corrupt
from loop.domain.hash_chain import FIRST_HASH, hash_of, link_problem
from loop.domain.policies import canonical_json
from loop.domain.retention import RetentionPolicy

_RECORDS = Table(
    "retention_records",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("change", Text, nullable=False),  # JSON: RetentionPolicy.changed
    Column("actor", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
)


class RetentionRecords:
    """The only writer of ``retention_records``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def append(self, change: Mapping[str, Any], *, actor: str, reason: str) -> RetentionPolicy:
        """Records a change and returns the policy after it.

        Raises :class:`BadInput` for what is no change or names nobody and no reason,
        :class:`Conflict` when another change came first.
        """
        if not actor.strip() or not reason.strip():
            raise BadInput("Say who changes the retention, and why.", fix="--as, --reason.")
        rows = self.list()
        policy = _policy(rows).changed(change)
        record = {
            "sequence": len(rows) + 1,
            "at_us": time.time_ns() // 1000,
            "change": canonical_json(dict(change)),
            "actor": actor.strip(),
            "reason": reason.strip(),
            "previous_hash": rows[-1]["hash"] if rows else FIRST_HASH,
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_RECORDS).values(**record, hash=hash_of(record)))
        except IntegrityError as error:
            raise Conflict("Another change came first.", fix="Look again.") from error
        return policy

    def policy(self) -> RetentionPolicy:
        """The policy in force: the built-in classes until somebody writes one."""
        return _policy(self.list())

    def list(self) -> list[dict[str, Any]]:
        """All changes, the first one first. Raises :class:`Corrupt` for a broken chain."""
        with self._engine.connect() as connection:
            query = select(_RECORDS).order_by(_RECORDS.c.sequence)
            rows = [dict(row) for row in connection.execute(query).mappings()]
        previous = FIRST_HASH
        for place, row in enumerate(rows, 1):
            problem = link_problem(
                place=place,
                sequence=row["sequence"],
                previous_hash=row["previous_hash"],
                expected_previous=previous,
                computed_hash=hash_of({k: v for k, v in row.items() if k != "hash"}),
                stored_hash=row["hash"],
            )
            if problem:
                raise Corrupt(
                    f"The record of retention changes is broken: number {place} {problem}.",
                    fix="Restore the control database from a backup.",
                )
            previous = row["hash"]
        return [row | {"change": json.loads(row["change"])} for row in rows]


def _policy(rows: list[dict[str, Any]]) -> RetentionPolicy:
    policy = RetentionPolicy()
    for row in rows:
        policy = policy.changed(row["change"])
    return policy
