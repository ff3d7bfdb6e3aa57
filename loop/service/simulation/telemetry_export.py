"""OTLP over HTTP with protobuf: one request per signal for a few finished sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from loop.domain.errors import Refused, Unavailable
from loop.service.simulation.http_connection import HttpAnswer, HttpConnection
from loop.service.simulation.telemetry import SessionTelemetry

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
ATTEMPTS = 20
MAX_WAIT_SECONDS = 5.0


class TelemetryExport:
    """Sends sessions' telemetry; a request that is refused for now is sent again byte for byte."""

    def __init__(self, connection: HttpConnection, headers: Mapping[str, str]) -> None:
        self._connection = connection
        self._headers = {**headers, "content-type": "application/x-protobuf"}
        self.exports = 0
        self.resends = 0

    async def send(self, sessions: Sequence[tuple[SessionTelemetry, int]]) -> None:
        """Exports each session with its end time (UTC microseconds), all signals in turn."""
        logs = ExportLogsServiceRequest(
            resource_logs=[session.resource_logs() for session, _ in sessions]
        )
        spans = ExportTraceServiceRequest(
            resource_spans=[session.resource_spans() for session, _ in sessions]
        )
        metrics = ExportMetricsServiceRequest(
            resource_metrics=[session.resource_metrics(at_us) for session, at_us in sessions]
        )
        await self._post("logs", logs.SerializeToString())
        await self._post("traces", spans.SerializeToString())
        await self._post("metrics", metrics.SerializeToString())

    async def _post(self, signal: str, body: bytes) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            response = await self._connection.post(f"/v1/{signal}", body, self._headers)
            if response.status == 200:
                self.exports += 1
                return
            if response.status not in RETRIED_STATUSES:
                raise Refused(
                    "The collector refused simulated telemetry.",
                    why=f"/v1/{signal} answered {response.status}: {response.body[:200]!r}",
                )
            self.resends += 1
            await asyncio.sleep(_wait_seconds(response, attempt))
        raise Unavailable(
            "The collector kept refusing simulated telemetry.", why=f"{ATTEMPTS} times 503 or alike"
        )


def _wait_seconds(response: HttpAnswer, attempt: int) -> float:
    asked = response.headers.get("retry-after", "")
    seconds = float(asked) if asked.isdigit() else 0.1 * 2.0 ** min(attempt, 6)
    return min(seconds, MAX_WAIT_SECONDS)
