"""Logged turns as NumPy columns: what routing, replay and estimation read.

Rows are in total order (session, agent, started_at_us, sequence, turn_id), so that replay never
depends on how ties in time happened to fall. A *segment* is one agent of one session (the main
loop, one subagent, or the session's auxiliary requests): routes and prompt caches live in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loop.domain.errors import BadInput
from loop.domain.policies import AUXILIARY_UNIT, Decision, Estimator, RouteRequest, RoutingPolicy
from loop.domain.turns import Turn
from optimizers.turn_columns import (
    Integers,
    TextColumn,
    code_type,
    fill_texts,
    narrow,
    read_booleans,
    read_integers,
    read_texts,
    replace_texts,
)

Booleans = NDArray[np.bool_]

TEXTS = ("requested_model", "request_class", "agent_name", "org_path", "repository", "effort")
TOKEN_CLASSES = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_5m_tokens",
    "cache_creation_1h_tokens",
)
TERMS = ("speed", "service_tier", "inference_geo")
COLUMNS = (
    "turn_id",
    "request_id",
    "session_id",
    "agent_id",
    "started_at_us",
    "sequence",
    "served_model",
    *TEXTS,
    *TOKEN_CLASSES,
    *TERMS,
    "web_search_requests",
    "prompt_chars",
    "starts_prompt",
    "cost_microusd",
    "policy_serial",
    "arm",
)
_LOGGED_MEASURES = ("total_input_tokens", "uncached_input_tokens", "new_tokens", "prompt_tokens")
_DECIDED_NUMBERS = {  # of a frame, and the decision's own name
    "serial": "serial",
    "propensity": "propensity",
    "total_input_tokens": "total_input_tokens",
    "uncached_input_tokens": "uncached_input_tokens",
    "new_tokens": "new_tokens",
    "logged_prompt_tokens": "prompt_tokens",
}
_DECIDED_TEXTS = ("arm", "requested_model", "routed_model", "request_class", "agent_name")
NOT_LOGGED = -1


@dataclass(frozen=True, slots=True, eq=False)
class TurnFrame:
    """``n`` turns of ``s`` sessions. Every array has shape ``(n,)`` and is read only by agreement.

    The measures are the request's own where a gateway logged its decision (an estimate made
    before the request was served), else they come from the usage that was billed.
    """

    session_ids: tuple[str, ...]  # (s,), sorted
    session: Integers  # index into session_ids, never decreasing
    agent: TextColumn
    segment: Integers  # 0, 1, 2 …, never decreasing
    started_at_us: Integers
    turn_ids: NDArray[np.object_]
    requested_model: TextColumn
    served_model: TextColumn
    request_class: TextColumn
    agent_name: TextColumn
    org_path: TextColumn
    repository: TextColumn
    effort: TextColumn
    logged_effort: TextColumn  # the one it was served at: as asked, or as its arm set it
    speed: TextColumn
    service_tier: TextColumn
    inference_geo: TextColumn
    web_search_requests: Integers
    input_tokens: Integers
    output_tokens: Integers
    cache_read_tokens: Integers
    cache_creation_5m_tokens: Integers
    cache_creation_1h_tokens: Integers
    total_input_tokens: Integers
    uncached_input_tokens: Integers
    new_tokens: Integers
    prompt_chars: Integers  # 0 where the length of the prompt is unknown
    logged_prompt_tokens: Integers  # NOT_LOGGED where no gateway decided
    turn_index: Integers  # position in the segment
    starts_user_turn: Booleans
    in_tool_loop: Booleans
    cost_microusd: Integers  # 0 where unpriced
    is_priced: Booleans
    serial: Integers  # NOT_LOGGED where no publication was in force
    arm: TextColumn
    propensity: NDArray[np.float64]  # NaN where none was logged
    routed_model: TextColumn  # "" where no gateway decided
    time_order: Integers | None  # rows in order of (session, time); None when that is row order

    def __len__(self) -> int:
        return len(self.session)

    @property
    def n_sessions(self) -> int:
        return len(self.session_ids)

    @classmethod
    def from_turns(cls, turns: Sequence[Turn], decisions: Sequence[Decision] = ()) -> TurnFrame:
        """Builds the frame from turn records in any order."""
        columns: dict[str, list[Any]] = {
            name: [getattr(turn.usage if name in TOKEN_CLASSES else turn, name) for turn in turns]
            for name in COLUMNS
        }
        return cls.from_columns(columns, decisions)

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, ArrayLike | TextColumn], decisions: Sequence[Decision] = ()
    ) -> TurnFrame:
        """Builds the frame from columns of the turn table (:data:`COLUMNS`), in any row order.

        ``decisions`` join by ``decision_id`` = ``request_id`` (or ``turn_id``). Missing text
        columns are taken as empty; raises :class:`BadInput` when an essential column is missing
        or the columns differ in length.
        """
        essential = ("session_id", "started_at_us", "served_model", *TOKEN_CLASSES)
        absent = [name for name in essential if name not in columns]
        if absent:
            raise BadInput(f"The turns lack the column {absent[0]}.")
        lengths = {name: len(columns[name]) for name in columns}  # type: ignore[arg-type]
        n = lengths["session_id"]
        odd = [name for name, length in lengths.items() if length != n]
        if odd:
            raise BadInput(f"The column {odd[0]} has {lengths[odd[0]]} values, not {n}.")
        return _build(columns, n, decisions)

    def measure(
        self, name: str, estimator: Estimator, rows: NDArray[np.int64] | None = None
    ) -> Integers:
        """One measure of input size, in tokens, for all turns or for some of them."""
        chosen: Any = slice(None) if rows is None else rows
        if name != "prompt_tokens":
            return np.asarray(getattr(self, name)[chosen])
        estimated = np.floor(self.prompt_chars[chosen] / estimator.chars_per_token)
        logged = self.logged_prompt_tokens[chosen]
        return np.asarray(np.where(logged == NOT_LOGGED, estimated.astype(logged.dtype), logged))

    def request(self, row: int, policy: RoutingPolicy) -> RouteRequest:
        """The request of one row as ``decide()`` takes it: the slow path, and the reference."""
        fields_by_name: dict[str, Any] = {name: getattr(self, name).at(row) for name in TEXTS}
        for name in _LOGGED_MEASURES:
            fields_by_name[name] = int(self.measure(name, policy.estimator)[row])
        return RouteRequest(
            **fields_by_name,
            session_id=self.session_ids[self.session[row]],
            agent_id=self.agent.at(row),
            turn_index=int(self.turn_index[row]),
            starts_user_turn=bool(self.starts_user_turn[row]),
            in_tool_loop=bool(self.in_tool_loop[row]),
        )

    @property
    def total_billed_tokens(self) -> Integers:
        """Tokens of all five classes, as billed, shape ``(n,)``."""
        total = self.input_tokens + self.output_tokens + self.cache_read_tokens
        return np.asarray(total + self.cache_creation_5m_tokens + self.cache_creation_1h_tokens)

    def session_starts(self) -> Integers:
        """The row of each session's first turn in time, shape ``(s,)``."""
        first = np.searchsorted(self.session, np.arange(self.n_sessions))
        return first if self.time_order is None else self.time_order[first]

    def of_sessions(self, chosen: Booleans) -> TurnFrame:
        """The turns of the chosen sessions (a mask of shape ``(s,)``)."""
        rows = chosen[self.session]
        parts: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, TextColumn):
                parts[item.name] = TextColumn(value.codes[rows], value.values)
            elif isinstance(value, np.ndarray) and item.name != "time_order":
                parts[item.name] = value[rows]
        new_code = narrow(np.cumsum(chosen) - 1)
        parts["session"] = new_code[parts["session"]]
        parts["segment"] = _dense(parts["segment"])
        parts["session_ids"] = tuple(
            name for name, keep in zip(self.session_ids, chosen, strict=True) if keep
        )
        if self.time_order is not None:
            new_row = narrow(np.cumsum(rows) - 1)
            parts["time_order"] = new_row[self.time_order[rows[self.time_order]]]
        return replace(self, **parts)


