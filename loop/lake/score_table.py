"""Scores: appended, never edited; the latest of each (session, evaluator) is current."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from loop.domain.scores import EvidenceUsed, Finding, JudgementIdentity, Score
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_columns, to_rows
from loop.lake.rows import plain, to_arrow
from loop.lake.schemas import EVIDENCE_USED, FINDING, SCORES

_NESTED = ("day", "findings", "evidence_used")
_FIELDS = tuple(name for name in SCORES.record_names() if name not in _NESTED)
_FINDING = tuple(field.name for field in FINDING)
_EVIDENCE_USED = tuple(field.name for field in EVIDENCE_USED)
_LATER = frozenset(("config_digest", "cost_microusd", "rows_digest"))  # since version 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """A score without its findings: what was judged, by whom, and how it came out."""

    identity: JudgementIdentity
    input_digest: str
    rows_digest: str
    value: float | None


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

    def judgements(self, session_ids: Collection[str]) -> dict[str, dict[str, Judgement]]:
        """The latest scores by session and evaluator, without their findings."""
        table = self._queries.run(
            """SELECT session_id, evaluator, evaluator_version, coalesce(config_digest, ''),
                input_digest, coalesce(rows_digest, ''), value FROM scores""",
            sessions=session_ids,
        )
        found: dict[str, dict[str, Judgement]] = {}
        for session_id, evaluator, version, config, inputs, rows, value in zip(
            *to_columns(table).values(), strict=True
        ):
            identity = JudgementIdentity(evaluator, version, config)
            found.setdefault(session_id, {})[evaluator] = Judgement(identity, inputs, rows, value)
        return found


def _to_row(score: Score) -> dict[str, Any]:
    findings = []
    for finding in score.findings:
        findings.append(plain(finding, _FINDING) | {"evidence": list(finding.evidence)})
    used = [plain(item, _EVIDENCE_USED) for item in score.evidence_used]
    return plain(score, _FIELDS) | {"findings": findings, "evidence_used": used}


def _to_score(row: dict[str, Any]) -> Score:
    findings = tuple(
        Finding(**(finding | {"evidence": tuple(finding["evidence"])}))
        for finding in row["findings"]
    )
    if row["evidence_used"] is None:  # of version 1: what it lacks reads as the field's default
        return Score(**{n: row[n] for n in _FIELDS if n not in _LATER}, findings=findings)
    used = tuple(EvidenceUsed(**item) for item in row["evidence_used"])
    return Score(**{n: row[n] for n in _FIELDS}, findings=findings, evidence_used=used)
