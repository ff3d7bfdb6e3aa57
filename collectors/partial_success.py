"""The answer to an export of which some records are not taken in (OTLP's partial success)."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from google.protobuf.message import Message  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

_RESPONSES: dict[str, tuple[type[Message], str, str]] = {
    "logs": (ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
    "traces": (ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
}
_MESSAGE = "Their times are more than 24 hours ahead of the collector's clock; check the sender's."


@dataclass(frozen=True, slots=True)
class PartialRejection:
    """``rejected`` records of a body will be set aside; with none, every field is at its default
    and the response is empty."""

    signal: str
    rejected: int = 0

    def as_protobuf(self) -> bytes:
        if not self.rejected:
            return b""
        response_type, field, _ = _RESPONSES[self.signal]
        response = response_type()
        setattr(response.partial_success, field, self.rejected)
        response.partial_success.error_message = _MESSAGE
        serialized: bytes = response.SerializeToString()
        return serialized

    def as_json(self) -> bytes:
        if not self.rejected:
            return b"{}"
        _, _, field = _RESPONSES[self.signal]
        partial = {field: str(self.rejected), "errorMessage": _MESSAGE}
        return orjson.dumps({"partialSuccess": partial})
