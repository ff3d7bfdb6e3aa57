"""Rubrics: what a judge is asked, which verdicts it may give, and what each is worth.

The judge never names a number. It picks a verdict from a menu for each item; values come from the
tables here, so no text of a trace can make it say a score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from loop.domain.errors import NotFound
from loop.domain.scores import FindingVerdict

MAX_NOTE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """One entry of a menu. ``credit`` in [0, 1] is ``None`` where the item does not count;
    ``finding`` is how it is stored, ``None`` for an item that is left out."""

    name: str
    credit: float | None
    finding: FindingVerdict | None


@dataclass(frozen=True)
class Rubric:
    """One version of one question. Its text is a file of this package and part of its identity."""

    name: str
    version: str
    menu: tuple[Verdict, ...]

    @property
    def evaluator(self) -> str:
        """The evaluator's name of its scores."""
        return f"judge_{self.name}"

    @cached_property
    def instructions(self) -> str:
        name = f"{self.name}_{self.version}.md"
        return files("evaluators.judge").joinpath("rubric_texts", name).read_text(encoding="utf-8")

    @cached_property
    def verdicts(self) -> Mapping[str, Verdict]:
        return {verdict.name: verdict for verdict in self.menu}

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of an answer, in the part of the language that the API enforces."""
        answer = {
            "type": "object",
            "properties": {
                "item": {"type": "integer", "description": "Number of the item."},
                "evidence": {
                    "type": "array",
                    "items": {"type": "integer"},
                    "description": "Numbers of the windows that decide it; empty for none.",
                },
                "note": {"type": "string", "description": "One short sentence: why."},
                "verdict": {"type": "string", "enum": [verdict.name for verdict in self.menu]},
            },
            "required": ["item", "evidence", "note", "verdict"],
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {"answers": {"type": "array", "items": answer}},
            "required": ["answers"],
            "additionalProperties": False,
        }


FAITHFULNESS = Rubric(
    "faithfulness",
    "1",
    (
        Verdict("supported", 1.0, "supported"),
        Verdict("unverified", 0.5, "unverified"),
        Verdict("stale", 0.4, "stale"),
        Verdict("contradicted", 0.0, "contradicted"),
        Verdict("not_checkable", None, "not_checkable"),
        Verdict("no_claim", None, None),
    ),
)
TOOL_USE = Rubric(
    "tool_use",
    "1",
    (
        Verdict("sound", 1.0, "supported"),
        Verdict("wasteful", 0.5, "narrow"),
        Verdict("wrong", 0.0, "contradicted"),
        Verdict("harmful", 0.0, "contradicted"),
        Verdict("not_checkable", None, "not_checkable"),
    ),
)
RUBRICS: Mapping[str, Rubric] = {rubric.name: rubric for rubric in (FAITHFULNESS, TOOL_USE)}


def find_rubric(name: str) -> Rubric:
    """Raises :class:`NotFound`."""
    if name not in RUBRICS:
        raise NotFound(f"There is no rubric {name!r}.", fix=f"One of {', '.join(RUBRICS)}.")
    return RUBRICS[name]


@dataclass(frozen=True, slots=True)
class JudgeIdentity:
    """What makes two judgements comparable: scores of different identities are never pooled.

    ``digest`` covers the rubric's text, menu and schema, the way that prompts are laid out, and the
    model. The API samples as it does by default: current models take no temperature.
    """

    rubric: str
    rubric_version: str
    model: str
    digest: str  # 16 hex digits

    @property
    def version(self) -> str:
        """The evaluator version that scores carry."""
        return f"{self.rubric_version}+{self.model}+{self.digest}"


def identify(rubric: Rubric, model: str, layout: str) -> JudgeIdentity:
    """``layout`` names the version of everything else that shapes a request."""
    said = json.dumps(
        {
            "instructions": rubric.instructions,
            "menu": [[one.name, one.credit, one.finding] for one in rubric.menu],
            "schema": rubric.schema,
            "layout": layout,
            "model": model,
        },
        sort_keys=True,
    )
    digest = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return JudgeIdentity(rubric.name, rubric.version, model, digest)
