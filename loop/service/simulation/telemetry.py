"""One session's OTLP messages in the real client's form: scopes, types, times, common attributes.

What is recorded lies in :mod:`loop.service.simulation.client_records`; this module knows only how.
Times are UTC microseconds in and nanoseconds out; events have millisecond resolution, like the
real client's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from loop.service.simulation.request_bodies import CLIENT_VERSION

Attribute = str | bool | int | float | list[str]
Attributes = Mapping[str, Attribute]

_SPAN_FLAGS = 257  # sampled, parent is known to be local
_METRICS = {  # description, unit
    "session.count": ("Count of CLI sessions started", ""),
    "lines_of_code.count": (
        "Count of lines of code modified, with the 'type' attribute indicating whether lines were "
        "added or removed and the 'model' attribute indicating which model made the change",
        "",
    ),
    "cost.usage": ("Cost of the Claude Code session", "USD"),
    "token.usage": ("Number of tokens used", "tokens"),
    "code_edit_tool.decision": (
        "Count of code editing tool permission decisions (accept/reject) for Edit, Write, and "
        "NotebookEdit tools",
        "",
    ),
    "active_time.total": ("Total active time in seconds", "s"),
}


class SessionTelemetry:
    """Collects one session's records and hands them out as OTLP resource messages.

    ``resource`` are the customer's own resource attributes, which the client repeats on every
    record; ``identity`` the record-level ones; ``repository`` the ``vcs.*`` ones.
    """

    def __init__(self, resource: Attributes, identity: Attributes, repository: Attributes) -> None:
        host: Attributes = {
            "host.arch": "amd64",
            "os.type": "linux",
            "os.version": "0.0.0-simulated",
            "service.name": "claude-code",
            "service.version": CLIENT_VERSION,
        }
        self._resource = encode_attributes({**resource, **host})
        self._common = encode_attributes({**resource, **identity})
        self._repository = encode_attributes(repository)
        self._sequence = 0
        self._logs: list[LogRecord] = []
        self._spans: list[Span] = []
        self._sums: dict[tuple[str, tuple[tuple[str, Attribute], ...]], list[float]] = {}

    def event(
        self,
        name: str,
        at_us: int,
        attributes: Attributes,
        *,
        trace_id: bytes = b"",
        span_id: bytes = b"",
        knows_repository: bool = True,
    ) -> None:
        at_ms = at_us // 1000
        stamp = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        record = LogRecord(
            time_unix_nano=at_ms * 1_000_000,
            observed_time_unix_nano=at_ms * 1_000_000,
            body=AnyValue(string_value=f"claude_code.{name}"),
            trace_id=trace_id,
            span_id=span_id,
            flags=1 if trace_id else 0,
        )
        header: Attributes = {
            "event.name": name,
            "event.timestamp": stamp.replace("+00:00", "Z"),
            "event.sequence": self._sequence,
        }
        self._sequence += 1
        record.attributes.extend(self._common)
        if knows_repository:
            record.attributes.extend(self._repository)
        record.attributes.extend(encode_attributes({**header, **attributes}))
        self._logs.append(record)

    def span(
        self,
        name: str,
        start_us: int,
        end_us: int,
        attributes: Attributes,
        *,
        trace_id: bytes,
        span_id: bytes,
        parent_span_id: bytes = b"",
        error: str = "",
        events: Iterable[tuple[str, int, Attributes]] = (),
        knows_repository: bool = True,
    ) -> None:
        span = Span(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent_span_id,
            flags=_SPAN_FLAGS,
            name=f"claude_code.{name}",
            kind=Span.SpanKind.SPAN_KIND_INTERNAL,
            start_time_unix_nano=start_us * 1000,
            end_time_unix_nano=end_us * 1000,
            status=Status(code=Status.StatusCode.STATUS_CODE_ERROR, message=error)
            if error
            else Status(),
        )
        span.attributes.extend(self._common)
        if knows_repository:
            span.attributes.extend(self._repository)
        span.attributes.extend(
            encode_attributes({"gen_ai.provider.name": "anthropic", "span.type": name})
        )
        span.attributes.extend(encode_attributes(attributes))
        for event_name, at_us, event_attributes in events:
            event = span.events.add(name=event_name, time_unix_nano=at_us * 1000)
            event.attributes.extend(encode_attributes(event_attributes))
        self._spans.append(span)

    def count(self, metric: str, amount: float, at_us: int, attributes: Attributes) -> None:
        """Adds to a sum. All sums of a session are sent once, as deltas."""
        key = (metric, tuple(attributes.items()))
        known = self._sums.setdefault(key, [0.0, at_us])
        known[0] += amount
        self._sums[key] = known

    def resource_logs(self) -> ResourceLogs:
        message = ResourceLogs()
        message.resource.attributes.extend(self._resource)
        scope = message.scope_logs.add()
        scope.scope.name = "com.anthropic.claude_code.events"
        scope.scope.version = CLIENT_VERSION
        scope.log_records.extend(self._logs)
        return message

    def resource_spans(self) -> ResourceSpans:
        message = ResourceSpans()
        message.resource.attributes.extend(self._resource)
        scope = message.scope_spans.add()
        scope.scope.name = "com.anthropic.claude_code.tracing"
        scope.scope.version = "1.0.0"
        scope.spans.extend(self._spans)
        return message

    def resource_metrics(self, at_us: int) -> ResourceMetrics:
        message = ResourceMetrics()
        message.resource.attributes.extend(self._resource)
        scope = message.scope_metrics.add()
        scope.scope.name = "com.anthropic.claude_code"
        scope.scope.version = CLIENT_VERSION
        metrics: dict[str, Metric] = {}
        for (name, attributes), (amount, started_at_us) in self._sums.items():
            if name not in metrics:
                description, unit = _METRICS[name]
                metric = scope.metrics.add(
                    name=f"claude_code.{name}", description=description, unit=unit
                )
                metric.sum.aggregation_temporality = (
                    AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
                )
                metric.sum.is_monotonic = True
                metrics[name] = metric
            point = NumberDataPoint(
                start_time_unix_nano=int(started_at_us) * 1000,
                time_unix_nano=at_us * 1000,
                as_double=amount,
            )
            point.attributes.extend(self._common)
            point.attributes.extend(self._repository)
            point.attributes.extend(encode_attributes(dict(attributes)))
            metrics[name].sum.data_points.append(point)
        return message


def encode_attributes(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any_value(value)) for key, value in attributes.items()]


def _any_value(value: Attribute) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=item) for item in value]))
