"""JSON documents as they may be stored: OTLP/JSON requests, transcript lines, decision reports.

Every text of a document is looked at, keys and fields without a meaning here included; numbers and
structure stay.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from collectors.content_modes import CONTENT_NAMES, Treatment
from collectors.content_rules import ContentModes
from collectors.redaction import may_hold_secrets, redact_split

MAX_DEPTH = 200
_TOO_DEEP = "[nested too deeply]"
_WRAPPERS = frozenset(("stringValue", "bytesValue"))
# Where texts that follow each other stand inside the items of a list.
_SPLIT_PATHS = (
    ("text",), ("delta", "text"), ("delta", "partial_json"), ("delta", "thinking"), ("thinking",),
    ("partial_json",), ("content",), ("stringValue",), ("message", "content"),
)  # fmt: skip
_RECORDS = {
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
}
# Inputs and results of tools: objects that are content as a whole.
_OBJECTS = frozenset(("input", "toolUseResult", "structuredPatch"))


def screen_otlp(
    signal: str, document: Any, modes: ContentModes, credential: str, *, is_clean: bool = False
) -> Any:
    """An OTLP/JSON request; each record under the mode of its own labels. ``is_clean``: there can
    be no secret in it, so that only content is looked for."""
    groups_key, scopes_key, records_key = _RECORDS[signal]
    unlabelled = modes.treatment(credential, _no_label)
    if is_clean:
        unlabelled = unlabelled.without_search()
    if not isinstance(document, dict) or not isinstance(document.get(groups_key), list):
        return screen_document(document, unlabelled)
    rest = {key: value for key, value in document.items() if key != groups_key}
    screened = screen_document(rest, unlabelled)
    walk = _Records(scopes_key, records_key, modes, credential, is_clean)
    screened[groups_key] = [walk.group(group) for group in document[groups_key]]
    return screened


@dataclass(frozen=True, slots=True)
class _Records:
    """The way down to the records of one request, and what each is screened by."""

    scopes_key: str
    records_key: str
    modes: ContentModes
    credential: str
    is_clean: bool

    def group(self, group: Any) -> Any:
        if not isinstance(group, dict):
            return group
        resource = _labels(group.get("resource")) if self.modes.asked else {}
        treatment = self.modes.treatment(self.credential, lambda name: resource.get(name, ""))
        if self.is_clean:
            treatment = treatment.without_search()
        screened = {
            treatment.name(key): _walk(value, treatment, key, False, 1)
            for key, value in group.items()
            if key != self.scopes_key
        }
        if self.scopes_key in group:
            screened[self.scopes_key] = [
                self._scope(scoped, resource, treatment) for scoped in _list(group[self.scopes_key])
            ]
        return screened

    def _scope(self, scoped: Any, resource: Mapping[str, str], outer: Treatment) -> Any:
        if not isinstance(scoped, dict):
            return scoped
        screened = {
            outer.name(key): _walk(value, outer, key, False, 2)
            for key, value in scoped.items()
            if key != self.records_key
        }
        if self.records_key in scoped:
            found = [self._record(record, resource) for record in _list(scoped[self.records_key])]
            screened[self.records_key] = found if self.is_clean else _split_records(found)
        return screened

    def _record(self, record: Any, resource: Mapping[str, str]) -> Any:
        labels = {**resource, **_labels(record)} if self.modes.asked else resource
        treatment = self.modes.treatment(self.credential, lambda name: labels.get(name, ""))
        if self.is_clean or _is_clean(record):
            if treatment.mode == "full":
                return record
            treatment = treatment.without_search()
        return _walk(record, treatment, "", False, 3)


def screen_document(document: Any, treatment: Treatment, *, is_doubtful: bool = False) -> Any:
    """Any JSON value, with each of its texts treated by the key that it stands under.
    ``is_doubtful``: a look at all of it at once has said already that there may be a secret."""
    if is_doubtful and isinstance(document, dict):
        return _walk_object(document, treatment, "", False, 0)
    return _walk(document, treatment, "", False, 0)


def _walk(node: Any, treatment: Treatment, name: str, inside: bool, depth: int) -> Any:
    if isinstance(node, str):
        if name == "bytesValue":
            return _screen_base64(node, treatment, inside)
        return treatment.content(node) if inside else treatment.value(name, node)
    if treatment.mode == "full" and isinstance(node, dict | list) and _is_clean(node):
        return node
    if isinstance(node, dict):
        if depth > MAX_DEPTH:
            return _TOO_DEEP
        if treatment.hides and name in _OBJECTS:
            return treatment.content(orjson.dumps(node).decode())
        return _walk_object(node, treatment, name, inside, depth)
    if isinstance(node, list):
        if depth > MAX_DEPTH:
            return _TOO_DEEP
        items = [_walk(item, treatment, name, inside, depth + 1) for item in node]
        return items if treatment.hides or not treatment.searches else _split_items(items)
    return node


def _is_clean(node: Any) -> bool:
    """Whether nothing in it can be a secret: most of a document is passed over by one scan."""
    dumped = orjson.dumps(node)
    return b'"bytesValue"' not in dumped and not may_hold_secrets(dumped)


def _walk_object(
    node: dict[str, Any], treatment: Treatment, name: str, inside: bool, depth: int
) -> dict[str, Any]:
    key = node.get("key")
    if isinstance(key, str) and "value" in node:  # an OTLP attribute
        given = node["value"]
        if not treatment.searches and not inside and len(node) == 2 and _is_simple(given):
            text = given.get("stringValue")
            kept_text = text if text is None else treatment.value(key, text)
            return node if kept_text is text else {"key": key, "value": {"stringValue": kept_text}}
        is_plain = isinstance(given, dict) and "stringValue" in given
        is_hidden = inside or (treatment.mode != "full" and key in CONTENT_NAMES and not is_plain)
        kept = {
            _key(other, node, treatment): _walk(value, treatment, other, inside, depth + 1)
            for other, value in node.items()
            if other not in ("key", "value")
        }
        return {
            "key": treatment.name(key),
            "value": _walk(given, treatment, key, is_hidden, depth + 1),
            **kept,
        }
    screened: dict[str, Any] = {}
    for other, value in node.items():
        inner = name if other in _WRAPPERS or _is_any_value(other) else other
        if other == "message" and isinstance(value, str) and name == "status":
            inner = "otel.status_message"
        if other == "bytesValue":
            inner = other
        hidden = inside or (
            treatment.mode != "full"
            and not isinstance(value, str)
            and other in ("error", "input", "toolUseResult")
        )
        screened[_key(other, screened, treatment)] = _walk(
            value, treatment, inner, hidden, depth + 1
        )
    return screened


def _is_any_value(name: str) -> bool:
    return name in ("arrayValue", "kvlistValue", "values")


def _is_simple(value: Any) -> bool:
    """Whether an attribute's value is one text, or a number that is written as one."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    (kind, given) = next(iter(value.items()))
    if kind == "stringValue":
        return isinstance(given, str)
    return isinstance(given, int | float)


