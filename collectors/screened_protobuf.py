"""OTLP requests in protobuf as they may be stored, changed in place.

The walk follows the messages' own descriptors, so a text is found in whatever field it stands:
attributes and what is nested in them, bodies, scopes, events, links, exemplars, descriptions.
"""

from __future__ import annotations

from typing import Any

from collectors.content_modes import CONTENT_NAMES, Treatment, is_content
from collectors.content_rules import ContentModes
from collectors.redaction import may_hold_secrets, redact_split

_GROUPS = {
    "logs": ("resource_logs", "scope_logs", "log_records"),
    "traces": ("resource_spans", "scope_spans", "spans"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
}
_NESTED = frozenset(("array_value", "kvlist_value", "bytes_value"))
_MIN_BYTES = 20  # ids of traces and spans are shorter
_KEY_VALUE = "opentelemetry.proto.common.v1.KeyValue"
_STATUS = "opentelemetry.proto.trace.v1.Status"


def screen_request(
    signal: str, request: Any, modes: ContentModes, credential: str, *, is_clean: bool = False
) -> bool:
    """Changes a request in place; whether anything of it was changed. ``is_clean``: there can be
    no secret in it, so that only content is looked for."""
    groups, scopes, records = _GROUPS[signal]
    changed = False
    for group in getattr(request, groups):
        resource = _labels(group.resource.attributes, modes)
        treatment = modes.treatment(credential, lambda name, of=resource: of.get(name, ""))  # type: ignore[misc]
        outer = _Walk(treatment.without_search() if is_clean else treatment)
        outer.fields(group, leave_out=scopes)
        for scoped in getattr(group, scopes):
            outer.fields(scoped, leave_out=records)
            found = getattr(scoped, records)
            for record in found:
                changed |= _screen_record(record, resource, modes, credential, is_clean)
            if signal == "logs" and not is_clean:
                changed |= _split_records(found)
        changed |= outer.changed
    return changed


def _screen_record(
    record: Any, resource: dict[str, str], modes: ContentModes, credential: str, is_clean: bool
) -> bool:
    labels = resource
    if modes.asked and hasattr(record, "attributes"):
        labels = {**resource, **_labels(record.attributes, modes)}
    treatment = modes.treatment(credential, lambda name: labels.get(name, ""))
    if is_clean or not may_hold_secrets(record.SerializeToString()):
        if treatment.mode == "full":
            return False
        treatment = treatment.without_search()
    walk = _Walk(treatment)
    walk.fields(record)
    return walk.changed


def _labels(attributes: Any, modes: ContentModes) -> dict[str, str]:
    if not modes.asked:
        return {}
    return {pair.key: pair.value.string_value for pair in attributes if pair.key in modes.asked}


class _Walk:
    """One record under one treatment."""

    def __init__(self, treatment: Treatment) -> None:
        self._treatment = treatment
        self._looks_across = treatment.searches and not treatment.hides
        self.changed = False

    def fields(
        self, message: Any, name: str = "", *, inside: bool = False, leave_out: str = ""
    ) -> None:
        if message.DESCRIPTOR.full_name == _KEY_VALUE:
            self._attribute(message, inside)
            return
        for field, value in message.ListFields():
            if field.name == leave_out:
                continue
            is_list = hasattr(value, "append")
            if field.name == "attributes" and is_list:
                self._attributes(value, inside)
            elif field.message_type is not None:
                inner = name if name else field.name
                for item in value if is_list else (value,):
                    self.fields(item, inner, inside=inside)
                if field.name == "values" and is_list and self._looks_across:
                    self._split(value)
            elif is_list:
                self._list(value, name or field.name, inside)
            elif isinstance(value, str):
                self._text(message, field.name, value, name, inside)
            elif isinstance(value, bytes) and len(value) >= _MIN_BYTES:
                self._bytes(message, field.name, value, inside)

    def _attributes(self, pairs: Any, inside: bool) -> None:
        if self._treatment.searches or inside:
            for pair in pairs:
                self._attribute(pair, inside)
            return
        for pair in pairs:  # nearly all are short texts and numbers that are no content
            value = pair.value
            kind = value.WhichOneof("value")
            if kind == "string_value":
                if is_content(pair.key, value.string_value):
                    self._attribute(pair, inside)
            elif kind in _NESTED:
                self._attribute(pair, inside)

    def _attribute(self, pair: Any, inside: bool) -> None:
        name = pair.key
        key = self._treatment.name(name)
        if key != name:
            pair.key = key
            self.changed = True
        value = pair.value
        kind = value.WhichOneof("value")
        if kind == "string_value":
            text = value.string_value
            kept = self._treatment.content(text) if inside else self._treatment.value(name, text)
            if kept != text:
                value.string_value = kept
                self.changed = True
        elif kind in _NESTED:
            is_hidden = inside or (self._treatment.mode != "full" and name in CONTENT_NAMES)
            self.fields(value, name, inside=is_hidden)

    def _text(self, message: Any, field: str, text: str, name: str, inside: bool) -> None:
        if message.DESCRIPTOR.full_name == _STATUS:
            name = "otel.status_message"
        elif field != "string_value":
            name = field
        kept = self._treatment.content(text) if inside else self._treatment.value(name, text)
        if kept != text:
            setattr(message, field, kept)
            self.changed = True

    def _list(self, values: Any, name: str, inside: bool) -> None:
        for number, text in enumerate(values):
            if isinstance(text, str):
                kept = (
                    self._treatment.content(text) if inside else self._treatment.value(name, text)
                )
                if kept != text:
                    values[number] = kept
                    self.changed = True

    def _bytes(self, message: Any, field: str, content: bytes, inside: bool) -> None:
        if inside and self._treatment.hides:
            kept = self._treatment.content(content.decode("latin-1")).encode()
        else:
            kept = self._treatment.octets(content)
        if kept != content:
            setattr(message, field, kept)
            self.changed = True

    def _split(self, values: Any) -> None:
        texts = [value for value in values if _is_text(value)]
        if len(texts) == len(values) > 1:
            self.changed |= _rewrite_split(texts)


def _split_records(records: Any) -> bool:
    """Secrets that are cut in two by the boundary of two log records: the same attribute of
    records that follow each other."""
    changed = False
    before: dict[str, Any] = {}
    for record in records:
        now = {
            pair.key: pair.value
            for pair in record.attributes
            if pair.key in CONTENT_NAMES and _is_text(pair.value)
        }
        for name in now.keys() & before.keys():
            changed |= _rewrite_split([before[name], now[name]])
        before = now
    return changed


def _rewrite_split(values: list[Any]) -> bool:
    changed = False
    texts = [value.string_value for value in values]
    for value, old, new in zip(values, texts, redact_split(texts), strict=True):
        if new != old:
            value.string_value = new
            changed = True
    return changed


def _is_text(value: Any) -> bool:
    return hasattr(value, "string_value") and value.HasField("string_value")
