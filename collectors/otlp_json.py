"""OTLP/JSON to events: lowerCamelCase keys, hex ids, numbers as numbers or as texts.

The client writes ``intValue`` as a JSON number where the mapping of protobuf says text, and enums
as numbers; both forms are read. Unknown keys are ignored, as the specification asks.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from collectors.otlp_decoding import EventFactory
from collectors.record_limits import MAX_DEPTH, TOO_DEEP, RecordRejected, check_pairs
from loop.domain.errors import BadInput
from loop.domain.turns import Event

_ROOTS = {"logs": "resourceLogs", "metrics": "resourceMetrics", "traces": "resourceSpans"}
_ENUMS = {
    "AGGREGATION_TEMPORALITY_DELTA": 1,
    "AGGREGATION_TEMPORALITY_CUMULATIVE": 2,
    "STATUS_CODE_OK": 1,
    "STATUS_CODE_ERROR": 2,
}


def iterate(signal: str, body: bytes, factory: EventFactory) -> Iterator[Event]:
    """Every event of a body, in its order.

    Raises:
        BadInput: the body is no JSON, or not of the shape of an OTLP request.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadInput(
            "The body is no JSON.", why=str(error), fix="Send OTLP/JSON in UTF-8."
        ) from error
    if not isinstance(document, dict):
        raise _wrong("the body", "an object")
    return _WALKS[signal](_items(document, _ROOTS[signal]), factory)


def _walk_logs(groups: list[dict[str, Any]], factory: EventFactory) -> Iterator[Event]:
    for group in groups:
        resource = _attributes(_object(group, "resource"))
        for scoped in _items(group, "scopeLogs"):
            scope = _text(_object(scoped, "scope"), "name")
            for record in _items(scoped, "logRecords"):
                body = record.get("body")
                try:
                    built = factory.log(
                        _attributes(record),
                        resource,
                        time_ns=_integer(record, "timeUnixNano")
                        or _integer(record, "observedTimeUnixNano"),
                        body=None if body is None else _value(body, 0),
                        event_name=_text(record, "eventName"),
                        scope=scope,
                        trace_id=_identifier(record, "traceId", 16),
                        span_id=_identifier(record, "spanId", 8),
                    )
                except RecordRejected as rejection:
                    factory.reject(rejection.reason)
                else:
                    yield built


def _walk_traces(groups: list[dict[str, Any]], factory: EventFactory) -> Iterator[Event]:
    for group in groups:
        resource = _attributes(_object(group, "resource"))
        for scoped in _items(group, "scopeSpans"):
            scope = _text(_object(scoped, "scope"), "name")
            for span in _items(scoped, "spans"):
                status = _object(span, "status")
                try:
                    built = factory.span(
                        _attributes(span),
                        resource,
                        name=_text(span, "name"),
                        scope=scope,
                        trace_id=_identifier(span, "traceId", 16),
                        span_id=_identifier(span, "spanId", 8),
                        parent_span_id=_identifier(span, "parentSpanId", 8),
                        start_ns=_integer(span, "startTimeUnixNano"),
                        end_ns=_integer(span, "endTimeUnixNano"),
                        status_code=_integer(status, "code"),
                        status_message=_text(status, "message"),
                        events=[
                            {
                                "name": _text(event, "name"),
                                "at_us": _integer(event, "timeUnixNano") // 1000,
                                "attributes": _attributes(event),
                            }
                            for event in _items(span, "events")
                        ],
                    )
                except RecordRejected as rejection:
                    factory.reject(rejection.reason)
                else:
                    yield built


def _walk_metrics(groups: list[dict[str, Any]], factory: EventFactory) -> Iterator[Event]:
    for group in groups:
        resource = _attributes(_object(group, "resource"))
        for scoped in _items(group, "scopeMetrics"):
            for metric in _items(scoped, "metrics"):
                for kind in ("sum", "gauge", "histogram", "exponentialHistogram", "summary"):
                    if kind not in metric:
                        continue
                    data = _object(metric, kind)
                    for point in _items(data, "dataPoints"):
                        try:
                            built = factory.point(
                                _attributes(point),
                                resource,
                                name=_text(metric, "name"),
                                start_ns=_integer(point, "startTimeUnixNano"),
                                end_ns=_integer(point, "timeUnixNano"),
                                value=_point_value(kind, point),
                                unit=_text(metric, "unit"),
                                temporality=_integer(data, "aggregationTemporality"),
                            )
                        except RecordRejected as rejection:
                            factory.reject(rejection.reason)
                        else:
                            yield built