def _key(name: str, taken: Mapping[str, Any], treatment: Treatment) -> str:
    """The key without secrets; a second one that reads the same then gets a number."""
    redacted = key = treatment.name(name)
    number = 2
    while key != name and key in taken:
        key = f"{redacted}#{number}"
        number += 1
    return key


def _screen_base64(text: str, treatment: Treatment, inside: bool) -> str:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        return treatment.value("", text)
    if inside and treatment.hides:
        return base64.b64encode(treatment.content(text).encode()).decode()
    cleaned = treatment.octets(content)
    return text if cleaned == content else base64.b64encode(cleaned).decode()


def _split_items(items: list[Any]) -> list[Any]:
    """Secrets that are cut in two by the boundary of two items: blocks, chunks, plain texts."""
    if len(items) < 2:
        return items
    if all(isinstance(item, str) for item in items):
        return redact_split(items, are_redacted=True)
    for path in _SPLIT_PATHS:
        holders = [holder for item in items if (holder := _holder(item, path)) is not None]
        if len(holders) < 2:
            continue
        texts = [holder[path[-1]] for holder in holders]
        for holder, text in zip(holders, redact_split(texts, are_redacted=True), strict=True):
            holder[path[-1]] = text
    return items


def _holder(item: Any, path: tuple[str, ...]) -> dict[str, Any] | None:
    """The object that holds the text at a path inside an item."""
    for key in path[:-1]:
        item = item.get(key) if isinstance(item, dict) else None
    return item if isinstance(item, dict) and isinstance(item.get(path[-1]), str) else None


def _split_records(records: list[Any]) -> list[Any]:
    """Secrets that are cut in two by the boundary of two log records: the same attribute of
    records that follow each other."""
    values: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, record in enumerate(records):
        for pair in _list(record.get("attributes")) if isinstance(record, dict) else ():
            if not isinstance(pair, dict) or pair.get("key") not in CONTENT_NAMES:
                continue
            value = pair.get("value")
            if isinstance(value, dict) and isinstance(value.get("stringValue"), str):
                values.setdefault(pair["key"], []).append((number, value))
    for found in values.values():
        _join_neighbours(
            found,
            lambda value: str(value["stringValue"]),
            lambda value, text: value.__setitem__("stringValue", text),
        )
    return records


def _join_neighbours(
    found: list[tuple[int, Any]], read: Callable[[Any], str], write: Callable[[Any, str], None]
) -> None:
    """Redacts across the boundaries of values that stand in records next to each other."""
    for (before, first), (after, second) in itertools.pairwise(found):
        if after != before + 1:
            continue
        texts = [read(first), read(second)]
        for holder, old, new in zip((first, second), texts, redact_split(texts), strict=True):
            if new != old:
                write(holder, new)


def _labels(owner: Any) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in _list(owner.get("attributes")) if isinstance(owner, dict) else ():
        if isinstance(pair, dict) and isinstance(pair.get("value"), dict):
            value = pair["value"].get("stringValue")
            if isinstance(value, str) and isinstance(pair.get("key"), str):
                labels[pair["key"]] = value
    return labels


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _no_label(_name: str) -> str:
    return ""
