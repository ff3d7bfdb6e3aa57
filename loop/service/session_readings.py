"""What the API, the command line and the pages read about sessions."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loop.access.view import ALL_ROWS, View
from loop.control.labels import Label
from loop.domain.days import utc_day
from loop.domain.errors import BadInput, NotFound
from loop.domain.scores import QUALITY, Score
from loop.domain.turns import ToolEvidence, TracedTurn, Turn
from loop.lake import Lake

MAX_ROWS = 500
MAX_OFFSET = 2**53
_CHECKED_AT_ONCE = 50  # sessions whose events are held in memory
SORTS = {
    "started": "started_at_us DESC",
    "cost": "cost_microusd DESC NULLS LAST",
    "quality": "quality ASC NULLS LAST",
}
_MODEL = "coalesce(nullif(served_model, ''), requested_model)"
_SESSIONS = """
WITH quality AS (
    SELECT session_id, value AS quality FROM scores WHERE evaluator = '{quality}'
), sessions AS (
    SELECT
        session_id,
        min(started_at_us) AS started_at_us,
        max(ended_at_us) AS ended_at_us,
        arg_max(developer, started_at_us) AS developer,
        arg_max(org_path, started_at_us) AS org_path,
        arg_max(repository, started_at_us) AS repository,
        list_sort(list_distinct(list({model}))) AS models,
        count(*) AS turns,
        CAST(sum(len(tool_calls)) AS BIGINT) AS tool_calls,
        CAST(sum(len(list_filter(tool_calls, lambda call: call.success = false))) AS BIGINT)
            AS tool_errors,
        CAST(sum(CASE WHEN status = 'error' THEN attempts ELSE attempts - 1 END) AS BIGINT)
            AS failed_attempts,
        CAST(sum(input_tokens + cache_read_tokens + cache_creation_5m_tokens
            + cache_creation_1h_tokens) AS BIGINT) AS total_input_tokens,
        CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
        CAST(sum(cost_microusd) AS BIGINT) AS cost_microusd,
        count(*) FILTER (cost_microusd IS NULL) AS unpriced_turns,
        arg_max(arm, started_at_us) AS arm,
        arg_max(policy_version, started_at_us) AS policy_version
    FROM turns {where} GROUP BY session_id
)
SELECT sessions.*, quality.quality
FROM sessions LEFT JOIN quality USING (session_id)
ORDER BY {order}, session_id LIMIT ? OFFSET ?
"""
_FILTERS = {
    "session_id": "session_id = ?",
    "developer": "developer = ?",
    "repository": "repository = ?",
    "model": f"{_MODEL} = ?",
    "org": "(org_path = ? OR starts_with(org_path, ? || '/'))",
}


def list_sessions(
    lake: Lake,
    *,
    limit: int = 50,
    cursor: str | None = None,
    sort: str = "started",
    filters: Mapping[str, str | None] | None = None,
    members: Collection[str] | None = None,
    view: View = ALL_ROWS,
) -> dict[str, Any]:
    """One page of sessions, or of those among ``members``; ``next`` is the cursor of the page after
    it, or ``None``.

    A session shows what the view admits of it: its other turns are not counted.
    """
    if sort not in SORTS:
        raise BadInput(f"Unknown sort {sort!r}.", fix=f"One of {', '.join(SORTS)}.")
    if not 1 <= limit <= MAX_ROWS:
        raise BadInput(f"limit must lie between 1 and {MAX_ROWS}, not at {limit}.")
    offset = _read_cursor(cursor)
    condition, parameters = view.condition()
    conditions = [condition]
    for name, value in (filters or {}).items():
        if value is not None:
            conditions.append(_FILTERS[name])
            parameters += [value] * _FILTERS[name].count("?")
    if members is not None:
        conditions.append("session_id IN (SELECT unnest(?))")
        parameters.append(sorted(members))
    where = f"WHERE {' AND '.join(conditions)}"
    statement = _SESSIONS.format(quality=QUALITY, model=_MODEL, where=where, order=SORTS[sort])
    rows = lake.query(statement, [*parameters, limit + 1, offset])
    more, rows = len(rows) > limit, rows[:limit]
    _add_scores(lake, rows, view)
    return {"rows": rows, "next": _write_cursor(offset + limit) if more else None}


def show_session(
    lake: Lake,
    session_id: str,
    *,
    content: bool = False,
    view: View = ALL_ROWS,
    labels: Sequence[Label] = (),
) -> dict[str, Any]:
    """One session turn by turn; texts only when ``content`` is asked for.

    ``labels`` are what people said of it, which a view of all sees. Of a session that lies partly
    outside of the view, only the turns inside are shown, the prompts that these serve, and no
    scores: they were given for all of it. Raises :class:`NotFound`.
    """
    listed = list_sessions(lake, limit=1, filters={"session_id": session_id}, view=view)
    traces = lake.load_traces([session_id])
    if not listed["rows"] or not traces:
        raise NotFound(f"No session {session_id!r}.", fix="`turnwise session list` names them.")
    trace = traces[0]
    seen = [traced for traced in trace.turns if _is_seen(traced, view)]
    is_whole = len(seen) == len(trace.turns)
    served = {traced.turn.prompt_id for traced in seen}
    prompts = []
    for prompt in trace.prompts:
        if not is_whole and prompt.prompt_id not in served:
            continue
        row = asdict(prompt)
        if not content:
            del row["text"]
        prompts.append(row)
    return {
        "session": listed["rows"][0],
        "prompts": prompts,
        "turns": [_turn_row(traced, content=content) for traced in seen],
        "scores": [score_row(score) for score in lake.scores_of([session_id])] if is_whole else [],
        "labels": [asdict(label) for label in labels] if view.sees_all else [],
        "cross_check": cross_checks_of(lake, [session_id])[session_id] if is_whole else None,
    }


def list_disagreeing(
    lake: Lake,
    *,
    limit: int = 50,
    cursor: str | None = None,
    sort: str = "started",
    filters: Mapping[str, str | None] | None = None,
    members: Collection[str] | None = None,
    view: View = ALL_ROWS,
) -> dict[str, Any]:
    """The sessions whose sources tell different sums, each with its ``cross_check``.

    At most :data:`MAX_ROWS` sessions are looked at: a page may have fewer rows than asked for, or
    none, and yet a ``next``.
    """
    page = list_sessions(
        lake, limit=MAX_ROWS, cursor=cursor, sort=sort, filters=filters, members=members, view=view
    )
    whole = whole_sessions(lake, [row["session_id"] for row in page["rows"]], view)
    begin = _read_cursor(cursor)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(page["rows"]), _CHECKED_AT_ONCE):
        listed = page["rows"][start : start + _CHECKED_AT_ONCE]
        checks = cross_checks_of(lake, [row["session_id"] for row in listed])
        for position, row in enumerate(listed, start=start + 1):
            check = checks[row["session_id"]]
            if not check["agrees"] and row["session_id"] in whole:
                rows.append(row | {"cross_check": check})
            if len(rows) == limit:
                more = page["next"] is not None or position < len(page["rows"])
                return {"rows": rows, "next": _write_cursor(begin + position) if more else None}
    return {"rows": rows, "next": page["next"]}


def cross_checks_of(lake: Lake, session_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each session the sums that logs, metrics, spans and gateway tell, side by side."""
    from collectors.cross_checks import cross_check  # not needed by other reading commands

    events = lake.events_of(session_ids)
    turns: dict[str, list[Turn]] = defaultdict(list)
    for turn in lake.turns_of(session_ids):
        turns[turn.session_id].append(turn)
    return {name: cross_check(events[name], turns[name]).as_dict() for name in session_ids}


