"""The judge, its labels and its standing, as the API and the command line show and change them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loop.control.labels import Anchor, Label
from loop.domain.errors import BadInput, NotFound
from loop.lake.rows import day_of
from loop.service.assemble import Parts
from loop.service.documents import flag, person, text
from loop.service.settings import Settings

MAX_LABELS = 1000
MIN_ANCHORS, MAX_ANCHORS = 5, 500
WORDS = {"good": 1.0, "bad": 0.0}
RUN_FIELDS = frozenset(
    {"rubrics", "sessions", "limit", "now", "dry_run", "count_tokens", "anchors"}
)


class JudgeDesk:
    """Each method answers as the API does."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def show(self) -> dict[str, Any]:
        """Whether there is a judge, what it spent today, what is on its way, and how it stands."""
        parts, settings = self._parts, self._parts.settings
        today = day_of(time.time_ns() // 1000)
        spent = parts.judge_calls.spent(today)
        budget = round(settings.judge_budget_usd * 1e6)
        return {
            "model": settings.judge_model,
            "off_because": why_off(settings),
            "day": today,
            "spent_microusd": sum(spent.values()),
            "budget_microusd": budget,
            "left_microusd": max(0, budget - sum(spent.values())),
            "by_path": [
                {"org_path": path, "spent_microusd": amount}
                for path, amount in sorted(spent.items())
            ],
            "on_its_way": len(parts.judge_calls.unsettled()),
            "quality_measure": settings.quality_measure,
            "labels": self._count_labels(),
        }

    def _count_labels(self) -> list[dict[str, Any]]:
        """How many labels are in force, by rubric and where they came from."""
        groups: dict[tuple[str, str], list[Label]] = {}
        for label in self._parts.labels.current():
            groups.setdefault((label.rubric, label.source), []).append(label)
        return [
            {
                "rubric": rubric,
                "source": source,
                "labels": len(group),
                "sessions": len({label.session_id for label in group}),
                "labellers": len({label.labeller for label in group}),
                "mean": sum(label.value for label in group) / len(group),
                "newest_at_us": max(label.at_us for label in group),
            }
            for (rubric, source), group in sorted(groups.items())
        ]

    def run(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Judges, or says what that would cost (``dry_run``). Rows by rubric."""
        from loop.service import judge_stage
        from loop.service.judge_planning import read_order

        parts = self._parts
        if unknown := set(document) - RUN_FIELDS:
            raise BadInput(f"A run of the judge has no {sorted(unknown)[0]!r}.")
        dry_run, counted = flag(document, "dry_run"), flag(document, "count_tokens")
        orders = read_order(document)
        if not parts.settings.judge_org_paths:
            raise BadInput(
                "No part of the organization has its texts judged.",
                fix="Set TURNWISE_JUDGE_ORG_PATHS to paths whose texts may be sent, or to *.",
            )
        rows = []
        with parts.work.running("judge"):
            for order in orders:
                if flag(document, "anchors"):
                    report = judge_stage.rejudge_anchors(
                        parts, order.rubric.name, in_batch=order.in_batch, note=parts.work.note
                    )
                else:
                    report = judge_stage.judge(
                        parts,
                        order,
                        dry_run=dry_run,
                        count_tokens=counted,
                        note=parts.work.note,
                    )
                rows.append(report.to_document())
        return {"rows": rows, "next": None}

    def collect(self) -> dict[str, Any]:
        """Takes in the batches that have ended."""
        from loop.service.judge_results import collect

        return {
            "settled": collect(self._parts),
            "on_its_way": len(self._parts.judge_calls.unsettled()),
        }

    def calibration(self) -> dict[str, Any]:
        """How each judge that has judged stands, the newest first."""
        from evaluators.calibration.standing import judge_standings
        from loop.service.quality_source import calibration_limits

        parts = self._parts
        limits = calibration_limits(parts.settings)
        standings = judge_standings(parts.judge_calls.judged(), parts.labels.current(), limits)
        rows = []
        for standing in standings:
            agreement = standing.agreement
            row = asdict(standing)
            row["agreement"] |= {
                "exact_share": agreement.exact_share,
                "bad_share": agreement.bad_share,
                "judged_bad_share": agreement.judged_bad_share,
                "sensitivity": agreement.sensitivity,
                "specificity": agreement.specificity,
            }
            row["drift"] |= {
                "flip_share": standing.drift.flip_share,
                "is_alarm": standing.drift.is_alarm,
            }
            rows.append(row | {"may_decide": not standing.refusals})
        return {"rows": rows, "limits": asdict(limits), "next": None}

    def list_labels(self, rubric: str | None) -> dict[str, Any]:
        rows = [asdict(label) for label in self._parts.labels.current(rubric)]
        return {"rows": rows, "next": None}

    def add_labels(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Adds ``rows`` of labels by ``actor``, all or none."""
        labeller = person(document).name
        rows = document.get("rows")
        if not isinstance(rows, list) or not 0 < len(rows) <= MAX_LABELS:
            raise BadInput(f"rows must be a list of 1 to {MAX_LABELS:,} labels.")
        source = text(document, "source", "api")
        labels = [
            read_label(row, f"label {number}", labeller, source)
            for number, row in enumerate(rows, 1)
        ]
        return {"rows": len(labels), "new": self._parts.labels.add(labels)}

    def freeze_anchors(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Makes labelled sessions the anchors of a rubric: all that are, or ``sessions``."""
        from evaluators.contract import digest_trace
        from evaluators.judge.rubrics import find_rubric

        rubric = find_rubric(text(document, "rubric"))
        named = document.get("sessions")
        labelled = {label.session_id for label in self._parts.labels.current(rubric.name)}
        wanted = labelled if named is None else set(named)
        if missing := sorted(wanted - labelled):
            raise NotFound(f"Session {missing[0]} has no label of {rubric.name}.")
        traces = self._parts.lake.load_traces(sorted(wanted)[:MAX_ANCHORS])
        if len(traces) < MIN_ANCHORS:
            raise BadInput(
                f"{len(traces)} labelled sessions can be anchors; {MIN_ANCHORS} are needed.",
                fix="Label more sessions.",
            )
        now_us = time.time_ns() // 1000
        by = person(document).name
        anchors = [
            Anchor(rubric.name, trace.session_id, digest_trace(trace), by, now_us)
            for trace in traces
        ]
        self._parts.labels.freeze(anchors)
        return {"rubric": rubric.name, "anchors": len(anchors)}


def why_off(settings: Settings) -> str:
    """Why nothing is judged by itself; empty when it is."""
    if not settings.anthropic_api_key:
        return "There is no key of the model API (ANTHROPIC_API_KEY)."
    if not settings.judge_org_paths:
        return "No part of the organization has its texts judged (TURNWISE_JUDGE_ORG_PATHS)."
    return ""


def read_label(row: object, name: str, labeller: str, source: str) -> Label:
    """One label of a request. ``value`` is a number, ``good``, ``bad`` or a verdict of the rubric;
    the item is a key, or the words of a claim and its turn. Raises :class:`BadInput`."""
    from evaluators.judge.questions import key_of
    from evaluators.judge.rubrics import find_rubric

    if not isinstance(row, dict):
        raise BadInput(f"{name} must be an object.")
    known = {"session_id", "rubric", "value", "item", "turn_id", "claim", "note", "probability"}
    if unknown := set(row) - known - {"labeller"}:
        raise BadInput(f"{name}: a label has no {sorted(map(str, unknown))[0]!r}.")
    rubric = find_rubric(text(row, "rubric"))
    item = row.get("item") or ""
    if not item and (row.get("claim") or row.get("turn_id")):
        item = key_of(text(row, "turn_id"), text(row, "claim"))
    try:
        return Label(
            session_id=text(row, "session_id"),
            rubric=rubric.name,
            value=_value(row.get("value"), rubric.verdicts),
            labeller=str(row.get("labeller") or labeller),
            item=str(item),
            note=str(row.get("note") or ""),
            probability=_number(row.get("probability"), 1.0),
            source=source[:40],
        )
    except BadInput as error:
        raise BadInput(f"{name}: {error.what}", why=error.why, fix=error.fix) from error


def _value(given: object, verdicts: Mapping[str, Any]) -> float:
    if isinstance(given, str):
        word = given.strip()
        if word in WORDS:
            return WORDS[word]
        if word in verdicts:
            credit = verdicts[word].credit
            if credit is None:
                raise BadInput(f"{word!r} says nothing that could be compared.")
            return float(credit)
    return _number(given, None)


def _number(given: object, default: float | None) -> float:
    if given in (None, "") and default is not None:
        return default
    try:
        if isinstance(given, bool):
            raise ValueError
        return float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadInput(f"{given!r} is no number.", fix="Write 0 to 1, good or bad.") from None
