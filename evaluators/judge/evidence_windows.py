"""Windows of evidence: which parts of a session's tool results a judge is shown for an item.

Windows are chosen by what the item says, wherever in an output that stands. The words of each block
of lines are weighed by how rare they are in the session (as in TF-IDF), and the blocks that share
the most weight with the item come first; a claim about tests, a build or a linter also gets the end
of the last such run. Everything is deterministic: the same trace, the same windows.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluators.evidence import SessionEvidence, Step
from evaluators.runners import CheckKind

BLOCK_CHARS = 700
CHARS_PER_ITEM = 2_100
CHARS_IN_ALL = 24_000
MAX_TEXT_CHARS = 400_000
"""Of one input or output: more is cut in the middle before it is looked through."""

Side = Literal["input", "output"]
_TERM = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}|\d+(?:\.\d+)?")
_COMMON = frozenset((
    "the", "and", "that", "this", "with", "for", "from", "was", "were", "are", "has", "have", "had",
    "not", "now", "all", "its", "into", "also", "then", "than", "which", "when", "will", "been",
))  # fmt: skip
_KIND_HINTS: tuple[tuple[CheckKind, re.Pattern[str]], ...] = (
    ("tests", re.compile(r"(?i)\btests?\b|\bsuite\b|\bspecs?\b|\bpass(?:es|ed|ing)?\b|\bgreen\b")),
    ("lint", re.compile(r"(?i)\blint|\bruff\b|\beslint\b|\bclippy\b|\bwarnings?\b")),
    ("types", re.compile(r"(?i)\btypes?\b|\bmypy\b|\btsc\b|\bpyright\b")),
    ("build", re.compile(r"(?i)\bbuilds?\b|\bcompil")),
)


@dataclass(frozen=True, slots=True)
class Window:
    """Lines of one side of one call, as the judge sees them under ``number``."""

    number: int
    step_number: int
    tool_use_id: str
    side: Side
    text: str
    is_cut: bool  # not the whole of that side


@dataclass(frozen=True, slots=True)
class _Block:
    step: int  # place in the list of steps
    side: Side
    first: int  # place of the block in its text
    text: str
    is_cut: bool


class WindowChooser:
    """The blocks of one session's evidence, indexed by their words."""

    def __init__(self, evidence: SessionEvidence) -> None:
        self._evidence = evidence
        self._steps = evidence.steps
        self._blocks = [
            block for place, step in enumerate(self._steps) for block in _blocks_of(place, step)
        ]
        self._terms = [frozenset(_terms(block.text)) for block in self._blocks]
        counts = Counter(term for terms in self._terms for term in terms)
        total = len(self._blocks) + 1
        self._weights = {term: math.log(total / count) for term, count in counts.items()}
        self._chosen: dict[int, None] = {}
        self._chars = 0

    def choose(self, words: str, position: int) -> None:
        """Takes in what bears on ``words``, said at ``position``, of what came before it. Nothing
        more is taken once all windows together have :data:`CHARS_IN_ALL`."""
        asked = frozenset(_terms(words))
        left = CHARS_PER_ITEM
        for place in [*self._last_checks(words, position), *self._ranked(asked, position)]:
            size = len(self._blocks[place].text)
            if place in self._chosen:
                left -= size  # it serves this item, too
            elif size <= left and self._chars + size <= CHARS_IN_ALL:
                self._chosen[place] = None
                self._chars += size
                left -= size
            if left <= 0:
                break

    def choose_step(self, place: int) -> None:
        """Takes in the beginning and the end of what a call was given and returned."""
        own = [index for index, block in enumerate(self._blocks) if block.step == place]
        inputs = [index for index in own if self._blocks[index].side == "input"]
        outputs = [index for index in own if self._blocks[index].side == "output"]
        for index in dict.fromkeys([*inputs[:1], *outputs[-1:], *outputs[:1]]):
            size = len(self._blocks[index].text)
            if index not in self._chosen and self._chars + size <= CHARS_IN_ALL:
                self._chosen[index] = None
                self._chars += size

    def windows(self) -> tuple[Window, ...]:
        """What was taken in, in order of time; blocks that follow each other are one window."""
        joined: list[list[_Block]] = []
        for place in sorted(self._chosen):
            block = self._blocks[place]
            last = joined[-1][-1] if joined else None
            if (
                last
                and (last.step, last.side) == (block.step, block.side)
                and (last.first + 1 == block.first)
            ):
                joined[-1].append(block)
            else:
                joined.append([block])
        return tuple(
            Window(
                number=number,
                step_number=group[0].step + 1,
                tool_use_id=self._steps[group[0].step].tool.call.tool_use_id,
                side=group[0].side,
                text="\n".join(block.text for block in group),
                is_cut=any(block.is_cut for block in group) and len(group) < _count(group[0], self),
            )
            for number, group in enumerate(joined, 1)
        )

    def count_blocks(self, step: int, side: Side) -> int:
        return sum(block.step == step and block.side == side for block in self._blocks)

    def _ranked(self, asked: frozenset[str], position: int) -> list[int]:
        found = []
        for place, block in enumerate(self._blocks):
            if self._steps[block.step].position >= position:
                break
            weight = sum(self._weights[term] for term in asked & self._terms[place])
            if weight > 0:
                found.append((-weight, -place, place))  # of equal ones the later
        return [place for _, _, place in sorted(found)]

    def _last_checks(self, words: str, position: int) -> list[int]:
        found = []
        for kind, hint in _KIND_HINTS:
            if not hint.search(words):
                continue
            runs = [c for c in self._evidence.checks if c.kind == kind and c.position < position]
            if runs:
                step = next(i for i, step in enumerate(self._steps) if step is runs[-1].step)
                outputs = [
                    index
                    for index, block in enumerate(self._blocks)
                    if block.step == step and block.side == "output"
                ]
                found += outputs[-1:]
        return found


def _count(block: _Block, chooser: WindowChooser) -> int:
    return chooser.count_blocks(block.step, block.side)


def _terms(text: str) -> Iterable[str]:
    for term in _TERM.findall(text.lower()):
        if term not in _COMMON:
            yield term


def _blocks_of(place: int, step: Step) -> Iterable[_Block]:
    tool = step.tool
    sides: Sequence[tuple[Side, str, str]] = (
        ("input", tool.input_text, tool.input_state),
        ("output", tool.output_text, tool.output_state),
    )
    for side, text, state in sides:
        if state not in ("present", "truncated") or not text.strip():
            continue
        parts = list(_cut(text))
        for first, part in enumerate(parts):
            yield _Block(place, side, first, part, len(parts) > 1 or state == "truncated")


def _cut(text: str) -> Iterable[str]:
    """Blocks of whole lines of at most :data:`BLOCK_CHARS`; a longer line is cut."""
    if len(text) > MAX_TEXT_CHARS:
        half = MAX_TEXT_CHARS // 2
        text = f"{text[:half]}\n[…]\n{text[-half:]}"
    block: list[str] = []
    size = 0
    for line in text.splitlines():
        for start in range(0, max(len(line), 1), BLOCK_CHARS):
            part = line[start : start + BLOCK_CHARS]
            if size + len(part) > BLOCK_CHARS and block:
                yield "\n".join(block)
                block, size = [], 0
            block.append(part)
            size += len(part) + 1
    if any(line.strip() for line in block):
        yield "\n".join(block)
