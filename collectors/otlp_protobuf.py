"""OTLP protobuf to events, by walking the messages directly.

Attributes are most of a record, and most of them say the same in every record of a session. So
records are read by a copy of OTLP's own message types in which a ``KeyValue`` is left as bytes (a
message and a byte string look alike on the wire), and equal bytes are decoded once. That takes less
than half the time of walking the real types; ``json_format.MessageToDict`` takes eight times it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

from google.protobuf.descriptor import FileDescriptor  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import (  # type: ignore[import-untyped]
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collectors.otlp_decoding import EventFactory
from collectors.record_limits import (
    AHEAD,
    INVALID_ID,
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    TOO_DEEP,
    TOO_MANY,
    RecordRejected,
    check_pairs,
)
from loop.domain.errors import BadInput
from loop.domain.turns import Event

_REQUESTS: dict[str, type[Message]] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
_LEFT_AS_BYTES = (
    ".opentelemetry.proto.common.v1.KeyValue",
    ".opentelemetry.proto.common.v1.AnyValue",
)


def _with_values_as_bytes(request: type[Message]) -> type[Message]:
    """The message type, read from a pool in which attributes and log bodies are byte strings."""
    pool = DescriptorPool()

    def add(file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            add(dependency)
        copy = FileDescriptorProto()
        file.CopyToProto(copy)
        for message in copy.message_type:
            if message.name not in ("AnyValue", "ArrayValue", "KeyValueList", "KeyValue"):
                _leave_values(message)
        pool.Add(copy)

    add(request.DESCRIPTOR.file)
    read: type[Message] = GetMessageClass(pool.FindMessageTypeByName(request.DESCRIPTOR.full_name))
    return read


def _leave_values(message: Any) -> None:
    for field in message.field:
        if field.type_name in _LEFT_AS_BYTES:
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
    for nested in message.nested_type:
        _leave_values(nested)


_READ = {signal: _with_values_as_bytes(request) for signal, request in _REQUESTS.items()}


def parse(signal: str, body: bytes) -> Message:
    """The export request of a body.

    Raises:
        BadInput: the body is no such message.
    """
    try:
        return _REQUESTS[signal].FromString(body)
    except DecodeError as error:
        raise _unreadable(signal, error) from error


def _unreadable(signal: str, error: Exception) -> BadInput:
    return BadInput(
        f"The body is no OTLP {signal} request.",
        why=str(error),
        fix="Send an Export*ServiceRequest in binary protobuf.",
    )


def iterate(signal: str, body: bytes, factory: EventFactory) -> Iterator[Event]:
    """Every event of a body, in its order. Raises BadInput as :func:`parse` does, at the latest
    where the unreadable part is come to."""
    try:
        yield from _WALKS[signal](_READ[signal].FromString(body), factory)
    except (DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(signal, error) from error


def count_rejected(signal: str, request: Message, latest_us: int) -> Counter[str]:
    """How many records of a request will be rejected, by reason, as far as that can be told
    without decoding their attributes; ``latest_us`` is the latest time that is taken."""
    latest_ns = 1000 * latest_us + 999
    rejected: Counter[str] = Counter()
    for record, at_ns, is_identified in _RECORDS[signal](request):
        if len(record.attributes) > MAX_ATTRIBUTES:
            rejected[TOO_MANY] += 1
        elif not is_identified:
            rejected[INVALID_ID] += 1
        elif at_ns > latest_ns:
            rejected[AHEAD] += 1
    return rejected


_Checked = tuple[Any, int, bool]  # the record, its time, whether its ids are valid


def _logs(request: Any) -> Iterator[_Checked]:
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                yield record, record.time_unix_nano or record.observed_time_unix_nano, True


def _spans(request: Any) -> Iterator[_Checked]:
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                is_identified = _is_id(span.trace_id, 16) and _is_id(span.span_id, 8)
                yield span, span.start_time_unix_nano, is_identified


def _points(request: Any) -> Iterator[_Checked]:
    for resource_metrics in request.resource_metrics:
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points if kind else ():
                    yield point, point.time_unix_nano, True


def _is_id(identifier: bytes, size: int) -> bool:
    return len(identifier) == size and any(identifier)


_RECORDS: dict[str, Callable[[Any], Iterator[_Checked]]] = {
    "logs": _logs,
    "metrics": _points,
    "traces": _spans,
}


def _walk_logs(request: Any, factory: EventFactory) -> Iterator[Event]:
    for resource_logs in request.resource_logs:
        resource = _attributes(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            scope = scope_logs.scope.name
            for record in scope_logs.log_records:
                try:
                    built = factory.log(
                        _attributes(record.attributes),
                        resource,
                        time_ns=record.time_unix_nano or record.observed_time_unix_nano,
                        body=_VALUES[record.body],
                        event_name=record.event_name,
                        scope=scope,
                        trace_id=record.trace_id.hex(),
                        span_id=record.span_id.hex(),
                    )
                except RecordRejected as rejection:
                    factory.reject(rejection.reason)
                else:
                    yield built


def _walk_traces(request: Any, factory: EventFactory) -> Iterator[Event]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope.name
            for span in scope_spans.spans:
                status = span.status
                try:
                    built = factory.span(
                        _attributes(span.attributes),
                        resource,
                        name=span.name,
                        scope=scope,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_span_id=span.parent_span_id.hex(),
                        start_ns=span.start_time_unix_nano,
                        end_ns=span.end_time_unix_nano,
                        status_code=status.code,
                        status_message=status.message,
                        events=[
                            {
                                "name": event.name,
                                "at_us": event.time_unix_nano // 1000,
                                "attributes": _attributes(event.attributes),
                            }
                            for event in span.events
                        ],
                    )
                except RecordRejected as rejection:
                    factory.reject(rejection.reason)
                else:
                    yield built


def _walk_metrics(request: Any, factory: EventFactory) -> Iterator[Event]:
    for resource_metrics in request.resource_metrics:
        resource = _attributes(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                kind = metric.WhichOneof("data")
                if kind is None:
                    continue
                data = getattr(metric, kind)
                for point in data.data_points:
                    try:
                        built = factory.point(
                            _attributes(point.attributes),
                            resource,
                            name=metric.name,
                            start_ns=point.start_time_unix_nano,
                            end_ns=point.time_unix_nano,
                            value=_point_value(kind, point),
                            unit=metric.unit,
                            temporality=getattr(data, "aggregation_temporality", 0),
                        )
                    except RecordRejected as rejection:
                        factory.reject(rejection.reason)
                    else:
                        yield built


def _point_value(kind: str, point: Any) -> Any:
    if kind in ("sum", "gauge"):
        chosen = point.WhichOneof("value")
        # The client sends every number as a double, over JSON as over protobuf.
        return float(getattr(point, chosen)) if chosen else 0.0
    if kind == "histogram":
        return {
            "count": point.count,
            "sum": point.sum,
            "bounds": list(point.explicit_bounds),
            "counts": list(point.bucket_counts),
        }
    return {"count": point.count, "sum": point.sum}


class _Pairs(dict[bytes, tuple[str, Any]]):
    """Key and value by the bytes of a ``KeyValue``; short ones are kept and decoded once."""

    LONGEST_BYTES = 96
    MOST = 50_000  # some 15 MB; then it starts anew, and what is frequent is soon in it again

    def __missing__(self, raw: bytes) -> tuple[str, Any]:
        check_pairs(1, len(raw))
        pair = KeyValue.FromString(raw)
        # Interned, a key is found in a dict by its identity, here and where it is unpacked.
        decoded = sys.intern(pair.key), _any_value(pair.value, 0)
        if len(raw) <= self.LONGEST_BYTES and not isinstance(decoded[1], list | dict):
            if len(self) >= self.MOST:
                self.clear()
            self[raw] = decoded
        return decoded


class _Values(dict[bytes, Any]):
    """The value of an ``AnyValue``, such as a log's body, by its bytes; short texts are kept, for
    they are most often the name of the record."""

    def __missing__(self, raw: bytes) -> Any:
        value = _any_value(AnyValue.FromString(raw), 0) if raw else None
        if len(raw) <= _Pairs.LONGEST_BYTES and isinstance(value, str):
            if len(self) >= _Pairs.MOST:
                self.clear()
            self[raw] = value
        return value


_PAIRS = _Pairs()
_VALUES = _Values()
_pair_of = _PAIRS.__getitem__


def _attributes(pairs: Collection[bytes]) -> dict[str, Any]:
    if len(pairs) > MAX_ATTRIBUTES:
        raise RecordRejected(TOO_MANY)
    return dict(map(_pair_of, pairs))


def _any_value(value: Any, depth: int) -> Any:
    # Texts and numbers are by far the most frequent, and cheaper to try than to ask for the kind.
    return value.string_value or value.int_value or _value(value, depth)


def _value(value: Any, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        if depth >= MAX_DEPTH:
            raise RecordRejected(TOO_DEEP)
        return [_value(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        if depth >= MAX_DEPTH:
            raise RecordRejected(TOO_DEEP)
        return {pair.key: _any_value(pair.value, depth + 1) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return value.bytes_value.hex()
    return getattr(value, kind)


_WALKS: dict[str, Callable[[Any, EventFactory], Iterator[Event]]] = {
    "logs": _walk_logs,
    "metrics": _walk_metrics,
    "traces": _walk_traces,
}
