"""The table of gateway instances: which serial each has applied, and when it was last seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    Row,
    String,
    Table,
    Text,
    insert,
    select,
    update,
)

from loop.control.store import metadata
from loop.domain.errors import BadInput

AckStatus = Literal["applied", "rejected"]

gateway_instances = Table(
    "gateway_instances",
    metadata,
    Column("instance", String(255), primary_key=True),
    Column("channel", String(64), nullable=False),
    Column("gateway", String(64), nullable=False),
    Column("applied_serial", Integer, nullable=False),
    Column("last_serial", Integer, nullable=False),
    Column("last_status", String(16), nullable=False),
    Column("last_error", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("seen_at_us", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Where one gateway instance stands.

    ``applied_serial`` is what it routes by (0: nothing yet); ``last_*`` its latest answer, which
    may be a rejection of a later serial. ``seen_at_us`` is its last poll or acknowledgement.
    """

    instance: str
    channel: str
    gateway: str
    applied_serial: int
    last_serial: int
    last_status: str
    last_error: str
    at_us: int
    seen_at_us: int

    def has_applied(self, serial: int) -> bool:
        return self.applied_serial >= serial


def write_ack(
    connection: Connection,
    *,
    instance: str,
    serial: int,
    status: AckStatus,
    error: str,
    at_us: int,
    channel: str,
    gateway: str,
) -> None:
    """Records an answer. An older serial that arrives late never lowers the applied one."""
    if status not in ("applied", "rejected") or not instance:
        raise BadInput("An acknowledgement needs an instance and applied or rejected.")
    known = _load(connection, instance)
    applied = serial if status == "applied" else 0
    if known is None:
        connection.execute(
            insert(gateway_instances).values(
                instance=instance,
                channel=channel,
                gateway=gateway,
                applied_serial=applied,
                last_serial=serial,
                last_status=status,
                last_error=error,
                at_us=at_us,
                seen_at_us=at_us,
            )
        )
        return
    values: dict[str, Any] = {
        "applied_serial": max(applied, known.applied_serial),
        "seen_at_us": max(at_us, known.seen_at_us),
    }
    if at_us >= known.at_us:
        values |= {
            "last_serial": serial,
            "last_status": status,
            "last_error": error,
            "at_us": at_us,
            "channel": channel,
            "gateway": gateway or known.gateway,
        }
    connection.execute(_of(instance).values(**values))


def write_seen(
    connection: Connection, *, instance: str, channel: str, gateway: str, at_us: int
) -> None:
    """Records that an instance polls."""
    if _load(connection, instance) is None:
        connection.execute(
            insert(gateway_instances).values(
                instance=instance,
                channel=channel,
                gateway=gateway,
                applied_serial=0,
                last_serial=0,
                last_status="",
                last_error="",
                at_us=0,
                seen_at_us=at_us,
            )
        )
    else:
        connection.execute(
            _of(instance).where(gateway_instances.c.seen_at_us < at_us).values(seen_at_us=at_us)
        )


def load_acknowledgements(connection: Connection, channel: str) -> list[Acknowledgement]:
    query = (
        select(gateway_instances)
        .where(gateway_instances.c.channel == channel)
        .order_by(gateway_instances.c.instance)
    )
    return [_ack_of(row) for row in connection.execute(query)]


def _load(connection: Connection, instance: str) -> Acknowledgement | None:
    row = connection.execute(
        select(gateway_instances).where(gateway_instances.c.instance == instance)
    ).one_or_none()
    return None if row is None else _ack_of(row)


def _of(instance: str) -> Any:
    return update(gateway_instances).where(gateway_instances.c.instance == instance)


def _ack_of(row: Row[Any]) -> Acknowledgement:
    return Acknowledgement(**row._mapping)