def whole_sessions(lake: Lake, session_ids: Collection[str], view: View) -> set[str]:
    """Those of the sessions of which the view admits every turn."""
    if view.sees_all or not session_ids:
        return set(session_ids)
    condition, parameters = view.condition()
    rows = lake.query(
        f"""SELECT session_id FROM turns WHERE session_id IN (SELECT unnest(?))
        GROUP BY session_id HAVING bool_and({condition})""",  # noqa: S608
        [sorted(session_ids), *parameters],
    )
    return {row["session_id"] for row in rows}


def _is_seen(traced: TracedTurn, view: View) -> bool:
    return view.sees_all or view.admits(traced.turn.org_path, utc_day(traced.turn.started_at_us))


def score_row(score: Score) -> dict[str, Any]:
    return asdict(score)


def _turn_row(traced: TracedTurn, *, content: bool) -> dict[str, Any]:
    row = asdict(traced.turn)
    row |= row.pop("usage")
    row.pop("tool_calls")
    row["model"] = traced.turn.model
    row["tools"] = [_tool_row(tool, content=content) for tool in traced.tools]
    if content:
        row["texts"] = list(traced.texts)
    return row


def _tool_row(tool: ToolEvidence, *, content: bool) -> dict[str, Any]:
    row = asdict(tool.call)
    row |= {"input_state": tool.input_state, "output_state": tool.output_state}
    if content:
        row |= {"input": tool.input_text, "output": tool.output_text}
    return row


def _add_scores(lake: Lake, rows: Sequence[dict[str, Any]], view: View) -> None:
    by_session: dict[str, dict[str, float | None]] = defaultdict(dict)
    whole = whole_sessions(lake, [row["session_id"] for row in rows], view)
    for score in lake.scores_of(whole):
        if score.evaluator != QUALITY:
            by_session[score.session_id][score.evaluator] = score.value
    for row in rows:
        row["scores"] = by_session.get(row["session_id"], {})
        if row["session_id"] not in whole:
            row["quality"] = None


def _read_cursor(cursor: str | None) -> int:
    if not cursor:
        return 0
    try:
        offset = json.loads(base64.urlsafe_b64decode(cursor.encode()))["offset"]
        if type(offset) is not int or not 0 <= offset <= MAX_OFFSET:
            raise ValueError("no offset")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput("The cursor can't be read.", fix="Begin again without one.") from error
    return offset


def _write_cursor(offset: int) -> str:
    return base64.urlsafe_b64encode(json.dumps({"offset": offset}).encode()).decode()
