"""Scores: appended, never edited; the latest of each (session, evaluator) is current."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from loop.domain.scores import Finding, Score
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_rows
from loop.lake.rows import plain, to_arrow
from loop.lake.schemas import FINDING, SCORES

_FIELDS = tuple(name for name in SCORES.record_names() if name not in ("day", "findings"))
_FINDING = tuple(field.name for field in FINDING)


class ScoreTable:
    """The only writer of ``scores``."""

    def __init__(self, log: DeltaLog, queries: LakeQueries) -> None:
        self._log = log
        self._queries = queries

    def write(self, scores: Sequence[Score]) -> None:
        self._log.append(to_arrow(SCORES, [_to_row(score) for score in scores]))

    def current(self, session_ids: Collection[str] | None = None) -> list[Score]:
        """The latest scores in order of (session, evaluator); of all sessions by default."""
        table = self._queries.run(
            "SELECT * FROM scores ORDER BY session_id, evaluator", sessions=session_ids
        )
        return [_to_score(row) for row in to_rows(table)]


def _to_row(score: Score) -> dict[str, Any]:
    findings = []
    for finding in score.findings:
        findings.append(plain(finding, _FINDING) | {"evidence": list(finding.evidence)})
    return plain(score, _FIELDS) | {"findings": findings}


def _to_score(row: dict[str, Any]) -> Score:
    findings = tuple(
        Finding(**(finding | {"evidence": tuple(finding["evidence"])}))
        for finding in row["findings"]
    )
    return Score(**{name: row[name] for name in _FIELDS}, findings=findings)
