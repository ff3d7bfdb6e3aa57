"""What a judge is asked of a session: the sentences that it claims, or the calls that it made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluators.claims import read_claims
from evaluators.evidence import EDIT_TOOLS, SessionEvidence, Statement, Step

MAX_QUESTIONS = 16
MAX_WORDS = 400
LATER_WEIGHT, EARLIER_WEIGHT = 1.0, 0.5
"""Of a sentence in the last text before a human speaks again, and of one on the way there."""

_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.S)
_QUOTED_LINE = re.compile(r"(?m)^\s*>.*$")
_BLANKS = re.compile(r"[^\S\n]{2,}")
_SENTENCE_END = re.compile(r"(?<=[.!?])[ *_]{1,9}|\n")
_MARKUP = re.compile(r"^[\s#>*+\-•|\d.)]+|[\s*_|]+$")
_TELLING = re.compile(
    r"(?i)\brm\b|--force|--hard|\breset\b|\bcheckout\b|\brestore\b|\bdrop\b|\bdelete\b|\btruncate\b"
    r"|--no-verify|\bcurl\b|\bwget\b|\bscp\b|\bchmod\b|\bkill"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One item. ``words`` are shown; ``key`` names it for labels: the same words in the same turn
    have the same key. ``step`` is the place of the call that it is about or that came last before
    it, -1 for none. ``weight`` is what it counts in the session's value."""

    key: str
    words: str
    turn_id: str
    position: int
    step: int
    weight: float


@dataclass(frozen=True, slots=True)
class Questions:
    """``left_out``: the weight of what there was no room for."""

    asked: tuple[Question, ...]
    left_out: float = 0.0


def key_of(turn_id: str, words: str) -> str:
    """The key of an item, 16 hex digits: labels name their item by it."""
    said = f"{turn_id}\n{_clip(words)}".encode("utf-8", "replace")
    return hashlib.blake2b(said, digest_size=8).hexdigest()


def ask_claims(evidence: SessionEvidence) -> Questions:
    """The sentences of last texts, and of earlier texts those that the claim grammar knows."""
    places = [step.position for step in evidence.steps]
    found: dict[str, Question] = {}
    for statement in evidence.statements:
        weight = LATER_WEIGHT if statement.is_last else EARLIER_WEIGHT
        for words in _sentences(statement):
            key = key_of(statement.turn_id, words)
            step = sum(place < statement.position for place in places) - 1
            question = Question(key, words, statement.turn_id, statement.position, step, weight)
            found.setdefault(key, question)
    ranked = sorted(
        found.values(), key=lambda one: (-one.weight, not read_claims(one.words), -one.position)
    )
    asked = sorted(ranked[:MAX_QUESTIONS], key=lambda one: one.position)
    return Questions(tuple(asked), sum(one.weight for one in ranked[MAX_QUESTIONS:]))


def ask_calls(evidence: SessionEvidence) -> Questions:
    """The tool calls: all of a short session, of a long one those that tell more often and the
    rest evenly, weighed so that the mean stands for all calls."""
    places = [place for place, step in enumerate(evidence.steps) if not step.tool.call.inferred]
    telling = [place for place in places if _is_telling(evidence.steps, place)]
    others = [place for place in places if place not in set(telling)]
    room = MAX_QUESTIONS - min(len(others), MAX_QUESTIONS // 2)
    told = _spread(telling, room)
    asked: list[Question] = []
    for chosen, group in ((told, telling), (_spread(others, MAX_QUESTIONS - len(told)), others)):
        for place in chosen:
            step = evidence.steps[place]
            words = describe_call(step)
            key = key_of(step.turn_id, step.tool.call.tool_use_id)
            weight = len(group) / len(chosen)
            asked.append(Question(key, words, step.turn_id, step.position, place, weight))
    return Questions(tuple(sorted(asked, key=lambda one: one.step)))


def describe_call(step: Step) -> str:
    """One call in one line: its tool and what it was given."""
    given = step.command or step.path or ""
    if not given and step.tool.input_state in ("present", "truncated"):
        given = step.tool.input_text
    return _clip(f"{step.tool.call.name or 'unnamed tool'} {given}".strip())


def _sentences(statement: Statement) -> Iterable[str]:
    prose = _QUOTED_LINE.sub("", _FENCE.sub("\n", statement.text))
    for sentence in _SENTENCE_END.split(_BLANKS.sub(" ", prose)):
        words = _clip(_MARKUP.sub("", sentence))
        if len(words) < 12 or words.endswith(("?", ":")) or " " not in words:
            continue
        if statement.is_last or read_claims(words):
            yield words


def _is_telling(steps: Sequence[Step], place: int) -> bool:
    step = steps[place]
    if step.failed or step.rejected or step.tool.call.name in EDIT_TOOLS:
        return True
    if step.command and _TELLING.search(step.command):
        return True
    same = (step.tool.call.name, step.tool.input_text)
    return bool(step.tool.input_text) and any(
        (other.tool.call.name, other.tool.input_text) == same for other in steps[:place]
    )


def _spread(places: Sequence[int], count: int) -> list[int]:
    """``count`` of them, evenly."""
    if len(places) <= count:
        return list(places)
    return [places[(2 * number + 1) * len(places) // (2 * count)] for number in range(count)]


def _clip(words: str) -> str:
    shown = "".join(char if char.isprintable() else " " for char in words).strip()
    return shown if len(shown) <= MAX_WORDS else shown[: MAX_WORDS - 1] + "…"