def _build(columns: Mapping[str, Any], n: int, decisions: Sequence[Decision]) -> TurnFrame:
    texts = {
        name: read_texts(columns.get(name), n) for name in ("served_model", "arm", *TEXTS, *TERMS)
    }
    # An old client does not say what was requested; what was served is the best that is known.
    texts["requested_model"] = fill_texts(texts["requested_model"], texts["served_model"])
    texts["routed_model"] = read_texts(None, n)
    session = read_texts(columns.get("session_id"), n, ordered=True)
    agent = read_texts(columns.get("agent_id"), n, ordered=True)
    turn_id = read_texts(columns.get("turn_id"), n, ordered=True)
    tokens = {name: narrow(read_integers(columns[name])) for name in TOKEN_CLASSES}
    uncached = tokens["input_tokens"]
    new = uncached + tokens["cache_creation_5m_tokens"] + tokens["cache_creation_1h_tokens"]
    cost = read_integers(columns.get("cost_microusd", np.full(n, np.nan)), missing=NOT_LOGGED)
    numbers: dict[str, Any] = {
        **tokens,
        "started_at_us": read_integers(columns["started_at_us"]),
        "total_input_tokens": new + tokens["cache_read_tokens"],
        "uncached_input_tokens": uncached.copy(),
        "new_tokens": new,
        "web_search_requests": read_integers(columns.get("web_search_requests", np.zeros(n))),
        "prompt_chars": read_integers(columns.get("prompt_chars", np.zeros(n))),
        "logged_prompt_tokens": np.full(n, NOT_LOGGED, np.int32),
        "starts_user_turn": read_booleans(columns.get("starts_prompt", np.zeros(n, bool))),
        "cost_microusd": np.maximum(cost, 0),
        "is_priced": cost != NOT_LOGGED,
        "serial": read_integers(columns.get("policy_serial", np.full(n, np.nan)), NOT_LOGGED),
        "propensity": np.full(n, np.nan),
    }
    if decisions:
        request_id = read_texts(columns.get("request_id"), n)
        _apply_decisions(decisions, turn_id, request_id, texts, numbers)

    is_auxiliary = texts["request_class"].equals("auxiliary")
    agent = _mark_auxiliary(agent, is_auxiliary)
    sequence = read_integers(columns.get("sequence", np.zeros(n)))
    by_time = _total_order(session.codes, numbers["started_at_us"], sequence, turn_id.codes)
    by_segment = _total_order(session.codes[by_time], agent.codes[by_time])
    rows = by_time[by_segment]
    time_order = None
    if not (by_segment[1:] > by_segment[:-1]).all():
        time_order = np.empty(n, np.int32)
        time_order[by_segment] = np.arange(n, dtype=np.int32)
    for name in list(numbers):  # one after the other: both copies at once would fill memory
        numbers[name] = _ordered(name, numbers.pop(name), rows)
    ordered: dict[str, Any] = {
        name: TextColumn(column.codes[rows], column.values) for name, column in texts.items()
    }
    agent = TextColumn(agent.codes[rows], agent.values)
    session_codes = session.codes[rows].astype(np.int32)
    places = session_codes.astype(np.int64) * max(1, len(agent.values)) + agent.codes
    segment = _dense(places)
    starts = np.flatnonzero(np.r_[True, segment[1:] != segment[:-1]]) if n else segment
    numbers["starts_user_turn"] |= is_auxiliary[rows]
    return TurnFrame(
        session_ids=session.values,
        session=session_codes,
        agent=agent,
        segment=segment,
        turn_ids=np.array(turn_id.values, object)[turn_id.codes[rows]],
        turn_index=narrow(np.arange(n) - starts[segment]) if n else segment,
        in_tool_loop=~numbers["starts_user_turn"],
        time_order=time_order,
        logged_effort=ordered["effort"],
        **ordered,
        **numbers,
    )