def _point_value(kind: str, point: Mapping[str, Any]) -> Any:
    if kind in ("sum", "gauge"):
        return _number(point.get("asDouble", point.get("asInt", 0)), "the value of a point")
    totals = {
        "count": _integer(point, "count"),
        "sum": _number(point.get("sum", 0), "the sum of a point"),
    }
    if kind == "histogram":
        bounds = point.get("explicitBounds") or []
        counts = point.get("bucketCounts") or []
        if not isinstance(bounds, list) or not isinstance(counts, list):
            raise _wrong("the buckets of a histogram", "lists")
        return {
            **totals,
            "bounds": [_number(bound, "a bound") for bound in bounds],
            "counts": [int(_number(count, "a count")) for count in counts],
        }
    return totals


def _attributes(owner: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    return _pairs(_items(owner, "attributes"), depth)


def _pairs(pairs: list[dict[str, Any]], depth: int) -> dict[str, Any]:
    check_pairs(len(pairs))
    attributes: dict[str, Any] = {}
    for pair in pairs:
        value = pair.get("value")
        if type(value) is dict and "stringValue" in value and type(value["stringValue"]) is str:
            text = value["stringValue"]
            check_pairs(1, len(text))
            attributes[_text(pair, "key")] = text
        else:
            attributes[_text(pair, "key")] = None if value is None else _value(value, depth)
    return attributes


def _value(value: Any, depth: int) -> Any:
    if not isinstance(value, dict):
        raise _wrong("a value", 'an object such as {"stringValue": ...}')
    if depth >= MAX_DEPTH and ("arrayValue" in value or "kvlistValue" in value):
        raise RecordRejected(TOO_DEEP)
    for kind, content in value.items():
        if kind == "stringValue":
            return _text(value, kind)
        if kind == "intValue":
            return _integer(value, kind)
        if kind == "doubleValue":
            return _number(content, "a doubleValue")
        if kind == "boolValue":
            if not isinstance(content, bool):
                raise _wrong("a boolValue", "true or false")
            return content
        if kind == "arrayValue":
            return [_value(item, depth + 1) for item in _items(_object(value, kind), "values")]
        if kind == "kvlistValue":
            return _pairs(_items(_object(value, kind), "values"), depth + 1)
        if kind == "bytesValue":
            return _bytes_hex(content)
    return None


def _bytes_hex(content: Any) -> str:
    if not isinstance(content, str):
        raise _wrong("a bytesValue", "base64 text")
    try:
        return base64.b64decode(content, validate=True).hex()
    except binascii.Error as error:
        raise _wrong("a bytesValue", "base64 text") from error


def _items(owner: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = owner.get(key)
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _wrong(key, "a list of objects")
    return items


def _object(owner: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = owner.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(key, "an object")
    return value


def _text(owner: Mapping[str, Any], key: str) -> str:
    value = owner.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(key, "text")
    return value


def _integer(owner: Mapping[str, Any], key: str) -> int:
    value = owner.get(key)
    if value is None:
        return 0
    if isinstance(value, str):
        if value in _ENUMS:
            return _ENUMS[value]
        if len(value) <= 20 and value.removeprefix("-").isdecimal() and value.isascii():
            value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(key, "an integer")
    if not -(2**63) <= value < 2**64:
        raise _wrong(key, "an integer of 64 bits")
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _wrong(what, "a number")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise _wrong(what, "a number") from error


def _identifier(owner: Mapping[str, Any], key: str, size: int) -> str:
    """Hex as the OTLP specification has it, lower case; "" when absent."""
    value = _text(owner, key)
    if not value:
        return ""
    try:
        identifier = bytes.fromhex(value)
    except ValueError as error:
        raise _wrong(key, f"{2 * size} hex digits") from error
    if len(identifier) != size:
        raise _wrong(key, f"{2 * size} hex digits")
    return identifier.hex()


def _wrong(what: str, expected: str) -> BadInput:
    return BadInput(
        "The body is no OTLP/JSON request.",
        why=f"{what} should be {expected}.",
        fix="See the OTLP specification, JSON Protobuf Encoding.",
    )


_WALKS: dict[str, Callable[[list[dict[str, Any]], EventFactory], Iterator[Event]]] = {
    "logs": _walk_logs,
    "metrics": _walk_metrics,
    "traces": _walk_traces,
}
