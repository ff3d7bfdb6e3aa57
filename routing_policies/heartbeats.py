"""How many decisions each gateway says it has made, for a dead man's switch.

A gateway names, with its polls, the rollout that it serves and how many decisions it has made in
it. What it says is held against the decisions that have arrived: a log that stopped would otherwise
look like a rollout without sessions. A count is compared once it is :data:`SETTLE_SECONDS` old,
since decisions take a while to arrive.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, String, Table, insert, select, update

from loop.control.store import metadata

SETTLE_SECONDS = 60

gateway_heartbeats = Table(
    "gateway_heartbeats",
    metadata,
    Column("instance", String(255), primary_key=True),
    Column("rollout_id", String(64), nullable=False, index=True),
    Column("decided", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("settled", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One instance's count: ``decided`` as of ``at_us``, ``settled`` at least
    :data:`SETTLE_SECONDS` before."""

    instance: str
    decided: int
    at_us: int
    settled: int


def write_heartbeat(
    connection: Connection, *, instance: str, rollout_id: str, decided: int, at_us: int
) -> None:
    """Notes a count, unless the one before is younger than :data:`SETTLE_SECONDS`. A count that
    falls is an instance that began anew."""
    columns = gateway_heartbeats.c
    known = connection.execute(
        select(gateway_heartbeats).where(columns.instance == instance)
    ).one_or_none()
    values = {"rollout_id": rollout_id, "decided": decided, "at_us": at_us, "settled": 0}
    if known is None:
        connection.execute(insert(gateway_heartbeats).values(instance=instance, **values))
        return
    if known.rollout_id == rollout_id and decided >= known.decided:
        if at_us - known.at_us < SETTLE_SECONDS * 1_000_000:
            return
        values["settled"] = known.decided
    connection.execute(
        update(gateway_heartbeats).where(columns.instance == instance).values(**values)
    )


def load_heartbeats(connection: Connection, rollout_id: str) -> list[Heartbeat]:
    """By instance."""
    columns = gateway_heartbeats.c
    query = (
        select(columns.instance, columns.decided, columns.at_us, columns.settled)
        .where(columns.rollout_id == rollout_id)
        .order_by(columns.instance)
    )
    return [Heartbeat(**row._mapping) for row in connection.execute(query)]
