"""Turns and texts between records and the columns of their tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from loop.domain.turns import Content, TokenUsage, ToolCall, Turn
from loop.lake.rows import columns_of, values_of
from loop.lake.schemas import CONTENTS, TOOL_CALL, TURNS

_USAGE = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_5m_tokens",
    "cache_creation_1h_tokens",
)
_OWN = (  # of the table, not of the record
    "day",
    "revision",
    "commit",
    "removed",
    "digest",
    "supersedes_from_day",
    "supersedes_to_day",
)
_TURN = tuple(
    name for name in TURNS.record_names() if name not in (*_OWN, *_USAGE, "tool_calls", "sources")
)
_CONTENT = tuple(name for name in CONTENTS.record_names() if name not in _OWN)
_LATER = frozenset(
    (
        "message_id",
        "speed",
        "service_tier",
        "inference_geo",
        "usage_source",
        "cache_split_assumed",
        "web_search_requests",
        "charge_version",
        "device_id",
        "org_node_id",
        "attributed_by",
        "asserted_org_path",
    )
)  # since version 2
_call_values = values_of(tuple(field.name for field in TOOL_CALL))
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Turn)}
turn_values = values_of(tuple(_DEFAULTS))
content_values = values_of(tuple(field.name for field in dataclasses.fields(Content)))


def turn_order(turn: Turn) -> tuple[str, int, int, str]:
    return turn.session_id, turn.started_at_us, turn.sequence, turn.turn_id


def content_order(content: Content) -> tuple[Any, ...]:
    """Total: two texts that agree in all of it are the same text."""
    return content.at_us, content.sequence, content_values(content)


def read_contents(columns: Mapping[str, list[Any]]) -> list[Content]:
    """The texts in order of session and :func:`content_order`."""
    return _in_order(list(map(Content, *(columns[name] for name in _CONTENT))))


def _in_order(contents: list[Content]) -> list[Content]:
    """By session and :func:`content_order`, of which the last part is only looked at in a tie."""
    contents.sort(key=_place_of)
    start = 0
    for end in range(1, len(contents) + 1):
        if end < len(contents) and _place_of(contents[end]) == _place_of(contents[start]):
            continue
        if end - start > 1:
            contents[start:end] = sorted(contents[start:end], key=content_values)
        start = end
    return contents


_place_of = attrgetter("session_id", "at_us", "sequence")


def read_turns(columns: Mapping[str, list[Any]]) -> list[Turn]:
    """A column that a row is too old to have reads as the field's default."""
    made = dict(columns)
    for name in _LATER:
        if None in made[name]:
            default = _DEFAULTS[name]
            made[name] = [default if value is None else value for value in made[name]]
    made["usage"] = list(map(TokenUsage, *(columns[name] for name in _USAGE)))
    made["tool_calls"] = [
        tuple([ToolCall(**call) for call in calls]) if calls else ()
        for calls in columns["tool_calls"]
    ]
    made["sources"] = [tuple(sources or ()) for sources in columns["sources"]]
    return list(map(Turn, *(made[name] for name in _DEFAULTS)))


def turn_columns(turns: Sequence[Turn]) -> dict[str, list[Any]]:
    """The columns of turns, but for those that are the table's own."""
    columns = columns_of(turns, _TURN)
    columns |= columns_of([turn.usage for turn in turns], _USAGE)
    columns["tool_calls"] = [list(map(_call_values, turn.tool_calls)) for turn in turns]
    columns["sources"] = [turn.sources for turn in turns]
    return columns


def content_columns(contents: Sequence[Content]) -> dict[str, list[Any]]:
    """The columns of texts, but for those that are the table's own."""
    return columns_of(contents, _CONTENT)
