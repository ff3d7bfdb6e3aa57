"""Attribution that changed: which sessions it touches, and having them assembled again.

Nothing is edited: the sessions are named in the journal, the drainer assembles them by what is in
force by then, and turns that come out differently are appended at a new revision.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from collectors.attribution import Attribution, lookup_in
from collectors.session_assembly import assemble_session
from loop.access.attribution_rules import AttributionRule
from loop.domain.errors import Conflict
from loop.domain.turns import UNATTRIBUTED, Turn
from loop.service.assemble import Parts

STAGE = "attribute"
SETTLED_SECONDS = 4.0  # by then every process has read the change
_BATCH = 200
_OPEN = f"'{UNATTRIBUTED}' IN (org_path, developer, repository)"
IDENTIFYING = (
    "user.email",
    "user.email_domain",
    "user.id",
    "user.account_uuid",
    "organization.id",
    "department",
    "team.id",
    "cost_center",
    "service.name",
    "host.name",
    "vcs.repository.url.full",
    "vcs.repository.name",
    "cwd",
)
"""The attributes that say most of who sends what nobody is charged for."""
MAX_SESSIONS_LOOKED_AT = 2_000


def attribute_changes(parts: Parts, settled_seconds: float = SETTLED_SECONDS) -> bool:
    """Has the sessions assembled again that changes since the last time may touch."""
    done = parts.stage_log.read(STAGE)
    latest_us = time.time_ns() // 1000 - round(settled_seconds * 1e6)
    records = [
        record for record in parts.access_log.records(done.revision) if record.at_us <= latest_us
    ]
    if not records:
        return False
    sessions: set[str] = set()
    for record in records:
        if "from" in record.details:
            condition = _OPEN if record.verb == "rule.add" else "true"
            sessions.update(_sessions_since(parts, record.details["from"], condition))
    for batch in _batches(sorted(sessions)):
        parts.journal.append_sync("reassembly", "json", orjson.dumps(batch))
    parts.stage_log.record(
        STAGE,
        revision=records[-1].sequence,
        at_us=time.time_ns() // 1000,
        done=len(sessions),
        note=f"{len(sessions)} sessions after {len(records)} changes",
    )
    return False


def attribute_now(parts: Parts) -> bool:
    """The same at once, where no other process drains; whether it was done."""
    try:
        parts.drainer.drain_once()
        attribute_changes(parts, settled_seconds=0)
        parts.drainer.drain_once()
        parts.drainer.close()
    except Conflict:
        return False  # the scheduled stage and the draining process do it within seconds
    return True


def preview_rule(parts: Parts, rule: AttributionRule) -> dict[str, Any]:
    """What a rule would resolve: turns, sessions, cost, and the rows by where it puts them."""
    known = parts.attribution()
    with_rule = Attribution(
        known.developer_attributes, known.org_path_attributes, known.directory.with_rule(rule)
    )
    rows: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    touched: set[str] = set()
    for batch in _batches(_sessions_since(parts, rule.valid_from, _OPEN)):
        events = parts.lake.events_of(batch)
        stored = {(turn.session_id, turn.turn_id): turn for turn in parts.lake.turns_of(batch)}
        for session_id in batch:
            for turn in assemble_session(events[session_id], with_rule).turns:
                before = stored.get((session_id, turn.turn_id))
                if before is None or _owner(before) == _owner(turn):
                    continue
                touched.add(session_id)
                counts = rows[_owner(turn)]
                counts[0] += 1
                counts[1] += before.cost_microusd or 0
    listed = [
        {
            "org_path": org_path,
            "developer": developer,
            "repository": repository,
            "turns": turns,
            "cost_microusd": cost,
        }
        for (org_path, developer, repository), (turns, cost) in sorted(rows.items())
    ]
    return {
        "words": rule.words(),
        "sessions": len(touched),
        "turns": sum(row["turns"] for row in listed),
        "cost_microusd": sum(row["cost_microusd"] for row in listed),
        "rows": listed,
    }


def unattributed(parts: Parts, since: str | None = None) -> dict[str, Any]:
    """What nobody is charged for, with the values seen in the records that could say who it is.

    ``rows``: attribute, value, turns, sessions and cost, the dearest first; a turn is in one row of
    each attribute that its session has. Of more than :data:`MAX_SESSIONS_LOOKED_AT` sessions the
    dearest are looked at.
    """
    day = "AND day >= ?" if since else ""
    sessions = parts.lake.query(
        f"""SELECT session_id, count(*) AS turns,
            CAST(coalesce(sum(cost_microusd), 0) AS BIGINT) AS cost_microusd
        FROM turns WHERE org_path = '{UNATTRIBUTED}' {day}
        GROUP BY session_id ORDER BY cost_microusd DESC, session_id""",  # noqa: S608
        [since] if since else [],
    )
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    looked_at = sessions[:MAX_SESSIONS_LOOKED_AT]
    for batch in _batches([row["session_id"] for row in looked_at]):
        events = parts.lake.events_of(batch)
        amounts = {row["session_id"]: row for row in looked_at if row["session_id"] in events}
        for session_id in batch:
            lookup = lookup_in(events[session_id])
            for name in IDENTIFYING:
                if value := lookup(name):
                    counts = sums[name, value]
                    counts[0] += amounts[session_id]["turns"]
                    counts[1] += 1
                    counts[2] += amounts[session_id]["cost_microusd"]
    rows: list[dict[str, Any]] = [
        {
            "attribute": name,
            "value": value,
            "turns": turns,
            "sessions": count,
            "cost_microusd": cost,
        }
        for (name, value), (turns, count, cost) in sums.items()
    ]
    rows.sort(key=lambda row: (-row["cost_microusd"], row["attribute"], row["value"]))
    return {
        "turns": sum(row["turns"] for row in sessions),
        "sessions": len(sessions),
        "sessions_looked_at": len(looked_at),
        "cost_microusd": sum(row["cost_microusd"] for row in sessions),
        "rows": rows,
        "next": None,
    }


def _sessions_since(parts: Parts, day: str, condition: str) -> list[str]:
    rows = parts.lake.query(
        f"SELECT DISTINCT session_id FROM turns WHERE day >= ? AND {condition}",  # noqa: S608
        [day],
    )
    return sorted(row["session_id"] for row in rows)


def _owner(turn: Turn) -> tuple[str, str, str]:
    return turn.org_path, turn.developer, turn.repository


def _batches(session_ids: Iterable[str]) -> Iterator[list[str]]:
    ids = list(session_ids)
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
