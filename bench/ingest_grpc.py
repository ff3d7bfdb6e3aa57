"""Sends bodies over OTLP/gRPC at a fixed rate, whether or not earlier ones were answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import grpc

from bench.ingest_load import Body
from bench.ingest_sender import Sent

_SERVICES = {
    "logs": ("logs", "Logs"),
    "traces": ("trace", "Trace"),
    "metrics": ("metrics", "Metrics"),
}


async def send_grpc(
    address: str, bodies: Sequence[Body], records_per_second: float, seconds: float
) -> Sent:
    async with grpc.aio.insecure_channel(address) as channel:
        calls = {
            signal: channel.unary_unary(
                f"/opentelemetry.proto.collector.{package}.v1.{name}Service/Export"
            )
            for signal, (package, name) in _SERVICES.items()
        }
        await channel.channel_ready()
        sent = Sent(began=time.monotonic())

        async def export(due: float, body: Body) -> None:
            await calls[body.signal](body.content)
            sent.note(due, body)

        running, records = [], 0
        for body in bodies:
            due = sent.began + records / records_per_second
            if due - sent.began > seconds:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            running.append(asyncio.create_task(export(due, body)))
            records += body.records
        await asyncio.gather(*running)
        sent.ended = time.monotonic()
        return sent
