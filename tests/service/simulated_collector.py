"""A collector at the network edge that keeps what it is sent, and can refuse at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

REQUESTS = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
}


@dataclass
class CollectingServer:
    """An ASGI app. The first ``refusals`` requests are answered 503 with Retry-After 0."""

    refusals: int = 0
    status_when_refusing: int = 503
    accepted: list[tuple[str, bytes]] = field(default_factory=list)
    refused: list[tuple[str, bytes]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for reply in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
                await receive()
                await send({"type": reply})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        signal = scope["path"].removeprefix("/v1/")
        is_refused = len(self.refused) < self.refusals
        (self.refused if is_refused else self.accepted).append((signal, body))
        status = self.status_when_refusing if is_refused else 200
        headers = [(b"retry-after", b"0"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def records(self) -> Iterator[Record]:
        for signal, body in self.accepted:
            yield from records_of(signal, body)


@dataclass(frozen=True)
class Record:
    """One event, span, span event or metric point: its name and its attributes by type."""

    kind: str
    name: str
    scope: str
    attributes: dict[str, Any]
    types: dict[str, str]
    resource: dict[str, Any]
    at_us: int


def records_of(signal: str, body: bytes) -> Iterator[Record]:
    request = REQUESTS[signal].FromString(body)
    if signal == "logs":
        for part in request.resource_logs:
            for scope in part.scope_logs:
                for log in scope.log_records:
                    name = log.body.string_value
                    yield _record("event", name, scope, log.attributes, part, log.time_unix_nano)
    elif signal == "traces":
        for part in request.resource_spans:
            for scope in part.scope_spans:
                for span in scope.spans:
                    end = span.end_time_unix_nano
                    yield _record("span", span.name, scope, span.attributes, part, end)
                    for event in span.events:
                        name = f"{span.name}/{event.name}"
                        at = event.time_unix_nano
                        yield _record("span event", name, scope, event.attributes, part, at)
    else:
        for part in request.resource_metrics:
            for scope in part.scope_metrics:
                for metric in scope.metrics:
                    assert metric.sum.is_monotonic
                    name = f"{metric.name}|{metric.unit}|{metric.description}"
                    for point in metric.sum.data_points:
                        at = point.time_unix_nano
                        record = _record("metric", name, scope, point.attributes, part, at)
                        record.attributes["value"] = point.as_double
                        yield record


def _record(kind: str, name: str, scope: Any, attributes: Any, part: Any, at: int) -> Record:
    return Record(
        kind,
        name,
        f"{scope.scope.name} {scope.scope.version}",
        dict(_value(item) for item in attributes),
        {item.key: str(item.value.WhichOneof("value")) for item in attributes},
        dict(_value(item) for item in part.resource.attributes),
        at // 1000,
    )


def _value(item: KeyValue) -> tuple[str, Any]:
    kind = item.value.WhichOneof("value")
    if kind == "array_value":
        return item.key, [value.string_value for value in item.value.array_value.values]
    return item.key, getattr(item.value, kind)


def repeated_attributes(attributes: Any) -> list[str]:
    """Keys that occur more than once, which OTLP forbids."""
    return [key for key, count in Counter(item.key for item in attributes).items() if count > 1]
