"""Decisions: what gateways chose, appended once per journal position."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from loop.domain.policies import Decision
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_rows
from loop.lake.rows import plain, to_arrow
from loop.lake.schemas import DECISIONS

_FIELDS = tuple(name for name in DECISIONS.record_names() if name not in ("day", "fixes"))
_LATER = frozenset(("org_path", "repository"))  # since version 2


class DecisionTable:
    """The only writer of ``decisions``."""

    def __init__(self, log: DeltaLog, queries: LakeQueries) -> None:
        self._log = log
        self._queries = queries

    def write(self, decisions: Sequence[Decision], *, journal: str, position: int) -> None:
        """Appends decisions, unless that position of the journal is already in."""
        with self._log.held():
            done = self._log.transaction_number(journal)
            if done is not None and done >= position:
                return
            rows = [plain(d, _FIELDS) | {"fixes": list(d.fixes)} for d in decisions]
            self._log.append(to_arrow(DECISIONS, rows), transaction=(journal, position), empty=True)

    def select(
        self, session_ids: Collection[str] | None = None, rollout_id: str | None = None
    ) -> list[Decision]:
        """The decisions, each once, in order of (session, time, id)."""
        where, parameters = "", []
        if rollout_id is not None:
            where, parameters = "WHERE rollout_id = ?", [rollout_id]
        table = self._queries.run(
            f"SELECT * FROM decisions {where} ORDER BY session_id, at_us, decision_id",  # noqa: S608
            parameters,
            sessions=session_ids,
        )
        return [_to_decision(row) for row in to_rows(table)]


def _to_decision(row: dict[str, Any]) -> Decision:
    """A column that a row is too old to have reads as the field's default."""
    known = {name: row[name] for name in _FIELDS if row[name] is not None or name not in _LATER}
    return Decision(**known, fixes=tuple(row["fixes"]))
