"""The answer to an export of which some records are not taken in (OTLP's partial success)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from google.protobuf.message import Message  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collectors.record_limits import describe_rejections

_RESPONSES: dict[str, tuple[type[Message], str, str]] = {
    "logs": (ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
    "traces": (ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
}


@dataclass(frozen=True, slots=True)
class PartialRejection:
    """``rejected`` records of a body, by reason, will be set aside; with none, every field is at
    its default and the response is empty."""

    signal: str
    rejected: Mapping[str, int] = field(default_factory=dict)

    def as_protobuf(self) -> bytes:
        if not self.rejected:
            return b""
        response_type, name, _ = _RESPONSES[self.signal]
        response = response_type()
        setattr(response.partial_success, name, sum(self.rejected.values()))
        response.partial_success.error_message = describe_rejections(self.rejected)
        serialized: bytes = response.SerializeToString()
        return serialized

    def as_json(self) -> bytes:
        if not self.rejected:
            return b"{}"
        _, _, name = _RESPONSES[self.signal]
        partial = {
            name: str(sum(self.rejected.values())),
            "errorMessage": describe_rejections(self.rejected),
        }
        return orjson.dumps({"partialSuccess": partial})
