"""What becomes of an answer: a score, or the reason why there is none.

An answer counts as a whole or not at all: a verdict outside the menu, an item that is missing,
doubled or unknown, a window that was never shown, or a control that was judged wrongly makes it
unscored. Nothing is guessed, and nothing that failed becomes a low score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evaluators.judge.questions import MAX_WORDS
from evaluators.judge.requests import AskedQuestion, JudgeRequest
from evaluators.judge.rubrics import MAX_NOTE_CHARS, Verdict
from loop.domain.scores import Finding, Score

Failure = Literal[
    "refusal",  # the model declined
    "cut_off",  # it ran into max_tokens or the context's end
    "not_json",
    "off_menu",  # another shape, verdict, item or window than was offered
    "failed_control",
    "rejected_request",  # the API called the request invalid
    "api_error",
    "expired",  # a batch ended before it came to this request
    "canceled",
    "changed",  # the session went on, or is gone, before the answer came
    "lost",  # sent, and no answer is known: the process ended meanwhile
]
_WORDS: Mapping[str, str] = {
    "refusal": "the model declined to answer",
    "cut_off": "the answer was cut off",
    "not_json": "the answer is not JSON",
    "off_menu": "the answer is not one of those that were offered",
    "failed_control": "an item with a known answer was judged wrongly",
    "rejected_request": "the API rejected the request",
    "api_error": "the API failed",
    "expired": "the batch expired first",
    "canceled": "the request was canceled",
    "changed": "the session changed before the answer came",
    "lost": "the answer was lost",
}
ENDS_WELL = frozenset({"end_turn", "stop_sequence"})
_STOPS: Mapping[str, Failure] = {
    "refusal": "refusal",
    "max_tokens": "cut_off",
    "model_context_window_exceeded": "cut_off",
}
CLAIM_CHARS = MAX_WORDS  # whole: by its words and turn people label an item


@dataclass(frozen=True, slots=True)
class Judgement:
    """``score`` is always there, unscored where ``failure`` says why. ``verdicts`` are by key."""

    score: Score
    failure: Failure | None
    verdicts: Mapping[str, str]


def read_answer(request: JudgeRequest, message: Mapping[str, Any]) -> Judgement:
    """``message`` is the Messages API's answer."""
    stop = str(message.get("stop_reason"))
    if stop not in ENDS_WELL:
        return failed(request, _STOPS.get(stop, "off_menu"))
    try:
        document = json.loads(text_of(message))
    except ValueError:
        return failed(request, "not_json")
    answers = _on_menu(request, document)
    if answers is None:
        return failed(request, "off_menu")
    for asked in request.asked:
        if asked.question is None and answers[asked.number].verdict.name not in asked.allowed:
            return failed(request, "failed_control")
    return _score(request, answers)


def failed(request: JudgeRequest, failure: Failure) -> Judgement:
    """The judgement of a call that gave none."""
    return Judgement(unscored(request, f"No judgement: {_WORDS[failure]}."), failure, {})


def unscored(request: JudgeRequest, reason: str) -> Score:
    return Score(
        session_id=request.session_id,
        evaluator=request.rubric.evaluator,
        evaluator_version=request.identity.version,
        value=None,
        unscored_reason=reason,
        input_digest=request.input_digest,
        config_digest=request.identity.digest,
        evidence_used=request.evidence_used,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    verdict: Verdict
    evidence: tuple[int, ...]
    note: str


def text_of(message: Mapping[str, Any]) -> str:
    """All text of a message of the API."""
    content = message.get("content")
    if not isinstance(content, list):
        return ""
    return "".join(
        str(block.get("text", ""))
        for block in content
        if isinstance(block, dict) and block.get("type") == "text"
    )


def _on_menu(request: JudgeRequest, document: Any) -> dict[int, _Answer] | None:
    if not isinstance(document, dict) or set(document) != {"answers"}:
        return None
    rows = document["answers"]
    if not isinstance(rows, list):
        return None
    answers: dict[int, _Answer] = {}
    for row in rows:
        if not isinstance(row, dict) or set(row) != {"item", "verdict", "evidence", "note"}:
            return None
        number, evidence, note = row["item"], row["evidence"], row["note"]
        verdict = request.rubric.verdicts.get(str(row["verdict"]))
        if (
            not isinstance(number, int)
            or isinstance(number, bool)
            or number in answers
            or verdict is None
            or not isinstance(note, str)
            or not isinstance(evidence, list)
            or any(type(one) is not int or one not in request.evidence for one in evidence)
        ):
            return None
        answers[number] = _Answer(verdict, tuple(dict.fromkeys(evidence)), note)
    return answers if set(answers) == {asked.number for asked in request.asked} else None


def _score(request: JudgeRequest, answers: Mapping[int, _Answer]) -> Judgement:
    earned = counted = hidden = 0.0
    findings: list[Finding] = []
    verdicts: dict[str, str] = {}
    for asked in request.asked:
        question, answer = asked.question, answers[asked.number]
        if question is None:
            continue
        verdict = answer.verdict
        verdicts[question.key] = verdict.name
        if verdict.credit is not None:
            counted += question.weight
            earned += question.weight * verdict.credit
        elif verdict.finding is not None:
            hidden += question.weight
        if verdict.finding is not None:
            findings.append(_finding(request, asked, answer))
    if request.speaks_to_judge:
        reason = "A text of the record seems to speak to whoever judges it; it is not followed."
        findings.append(Finding("noted", "text addressed to a judge", reason))
    if not counted:
        score = unscored(request, "The judge found nothing that the record could decide.")
        return Judgement(score, None, verdicts)
    score = Score(
        session_id=request.session_id,
        evaluator=request.rubric.evaluator,
        evaluator_version=request.identity.version,
        value=round(earned / counted, 6),
        coverage=round(counted / (counted + hidden + request.left_out), 6),
        findings=tuple(findings),
        input_digest=request.input_digest,
        config_digest=request.identity.digest,
        evidence_used=request.evidence_used,
    )
    return Judgement(score, None, verdicts)


def _finding(request: JudgeRequest, asked: AskedQuestion, answer: _Answer) -> Finding:
    assert asked.question is not None
    assert answer.verdict.finding is not None
    pointers = (request.evidence[number] for number in answer.evidence)
    return Finding(
        verdict=answer.verdict.finding,
        claim=_clip(asked.question.words, CLAIM_CHARS),
        reason=_clip(f"{answer.verdict.name}: {answer.note}", MAX_NOTE_CHARS),
        turn_id=asked.question.turn_id,
        evidence=tuple(dict.fromkeys(pointer for pointer in pointers if pointer)),
    )


def _clip(words: str, limit: int) -> str:
    shown = "".join(char if char.isprintable() else " " for char in words)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