def _total_order(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """The rows in order of the keys, the first one leading. Rows that lie in order already, as
    the lake gives them, are not sorted."""
    n = len(keys[0])
    is_before, is_same = np.zeros(max(0, n - 1), bool), np.ones(max(0, n - 1), bool)
    for key in keys:
        is_before |= is_same & (key[:-1] < key[1:])
        is_same &= key[:-1] == key[1:]
    if (is_before | is_same).all():
        return np.arange(n)
    return np.lexsort(keys[::-1])


def _ordered(name: str, values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    values = values[rows]
    if values.dtype != np.int64 or name == "started_at_us":
        return values
    return narrow(values)


def _apply_decisions(
    decisions: Sequence[Decision],
    turn_id: TextColumn,
    request_id: TextColumn,
    texts: dict[str, TextColumn],
    numbers: dict[str, Any],
) -> None:
    """Puts what the gateway saw and chose in the place of what the turns say."""
    row_of: dict[str, int] = {}
    for column in (turn_id, request_id):
        names = np.array(column.values, object)[column.codes].tolist()
        row_of |= {name: row for row, name in enumerate(names) if name}
    joined = [(row_of[d.decision_id], d) for d in decisions if d.decision_id in row_of]
    rows = np.array([row for row, _ in joined], np.int64)
    for name, field in _DECIDED_NUMBERS.items():
        values = [getattr(decision, field) for _, decision in joined]
        column = numbers[name]
        if column.dtype == np.int32:
            column = column.astype(np.int64)
        column[rows] = values
        numbers[name] = column
    for name in _DECIDED_TEXTS:
        values = [getattr(decision, name) for _, decision in joined]
        texts[name] = replace_texts(texts[name], rows.tolist(), values)


def _mark_auxiliary(agent: TextColumn, is_auxiliary: Booleans) -> TextColumn:
    values = (*agent.values, AUXILIARY_UNIT)
    codes = agent.codes.astype(code_type(len(values)))
    codes[is_auxiliary] = len(agent.values)
    return TextColumn(codes, values)


def _dense(codes: Integers) -> Integers:
    """Numbers groups that lie together 0, 1, 2 …"""
    if len(codes) == 0:
        return np.zeros(0, np.int32)
    return np.append([0], np.cumsum(codes[1:] != codes[:-1])).astype(np.int32)
