"""Public sets of single texts: what the deterministic faithfulness evaluator says of them.

These are no agent sessions. Where a set gives a source, it stands in the trace as the result of a
``Read`` and the text as the answer after it; where it gives none, nothing stands there, and the
evaluator must say so. Beside it stand lexical floors, which read words and numbers and understand
nothing: a score on these sets is worth something only above them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.public_classifier import measure_auroc
from bench.public_data import read_rows
from bench.public_traces import START_US, make_turn
from evaluators.faithfulness import Faithfulness
from loop.domain.scores import Score
from loop.domain.turns import Prompt, SessionTrace, ToolCall, ToolEvidence

_WORD = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class JudgedText:
    """``source`` is ``None`` where the set gives none; ``group`` is resampled whole."""

    name: str
    source: str | None
    text: str
    is_good: bool
    group: str
    task: str = ""
    asked: str = ""


def summedits(data: Path) -> list[JudgedText]:
    """Summaries of documents, consistent with them or with one fact changed."""
    return [
        JudgedText(
            row["id"],
            row["doc"],
            row["summary"],
            bool(row["label_consistent"]),
            row["doc_id"],
            row["domain"],
        )
        for row in read_rows(data, "summedits/data.parquet")
    ]


def factool(data: Path) -> list[JudgedText]:
    """Answers to questions of knowledge, code, arithmetic and literature; none has a source."""
    judged = []
    for row in read_rows(data, "factool/data.parquet"):
        record = json.loads(row["record_json"])
        judged.append(
            JudgedText(
                row["id"],
                None,
                str(record["response"]),
                bool(record["label"]),
                row["id"],
                row["task"],
                str(record["prompt"]),
            )
        )
    return judged


def halueval(data: Path) -> list[JudgedText]:
    """Answers of ChatGPT to instructions, without any source."""
    return [
        JudgedText(
            row["id"], None, row["response"], not row["hallucination"], row["id"],
            asked=row["user_query"],
        )
        for row in read_rows(data, "halueval_general/data.parquet")
    ]  # fmt: skip


SETS: dict[str, Callable[[Path], list[JudgedText]]] = {
    "summedits": summedits,
    "factool": factool,
    "halueval_general": halueval,
}


def to_trace(item: JudgedText) -> SessionTrace:
    turns = []
    if item.source is not None:
        read = ToolEvidence(
            ToolCall(f"{item.name}.read", "Read", success=True),
            json.dumps({"file_path": "/srv/source.txt"}),
            "present",
            item.source,
            "present",
        )
        turns.append(make_turn(item.name, 0, tools=[read]))
    turns.append(make_turn(item.name, len(turns), text=item.text))
    prompts = ()
    if item.asked:
        at_us = START_US - 1
        prompts = (Prompt(f"{item.name}.p", at_us, item.asked, "present", len(item.asked)),)
    return SessionTrace(item.name, tuple(turns), prompts)


def word_overlap(item: JudgedText) -> float:
    """The share of the text's words that the source has."""
    return _share(_WORD, item.text.lower(), (item.source or "").lower())


def number_overlap(item: JudgedText) -> float:
    """The share of the text's numbers that the source has; 1 without numbers."""
    return _share(_NUMBER, item.text, item.source or "")


def _share(pattern: re.Pattern[str], text: str, source: str) -> float:
    found = set(pattern.findall(text))
    return len(found & set(pattern.findall(source))) / len(found) if found else 1.0


def measure_texts(items: Sequence[JudgedText], draws: int) -> dict[str, Any]:
    """Scored share, reasons for the rest, verdicts, and floors where there is a source."""
    evaluator = Faithfulness()
    scores = [evaluator.evaluate(to_trace(item)) for item in items]
    scored = [(item, s.value) for item, s in zip(items, scores, strict=True) if s.value is not None]
    rows = [{"predictor": "faithfulness", **_auroc(scored, draws)}]
    if items[0].source is not None:
        for name, floor in (("word overlap", word_overlap), ("number overlap", number_overlap)):
            rows.append({"predictor": name, **_auroc([(i, floor(i)) for i in items], draws)})
    rows.append({"predictor": "shorter text", **_auroc([(i, -len(i.text)) for i in items], draws)})
    by_task: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        by_task.setdefault(item.task, []).append(place)
    return {
        "texts": len(items),
        "good": sum(item.is_good for item in items),
        "scored": len(scored),
        "rows": rows,
        "unscored": _reasons(scores),
        "verdicts": _verdicts(items, scores),
        "tasks": [
            {
                "task": task,
                "texts": len(places),
                "good_share": float(np.mean([items[place].is_good for place in places])),
                "scored": sum(scores[place].is_scored for place in places),
            }
            for task, places in sorted(by_task.items())
            if task
        ],
    }


def _auroc(rows: Sequence[tuple[JudgedText, float]], draws: int) -> dict[str, Any]:
    good = [item.is_good for item, _ in rows]
    groups = [item.group for item, _ in rows]
    return asdict(measure_auroc([value for _, value in rows], good, groups, draws=draws))


def _reasons(scores: Sequence[Score]) -> list[dict[str, Any]]:
    counted = Counter(score.unscored_reason for score in scores if not score.is_scored)
    return [
        {"evaluator": "faithfulness", "reason": reason, "runs": count}
        for reason, count in counted.most_common()
    ]


def _verdicts(items: Sequence[JudgedText], scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Findings by verdict, in good texts and in bad ones: claims that the grammar read there."""
    good, bad = Counter[str](), Counter[str]()
    for item, score in zip(items, scores, strict=True):
        (good if item.is_good else bad).update(finding.verdict for finding in score.findings)
    return [
        {"verdict": verdict, "in_good": good[verdict], "in_bad": bad[verdict]}
        for verdict in sorted({*good, *bad})
    ]
